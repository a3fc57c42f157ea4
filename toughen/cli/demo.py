"""`toughen demo`: trains a standard and a robust classifier, attacks both, and writes a picture and a report."""

from __future__ import annotations

import shlex
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from rich.console import Console
from torch import nn

from toughen import data, runs
from toughen.attacks.pgd import PGD
from toughen.cli.compare import print_comparison
from toughen.cli.shared import PROGRAM, Help, resumable
from toughen.config.parsing import Parser, tidy
from toughen.config.train import parse_train
from toughen.data import Data
from toughen.evaluation import evaluate_run, measure
from toughen.evaluation.harness import as_floats, predict
from toughen.report import write_report
from toughen.runs.files import replace_file
from toughen.training.run import train
from toughen.utils.console import say
from toughen.utils.paths import expanded

EPS, ATTACKS = 0.3, ("fgsm", "pgd-100x5@0.01")
STANDARD = (
    "standard-mnist --data mnist-5k --model fbf-mnist-cnn --epochs 20 --batch-size 64 --optimizer.lr 0.05 "
    "--crop 2 --precision fp32"
)
RUNS = {"standard": STANDARD.split(), "robust": ["demo"]}
CURVE, CURVE_IMAGES, SHOWN = (0.0, 0.05, 0.1, 0.15, 0.2, 0.25, 0.3, 0.35, 0.4), 200, 5
COLOURS = ("#d1495b", "#00798c", "#edae49", "#66a182")

HELP = Help(
    usage=f"{PROGRAM} demo [--out DIR]",
    about="Train a standard and a robust classifier on images that need no download, and attack both.",
    examples=(f"{PROGRAM} demo", f"{PROGRAM} demo --out runs/first", f"{PROGRAM} compare runs/demo/*"),
    shown={"Output": "out"},
)


@dataclass(frozen=True)
class Example:
    """An attack on an image.

    Attributes:
        attacked: the image after it, [h, w] or [h, w, 3], in [0, 1].
        before, after: the names of the classes predicted before and after it.
        label: the true class.
    """

    attacked: NDArray[np.float32]
    before: str
    after: str
    label: str


def run(arguments: Sequence[str]) -> int:
    out = demo_parser().read(tidy(arguments)).out
    if not out:
        raise ValueError("--out is empty: name a folder, or leave it out")
    with resumable():
        return demo(expanded(Path(out)))


def demo_parser() -> Parser:
    parser = Parser(prog=f"{PROGRAM} demo", about=HELP)
    parser.add_argument("--out", type=str, metavar="DIR", default="runs/demo", help="the folder for both runs")
    return parser


def demo(out: Path) -> int:
    """Train (or resume) both runs, evaluate both, and print the results."""
    console, progress = Console(), Console(stderr=True)
    started = time.perf_counter()
    begun = any((out / name).is_dir() for name in RUNS)
    for name in () if begun else ("picture.png", "report.html"):
        if (out / name).exists():
            raise ValueError(f"{out / name} exists, but {out} has no runs of the demo: choose another --out")
    for name, arguments in RUNS.items():
        words = [*arguments, "--out", str(out / name)]
        say(progress, f"\n$ {shlex.join(['toughen', 'train', *words])}")
        recipe, _, _ = parse_train(arguments)
        train(recipe, out / name, resume=True)
    for name in RUNS:
        command = shlex.join(["toughen", "evaluate", str(out / name), "--eps", str(EPS), "--attacks", *ATTACKS])
        say(progress, f"\n$ {command}")
        evaluate_run(out / name, eps=EPS, attacks=ATTACKS, console=progress)
    draw(out)
    report = write_report([out / name for name in RUNS], out / "report.html", overwrite=True)
    console.print()
    print_comparison(console, [out / name for name in RUNS])
    seconds = time.perf_counter() - started
    text = f"\ndone in {seconds:.0f} seconds. Both runs, a picture, and a report to open in a browser:"
    console.print(text, highlight=False)
    for place in [*(out / name for name in RUNS), out / "picture.png", report]:
        say(console, f"  {place}")
    return 0


def draw(out: Path) -> None:
    """Write the picture: both models' accuracy against eps, and the same images attacked on each model."""
    test = data.load("mnist-5k")
    models = {name: runs.load(out / name) for name in RUNS}
    curves = {name: accuracy_against_eps(model, test) for name, model in models.items()}
    examples = {name: attacked(model, test) for name, model in models.items()}
    write_picture(out / "picture.png", curves, examples, f"PGD-20, {CURVE_IMAGES} test images")


def accuracy_against_eps(model: nn.Module, test: Data) -> dict[float, float]:
    """Accuracy under PGD-20 at each eps of the curve, on a stratified sample."""
    sample = test.test.take(data.stratified(test.test.labels, CURVE_IMAGES, seed=0))
    attacks = {str(eps): PGD(eps=eps, steps=20) for eps in CURVE}
    evaluation = measure(model, sample, attacks)
    return {eps: evaluation.accuracy(str(eps)) for eps in CURVE}


def attacked(model: nn.Module, test: Data) -> list[Example]:
    """One image of each of the last ``SHOWN`` classes, attacked by PGD-100 at eps 0.3."""
    first = [int((test.test.labels == label).nonzero()[0]) for label in range(len(test.classes))][-SHOWN:]
    split = test.test.take(torch.tensor(first))
    x = as_floats(split.images)
    x_adv = PGD(eps=EPS, steps=100, step_size=0.01)(model, x, split.labels)
    before, after = predict(model, split.images), model(x_adv).argmax(1)
    return [
        Example(x_adv[i, 0].numpy(), *(test.classes[int(p[i])] for p in (before, after, split.labels)))
        for i in range(len(split))
    ]


def write_picture(
    path: Path, curves: Mapping[str, Mapping[float, float]], examples: Mapping[str, Sequence[Example]], title: str
) -> None:
    """Write a PNG.

    Args:
        path: the file.
        curves: for each model, the accuracy, 0..1, at each eps.
        examples: for each model, the same images attacked on it.
        title: the attack and the number of images.
    """
    from matplotlib.figure import Figure  # slow to import; unlike pyplot it needs no display

    columns = max(len(row) for row in examples.values())
    figure = Figure(figsize=(9.6, 3.2), dpi=110, layout="constrained")
    panels: Any = figure.subfigures(1, 2, width_ratios=(1, 1.35))
    left, right = panels
    axes = left.subplots()
    for colour, (name, curve) in zip(COLOURS, curves.items(), strict=False):
        axes.plot(list(curve), [100 * share for share in curve.values()], "o-", color=colour, label=name)
    axes.set(xlabel="eps", ylabel="accuracy under attack, %", ylim=(-3, 103), title=title)
    axes.legend(frameon=False, loc="lower left")
    axes.spines[["top", "right"]].set_visible(False)
    grid = right.subplots(len(examples), columns, squeeze=False)
    for row, (colour, (name, images)) in enumerate(zip(COLOURS, examples.items(), strict=False)):
        for axis, example in zip(grid[row], images, strict=False):
            _show(axis, example)
        grid[row][0].set_ylabel(name, color=colour, fontweight="bold")
    replace_file(path, lambda temporary: figure.savefig(temporary, format="png"))


def _show(axis: Any, example: Example) -> None:
    """Draw the adversarial image, with the predictions before and after the attack."""
    axis.imshow(example.attacked, cmap="gray", vmin=0, vmax=1)
    axis.set(xticks=[], yticks=[])
    correct = example.after == example.label
    axis.set_title(f"{example.before} → {example.after}", fontsize=10, color="#00798c" if correct else "#d1495b")
