"""Delayed adversarial training (Gupta, Dube & Verma, CVPR Workshops 2020, slides): its tables and figures."""

from __future__ import annotations

from toughen.papers.published.exhibits import Column, Figure, Line, Panel, Plot, Row, Table, columns

PGD = "--method PGDAT --method.steps 10 --method.step_size 2/255"
DAT = "dat-cifar10 --weights last"  # the slides set early stop apart: other rows are what training ends with
DAT_MNIST = "dat-mnist --weights last"
RAT = f"{DAT} {PGD}"
NATURAL = f"{DAT} --method Standard --eps null"
RAT_MNIST = f"{DAT_MNIST} --method PGDAT --method.steps 40 --method.step_size 0.01"
OPEN = (
    "Rate, batch, weight decay, the switch's rule and the rule of early stop are not in the slides; the epochs of "
    "the switch (86) and the stop (115, 116) follow from the hours of WRN-28-10, and are taken for ResNet-18 and MNIST "
    "too, whose natural hours are not given. ResNet-50's (1.1 natural, 6.9 RAT, 4.0 DAT) give a switch at 78."
)


def measured(adversarial: str) -> tuple[Column, ...]:
    """The four columns of the slides."""
    return columns(
        ("Hours", "train hours"), ("Saved, %", "hours saved"), ("Adv. acc.", adversarial), ("Nat. acc.", "clean")
    )


TABLE1 = Table(
    name="dat-table1",
    title="Training time, and accuracy against adversaries of training strength",
    headline=("DAT", "Adv. acc."),
    panels=(
        Panel(
            data="cifar10",
            net="WRN-28-10",
            eps="8/255",
            unit="RAT",
            columns=measured("pgd-10@2/255"),
            rows=(
                Row("RAT", RAT, "14.7 - 48.5 86.8"),
                Row("DAT", DAT, "7.8 46.9 49.7 87.9", against="RAT"),
                Row("RAT early stop", f"{RAT} --stop_epoch 115", "10.9 - 49.2 87.1"),
                Row("DAT early stop", f"{DAT} --stop_epoch 116", "4.1 62.4 53.6 87.9", against="RAT early stop"),
            ),
        ),
        Panel(
            data="cifar10",
            net="ResNet-18",
            eps="8/255",
            unit="RAT",
            columns=measured("pgd-10@2/255"),
            rows=(
                Row("RAT", f"{RAT} --model resnet18", "2.5 - 37.0 73.8"),
                Row("DAT", f"{DAT} --model resnet18", "1.6 36.0 40.4 72.8", against="RAT"),
                Row("RAT early stop", f"{RAT} --model resnet18 --stop_epoch 115", "1.9 - 40.6 71.0"),
                Row(
                    "DAT early stop", f"{DAT} --model resnet18 --stop_epoch 116", "0.9 52.6 41.1 69.9",
                    against="RAT early stop",
                ),
            ),
        ),
        Panel(
            data="cifar100",
            net="ResNet-50",
            eps="8/255",
            unit="RAT",
            columns=measured("pgd-10@2/255"),
            rows=(
                Row("RAT", f"{RAT} --model resnet50", "6.9 - 15.2 44.2"),
                Row("DAT", f"{DAT} --model resnet50 --method.switch_epoch 78", "4.0 42.0 15.2 46.6", against="RAT"),
            ),
        ),
        Panel(
            data="mnist",
            net="two-layer CNN",
            eps="0.3",
            unit="RAT",
            columns=measured("pgd-40@0.01"),
            rows=(
                Row("RAT", RAT_MNIST, "2.2 - 91.4 98.2"),
                Row("DAT", DAT_MNIST, "1.9 13.6 91.9 98.2", against="RAT"),
            ),
        ),
    ),
    notes=(OPEN, "The slides print the time saved once for each pair; hours of MNIST are of a weaker machine."),
)  # fmt: skip
HOURS = Table(
    name="dat-hours",
    title="CIFAR-10, hours of 155 epochs: natural and regular adversarial training",
    headline=("RAT", "Hours"),
    panels=tuple(
        Panel(
            data="cifar10",
            net=net,
            eps="8/255",
            unit="Natural",
            columns=columns(("Hours", "train hours")),
            rows=(
                Row("Natural", f"{NATURAL}{model}", natural),
                Row("RAT", f"{RAT}{model}", adversarial),
            ),
        )
        for net, model, natural, adversarial in (
            ("ResNet-50", " --model resnet50", "1.1", "6.8"),
            ("WRN-28-10", "", "2.2", "14.7"),
        )
    ),
    notes=("Printed the other way round, a column for each row here.",),
)
BLACK_BOX = Table(
    name="dat-blackbox",
    title="CIFAR-10, DAT against images from independently trained copies",
    headline=("DAT", "DAT copy"),
    panels=(
        Panel(
            data="cifar10",
            net="WRN-28-10",
            eps="8/255",
            columns=(
                Column("White-box", "pgd-10@2/255"),
                Column("Natural", "pgd-10@2/255", f"{NATURAL} --seed 1"),
                Column("RAT copy", "pgd-10@2/255", f"{RAT} --seed 1"),
                Column("DAT copy", "pgd-10@2/255", f"{DAT} --seed 1"),
            ),
            rows=(Row("DAT", DAT, "49.7 86.7 69.4 65.7"),),
        ),
    ),
    notes=("The copies begin from other weights: their seed is one above the model's.",),
)

WIDE = (Line("RAT", RAT), Line("DAT", DAT))
NARROW = (Line("RAT", f"{RAT} --model resnet18"), Line("DAT", f"{DAT} --model resnet18"))
TWO_LAYERS = (Line("RAT", RAT_MNIST), Line("DAT", DAT_MNIST))
CIFAR_RADII = ("0", "2/255", "4/255", "6/255", "8/255", "10/255", "12/255", "16/255")
MNIST_RADII = ("0", "0.1", "0.2", "0.25", "0.3", "0.35", "0.4", "0.5")
OLD_WEIGHTS = Figure(
    name="dat-figure-attacks",
    title="RAT: the final model's accuracy on images made with the weights of earlier epochs",
    plots=(
        Plot(
            data="cifar10", net="WRN-28-10", eps="8/255", curve="old weights", lines=WIDE[:1], attack="pgd-10@2/255",
            every=5,
        ),
    ),
    notes=(
        "The values are only drawn. Weights are kept every five epochs at full, at somewhat fewer places at cpu; the "
        "slides' spacing is not stated.",
    ),
)  # fmt: skip
LOSS = Figure(
    name="dat-figure-loss",
    title="Training loss by epoch, RAT and DAT",
    plots=(Plot(data="cifar10", net="WRN-28-10", eps="8/255", curve="by epoch", lines=WIDE, every=5),),
    notes=("The values are only drawn.",),
)
GENERALIZATION = Figure(
    name="dat-figure-generalization",
    title="Adversarial test accuracy by epoch, RAT and DAT",
    plots=(
        Plot(
            data="cifar10", net="WRN-28-10", eps="8/255", curve="by epoch", lines=WIDE, attack="pgd-10@2/255", every=5
        ),
    ),
    notes=(
        "From weights kept every five epochs at full, so that test images choose nothing.",
        "The values are only drawn.",
    ),
)  # fmt: skip
STEPS = Figure(
    name="dat-figure-steps",
    title="Accuracy against PGD's steps at the eps of training",
    plots=(
        Plot(
            data="cifar10", net="WRN-28-10", eps="8/255", curve="steps", lines=WIDE, attack="pgd@2/255",
            at=(1, 2, 5, 10, 20, 50, 100),
        ),
        Plot(
            data="cifar10", net="ResNet-18", eps="8/255", curve="steps", lines=NARROW, attack="pgd@2/255",
            at=(1, 2, 5, 10, 20, 50, 100),
        ),
        Plot(
            data="mnist", net="two-layer CNN", eps="0.3", curve="steps", lines=TWO_LAYERS, attack="pgd@0.01",
            at=(10, 20, 40, 60, 100, 200),
        ),
    ),
    notes=("The values, and at which steps they were taken, are only drawn.",),
)  # fmt: skip
EPS = Figure(
    name="dat-figure-eps",
    title="Accuracy against eps at the PGD steps of training",
    plots=(
        Plot(
            data="cifar10", net="WRN-28-10", eps="8/255", curve="eps", lines=WIDE, attack="pgd-10@2/255",
            at=CIFAR_RADII,
        ),
        Plot(
            data="cifar10", net="ResNet-18", eps="8/255", curve="eps", lines=NARROW, attack="pgd-10@2/255",
            at=CIFAR_RADII,
        ),
        Plot(
            data="mnist", net="two-layer CNN", eps="0.3", curve="eps", lines=TWO_LAYERS, attack="pgd-40@0.01",
            at=MNIST_RADII,
        ),
    ),
    notes=(
        "The values, and at which radii they were taken, are only drawn.",
        "A step is training's at every radius (2/255, 0.01), so that PGD does not reach the edge of the largest ones.",
    ),
)  # fmt: skip

EXHIBITS = (TABLE1, HOURS, BLACK_BOX, OLD_WEIGHTS, LOSS, GENERALIZATION, STEPS, EPS)
