"""The state of an evaluation, saved after every chunk of images, so that a killed evaluation can be resumed."""

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
from toughen.utils.type_hints import first_mismatch

TENSORS = {  # fields of ``Progress`` that the file stores as tensors
    "broken": torch.bool,
    "broken_by": torch.int16,
    "distance": torch.float32,
    "done": torch.bool,
}
PLAIN = {"round": int, "seconds": dict[str, float], "counts": dict[str, dict[str, int]]}  # stored as JSON


@dataclass
class Progress:
    """One attack's results so far.

    Attributes:
        broken: [n], which images it broke.
        broken_by: [n], the number of the round that broke each image; -1 where none did.
        distance: [n], of the adversarial image from the clean one; 0 where the image is not broken.
        done: [n], which images the current round has attacked.
        round: the number of the current round.
        seconds, counts: time and passes so far, by part; ``counts`` as in ``toughen.engine.batches.Counts``.
    """

    broken: Tensor
    broken_by: Tensor
    distance: Tensor
    done: Tensor
    round: int = 0
    seconds: dict[str, float] = field(default_factory=dict)
    counts: dict[str, dict[str, int]] = field(default_factory=dict)

    @classmethod
    def begin(cls, n: int) -> Progress:
        """The progress before the first round, on ``n`` images."""
        no = torch.zeros(n, dtype=torch.bool)
        return cls(no, torch.full((n,), -1, dtype=torch.int16), torch.zeros(n), no.clone())

    def add(self, outcome: Outcome, part: str, seconds: float) -> None:
        """Add the results of the current round on a chunk of images.

        Args:
            outcome: the results.
            part: the part of the attack that the round belongs to.
            seconds: how long it took.
        """
        rows, broken = outcome.rows.cpu(), outcome.broken.cpu()
        self.done[rows] = True
        self.broken[rows[broken]], self.broken_by[rows[broken]] = True, self.round
        self.distance[rows[broken]] = outcome.distance.cpu()[broken]
        self.seconds[part] = self.seconds.get(part, 0.0) + seconds
        before = self.counts.get(part, asdict(Counts()))
        self.counts[part] = {name: before[name] + count for name, count in outcome.counts.items()}

    def next_round(self) -> None:
        """End the current round."""
        self.round += 1
        self.done.zero_()


@dataclass
class State:
    """All attacks' progress, and the file that stores it.

    Attributes:
        path: the file; None stores nothing.
        n: how many images are evaluated.
        attacks: each attack's progress, by its name in the results.
    """

    path: Path | None
    n: int
    attacks: dict[str, Progress] = field(default_factory=dict)

    def of(self, name: str) -> Progress:
        """One attack's progress."""
        return self.attacks.setdefault(name, Progress.begin(self.n))

    def save(self) -> None:
        """Write the file in one step, so that a kill leaves the earlier or the new one."""
        if self.path is not None:
            world().on_main(self._write, self.path)

    def _write(self, path: Path) -> None:
        tensors: dict[str, Tensor] = {}
        about: dict[str, Any] = {}
        for name, progress in self.attacks.items():
            tensors |= {f"{name}:{each}": getattr(progress, each) for each in TENSORS}
            about[name] = {each: getattr(progress, each) for each in PLAIN}
        path.parent.mkdir(parents=True, exist_ok=True)
        write_tensors(path, tensors, about)

    @property
    def name(self) -> str:
        """The file's name without suffix, which identifies this evaluation; "" where nothing is stored."""
        return "" if self.path is None else self.path.stem

    def remove(self) -> None:
        """Remove the file, and that of the checks; called when the results are written."""
        for path in [self.path, self.path.with_suffix(".json")] if self.path is not None else []:
            world().on_main(path.unlink, missing_ok=True)


def restore(folder: Path | None, fingerprint: tuple[object, ...], n: int) -> State:
    """The stored state of an evaluation, or a new one where none is stored.

    Args:
        folder: where states are stored; None stores nothing.
        fingerprint: identifies the evaluation: model, images, attacks, seed.
        n: how many images are evaluated.

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
            fields = {each: tensors.get(f"{name}:{each}") for each in TENSORS}
            valid = all(
                tensor is not None and tensor.dtype == TENSORS[each] and tensor.shape == (n,)
                for each, tensor in fields.items()
            )
            if not valid or first_mismatch(rest, PLAIN):
                raise ValueError(f"{path} is damaged: remove it, and the evaluation starts again")
            state.attacks[name] = Progress(**fields, **rest)  # type: ignore[arg-type]
    return state
