"""Plug-And-Pipeline (Vivek et al., CVPR Workshops 2020): its tables and figures."""

from __future__ import annotations

from toughen.papers.published.exhibits import Column, Figure, Line, Panel, Plot, Row, Setting, Settings, Table, columns

NORMAL_MNIST = "standard-mnist --epochs 50"
NORMAL_CIFAR = "fgsm-cifar10 --method Standard --eps null --weights best"
PGD_MNIST = "pgd-mnist --epochs 50"
PGD_CIFAR = (  # Madry et al.'s weight decay and crops; images are not standardised one by one, as theirs are
    "fgsm-cifar10 --method PGDAT --method.steps 7 --method.step_size 2/255 --optimizer.weight_decay 2e-4 --crop 2 "
    "--weights best"
)
TRADES_MNIST = "trades-mnist --epochs 50"
TRADES_CIFAR = (  # its authors' weight decay and drops of the rate, over 100 epochs; the rest is the recipe's
    "trades-cifar10 --epochs 100 --method.steps 7 --optimizer.weight_decay 2e-4 --schedule.milestones [0.74,0.89,0.99]"
)
ABLATION = "pap-cifar10 --method.lam 0 --method.ablation true --weights last"
ONE_MASK = (
    "SmallCNN with its dropout of 0.5; how it meets the regulariser is not stated: one mask for both logits here."
)
NO_DROPOUT = "The same without dropout, another net than the paper's (docs/results/mnist.md)."
OPEN = (
    "Batch, optimizer, rates and N in PAP's own training are not stated; what is taken is in the recipes. FGSM-AT, "
    "PGD-AT and TRADES are said to be trained as in their papers; FGSM-AT's has none of these nets, so it has PAP's "
    "settings."
)

TABLE1 = Settings(
    name="pap-table1",
    title="Experimental setup",
    eps=(("MNIST", "0.3"), ("CIFAR-10", "8/255")),
    entries=(
        Setting("MNIST", "network", "Small CNN", "pap-mnist", "model"),
        Setting("MNIST", "epochs", "50", "pap-mnist", "epochs"),
        Setting("MNIST", "FGSM eps", "0.3", "pap-mnist", "attack fgsm.eps"),
        Setting("MNIST", "IFGSM eps", "0.3", "pap-mnist", "attack i-fgsm-40.eps"),
        Setting("MNIST", "IFGSM alpha", "eps/N", "pap-mnist", "attack i-fgsm-40.step_size"),
        Setting("MNIST", "IFGSM N", "40, 100", "pap-mnist", "attack i-fgsm-40 i-fgsm-100.steps"),
        Setting("MNIST", "PGD eps", "0.3", "pap-mnist", "attack pgd-40@0.01.eps"),
        Setting("MNIST", "PGD alpha", "0.01", "pap-mnist", "attack pgd-40@0.01.step_size"),
        Setting("MNIST", "PGD N", "40, 100", "pap-mnist", "attack pgd-40@0.01 pgd-100@0.01.steps"),
        Setting("MNIST", "MIFGSM eps", "0.3", "pap-mnist", "attack mi-fgsm-100.eps"),
        Setting("MNIST", "MIFGSM alpha", "eps/N", "pap-mnist", "attack mi-fgsm-100.step_size"),
        Setting("MNIST", "MIFGSM N", "100", "pap-mnist", "attack mi-fgsm-100.steps"),
        Setting("CIFAR-10", "network", "ResNet-18", "pap-cifar10", "model"),
        Setting("CIFAR-10", "epochs", "100", "pap-cifar10", "epochs"),
        Setting("CIFAR-10", "FGSM eps", "8/255", "pap-cifar10", "attack fgsm.eps"),
        Setting("CIFAR-10", "IFGSM eps", "8/255", "pap-cifar10", "attack i-fgsm-7.eps"),
        Setting("CIFAR-10", "IFGSM alpha", "eps/N", "pap-cifar10", "attack i-fgsm-7.step_size"),
        Setting("CIFAR-10", "IFGSM N", "7, 20", "pap-cifar10", "attack i-fgsm-7 i-fgsm-20.steps"),
        Setting("CIFAR-10", "PGD eps", "8/255", "pap-cifar10", "attack pgd-7@2/255.eps"),
        Setting("CIFAR-10", "PGD alpha", "2/255", "pap-cifar10", "attack pgd-7@2/255.step_size"),
        Setting("CIFAR-10", "PGD N", "7, 20", "pap-cifar10", "attack pgd-7@2/255 pgd-20@2/255.steps"),
        Setting("CIFAR-10", "MIFGSM eps", "8/255", "pap-cifar10", "attack mi-fgsm-20.eps"),
        Setting("CIFAR-10", "MIFGSM alpha", "eps/N", "pap-cifar10", "attack mi-fgsm-20.step_size"),
        Setting("CIFAR-10", "MIFGSM N", "20", "pap-cifar10", "attack mi-fgsm-20.steps"),
    ),
)
TABLE2 = Settings(
    name="pap-table2",
    title="Hyper-parameters of Plug-And-Pipeline",
    entries=(
        Setting("MNIST PAP FGSM", "k, %", "10", "pap-mnist", "method.share", unit=100),
        Setting("MNIST PAP FGSM", "lambda", "0.5", "pap-mnist", "method.lam"),
        Setting("MNIST PAP TRADES", "k, %", "10", "pap-trades-mnist", "method.share", unit=100),
        Setting("MNIST PAP TRADES", "lambda", "0.5", "pap-trades-mnist", "method.lam"),
        Setting("CIFAR-10 PAP FGSM", "k, %", "10", "pap-cifar10", "method.share", unit=100),
        Setting("CIFAR-10 PAP FGSM", "lambda", "0.1", "pap-cifar10", "method.lam"),
        Setting("CIFAR-10 PAP TRADES", "k, %", "10", "pap-trades-cifar10", "method.share", unit=100),
        Setting("CIFAR-10 PAP TRADES", "lambda", "1", "pap-trades-cifar10", "method.lam"),
    ),
    notes=("k is the share of a batch that takes part in the regulariser.",),
)
TABLE3 = Table(
    name="pap-table3",
    title="MNIST, white-box attacks",
    headline=("PAP FGSM", "PGD-100"),
    panels=(
        Panel(
            data="mnist",
            net="SmallCNN",
            eps="0.3",
            columns=columns(
                ("Clean", "clean"), ("FGSM", "fgsm"), ("IFGSM-40", "i-fgsm-40"), ("IFGSM-100", "i-fgsm-100"),
                ("PGD-40", "pgd-40@0.01"), ("PGD-100", "pgd-100@0.01"),
            ),
            rows=(
                Row("Normal", NORMAL_MNIST, "99.19 28.20 4.30 4.13 1.43 0.02"),
                Row("FGSM-AT", "fgsm-mnist", "99.29 98.61 29.90 28.14 22.05 12.41"),
                Row("PGD-AT", PGD_MNIST, "99.26 96.95 95.72 95.69 95.33 94.57"),
                Row("TRADES", TRADES_MNIST, "99.48 97.86 96.51 96.50 96.13 95.15"),
                Row("PAP FGSM", "pap-mnist", "99.29 96.69 95.58 95.56 95.05 94.04", note=ONE_MASK),
                Row("PAP TRADES", "pap-trades-mnist", "99.10 97.11 96.07 96.05 95.62 94.66", note=ONE_MASK),
                Row("PAP FGSM, no dropout", "pap-mnist --model_settings.dropout 0.0", note=NO_DROPOUT),
                Row("PAP TRADES, no dropout", "pap-trades-mnist --model_settings.dropout 0.0", note=NO_DROPOUT),
            ),
        ),
    ),
    notes=(OPEN,),
)  # fmt: skip
TABLE4 = Table(
    name="pap-table4",
    title="CIFAR-10, white-box attacks, and the ablation",
    headline=("PAP FGSM", "PGD-20"),
    panels=(
        Panel(
            data="cifar10",
            net="ResNet-18",
            eps="8/255",
            columns=columns(
                ("Clean", "clean"), ("FGSM", "fgsm"), ("IFGSM-7", "i-fgsm-7"), ("IFGSM-20", "i-fgsm-20"),
                ("PGD-7", "pgd-7@2/255"), ("PGD-20", "pgd-20@2/255"),
            ),
            rows=(
                Row("Normal", NORMAL_CIFAR, "92.45 14.44 0.01 0.00 0.00 0.00"),
                Row("FGSM-AT", "fgsm-cifar10", "91.46 98.30 1.27 0.48 0.17 0.00"),
                Row("PGD-AT", PGD_CIFAR, "81.42 55.62 52.45 52.12 50.77 48.87"),
                Row("TRADES", TRADES_CIFAR, "81.66 56.43 53.37 52.93 51.75 50.21"),
                Row("PAP FGSM", "pap-cifar10", "80.25 52.71 49.63 49.32 48.10 46.34"),
                Row("PAP TRADES", "pap-trades-cifar10", "79.05 54.27 51.55 51.36 50.10 48.71"),
                Row("Ablation", ABLATION, "81.06 97.78 21.31 17.29 0.78 0.00"),
            ),
        ),
    ),
    notes=(OPEN, "Ablation: lambda = 0, with cross-entropy on the three sets of images alike."),
)  # fmt: skip
TABLE5 = Table(
    name="pap-table5",
    title="MIFGSM, white-box and from a normally trained net of the same architecture",
    headline=("PAP FGSM", "White-box"),
    panels=(
        Panel(
            data="mnist",
            net="SmallCNN",
            eps="0.3",
            columns=(
                Column("White-box", "mi-fgsm-100"),
                Column("Black-box", "mi-fgsm-100", f"{NORMAL_MNIST} --seed 1"),
            ),
            rows=(
                Row("FGSM-AT", "fgsm-mnist", "46.52 75.74"),
                Row("PGD-AT", PGD_MNIST, "95.67 96.44"),
                Row("TRADES", TRADES_MNIST, "96.59 96.99"),
                Row("PAP FGSM", "pap-mnist", "95.57 96.26"),
                Row("PAP TRADES", "pap-trades-mnist", "95.91 96.59"),
            ),
        ),
        Panel(
            data="cifar10",
            net="ResNet-18",
            eps="8/255",
            columns=(Column("White-box", "mi-fgsm-20"), Column("Black-box", "mi-fgsm-20", f"{NORMAL_CIFAR} --seed 1")),
            rows=(
                Row("FGSM-AT", "fgsm-cifar10", "3.01 72.85"),
                Row("PGD-AT", PGD_CIFAR, "53.45 79.30"),
                Row("TRADES", TRADES_CIFAR, "54.34 79.56"),
                Row("PAP FGSM", "pap-cifar10", "50.70 78.31"),
                Row("PAP TRADES", "pap-trades-cifar10", "52.42 76.77"),
            ),
        ),
    ),
    notes=(
        "The share of the accumulated gradient that MIFGSM keeps is not stated: 1, as its authors have it.",
        "The black-box source begins from other weights: its seed is one above the model's.",
    ),
)
TABLE6 = Table(
    name="pap-table6",
    title="Untargeted and targeted attacks: PGD, towards a random class, towards the least likely one",
    headline=("PAP FGSM", "PGD"),
    panels=(
        Panel(
            data="mnist",
            net="SmallCNN",
            eps="0.3",
            columns=columns(("PGD", "pgd-100@0.01"), ("PGD-R", "pgd-r-100@0.01"), ("PGD-LL", "pgd-ll-100@0.01")),
            rows=(
                Row("PAP FGSM", "pap-mnist", "94.04 98.30 98.65"),
                Row("PAP TRADES", "pap-trades-mnist", "94.66 98.33 98.81"),
            ),
        ),
        Panel(
            data="cifar10",
            net="ResNet-18",
            eps="8/255",
            columns=columns(("PGD", "pgd-20@2/255"), ("PGD-R", "pgd-r-20@2/255"), ("PGD-LL", "pgd-ll-20@2/255")),
            rows=(
                Row("PAP FGSM", "pap-cifar10", "46.34 72.25 77.43"),
                Row("PAP TRADES", "pap-trades-cifar10", "48.71 72.47 76.70"),
            ),
        ),
    ),
    notes=("What counts as success is not stated; here any wrong class does, not only the target.",),
)
TABLE7 = Table(
    name="pap-table7",
    title="Computational overhead gamma: gradients spent on making an image",
    headline=("PAP (ours)", "gamma"),
    panels=(
        Panel(
            data="mnist",
            net="SmallCNN",
            eps="0.3",
            columns=columns(("gamma", "gamma")),
            rows=(
                Row("FGSM-AT", "fgsm-mnist", "1"),
                Row("PGD-AT", PGD_MNIST, "40"),
                Row("TRADES", TRADES_MNIST, "40"),
                Row("PAP (ours)", "pap-mnist", "1.2"),
            ),
        ),
        Panel(
            data="cifar10",
            net="ResNet-18",
            eps="8/255",
            columns=columns(("gamma", "gamma")),
            rows=(
                Row("FGSM-AT", "fgsm-cifar10", "1"),
                Row("PGD-AT", PGD_CIFAR, "7"),
                Row("TRADES", TRADES_CIFAR, "7"),
                Row("PAP (ours)", "pap-cifar10", "1.2"),
            ),
        ),
    ),
    notes=("Definition 1 of the paper; it is counted while a run trains.",),
)

LINES_MNIST = (Line("PAP FGSM", "pap-mnist"), Line("PAP TRADES", "pap-trades-mnist"))
LINES_CIFAR = (Line("PAP FGSM", "pap-cifar10"), Line("PAP TRADES", "pap-trades-cifar10"))
RADII_MNIST = ("0", "0.1", "0.2", "0.3", "0.4", "0.5", "0.6", "0.8", "1")
RADII_CIFAR = ("0", "2/255", "4/255", "8/255", "12/255", "16/255", "24/255", "32/255", "64/255")
FIGURE2 = Figure(
    name="pap-figure2",
    title="Accuracy against the radius of PGD",
    plots=(
        Plot(data="mnist", net="SmallCNN", eps="0.3", curve="eps", lines=LINES_MNIST, attack="pgd-100", at=RADII_MNIST),
        Plot(
            data="cifar10", net="ResNet-18", eps="8/255", curve="eps", lines=LINES_CIFAR, attack="pgd-20",
            at=RADII_CIFAR,
        ),
    ),
    notes=("Radii, steps and their size are not stated; here a step grows with the radius (2.5 eps / N).",),
)  # fmt: skip
FIGURE3 = Figure(
    name="pap-figure3",
    title="Accuracy against the number of PGD's random starts",
    plots=(
        Plot(
            data="mnist", net="SmallCNN", eps="0.3", curve="restarts", lines=LINES_MNIST, attack="pgd-100@0.01",
            at=tuple(range(1, 11)),
        ),
        Plot(
            data="cifar10", net="ResNet-18", eps="8/255", curve="restarts", lines=LINES_CIFAR, attack="pgd-20@2/255",
            at=tuple(range(1, 11)),
        ),
    ),
    notes=("An image counts while no start so far broke it. The numbers of starts and steps are only drawn.",),
)  # fmt: skip

EXHIBITS = (TABLE1, TABLE2, TABLE3, TABLE4, TABLE5, TABLE6, TABLE7, FIGURE2, FIGURE3)
