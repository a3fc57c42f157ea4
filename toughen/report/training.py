"""Figures of the training history: accuracy and loss by epoch, with the events of the collapse watch."""

from __future__ import annotations

from collections.abc import Sequence

from toughen.report.figures import Axis, Cell, Figure, Line, Lines, Mark, Table, figure_of, number_cell, share_cell
from toughen.report.history import Epoch, History
from toughen.utils.plural import count
from toughen.utils.statistics import percent

NAMES = {"clean": "held out, clean", "fgsm": "held out, FGSM", "pgd": "held out, PGD"}
CARD_NAMES = {"clean": "Accuracy so far", "fgsm": "Under FGSM so far", "pgd": "Under PGD so far"}
EPOCH = Axis("epoch", whole=True)


def training_figures(history: History) -> list[Figure]:
    """Two figures: accuracy on training and on held-out images, clean and attacked; the loss and its parts.

    A figure without data is left out.
    """
    epochs = history.epochs
    kinds = dict.fromkeys(name for epoch in epochs for name in epoch.validation)
    terms = dict.fromkeys(name for epoch in epochs for name in epoch.terms)
    accuracies = [
        _line(epochs, NAMES.get(kind, kind), [each.validation.get(kind) for each in epochs], kind) for kind in kinds
    ]
    trained = [epoch.figures.get("accuracy") for epoch in epochs]
    accuracies.append(_line(epochs, "training images", trained, "train", dashed=True))
    losses = [_line(epochs, "loss", [epoch.figures.get("loss") for epoch in epochs], "loss")]
    if len(terms) > 1:
        losses += [
            _line(epochs, f"part: {name}", [each.terms.get(name) for each in epochs], dashed=True) for name in terms
        ]
    figures = (
        _figure("Accuracy by epoch", Axis("accuracy", percent=True), accuracies, history),
        _figure("Loss by epoch", Axis("loss"), losses, history),
    )
    return [figure for figure in figures if figure is not None]


def _line(
    epochs: Sequence[Epoch], name: str, values: Sequence[float | None], role: str = "", dashed: bool = False
) -> Line:
    points = [(float(epoch.number), value) for epoch, value in zip(epochs, values, strict=True) if value is not None]
    return Line(name, points, role, dashed)


def _figure(title: str, y: Axis, candidates: Sequence[Line], history: History) -> Figure | None:
    lines = [line for line in candidates if line.points]
    if not lines:
        return None
    last = int(max(line.points[-1][0] for line in lines))
    ends = ", ".join(f"{line.name} {_value(line.points[-1][1], y.percent)}" for line in lines)
    alt = f"{title}, {count(len(lines), 'line')}, epochs 1 to {last}. At the end: {ends}."
    marks = [Mark(float(event.epoch), event.text) for event in history.events]
    if marks:
        alt += f" {count(len(marks), 'event')} marked."
    return figure_of(Lines(title, EPOCH, y, lines, alt, marks=marks))


def _value(value: float, share: bool) -> str:
    return percent(value) if share else f"{value:.3g}"


def epoch_table(history: History) -> Table:
    """The cost of each epoch."""
    columns = (
        "epoch",
        "method",
        "learning rate",
        "passes per step",
        "gradients (gamma)",
        "seconds",
        "images per second",
    )
    names = ("lr", "passes", "gamma", "seconds", "images_per_second")
    kept = max((epoch.number for epoch in history.epochs if epoch.kept), default=0)
    rows = [
        (
            Cell(f"{epoch.number}{' (kept)' if epoch.number == kept else ''}", float(epoch.number)),
            Cell(epoch.method),
            *(number_cell(epoch.figures.get(name)) for name in names),
        )
        for epoch in history.epochs
    ]
    return Table(columns, tuple(rows), "cost of each epoch")


def last_validation(history: History) -> list[tuple[str, str, Cell]]:
    """The last validation accuracies, each as (when, name, value), for a run that has not been evaluated."""
    last = next((epoch for epoch in reversed(history.epochs) if epoch.validation), None)
    if last is None:
        return []
    when = f"held out, after epoch {last.number}"
    return [(when, CARD_NAMES.get(name, name), share_cell(value)) for name, value in last.validation.items()]
