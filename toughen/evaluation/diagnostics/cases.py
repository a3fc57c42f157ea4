"""What is diagnosed: a model with test images and a threat; and the cases of trained runs."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from torch import nn

from toughen import runs as run_files
from toughen.attacks.base import Attack
from toughen.attacks.pgd import PGD
from toughen.core.threat import Threat
from toughen.core.types import Eps, Images, Labels, Norm
from toughen.data import Data, stratified
from toughen.data.layout import require_outside
from toughen.engine.device import Precision
from toughen.engine.fixed_batch import FixedBatchModel
from toughen.evaluation.diagnostics.common import as_fixed_batch
from toughen.evaluation.harness import as_floats
from toughen.evaluation.images import load_test, refuse_seen, sample
from toughen.evaluation.output import differs_from_training
from toughen.evaluation.target import check_norm
from toughen.runs.files import sha256
from toughen.utils.paths import expanded


@dataclass(frozen=True, kw_only=True)
class Case:
    """One model, and the images and the threat that it is diagnosed with.

    Attributes:
        name: the model's name in tables.
        model: run in batches of one size.
        x: [n, c, h, w], clean images in [0, 1], on the model's device.
        y: [n], their classes.
        index: [n], their positions in the test set, on the CPU.
        threat: norm and radius of the attacks.
        data: the data set, as it was named.
        seed: of all random numbers.
    """

    name: str
    model: FixedBatchModel
    x: Images
    y: Labels
    index: Labels
    threat: Threat
    data: str
    seed: int = 0

    def sample(self, count: int) -> Case:
        """The same with a stratified sample of at most ``count`` images."""
        rows = stratified(self.y, min(count, len(self.y)), self.seed)
        here = rows.to(self.y.device)
        return replace(self, x=self.x[here], y=self.y[here], index=self.index[rows])

    def pgd(self) -> Attack:
        """PGD with 20 steps, within the threat."""
        return PGD(eps=self.threat.eps, norm=self.threat.norm, steps=20)


@dataclass(frozen=True, kw_only=True)
class RunCase(Case):
    """A trained run.

    Attributes:
        folder: the run directory.
        results: where its diagnostics are written.
        weights: the SHA-256 hash of its weights' file.
    """

    folder: Path
    results: Path
    weights: str


def load_cases(
    runs: Sequence[str | Path],
    *,
    data: str | None,
    eps: Eps | None,
    norm: Norm | None,
    limit: int | None,
    seed: int,
    device: torch.device,
    precision: Precision,
    out: Path | None,
    models: Mapping[str, nn.Module],
) -> list[RunCase]:
    """The runs' models and test images; the arguments are those of ``diagnose_runs``.

    Raises:
        ValueError: a run, its data or the threat can't be used.
    """
    folders = [Path(run) for run in runs]
    if not folders or len({folder.resolve() for folder in folders}) < len(folders):
        raise ValueError("name one run or more, and each of them once")
    records = [run_files.read_record(folder) for folder in folders]
    for folder, record in zip(folders, records, strict=True):
        check_norm(folder, record, eps, norm)
    threat = common_threat(records, eps, norm)
    threat.check(torch.empty(1, *records[0].shape))
    sets: dict[str, Data] = {}  # loaded once for all runs that use the same
    cases = []
    for run, folder, record in zip(runs, folders, records, strict=True):
        key = repr((data or record.data, record.classes, record.shape, record.image_size, record.resize, record.subset))
        if key not in sets:
            sets[key] = load_test(folder, record, data)
        test = sets[key]
        split, index = sample(test.test, limit, seed)
        if not len(split):
            raise ValueError(f"{test.name} has no test images: give other --data")
        refuse_seen(folder, test, split)
        if out is not None:
            require_outside(out, expanded(Path(data or record.data)))
        results = _results(folder, record, folders, threat, data, out)
        x = as_floats(split.images.to(device))
        x = x.double() if precision == "fp64" else x
        net, weights = run_files.load(folder, models.get(str(run))).to(device), sha256(folder / run_files.WEIGHTS)
        case = RunCase(
            name=_name(folder, folders), model=as_fixed_batch(net, x, precision), x=x, y=split.labels.to(device),
            index=index, threat=threat, seed=seed, folder=folder, results=results, weights=weights,
            data=data or record.data,
        )  # fmt: skip
        cases.append(case)
    return cases


def _name(folder: Path, folders: Sequence[Path]) -> str:
    """The folder's name; its path where another run's folder has the same name."""
    own = _named(folder)
    same_name = [other for other in folders if _named(other).name == own.name]
    return own.name if len(same_name) == 1 and own.name else str(own)


def _named(folder: Path) -> Path:
    """The folder by its own name, where it was given as "." or ".."."""
    return folder if folder.name not in ("", "..") else Path(os.path.abspath(folder))


def _results(
    folder: Path, record: run_files.Record, folders: Sequence[Path], threat: Threat, data: str | None, out: Path | None
) -> Path:
    """Where a run's diagnostics are written: its directory, or a folder in ``out`` at another threat or on other data.

    Raises:
        ValueError: the threat or the data are not the run's own, and there is no ``out``, or it leads to a run.
    """
    difference = differs_from_training(record, threat, data)
    if difference is None:
        return folder
    if out is None:
        own, name = difference
        raise ValueError(
            f"{folder} was trained {own}, so these diagnostics do not belong in its directory: "
            f"give --out, such as {folder / name}"
        )
    place = out / _name(folder, folders).strip("/").replace("/", "-")
    if (place / run_files.RECORD).is_file():
        raise ValueError(f"{place} is a run's directory, and these figures are not that run's: choose another --out")
    return place


def common_threat(records: Sequence[run_files.Record], eps: Eps | None, norm: Norm | None) -> Threat:
    """The threat that was given, or else the one that the runs were trained against.

    Raises:
        ValueError: the runs have no threat or different ones, or eps is 0.
    """
    trained = [record for record in records if record.eps is not None]
    norms = {"l2" if record.norm == "l2" else "linf" for record in trained} if norm is None else {norm}
    radii = {record.eps for record in trained} if eps is None else {eps}
    if not radii:
        raise ValueError("none of the runs was trained against a threat: give one, such as --eps 8/255")
    if len(norms) > 1 or len(radii) > 1:
        raise ValueError(
            "the runs were trained against different threats: give the one to compare them at (--eps, --norm; --out)"
        )
    radius = next(iter(radii))
    if not radius:
        raise ValueError("with eps 0 there is nothing to diagnose: give a radius above 0, such as --eps 8/255")
    return Threat(next(iter(norms), "linf"), radius)  # type: ignore[arg-type]


def refuse_different_images(cases: Sequence[Case]) -> None:
    """Check that all cases have the same images and labels, because they are compared image by image.

    Raises:
        ValueError: they don't.
    """
    first = cases[0]
    for case in cases[1:]:
        if not (torch.equal(first.x, case.x) and torch.equal(first.y, case.y)):
            raise ValueError(
                f"{first.name} and {case.name} are tested on different images or number the classes differently, so "
                "no image can be transferred between them: give one data set (--data), or diagnose them one by one"
            )
