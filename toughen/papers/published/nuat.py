"""Nuclear-norm adversarial training (Sriramanan et al., NeurIPS 2021): its tables and figures.

Single-step NuAT on WRN-34-10, NuAT-H and all of ImageNet come without released settings; what is taken is in the
recipes.
"""

from __future__ import annotations

from toughen.papers.published.exhibits import STATED, Column, Figure, Line, Panel, Plot, Row, Table, columns

VAL_IISC = "--model wrn-34-10 --model_settings '{variant: val-iisc}'"
NUAT2_STEPS = "--method.lam 4 --method.ramp 1 --method.start_size 4/255"
NORMAL = "gat-cifar10 --method Standard --eps null"
FGSM = "gat-cifar10 --method FGSMAT --weights last"
RFGSM = "gat-cifar10 --method RFGSMAT"
FBF = "fbf-cifar10 --model resnet18"
RMGM = "rmgm-cifar10 --model resnet18"
PGD = "pgd-cifar10 --model resnet18"
AWP = "trades-awp-cifar10 --model resnet18"
BASELINES = (
    "Settings of the rows that are not NuAT's own are not stated; on MNIST and ImageNet-100 they are said to be those "
    "of GAT's authors, who released GAT's alone. Rows without a recipe of their own are trained as GAT is, with their "
    "own method: Normal, FGSM-AT and RFGSM-AT, on MNIST FBF and R-MGM, too, and on ImageNet-100 all but NuAT's."
)
ONE_NET = (
    "GAT's and NuAT's ResNet-18 has a ReLU more than the usual one (docs/explanation/differences.md): so have Normal, "
    "FGSM-AT and RFGSM-AT here; ATF, FBF, R-MGM, PGD-AT, TRADES and AWP are trained on the usual one. Which nets the "
    "paper's rows have is not stated."
)
FGSM_ALONE = (
    "The text describes FGSM-AT as trained on clean images and FGSM's, in a proportion it does not give; here it is on "
    "FGSM's alone."
)
V1 = "AA is AutoAttack v1: APGD-CE, APGD-DLR, untargeted FAB, each from 5 starts, and Square."
MATRIX_STEPS = "The attack's steps are not stated: 20 of 2.5 eps / 20 here, from a uniform start."
V2 = "AA is AutoAttack v2, the standard version."

TABLE1A = Table(
    name="nuat-table1a",
    title="CIFAR-10, ResNet-18, white-box attacks",
    headline=("NuAT", "AA (v1)"),
    panels=(
        Panel(
            data="cifar10",
            net="ResNet-18",
            eps="8/255",
            columns=columns(
                ("# AT steps", STATED), ("Clean", "clean"), ("PGD-20", "pgd-20@2/255"), ("PGD-500", "pgd-500@2/255"),
                ("GAMA-100", "gama-pgd"), ("AA (v1)", "autoattack-v1"),
            ),
            rows=(
                Row("Normal", NORMAL, "0 92.30 0.00 0.00 0.00 0.00"),
                Row("FGSM-AT", FGSM, "1 92.89 0.00 0.00 0.00 0.00"),
                Row("RFGSM-AT", RFGSM, "1 89.24 35.02 34.17 33.87 33.16"),
                Row("ATF", "free-cifar10 --model resnet18", "1 71.77 43.53 43.52 40.34 40.22"),
                Row("FBF", FBF, "1 82.83 46.41 46.03 43.85 43.12"),
                Row("R-MGM", RMGM, "1 82.29 46.23 45.79 44.06 43.72"),
                Row("GAT", "gat-cifar10", "1 80.49 53.13 53.08 47.76 47.30"),
                Row("GAT-WA", "gat-wa-cifar10", "1 79.47 54.40 54.37 49.00 48.28"),
                Row("NuAT", "nuat-cifar10", "1 81.01 53.30 52.97 49.46 49.24"),
                Row("NuAT-WA", "nuat-wa-cifar10", "1 82.21 54.14 53.95 50.97 50.75"),
                Row("PGD-AT", PGD, "10 81.12 53.08 52.89 49.08 48.75"),
                Row("TRADES", "trades-cifar10", "10 81.47 52.73 52.61 49.22 49.06"),
                Row("TRADES-WA", "trades-cifar10 --averaging 0.9998", "10 80.19 52.98 52.88 49.49 49.39"),
                Row("AWP", AWP, "11 81.99 55.60 55.52 51.65 51.45"),
            ),
        ),
    ),
    notes=(
        V1,
        BASELINES,
        ONE_NET,
        FGSM_ALONE,
        "The PGD heads are garbled; that the first is PGD-20 follows from the second being table 2's PGD-500.",
    ),
)  # fmt: skip
TABLE1B = Table(
    name="nuat-table1b",
    title="CIFAR-10, WRN-34-10, white-box attacks",
    headline=("NuAT2-WA 80", "AA (v2)"),
    panels=(
        Panel(
            data="cifar10",
            net="WRN-34-10",
            eps="8/255",
            columns=columns(
                ("AT-steps", STATED), ("(epochs)", STATED), ("Clean", "clean"), ("PGD-100", "pgd-100@2/255"),
                ("GAMA-100", "gama-pgd"), ("AA (v2)", "autoattack"),
            ),
            rows=(
                Row("FBF 30", "fbf-cifar10 --model wrn-34-10 --epochs 30", "1 30 82.05 45.57 43.13 43.10"),
                Row("GAT 85", f"gat-cifar10 {VAL_IISC} --epochs 85", "1 85 85.17 55.12 50.76 50.12"),
                Row("GAT-WA 85", f"gat-wa-cifar10 {VAL_IISC} --epochs 85", "1 85 84.61 57.28 52.19 51.50"),
                Row(
                    "NuAT 55", f"nuat-h-cifar10 --method NuAT {NUAT2_STEPS} --epochs 55",
                    "1 55 85.30 53.82 51.34 50.81",
                ),
                Row("NuAT-H 50+5", "nuat-h-cifar10", "1 50+5 84.58 54.89 51.93 51.58"),
                Row("NuAT-WA 50", f"nuat-wa-cifar10 {VAL_IISC} --epochs 50", "1 50 85.29 56.21 53.73 53.36"),
                Row("NuAT-WA-H 25+2", "nuat-wa-h-cifar10 --epochs 25", "1 25+2 81.98 54.82 51.41 51.14"),
                Row("NuAT-WA-H 60+6", "nuat-wa-h-cifar10", "1 60+6 84.93 57.51 54.28 53.81"),
                Row(
                    "NuAT2 55", f"nuat-h-cifar10 --method NuAT2 {NUAT2_STEPS} --epochs 55",
                    "2 55 84.76 54.50 51.99 51.27",
                ),
                Row("NuAT2-WA 80", "nuat2-wa-cifar10", "2 80 86.32 57.74 55.08 54.76"),
                Row(
                    "NuAT-WA-H 80+32", "nuat-wa-h-cifar10 --epochs 80 --method.threshold 0.1",
                    "1 80+32 85.40 58.25 55.35 54.96",
                    note="A lower threshold calls two steps more often; 0.1 is ours and was not tuned.",
                ),
                Row("TRADES 110", "trades-cifar10 --model wrn-34-10", "10 110 85.48 56.35 53.88 53.80"),
                Row(
                    "PGD 200",
                    "pgd-cifar10 --model wrn-34-10 --epochs 200 --schedule.milestones [0.5,0.75]",
                    "10 200 86.07 55.74 52.70 52.19",
                ),
                Row("AWP 200", "trades-awp-cifar10", "11 200 85.36 59.13 56.35 56.17"),
            ),
        ),
    ),
    notes=(
        V2,
        BASELINES,
        "At cpu all rows of up to 100 epochs are trained for 15, so that rows that differ in epochs alone say nothing.",
        "Effective epochs with two steps (50+5) are printed by the runs, and not compared here.",
        "The figures of TRADES, PGD and AWP equal those of other authors' public checkpoints (Bag of Tricks, "
        "robust_overfitting, TRADES-AWP), so that these rows seem not to have been trained for this paper.",
    ),
)  # fmt: skip

CLEAN, AA = ("Clean", "clean"), ("AA (v1)", "autoattack-v1")
ON_CIFAR = columns(CLEAN, ("PGD-500", "pgd-500@2/255"), ("GAMA-100", "gama-pgd"), AA)
ON_MNIST = columns(CLEAN, ("PGD-500", "pgd-500@0.01"), ("GAMA-100", "gama-pgd-mnist"), AA)
BASE_100 = "nuat-imagenet100 --schedule Piecewise --schedule.milestones [0.5,0.75]"  # GAT's
GAT_100 = (
    f"{BASE_100} --method GAT --method.lam 20 --method.jump 7 --method.jump_at 0.75 --method.start_size 4/255 "
    "--validation_steps 20"
)
STEPS_100 = "--method.steps 10 --method.step_size 2/255"
AWP_MNIST = (
    "trades-mnist --model m-lenet --method AWP --method.inner TRADES --method.inner.beta 1 --method.inner.steps 40 "
    "--method.inner.step_size 0.01 --method.gamma 0.005 --method.begin_at 0.045"
)
AWP_100 = (
    f"{BASE_100} --method AWP --method.inner TRADES --method.inner.steps 10 --method.inner.step_size 2/255 "
    "--method.gamma 0.005 --method.begin_at 0.045"
)
TABLE2 = Table(
    name="nuat-table2",
    title="CIFAR-10, ImageNet-100 and MNIST, the strongest white-box attacks",
    headline=("NuAT", "AA (v1)"),
    panels=(
        Panel(
            data="cifar10",
            net="ResNet-18",
            eps="8/255",
            columns=ON_CIFAR,
            rows=(
                Row("Normal", NORMAL, "92.30 0.00 0.00 0.00"),
                Row("RFGSM-AT", RFGSM, "89.24 34.17 33.87 33.16"),
                Row("FBF", FBF, "82.83 46.03 43.85 42.37"),
                Row("R-MGM", RMGM, "82.29 45.79 44.06 43.72"),
                Row("GAT", "gat-cifar10", "80.49 53.08 47.76 47.30"),
                Row("GAT-WA", "gat-wa-cifar10", "79.47 54.37 49.00 48.28"),
                Row("NuAT", "nuat-cifar10", "81.01 52.97 49.46 49.24"),
                Row("NuAT-WA", "nuat-wa-cifar10", "82.21 53.95 50.97 50.75"),
                Row("TRADES", "trades-cifar10", "81.47 52.61 49.22 49.06"),
                Row("PGD-AT", PGD, "81.12 52.89 49.08 48.75"),
                Row("AWP", AWP, "81.99 55.52 51.65 51.45"),
            ),
        ),
        Panel(
            data="imagenet100",
            net="ResNet-18",
            eps="8/255",
            columns=ON_CIFAR,
            rows=(
                Row("Normal", f"{BASE_100} --method Standard --eps null", "81.44 0.00 0.00 0.00"),
                Row("RFGSM-AT", f"{BASE_100} --method RFGSMAT", "78.46 13.88 13.38 12.96"),
                Row("FBF", f"{BASE_100} --method FBF", "57.32 27.22 21.78 20.66"),
                Row("R-MGM", f"{BASE_100} --method RMGM", "64.84 31.68 27.46 27.68"),
                Row("GAT", GAT_100, "67.98 37.46 29.30 28.92"),
                Row("GAT-WA", f"{GAT_100} --averaging 0.9998", "68.02 38.02 30.16 29.30"),
                Row("NuAT", "nuat-imagenet100", "69.00 37.60 32.38 31.96"),
                Row("NuAT-WA", "nuat-imagenet100 --averaging 0.9998", "68.40 38.68 33.22 33.16"),
                Row("TRADES", f"{BASE_100} --method TRADES {STEPS_100}", "62.88 37.24 31.44 31.66"),
                Row("PGD-AT", f"{BASE_100} --method PGDAT {STEPS_100}", "68.62 36.56 32.24 32.98"),
                Row("AWP", AWP_100, "64.84 36.04 29.58 29.16"),
            ),
        ),
        Panel(
            data="mnist",
            net="M-LeNet",
            eps="0.3",
            columns=ON_MNIST,
            rows=(
                Row("Normal", "gat-mnist --method Standard --eps null", "99.20 0.00 0.00 0.00"),
                Row("RFGSM-AT", "gat-mnist --method RFGSMAT", "99.37 85.32 83.64 82.28"),
                Row("FBF", "gat-mnist --method FBF --method.clip_start false", "99.30 91.37 87.27 79.02"),
                Row("R-MGM", "gat-mnist --method RMGM --method.start_size 0.05", "99.04 90.56 88.13 86.21"),
                Row("GAT", "gat-mnist", "99.37 94.44 92.96 90.62"),
                Row("GAT-WA", "gat-mnist --averaging 0.999", "99.36 94.76 93.25 91.48"),
                Row("NuAT", "nuat-mnist --averaging null", "99.37 96.24 94.65 93.11"),
                Row("NuAT-WA", "nuat-mnist", "99.36 96.30 94.70 93.10"),
                Row("TRADES", "trades-mnist --model m-lenet", "99.32 93.40 92.74 92.19"),
                Row("PGD-AT", "pgd-mnist --model m-lenet", "99.27 93.98 92.80 91.81"),
                Row("AWP", AWP_MNIST, "99.12 94.90 94.19 93.47"),
            ),
        ),
    ),
    notes=(
        V1,
        BASELINES,
        ONE_NET,
        "The CIFAR-10 figures are those of table 1a, but for FBF under AA: 42.37 here, 43.12 there.",
        "On ImageNet-100 the AA figures of R-MGM, TRADES and PGD-AT exceed their GAMA figures.",
        "The ImageNet-100 net is not named in the main text; GAT's authors use ResNet-18.",
        "R-MGM's random step on MNIST is that of its own recipe there, 0.05.",
    ),
)
IMAGENET = Table(
    name="nuat-imagenet",
    title="ImageNet, eps 4/255 (in the text)",
    headline=("NuAT-WA", "GAMA-PGD"),
    panels=(
        Panel(
            data="imagenet",
            net="ResNet-50",
            eps="4/255",
            columns=columns(("Clean", "clean"), ("GAMA-PGD", "gama-pgd")),
            rows=(
                Row("NuAT-WA", "nuat-imagenet", "59.65 35.42"),
                Row("FBF", "nuat-imagenet --method FBF --averaging null", "56.70 27.44"),
            ),
        ),
    ),
    notes=("No settings are stated; FBF is trained as NuAT-WA is, without the average.",),
)
SEEDS = Table(
    name="nuat-seeds",
    title="Standard deviation over five seeds, in points (in the text)",
    headline=("NuAT", "GAMA-100 std"),
    seeds=5,
    panels=(
        Panel(
            data="cifar10",
            net="ResNet-18",
            eps="8/255",
            columns=(Column("Clean std", "clean", spread=True), Column("GAMA-100 std", "gama-pgd", spread=True)),
            rows=(Row("NuAT", "nuat-cifar10", "0.11 0.16"),),
        ),
    ),
    notes=("The text does not say whether it means NuAT or NuAT-WA.",),
)
ENTROPY = Table(
    name="nuat-entropy",
    title="Entropy of an attack's classes on a normal net (in the text)",
    headline=("Normal", "Nuclear norm"),
    panels=(
        Panel(
            data="cifar10",
            net="ResNet-18",
            eps="8/255",
            columns=columns(("Nuclear norm", "entropy nuclear"), ("Frobenius norm", "entropy frobenius")),
            rows=(Row("Normal", NORMAL, "0.97 0.87"),),
        ),
    ),
    notes=(
        "No unit is stated; ours are in units of log k, the likelier one.",
        "Batches hold 100 images of one class.",
        MATRIX_STEPS,
    ),
)

WIDE = {row.name: row.run for row in TABLE1B.panels[0].rows}
FIGURE1 = Figure(
    name="nuat-figure1",
    title="Loss surfaces: along the gradient's sign, and along a direction orthogonal to it",
    plots=(
        Plot(
            data="cifar10", net="ResNet-18", eps="8/255", curve="surface",
            lines=(Line("Normal", NORMAL), Line("FGSM-AT", FGSM), Line("PGD-AT", PGD), Line("NuAT", "nuat-cifar10")),
        ),
    ),
    notes=(FGSM_ALONE, "The text names FGSM training (b), PGD-AT (c) and NuAT (d); what (a) shows is only drawn.",),
)  # fmt: skip
FIGURE2 = Figure(
    name="nuat-figure2",
    title="Confusion matrices under attacks on the nuclear and on the Frobenius norm",
    plots=(Plot(data="cifar10", net="ResNet-18", eps="8/255", curve="confusion", lines=(Line("Normal", NORMAL),)),),
    notes=(MATRIX_STEPS,),
)
FIGURE3A = Figure(
    name="nuat-figure3a",
    title="Nuclear norm of the logits' change on robust and on broken images",
    plots=(
        Plot(
            data="cifar10", net="ResNet-18", eps="8/255", curve="nuclear",
            lines=(
                Line("FBF", FBF), Line("GAT", "gat-cifar10"), Line("NuAT", "nuat-cifar10"), Line("PGD-AT", PGD),
                Line("TRADES", "trades-cifar10"), Line("AWP", AWP),
            ),
            attack="pgd-20@2/255",
        ),
    ),
    notes=("Which defences it shows is only drawn; net and attack (PGD-20) are ours.",),
)  # fmt: skip
FIGURE3B = Table(
    name="nuat-figure3b",
    title="AutoAttack against training time, WRN-34-10",
    headline=("NuAT2-WA 80", "AA (v2)"),
    panels=(
        Panel(
            data="cifar10",
            net="WRN-34-10",
            eps="8/255",
            unit="NuAT2-WA 80",
            columns=columns(("AA (v2)", "autoattack"), ("Time", "train hours")),
            rows=tuple(
                Row(name, run, {"NuAT2-WA 80": "54.76 1", "AWP 200": "- 8"}.get(name, "")) for name, run in WIDE.items()
            ),
        ),
    ),
    notes=(
        V2,
        "The points are only drawn; the text gives NuAT2-WA's accuracy, and that AWP takes 8 times as long.",
    ),
)

EXHIBITS = (TABLE1A, TABLE1B, TABLE2, FIGURE1, FIGURE2, FIGURE3A, FIGURE3B, IMAGENET, SEEDS, ENTROPY)
