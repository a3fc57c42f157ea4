"""Reads metrics.jsonl for the report: the accuracies, the cost and the events of each epoch."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from toughen.report.values import SENTENCE, items, mapping, real, share, text, whole


@dataclass(frozen=True)
class Event:
    """A message of the collapse watch or of the method, and its epoch, counted from 1."""

    epoch: int
    kind: str
    text: str


@dataclass(frozen=True)
class Epoch:
    """One line of the file.

    Attributes:
        number: counted from 1.
        method: the training method's name.
        figures: numbers by name; accuracies are 0..1.
        validation: accuracies on held-out images, by attack.
        terms: the parts of the loss, by name.
        kept: whether its weights replaced those of earlier epochs in model.safetensors.
    """

    number: int
    method: str
    figures: dict[str, float]
    validation: dict[str, float]
    terms: dict[str, float]
    kept: bool


@dataclass(frozen=True)
class History:
    """All epochs that can be read, in order.

    Attributes:
        broken: the numbers, from 1, of the lines that cannot be read or are not valid.
    """

    epochs: tuple[Epoch, ...] = ()
    events: tuple[Event, ...] = ()
    broken: tuple[int, ...] = field(default=())

    @property
    def done(self) -> int:
        """The number of finished epochs; a damaged end of the file counts as never completely written."""
        return self._last + self.lost

    @property
    def lost(self) -> int:
        """The number of epochs without a line before the last epoch that can be read."""
        return max(0, self.epochs[-1].number - self._last) if self.epochs else 0

    @property
    def damaged(self) -> bool:
        """Whether lines are missing or cannot be read."""
        return bool(self.broken) or self.lost > 0

    @property
    def seconds(self) -> float | None:
        """Seconds of training, without validation; None if no line has them."""
        return self._total("seconds")

    @property
    def passes(self) -> float | None:
        """Mean cost of a training step, in forward passes per image."""
        total = self._total("passes")
        return None if total is None else total / sum("passes" in epoch.figures for epoch in self.epochs)

    @property
    def all_passes(self) -> float | None:
        """Cost of all epochs together, in forward passes per training image; older files lack ``epoch_passes``."""
        values = [epoch.figures.get("epoch_passes", epoch.figures.get("passes")) for epoch in self.epochs]
        known = [value for value in values if value is not None]
        return sum(known) if known else None

    @property
    def partial(self) -> bool:
        """Whether the true cost is higher than the sum over the lines that can be read."""
        return self.damaged or any("seconds" not in epoch.figures for epoch in self.epochs)

    @property
    def _last(self) -> int:
        """The number, from 1, of the last line that can be read."""
        lines = len(self.epochs) + len(self.broken)
        while lines in self.broken:
            lines -= 1
        return lines

    def _total(self, name: str) -> float | None:
        values = [epoch.figures[name] for epoch in self.epochs if name in epoch.figures]
        return sum(values) if values else None


FIGURES = ("loss", "lr", "passes", "epoch_passes", "gamma", "seconds", "images_per_second")


def read_history(lines: list[bytes]) -> History:
    """Read the lines of a metrics.jsonl; lines that cannot be read, for example after a kill, are left out."""
    epochs: list[Epoch] = []
    events, broken = [], []
    for number, line in enumerate(lines, 1):
        try:
            fields = json.loads(line)
        except (ValueError, RecursionError):
            fields = None
        if not isinstance(fields, dict) or not _is_line(fields, epochs):
            broken.append(number)
            continue
        epoch = _epoch(fields)
        epochs.append(epoch)
        events += _events(fields.get("events"), epoch.number)
    return History(tuple(epochs), tuple(events), tuple(broken))


def _is_line(fields: dict[str, Any], before: Sequence[Epoch]) -> bool:
    """Whether a line is valid: its epoch is not before those of earlier lines; "events" may be missing."""
    epoch, first = whole(fields.get("epoch")), before[-1].number if before else 0
    return epoch is not None and epoch >= first and isinstance(fields.get("events", []), list)


def _epoch(fields: dict[str, Any]) -> Epoch:
    figures = {name: real(fields.get(name)) for name in FIGURES} | {"accuracy": share(fields.get("accuracy"))}
    validation = {name: share(value) for name, value in mapping(fields.get("validation")).items()}
    terms = {name: real(value) for name, value in mapping(fields.get("terms")).items()}
    return Epoch(
        number=int(fields["epoch"]) + 1,
        method=text(fields.get("method")),
        figures=_numbers(figures),
        validation=_numbers(validation),
        terms=_numbers(terms),
        kept=fields.get("kept") is True,
    )


def _numbers(figures: dict[str, float | None]) -> dict[str, float]:
    return {name: value for name, value in figures.items() if value is not None}


def _events(value: Any, epoch: int) -> list[Event]:
    events = [mapping(each) for each in items(value)]
    return [
        Event(epoch, text(each.get("event"), "event"), text(each.get("text"), longest=SENTENCE))
        for each in events
        if each
    ]
