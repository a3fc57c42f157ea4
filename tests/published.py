"""The papers' figures a second time, taken from the papers' own texts, line by line as they are printed there.

Compared with ``toughen.papers`` in ``test_papers.py``. A bar stands where the text has a tab.
"""

TABLES = {
    "pap-table3": """
Normal | 99.19 | 28.20 | 4.30 | 4.13 | 1.43 | 0.02
FGSM-AT | 99.29 | 98.61 | 29.90 | 28.14 | 22.05 | 12.41
PGD-AT | 99.26 | 96.95 | 95.72 | 95.69 | 95.33 | 94.57
TRADES | 99.48 | 97.86 | 96.51 | 96.50 | 96.13 | 95.15
PAP FGSM | 99.29 | 96.69 | 95.58 | 95.56 | 95.05 | 94.04
PAP TRADES | 99.10 | 97.11 | 96.07 | 96.05 | 95.62 | 94.66
""",
    "pap-table4": """
Normal | 92.45 | 14.44 | 0.01 | 0.00 | 0.00 | 0.00
FGSM-AT | 91.46 | 98.30 | 1.27 | 0.48 | 0.17 | 0.00
PGD-AT | 81.42 | 55.62 | 52.45 | 52.12 | 50.77 | 48.87
TRADES | 81.66 | 56.43 | 53.37 | 52.93 | 51.75 | 50.21
PAP FGSM | 80.25 | 52.71 | 49.63 | 49.32 | 48.10 | 46.34
PAP TRADES | 79.05 | 54.27 | 51.55 | 51.36 | 50.10 | 48.71
Ablation | 81.06 | 97.78 | 21.31 | 17.29 | 0.78 | 0.00
""",
    "pap-table5": """
FGSM-AT | 46.52 | 75.74 | 3.01 | 72.85
PGD-AT | 95.67 | 96.44 | 53.45 | 79.30
TRADES | 96.59 | 96.99 | 54.34 | 79.56
PAP FGSM | 95.57 | 96.26 | 50.70 | 78.31
PAP TRADES | 95.91 | 96.59 | 52.42 | 76.77
""",
    "pap-table6": """
PAP FGSM | 94.04 | 98.30 | 98.65 | 46.34 | 72.25 | 77.43
PAP TRADES | 94.66 | 98.33 | 98.81 | 48.71 | 72.47 | 76.70
""",
    "pap-table7": """
FGSM-AT | 1 | 1
PGD-AT | 40 | 7
TRADES | 40 | 7
PAP (ours) | 1.2 | 1.2
""",
    "rmgm-table3": """
Normal | 99.24 | 11.65 | 0.31 | 0.01 | 0.00
FGSM Adv. | 99.34 | 89.04 | 1.19 | 0.17 | 0.01
R-FGSM Adv. | 93.92 | 57.06 | 41.85 | 29.31 | 28.76
A | 99.35 | 83.48 | 18.75 | 10.13 | 3.41
B | 99.31 | 80.16 | 48.13 | 37.85 | 22.86
C | 99.20 | 82.48 | 4.00 | 1.29 | 0.08
D | 97.66 | 56.85 | 0.87 | 0.29 | 0.08
R-FGSM + FGSM Adv. | 95.39 | 61.60 | 44.62 | 34.15 | 33.41
Ablation-Proposed lambda=0 | 97.62 | 92.52 | 4.92 | 1.89 | 0.17
PGD Adv. | 98.41 | 95.56 | 92.64 | 92.08 | 91.13
Proposed | 98.74 | 95.1 | 89.91 | 89.48 | 87.74
""",
    "rmgm-table4": """
Normal | 91.52 | 14.00 | 0.00 | 0.00 | 0.00
FGSM Adv. | 92.42 | 98.58 | 0.09 | 0.05 | 0.00
R-FGSM Adv. | 79.39 | 98.64 | 0.35 | 0.22 | 0.02
A | 90.80 | 82.14 | 10.56 | 4.69 | 0.67
B | 90.43 | 60.59 | 32.76 | 28.9 | 18.31
C | 90.28 | 66.49 | 36.49 | 29.41 | 20.24
R-FGSM + FGSM Adv. | 80.88 | 97.92 | 2.18 | 1.16 | 0.22
Ablation-Proposed lambda=0 | 77.00 | 98.96 | 0.21 | 0.06 | 0.01
PGD Adv. | 79.44 | 53.25 | 50.53 | 50.08 | 47.51
Proposed | 80.45 | 53.14 | 49.83 | 49.13 | 46.07
""",
    "rmgm-table5": """
Model-A | 93.70 | 93.53
Model-B | 93.57 | 93.25
""",
    "rmgm-table6": """
VGG-11 | 76.09 | 76.81
VGG-19 | 77.24 | 77.92
""",
    "rmgm-table7": """
Normal Training | ~ 2.7 | ~ 31
FGSM Adv. Training | ~ 4.1 | ~ 53
EAT | ~ 5.5 | ~ 59
PGD Adv. Training | ~ 53.0 | ~ 238
Proposed | ~ 8.8 | ~ 108
""",
    "nuat-table1": """
Normal | 0 | 92.30 | 0.00 | 0.00 | 0.00 | 0.00 | FBF | 1 (30) | 82.05 | 45.57 | 43.13 | 43.10
FGSM-AT | 1 | 92.89 | 0.00 | 0.00 | 0.00 | 0.00 | GAT | 1 (85) | 85.17 | 55.12 | 50.76 | 50.12
RFGSM-AT | 1 | 89.24 | 35.02 | 34.17 | 33.87 | 33.16 | GAT-WA | 1 (85) | 84.61 | 57.28 | 52.19 | 51.50
ATF | 1 | 71.77 | 43.53 | 43.52 | 40.34 | 40.22 | Variants of NuAT (Ours)
FBF | 1 | 82.83 | 46.41 | 46.03 | 43.85 | 43.12 | NuAT | 1 (55) | 85.30 | 53.82 | 51.34 | 50.81
R-MGM | 1 | 82.29 | 46.23 | 45.79 | 44.06 | 43.72 | NuAT-H | 1 (50+5) | 84.58 | 54.89 | 51.93 | 51.58
GAT | 1 | 80.49 | 53.13 | 53.08 | 47.76 | 47.30 | NuAT-WA | 1 (50) | 85.29 | 56.21 | 53.73 | 53.36
GAT-WA | 1 | 79.47 | 54.40 | 54.37 | 49.00 | 48.28 | NuAT-WA-H | 1 (25+2) | 81.98 | 54.82 | 51.41 | 51.14
NuAT (Ours) | 1 | 81.01 | 53.30 | 52.97 | 49.46 | 49.24 | NuAT-WA-H | 1 (60+6) | 84.93 | 57.51 | 54.28 | 53.81
NuAT-WA (Ours) | 1 | 82.21 | 54.14 | 53.95 | 50.97 | 50.75 | NuAT2 | 2 (55) | 84.76 | 54.50 | 51.99 | 51.27
PGD-AT | 10 | 81.12 | 53.08 | 52.89 | 49.08 | 48.75 | NuAT2-WA | 2 (80) | 86.32 | 57.74 | 55.08 | 54.76
TRADES | 10 | 81.47 | 52.73 | 52.61 | 49.22 | 49.06 | NuAT-WA-H | 1 (80+32) | 85.40 | 58.25 | 55.35 | 54.96
TRADES-WA | 10 | 80.19 | 52.98 | 52.88 | 49.49 | 49.39 | TRADES | 10 (110) | 85.48 | 56.35 | 53.88 | 53.80
AWP | 11 | 81.99 | 55.60 | 55.52 | 51.65 | 51.45 | PGD | 10 (200) | 86.07 | 55.74 | 52.70 | 52.19
AWP | 11 (200) | 85.36 | 59.13 | 56.35 | 56.17
""",
    "nuat-table2": """
Normal | 92.30 | 0.00 | 0.00 | 0.00 | 81.44 | 0.00 | 0.00 | 0.00 | 99.20 | 0.00 | 0.00 | 0.00
RFGSM-AT | 89.24 | 34.17 | 33.87 | 33.16 | 78.46 | 13.88 | 13.38 | 12.96 | 99.37 | 85.32 | 83.64 | 82.28
FBF | 82.83 | 46.03 | 43.85 | 42.37 | 57.32 | 27.22 | 21.78 | 20.66 | 99.30 | 91.37 | 87.27 | 79.02
R-MGM | 82.29 | 45.79 | 44.06 | 43.72 | 64.84 | 31.68 | 27.46 | 27.68 | 99.04 | 90.56 | 88.13 | 86.21
GAT | 80.49 | 53.08 | 47.76 | 47.30 | 67.98 | 37.46 | 29.30 | 28.92 | 99.37 | 94.44 | 92.96 | 90.62
GAT-WA | 79.47 | 54.37 | 49.00 | 48.28 | 68.02 | 38.02 | 30.16 | 29.30 | 99.36 | 94.76 | 93.25 | 91.48
NuAT (Ours) | 81.01 | 52.97 | 49.46 | 49.24 | 69.00 | 37.60 | 32.38 | 31.96 | 99.37 | 96.24 | 94.65 | 93.11
NuAT-WA (Ours) | 82.21 | 53.95 | 50.97 | 50.75 | 68.40 | 38.68 | 33.22 | 33.16 | 99.36 | 96.30 | 94.70 | 93.10
TRADES | 81.47 | 52.61 | 49.22 | 49.06 | 62.88 | 37.24 | 31.44 | 31.66 | 99.32 | 93.40 | 92.74 | 92.19
PGD-AT | 81.12 | 52.89 | 49.08 | 48.75 | 68.62 | 36.56 | 32.24 | 32.98 | 99.27 | 93.98 | 92.80 | 91.81
AWP | 81.99 | 55.52 | 51.65 | 51.45 | 64.84 | 36.04 | 29.58 | 29.16 | 99.12 | 94.90 | 94.19 | 93.47
""",
    "efgsm-table1": """
Ours | 268 | 6.7 | 99.01 | 92.37 | Ours | 7,095 | 141.9 | 88.01 | 46.06
Madry's | 69,993 | 77.0 | 97.26 | 88.45 | Madry's | 240,177 | 1351.0 | 87.25 | 44.04
TRADES | 8,000 | 80.0 | 99.48 | 95.41 | TRADES | 118,560 | 1526.0 | 84.92 | 52.76
AdvFree | 1,430 | 2.6 | 99.40 | 87.62 | AdvFree | 29,120 | 183.0 | 86.07 | 43.80
""",
    "efgsm-table2": """
Natural | 99.22 | 99.13 | 99.02 | 96.72 | 53.19 | Natural | 88.00 | 87.97 | 87.76 | 88.01 | 83.19
PGD-ADP | 91.24 | 91.54 | 92.37 | 86.66 | 26.08 | PGD-ADP | 36.89 | 39.82 | 44.03 | 46.06 | 38.51
PGD_CE-100 | 96.75 | 96.49 | 96.55 | 92.10 | 36.08 | PGD_CE-20 | 59.47 | 59.73 | 64.65 | 65.36 | 54.02
PGD_CW-100 | 96.58 | 96.47 | 96.33 | 91.27 | 30.50 | PGD_CW-20 | 54.84 | 59.20 | 64.48 | 65.21 | 55.17
""",
    "efgsm-table3": """
Natural | 99.31 | 99.31 | 99.17 | 98.46 | 70.91 | Natural | 86.82 | 86.85 | 86.18 | 86.67 | 84.88
PGD-ADP | 87.70 | 88.33 | 90.63 | 89.31 | 54.58 | PGD-ADP | 22.63 | 22.90 | 26.91 | 31.43 | 28.23
PGD_CE-20 | 94.60 | 94.58 | 95.68 | 95.15 | 62.72 | PGD_CE-20 | 24.85 | 25.69 | 35.22 | 41.39 | 56.32
PGD_CW-20 | 94.79 | 94.68 | 95.72 | 94.81 | 59.22 | PGD_CW-20 | 25.49 | 27.00 | 39.22 | 43.61 | 57.04
""",
    "efgsm-table4": """
Natural | 99.02 | 98.98 | 99.01 | Natural | 87.05 | 90.05 | 88.01
PGD-ADP | 90.05 | 0.00 | 92.37 | PGD-ADP | 40.21 | 0.07 | 46.06
PGD_CE-100 | 96.06 | 0.18 | 96.27 | PGD_CE-20 | 62.22 | 41.20 | 65.36
PGD_CW-100 | 95.24 | 0.00 | 96.23 | PGD_CW-20 | 56.32 | 43.59 | 65.21
""",
    "efgsm-table5": """
accuracy[%] | 85.03 | 83.42 | 72.0
""",
    "dat-table1": """
WideResNet-28x10 | RAT | 14.7 hours | 46.9% | 48.5% | 86.8%
DAT | 7.8 hours | 49.7% | 87.9%
RAT early stop | 10.9 hours | 62.4% | 49.2% | 87.1%
DAT early stop | 4.1 hours | 53.6% | 87.9%
ResNet-18 | RAT | 2.5 hours | 36.0% | 37.0% | 73.8%
DAT | 1.6 hours | 40.4% | 72.8%
RAT early stop | 1.9 hours | 52.6% | 40.6% | 71.0%
DAT early stop | 0.9 hours | 41.1% | 69.9%
ResNet-50 | RAT | 6.9 hours | 42.0% | 15.2% | 44.2%
DAT | 4.0 hours | 15.2% | 46.6%
Two-layer CNN | RAT | 2.2 hours | 13.6% | 91.4% | 98.2%
DAT | 1.9 hours | 91.9% | 98.2%
""",
    "dat-hours": """
ResNet-50 | 1.1 hours | 6.8 hours
WideResNet-28x10 | 2.2 hours | 14.7 hours
""",
    "dat-blackbox": """
Accuracy | 49.7% | 86.7% | 69.4% | 65.7%
""",
    "pap-table1": """
MNIST | Small CNN | 50 | 0.3 | 0.3 | eps/N | 40, 100 | 0.3 | 0.01 | 40, 100 | 0.3 | eps/N | 100
CIFAR-10 | ResNet-18 | 100 | 8/255 | 8/255 | eps/N | 7, 20 | 8/255 | 2/255 | 7, 20 | 8/255 | eps/N | 20
""",
    "pap-table2": """
MNIST | PAP FGSM | 10% | 0.5
MNIST | PAP TRADES | 10% | 0.5
CIFAR-10 | PAP FGSM | 10% | 0.1
CIFAR-10 | PAP TRADES | 10% | 1
""",
    "rmgm-table1": """
LeNet+ | Conv(32,5,5) + Relu MaxPool(2,2) | Conv(64,5,5) + Relu MaxPool(2,2) | FC(1024) + Relu | FC + Softmax
A | Conv(64,5,5) + Relu Conv(64,5,5) + Relu | Dropout(0.25) FC(128) + Relu | Dropout(0.5) | FC + Softmax
B | Dropout(0.2) Conv(64,8,8) + Relu | Conv(128,6,6) + Relu Conv(128,5,5) + Relu | Dropout(0.5) | FC + Softmax
C | Conv(128,3,3) + Tanh MaxPool(2,2) | Conv(64,3,3) + Tanh MaxPool(2,2) | FC(128) + Relu | FC + Softmax
D | { FC(300) + Relu Dropout(0.5) } x 4 FC + Softmax
""",
    "rmgm-table2": """
CIFAR-10 | ResNet-34(Ensemble A) | ResNet-34, ResNet-18
CIFAR-10 | ResNet-34(Ensemble B) | ResNet-34, VGG-16
CIFAR-10 | ResNet-34(Ensemble C) | ResNet-18, VGG-16
MNIST | A(Ensemble A) | A, B, C
MNIST | B(Ensemble B) | B, C, D
MNIST | C(Ensemble C) | C, D, A
MNIST | D(Ensemble D) | D, A, B
""",
}

PROSE = {  # what stands in sentences only: the sentence's words before each figure
    "nuat-imagenet": "NuAT-WA: Clean 59.65, GAMA-PGD 35.42; FBF: Clean 56.70, GAMA-PGD 27.44",
    "nuat-seeds": "NuAT: Clean std 0.11, GAMA-100 std 0.16",
    "nuat-entropy": "Normal: Frobenius norm 0.87, Nuclear norm 0.97",
    "nuat-figure3b": "AWP 200: Time 8; NuAT2-WA 80: AA (v2) 54.76, Time 1",
    "efgsm-trades": "eFGSM + TRADES: PGD-ADP 48.05, T_epoch 250; "
    "TRADES: PGD-ADP 54.02, T_epoch 1526; Ours: PGD-ADP 46.07",
}
CLOSE = {"mnist": "14.7", "cifar10": "43.12"}  # eFGSM: "For MNIST, we get 14.7% high risk data; for CIFAR10 ..."
SIZES = {  # eFGSM, section 3.4, in millions
    "MNIST": {"classifier": "0.2", "TRADES' classifier": "0.76", "Madry's classifier": "3.3", "re-constructor": "0.26"},
    "CIFAR-10": {"classifier": "6.7", "others' classifier": "near 46", "re-constructor": "5.1"},
}
GAINS = {  # NuAT's text: AutoAttack over GAT, and of the averaged weights over GAT-WA
    "cifar10": (1.94, 2.47),
    "imagenet100": (3.04, 3.86),
    "mnist": (2.49, 1.62),
}
