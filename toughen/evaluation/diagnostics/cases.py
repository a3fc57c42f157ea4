"""What is diagnosed: runs with their nets, the test images that they are shown, and the threat that they share."""

from __future__ import annotations

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
from toughen.engine.device import Precision
from toughen.engine.fixed_batch import FixedBatchModel
from toughen.evaluation.diagnostics.common import blocked
from toughen.evaluation.images import load_test, refuse_seen, sample
from toughen.utils.fraction import radius


@dataclass(frozen=True, kw_only=True)
class Case:
    """One model and what it is diagnosed by.

    Attributes:
        name: what the model is called in tables.
        model: in blocks.
        x: clean images in [0, 1], on the model's device.
        y: their classes.
        index: their places in the test set.
        threat: what the model is to hold against.
        folder: the run directory.
        results: where its diagnostics go.
        data: the data set, as it was named.
        seed: of all random numbers.
    """

    name: str
    model: FixedBatchModel
    x: Images
    y: Labels
    index: Labels
    threat: Threat
    folder: Path
    results: Path
    data: str
    seed: int = 0

    def some(self, count: int) -> Case:
        """The same with a stratified sample of at most so many images."""
        rows = stratified(self.y, min(count, len(self.y)), self.seed)
        here = rows.to(self.y.device)
        return replace(self, x=self.x[here], y=self.y[here], index=self.index[rows])

    def pgd(self) -> Attack:
        """PGD with 20 steps, at the threat."""
        return PGD(eps=self.threat.eps, norm=self.threat.norm, steps=20)


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
) -> list[Case]:
    """The runs' nets and test images; ``diagnose_runs`` says what the arguments are.

    Raises:
        ValueError: a run, its data or the threat can't be used.
    """
    folders = [Path(run) for run in runs]
    if not folders or len({folder.resolve() for folder in folders}) < len(folders):
        raise ValueError("name one run or more, and each of them once")
    records = [run_files.read_record(folder) for folder in folders]
    threat = common_threat(records, eps, norm)
    threat.check(torch.empty(1, *records[0].shape))
    sets: dict[str, Data] = {}
    cases = []
    for run, folder, record in zip(runs, folders, records, strict=True):
        kind = repr(
            (data or record.data, record.classes, record.shape, record.image_size, record.resize, record.subset)
        )
        test = sets.setdefault(kind, sets.get(kind) or load_test(folder, record, data))
        split, index = sample(test.test, limit, seed)
        if not len(split):
            raise ValueError(f"{test.name} has no test images: give other --data")
        refuse_seen(folder, test, split)
        results = _results(folder, record, folders, threat, data, out)
        x = split.images.to(device).float() / 255
        x = x.double() if precision == "fp64" else x
        net = run_files.load(folder, models.get(str(run))).to(device)
        case = Case(
            name=_name(folder, folders), model=blocked(net, x, precision), x=x, y=split.labels.to(device),
            index=index, threat=threat, seed=seed, folder=folder, results=results, data=data or record.data,
        )  # fmt: skip
        cases.append(case)
    return cases


def _name(folder: Path, folders: Sequence[Path]) -> str:
    """The folder's own name, where no other run has it too."""
    alike = [other for other in folders if other.name == folder.name]
    return folder.name if len(alike) == 1 and folder.name else str(folder)


def _results(
    folder: Path, record: run_files.Record, folders: Sequence[Path], threat: Threat, data: str | None, out: Path | None
) -> Path:
    """Where a run's diagnostics go: into its directory, but beside it what was not asked at its own threat and data.

    Raises:
        ValueError: there is no other place.
    """
    own = record.trained_against(threat.norm, threat.eps)
    if own and data in (None, record.data):
        return folder
    if out is None:
        name = "other-data" if own else f"{threat.norm}-{float(threat.eps):.4g}"
        what = f"on {record.data}" if own or record.eps is None else f"against {record.norm} eps {radius(record.eps)}"
        raise ValueError(
            f"{folder} was trained {what}, so these diagnostics do not belong in its directory: "
            f"give --out, such as {folder / name}"
        )
    return out / _name(folder, folders).strip("/").replace("/", "-")


def common_threat(records: Sequence[run_files.Record], eps: Eps | None, norm: Norm | None) -> Threat:
    """The threat given, or else the one that all runs which were trained against any share.

    Raises:
        ValueError: there is none, or there are several.
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
    """See that what is compared image by image is shown the same images, with the same labels.

    Raises:
        ValueError: it is not.
    """
    first = cases[0]
    for case in cases[1:]:
        if not (torch.equal(first.x, case.x) and torch.equal(first.y, case.y)):
            raise ValueError(
                f"{first.name} and {case.name} are tested on different images or number the classes differently, so "
                "no image can be transferred between them: give one data set (--data), or diagnose them one by one"
            )
