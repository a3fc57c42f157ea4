"""A run's state in one file: tensors, and everything else as JSON in their metadata. No pickle, one rename."""

from __future__ import annotations

import os
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from toughen import ranks
from toughen.files import read_tensors, temporary_name, write_tensors
from toughen.methods.base import Method

NAME, PREVIOUS, DAMAGED = "checkpoint.safetensors", "checkpoint.previous.safetensors", "checkpoint.damaged.safetensors"
HEALTHY = "healthy.safetensors"


@dataclass
class Tally:
    """What one process has added up over the running epoch.

    Attributes:
        totals: sums over its images, on the device.
        counts: how many images each of these sums holds: in an epoch of two methods not all have a term.
        passes, crafted, images: spent and seen.
    """

    totals: dict[str, Tensor] = field(default_factory=dict)
    counts: dict[str, int] = field(default_factory=dict)
    passes: float = 0.0
    crafted: float = 0.0
    images: int = 0

    def plain(self) -> dict[str, Any]:
        """As numbers; waits for the device."""
        return {**vars(self), "totals": {name: float(total) for name, total in self.totals.items()}}

    @classmethod
    def of(cls, plain: dict[str, Any], device: torch.device) -> Tally:
        """Back from numbers."""
        totals = {k: torch.tensor(v, dtype=torch.float64, device=device) for k, v in plain["totals"].items()}
        return cls(**{**plain, "totals": totals})


def summed(tallies: list[dict[str, Any]]) -> dict[str, Any]:
    """All processes' tallies in one, as numbers."""
    whole = Tally().plain()
    for tally in tallies:
        for name in ("totals", "counts"):
            for term, value in tally[name].items():
                whole[name][term] = whole[name].get(term, 0) + value
        for name in ("passes", "crafted", "images"):
            whole[name] += tally[name]
    return whole


@dataclass
class State:
    """What changes while a run goes on, besides the modules' own state.

    Attributes:
        step: optimizer steps done.
        best: the best validation score so far, and the clean accuracy that breaks ties.
        history: the lines of metrics.jsonl.
        tally: what this process has added up over the running epoch.
        seconds: of the running epoch, so far, without the watch's looks.
        watched: seconds of these looks.
        threatened: steps that trained against the threat.
        stop_reason: why the method wants no more training.
        events: what happened in the running epoch.
        signals: the latest distances that the watch measured inside epochs.
        best_clean, best_pgd, last_pgd, blind: what the watch saw before: accuracy clean and under PGD, and whether the
            last look was bad.
        collapses: how often the model collapsed.
        rescue_until: the step up to which the rescue method trains.
        healthy: the step of the last state that was healthy; it lies in a file of its own.
        spent: seconds of all sessions.
        planned: steps of the whole run, where a time decides; 0 where the epochs do.
        laid_at, laid_progress: the step at which the rest of the run was last laid out, and the progress there.
        processes: how many train.
    """

    step: int = 0
    best: tuple[float, float] = (-1.0, -1.0)
    history: list[dict[str, Any]] = field(default_factory=list)
    tally: Tally = field(default_factory=Tally)
    seconds: float = 0.0
    watched: float = 0.0
    threatened: int = 0
    stop_reason: str | None = None
    events: list[dict[str, Any]] = field(default_factory=list)
    signals: list[float] = field(default_factory=list)
    best_clean: float = 0.0
    best_pgd: float = 0.0
    last_pgd: float = 0.0
    blind: bool = False
    collapses: int = 0
    rescue_until: int = 0
    healthy: int = -1
    spent: float = 0.0
    planned: int = 0
    laid_at: int = 0
    laid_progress: float = 0.0
    processes: int = field(default_factory=ranks.count)

    def new_epoch(self) -> None:
        """Forget what was summed up over the epoch that ended."""
        self.tally, self.events, self.seconds, self.watched = Tally(), [], 0.0, 0.0


def save(
    folder: Path,
    state: State,
    modules: dict[str, nn.Module],
    optimizer: torch.optim.Optimizer,
    name: str = NAME,
    *,
    tallies: list[dict[str, Any]],
    own: list[dict[str, Tensor]],
) -> None:
    """Write the checkpoint; the one before is kept beside it.

    Args:
        folder: the run directory.
        state: what the trainer remembers.
        modules: model, method and average, by the names they get in the file.
        optimizer: its moments are kept by the parameters' order; its rates follow from the step.
        name: the file's.
        tallies: of each process.
        own: of each process the part of its modules' state that is its own; the first one's lies with its modules too.
    """
    tensors = {f"process.{n}.{key}": value for n, kept in enumerate(own) if n for key, value in kept.items()}
    extra: dict[str, Any] = {}
    for part, module in modules.items():
        for key, value in module.state_dict().items():
            (tensors if isinstance(value, Tensor) else extra)[f"{part}.{key}"] = value
    for number, moments in optimizer.state_dict()["state"].items():
        for key, value in moments.items():
            (tensors if isinstance(value, Tensor) else extra)[f"optimizer.{number}.{key}"] = value
    about = {"extra": extra, "tallies": tallies, **{k: v for k, v in vars(state).items() if k != "tally"}}
    if name == NAME and (folder / NAME).exists():
        keep(folder, PREVIOUS)  # so that no moment is without one
    write_tensors(folder / name, tensors, about)


def keep(folder: Path, name: str, source: str = NAME) -> None:
    """Give a checkpoint, the last one if not told otherwise, a second name."""
    link = temporary_name(folder / name)
    link.unlink(missing_ok=True)
    try:
        os.link(folder / source, link)
    except OSError:  # a file system without hard links
        link.write_bytes((folder / source).read_bytes())
    os.replace(link, folder / name)
    link.unlink(missing_ok=True)  # still there where both names were one file already, after a kill at this point


def kept_file(folder: Path, moment: int | str) -> Path:
    """Where the weights of a moment are kept, a step or an epoch as ``--keep_at`` writes them."""
    name = f"step {moment}" if isinstance(moment, int) else moment
    return folder / "kept" / f"{name.replace(' ', '-')}.safetensors"


def keep_weights(folder: Path, moment: int | str, model: nn.Module) -> None:
    """Keep the live weights of this moment, as ``--keep_at`` asks."""
    path = kept_file(folder, moment)
    path.parent.mkdir(exist_ok=True)
    write_tensors(path, model.state_dict(), {})


def load(
    folder: Path, modules: dict[str, nn.Module], optimizer: torch.optim.Optimizer, device: torch.device
) -> tuple[State, list[str]] | None:
    """Put a run's last state back into its modules and optimizer; None where there is no checkpoint yet.

    Also says what begins anew, because each process has its own of it and their number has changed.

    A last checkpoint that cannot be read is set aside, so that it never takes the place of the one before it.

    Raises:
        ValueError: neither the last checkpoint nor the one before it can be read, or they belong to other modules.
    """
    found = _read(folder)
    if found is None:
        return None
    path, tensors, about, extra = found
    try:
        saved_by = about["processes"]
        own = [name for name in own_names(modules) if saved_by != ranks.count() and tensors[name].numel()]
        _put_back({**tensors, **extra}, saved_by, modules, optimizer)
        (best, clean), tallies = about.pop("best"), about.pop("tallies")
        state = State(**about, best=(best, clean), tally=_tally(tallies, device))
    except (RuntimeError, KeyError, ValueError, TypeError) as error:
        reason = str(error).splitlines()[0]
        raise ValueError(f"{path} does not fit this recipe ({reason}): choose another --out") from None
    if state.healthy == state.step and ranks.first():
        keep(folder, HEALTHY, path.name)  # a kill may have come before
    state.processes = ranks.count()
    return state, own


def go_back(folder: Path, modules: dict[str, nn.Module], optimizer: torch.optim.Optimizer) -> None:
    """Put the last healthy state back into modules and optimizer; the run's own figures stay what they are.

    Raises:
        ValueError: its file is gone or damaged.
    """
    path = folder / HEALTHY
    tensors, about = read_tensors(path)
    try:
        _put_back({**tensors, **about["extra"]}, about["processes"], modules, optimizer)
    except (RuntimeError, KeyError, ValueError, TypeError) as error:
        reason = str(error).splitlines()[0]
        raise ValueError(f"{path} does not fit this run ({reason}): train again with another --out") from None


def own_names(modules: dict[str, nn.Module]) -> list[str]:
    """The modules' state of which each process has its own, by its names in the file."""
    return [
        ".".join(filter(None, (part, name, buffer)))
        for part, module in modules.items()
        for name, method in module.named_modules()
        if isinstance(method, Method)
        for buffer in method.own
        if hasattr(method, buffer)
    ]


def own_state(modules: dict[str, nn.Module]) -> dict[str, Tensor]:
    """This process's own part of the modules' state; what is the same in all of them is not in it."""
    states = {part: module.state_dict() for part, module in modules.items()}
    return {name: states[part][rest] for name in own_names(modules) for part, rest in [name.split(".", 1)]}


def _tally(tallies: list[dict[str, Any]], device: torch.device) -> Tally:
    """This process's; where there were more or fewer of them, the first one takes all."""
    if len(tallies) == ranks.count():
        return Tally.of(tallies[ranks.rank()], device)
    return Tally.of(summed(tallies), device) if ranks.first() else Tally()


def _put_back(
    values: dict[str, Any], saved_by: int, modules: dict[str, nn.Module], optimizer: torch.optim.Optimizer
) -> None:
    """Where as many processes saved this, each takes what was its own; else nobody's places in a batch are the same."""
    if saved_by != ranks.count():
        values = values | own_state(modules)
    elif not ranks.first():
        values = values | _part(values, f"process.{ranks.rank()}")
    for name, module in modules.items():
        module.load_state_dict(_part(values, name))
    _load_moments(_part(values, "optimizer"), optimizer)


def _read(folder: Path) -> tuple[Path, dict[str, Tensor], dict[str, Any], dict[str, Any]] | None:
    """The last checkpoint that can be read: its file, tensors, the fields of the state, and what else modules keep."""
    paths = [path for path in (folder / NAME, folder / PREVIOUS) if path.exists()]
    for path in paths:
        try:
            tensors, about = read_tensors(path)
            if not isinstance(about.get("extra"), dict):
                raise ValueError(f"{path} is damaged (it holds no run's state): restore it from a copy")
        except ValueError:
            if path == paths[-1]:
                raise
            continue
        if path != paths[0]:
            os.replace(paths[0], folder / DAMAGED)
        return path, tensors, about, about.pop("extra")
    return None


def _part(values: dict[str, Any], name: str) -> dict[str, Any]:
    return {key.removeprefix(f"{name}."): value for key, value in values.items() if key.startswith(f"{name}.")}


def _load_moments(values: dict[str, Any], optimizer: torch.optim.Optimizer) -> None:
    """Optimizer state, each moment laid out in memory as its parameter is."""
    state: dict[int, dict[str, Any]] = {}
    for key, value in values.items():
        number, name = key.split(".", 1)
        state.setdefault(int(number), {})[name] = value
    whole = optimizer.state_dict()
    optimizer.load_state_dict({"state": state, "param_groups": whole["param_groups"]})
    for parameter, moments in optimizer.state.items():
        for name, value in moments.items():
            if isinstance(value, Tensor) and name != "step" and value.shape == parameter.shape:
                moments[name] = torch.empty_like(parameter).copy_(value)
