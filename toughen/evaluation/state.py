"""The state of an evaluation, saved after every chunk of images, so that a killed one goes on from there."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from toughen.core.distributed import world
from toughen.core.rng import derive_seed
from toughen.engine.batches import Counts
from toughen.evaluation.harness import Outcome
from toughen.runs.files import clear_temporaries, read_tensors, write_tensors
from toughen.runs.json_types import first_mismatch

FIELDS = {"fell": torch.bool, "by": torch.int16, "moved": torch.float32, "done": torch.bool}
KEPT = {"round": int, "seconds": dict[str, float], "counts": dict[str, dict[str, int]]}


@dataclass
class Progress:
    """What one attack has done.

    Attributes:
        fell: [n] images that it broke.
        by: [n] the number of the round that broke them, -1 where none did.
        moved: [n] how far, 0 where it broke nothing.
        done: [n] images that the round under way is through with.
        round: the number of the round under way.
        seconds, counts: spent so far, by part; ``counts`` as ``toughen.engine.batches.Counts`` names them.
    """

    fell: Tensor
    by: Tensor
    moved: Tensor
    done: Tensor
    round: int = 0
    seconds: dict[str, float] = field(default_factory=dict)
    counts: dict[str, dict[str, int]] = field(default_factory=dict)

    @classmethod
    def begin(cls, n: int) -> Progress:
        """Nothing done of ``n`` images."""
        no = torch.zeros(n, dtype=torch.bool)
        return cls(no, torch.full((n,), -1, dtype=torch.int16), torch.zeros(n), no.clone())

    def add(self, outcome: Outcome, part: str, seconds: float) -> None:
        """Add what a round did to a chunk of images."""
        rows, fell = outcome.rows.cpu(), outcome.fell.cpu()
        self.done[rows] = True
        self.fell[rows[fell]], self.by[rows[fell]] = True, self.round
        self.moved[rows[fell]] = outcome.moved.cpu()[fell]
        self.seconds[part] = self.seconds.get(part, 0.0) + seconds
        before = self.counts.get(part, asdict(Counts()))
        self.counts[part] = {name: before[name] + count for name, count in outcome.counts.items()}

    def next_round(self) -> None:
        """The round under way is through with every image."""
        self.round += 1
        self.done.zero_()


@dataclass
class State:
    """All attacks' progress, and the file that keeps it.

    Attributes:
        path: the file; None keeps nothing.
        n: how many images are evaluated.
        attacks: by the names that they have in the results.
    """

    path: Path | None
    n: int
    attacks: dict[str, Progress] = field(default_factory=dict)

    def of(self, name: str) -> Progress:
        """One attack's progress."""
        return self.attacks.setdefault(name, Progress.begin(self.n))

    def save(self) -> None:
        """Keep it: the file before or this one is there whole, whenever the process is killed."""
        if self.path is not None:
            world().on_main(self._write, self.path)

    def _write(self, path: Path) -> None:
        tensors: dict[str, Tensor] = {}
        about: dict[str, Any] = {}
        for name, progress in self.attacks.items():
            tensors |= {f"{name}:{each}": getattr(progress, each) for each in FIELDS}
            about[name] = {each: getattr(progress, each) for each in KEPT}
        path.parent.mkdir(parents=True, exist_ok=True)
        write_tensors(path, tensors, about)

    @property
    def name(self) -> str:
        """What this evaluation is told from others by; "" where nothing is kept."""
        return "" if self.path is None else self.path.stem

    def remove(self) -> None:
        """The evaluation is over, and its results are written; what is kept of its checks goes, too."""
        for path in [self.path, self.path.with_suffix(".json")] if self.path is not None else []:
            world().on_main(path.unlink, missing_ok=True)


def restore(folder: Path | None, fingerprint: tuple[object, ...], n: int) -> State:
    """The state of this very evaluation (model, images, attacks, seed), where one was left; else a new one.

    Raises:
        ValueError: the file is damaged.
    """
    if folder is None:
        return State(None, n)
    clear_temporaries(folder)
    path = folder / f"evaluation-{derive_seed(*fingerprint):016x}.safetensors"
    state = State(path, n)
    if path.is_file():
        tensors, about = read_tensors(path)
        for name, rest in about.items():
            fields = [tensors.get(f"{name}:{each}") for each in FIELDS]
            if first_mismatch(rest, KEPT) or not all(map(_is_field, fields, FIELDS.values(), [n] * len(fields))):
                raise ValueError(f"{path} is damaged: remove it, and the evaluation starts again")
            state.attacks[name] = Progress(*fields, **rest)  # type: ignore[arg-type]
    return state


def _is_field(tensor: Tensor | None, kind: torch.dtype, n: int) -> bool:
    return tensor is not None and tensor.dtype == kind and tensor.shape == (n,)
