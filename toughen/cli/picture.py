"""The demo's picture: accuracy against eps, and adversarial images with their predictions."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from toughen.runs.files import replace_file

COLOURS = ("#d1495b", "#00798c", "#edae49", "#66a182")


@dataclass(frozen=True)
class Example:
    """One image before and after an attack.

    Attributes:
        clean, attacked: the images, [h, w] or [h, w, 3], in [0, 1].
        before, after: the names of the classes predicted for them.
        label: the true class.
    """

    clean: NDArray[np.float32]
    attacked: NDArray[np.float32]
    before: str
    after: str
    label: str


def draw(
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
