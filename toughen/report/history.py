"""metrics.jsonl as a report shows it: what each epoch learnt, what it cost, and what happened."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from toughen.report.values import SENTENCE, items, mapping, real, share, text, whole


@dataclass(frozen=True)
class Event:
    """Something that the watch or the method said, and in which epoch, from 1."""

    epoch: int
    kind: str
    text: str


@dataclass(frozen=True)
class Epoch:
    """One line: figures by name, accuracies 0..1; ``validation`` and ``terms`` by their own names.

    ``number`` counts from 1; ``kept``: its weights were written over those of epochs before.
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
        broken: the numbers of the lines, from 1, that cannot be, or say what no trainer says there.
    """

    epochs: tuple[Epoch, ...] = ()
    events: tuple[Event, ...] = ()
    broken: tuple[int, ...] = field(default=())

    @property
    def done(self) -> int:
        """How many epochs have ended: what follows the last line that can be read was never written in whole."""
        return self._last + self.lost

    @property
    def lost(self) -> int:
        """How many epochs before the last one that can be read have no line."""
        return max(0, self.epochs[-1].number - self._last) if self.epochs else 0

    @property
    def damaged(self) -> bool:
        """Whether lines cannot be read, or are not there."""
        return bool(self.broken) or self.lost > 0

    @property
    def seconds(self) -> float | None:
        """Of training, without validation; None where no line says."""
        return self._total("seconds")

    @property
    def passes(self) -> float | None:
        """Mean forward equivalents for each training image in an epoch, which is per step."""
        total = self._total("passes")
        return None if total is None else total / sum("passes" in epoch.figures for epoch in self.epochs)

    @property
    def all_passes(self) -> float | None:
        """Forward equivalents for each training image in all epochs together."""
        return self._total("passes")

    @property
    def partial(self) -> bool:
        """Whether it cost more than the lines say that can be read."""
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


FIGURES = ("loss", "lr", "passes", "gamma", "seconds", "images_per_second")


def read_history(lines: list[bytes]) -> History:
    """The lines of a metrics.jsonl; one that cannot be read, as a kill while writing leaves it, is left out."""
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
    """Whether it is an epoch's line, after those before it; "events" may be missing."""
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
