"""The demo's picture: accuracy against eps, and images with what the attack made of them."""

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
class Twin:
    """One image, [h, w] or [h, w, 3] in [0, 1], under attack.

    Attributes:
        clean, attacked: the images.
        before, after: the names of the classes predicted for them.
        label: the true class.
    """

    clean: NDArray[np.float32]
    attacked: NDArray[np.float32]
    before: str
    after: str
    label: str


def draw(
    path: Path, curves: Mapping[str, Mapping[float, float]], twins: Mapping[str, Sequence[Twin]], title: str
) -> None:
    """Write a PNG.

    Args:
        path: where to.
        curves: per model, accuracy 0..1 at each eps.
        twins: per model, the same images attacked; as many for each.
        title: what was attacked, and how.
    """
    from matplotlib.figure import Figure  # slow to import; no window system is touched this way

    columns = max(len(row) for row in twins.values())
    figure = Figure(figsize=(9.6, 3.2), dpi=110, layout="constrained")
    panels: Any = figure.subfigures(1, 2, width_ratios=(1, 1.35))
    left, right = panels
    axes = left.subplots()
    for colour, (name, curve) in zip(COLOURS, curves.items(), strict=False):
        axes.plot(list(curve), [100 * share for share in curve.values()], "o-", color=colour, label=name)
    axes.set(xlabel="eps", ylabel="accuracy under attack, %", ylim=(-3, 103), title=title)
    axes.legend(frameon=False, loc="lower left")
    axes.spines[["top", "right"]].set_visible(False)
    grid = right.subplots(len(twins), columns, squeeze=False)
    for row, (colour, (name, images)) in enumerate(zip(COLOURS, twins.items(), strict=False)):
        for axis, twin in zip(grid[row], images, strict=False):
            _show(axis, twin)
        grid[row][0].set_ylabel(name, color=colour, fontweight="bold")
    replace_file(path, lambda temporary: figure.savefig(temporary, format="png"))


def _show(axis: Any, twin: Twin) -> None:
    """An attacked image, and what the model saw before and after."""
    axis.imshow(twin.attacked, cmap="gray", vmin=0, vmax=1)
    axis.set(xticks=[], yticks=[])
    held = twin.after == twin.label
    axis.set_title(f"{twin.before} → {twin.after}", fontsize=10, color="#00798c" if held else "#d1495b")
