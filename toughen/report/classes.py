"""Figures of the accuracy by class, and the confusion matrices."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import pyarrow.parquet as pq

from toughen.report.curves import measured
from toughen.report.evaluations import Evaluation
from toughen.report.figures import Cell, Figure, Table, number_cell, share_cell
from toughen.report.gallery import UNREADABLE
from toughen.report.read import Run
from toughen.report.values import grid, items, mapping
from toughen.utils.statistics import percent

EXAMPLES = "examples.parquet"
DRAWN = 30  # with more classes, a matrix is not drawn: only its most frequent errors are listed
LISTED = 20  # the number of classes, or errors, that are shown then


@dataclass(frozen=True)
class ClassCounts:
    """Per class: the number of images, of those correct without an attack, and of those correct under all attacks."""

    images: Counter[int]
    clean: Counter[int]
    robust: Counter[int]


def class_name(number: int, names: Sequence[str]) -> str:
    """A class's name, or its number if it has no name."""
    return names[number] if 0 <= number < len(names) else str(number)


def read_class_counts(run: Run) -> ClassCounts | None:
    """The counts for each class from examples.parquet; None if the file is missing or cannot be read."""
    path = run.folder / EXAMPLES
    if not path.is_file():
        return None
    try:
        with path.open("rb") as file:
            table = pq.ParquetFile(file).read(columns=["label", "prediction", "broken_by"])
        rows = list(zip(*(table[name].to_pylist() for name in ("label", "prediction", "broken_by")), strict=True))
        right = [(int(label), broken) for label, prediction, broken in rows if label == prediction]
        images = Counter(int(label) for label, _, _ in rows)
    except UNREADABLE:
        run.missing.append(f"{EXAMPLES} cannot be read, so the accuracy by class is left out.")
        return None
    clean = Counter(label for label, _ in right)
    return ClassCounts(images, clean, Counter(label for label, broken in right if broken is None))


def class_figure(counts: ClassCounts, names: Sequence[str]) -> Figure | None:
    """Each class's accuracy, clean and under all attacks; with many classes, only the least robust ones."""
    every = sorted(counts.images)
    if not every:
        return None
    clean = {label: counts.clean[label] / counts.images[label] for label in every}
    robust = {label: counts.robust[label] / counts.images[label] for label in every}
    rows = [
        (
            Cell(class_name(label, names)), share_cell(clean[label]), share_cell(robust[label]),
            number_cell(counts.images[label], ","),
        )
        for label in every
    ]  # fmt: skip
    weakest = sorted(every, key=lambda label: robust[label])
    shown = every if len(every) <= DRAWN else weakest[:LISTED]
    low, high = (class_name(weakest[at], names) for at in (0, -1))
    alt = (
        f"Accuracy of {len(every)} classes, clean and under attack. Under attack, the lowest is {low} with "
        f"{percent(robust[weakest[0]])}, and the highest is {high} with {percent(robust[weakest[-1]])}."
    )
    data = {
        "names": [class_name(label, names) for label in shown],
        "bars": [
            {"name": "clean", "role": "clean", "values": [clean[label] for label in shown]},
            {"name": "under attack", "role": "pgd", "values": [robust[label] for label in shown]},
        ],
    }
    about = "all evaluated images, all attacks" + ("" if shown == every else f"; the {LISTED} least robust classes")
    table = Table(("class", "clean", "under attack", "images"), tuple(rows), "accuracy by class")
    return Figure("Accuracy by class", "bars", alt, data, table, about)


def confusion_figures(diagnostics: dict[str, Any], names: Sequence[str], own: Evaluation | None) -> list[Figure]:
    """The confusion matrices, clean and under attack; those without data are left out."""
    titles = {"clean": "Confusion, clean", "attacked": "Confusion, under attack"}
    about = {"clean": measured({**diagnostics, "attack": None}, own), "attacked": measured(diagnostics, own)}
    figures = [_confusion(title, mapping(diagnostics.get(name)), names, about[name]) for name, title in titles.items()]
    return [figure for figure in figures if figure is not None]


def _confusion(title: str, diagnostics: dict[str, Any], names: Sequence[str], about: str) -> Figure | None:
    size = len(items(diagnostics.get("matrix")))
    matrix = [[int(cell or 0) for cell in row] for row in grid(diagnostics.get("matrix"), size, size)]
    if not matrix:
        return None
    called = [class_name(number, names) for number in range(size)]
    wrong = sorted(
        ((matrix[i][j], i, j) for i in range(size) for j in range(size) if i != j and matrix[i][j]), reverse=True
    )
    total = sum(map(sum, matrix))
    frequent = "; ".join(f"{called[i]} as {called[j]} {n} times" for n, i, j in wrong[:3])
    alt = f"{title}: {total - sum(n for n, _, _ in wrong)} of {total} images on the diagonal. "
    alt += f"Most frequent errors: {frequent}." if frequent else "No image was misclassified."
    if size > DRAWN:
        listed = [(Cell(called[i]), Cell(called[j]), Cell(str(n), n)) for n, i, j in wrong[:LISTED]]
        table = Table(("true class", "predicted class", "images"), tuple(listed), f"{title}, the most frequent errors")
        return Figure(title, "heat", alt, {}, table, about)
    rows = [(Cell(called[i]), *(Cell(str(n), n) for n in row)) for i, row in enumerate(matrix)]
    heights = [max(1, sum(row)) for row in matrix]
    data = {
        "x": {"label": "predicted class", "names": called},
        "y": {"label": "true class", "names": called},
        "cells": [[j, i, matrix[i][j], matrix[i][j] / heights[i]] for i in range(size) for j in range(size)],
        "counts": True,
    }
    return Figure(title, "heat", alt, data, Table(("true class", *called), tuple(rows), title), about)
