"""The run directory: the files that say what a run was and what came out of it, readable without toughen."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import MISSING, asdict, dataclass
from pathlib import Path
from typing import Any, get_type_hints

import torch
from torch import Tensor, nn

from toughen import models
from toughen.core.types import Real
from toughen.runs.files import read_json, read_tensors, write_json, write_tensors, write_text
from toughen.utils.net_names import TYPED
from toughen.utils.paths import did_you_mean
from toughen.utils.type_hints import first_mismatch

WEIGHTS, RECORD, SEEN = "model.safetensors", "model.json", "training-images.safetensors"
METRICS = "metrics.jsonl"
_CONFIG = "config.yaml"  # the first file of a run
_WEIGHTS = {".safetensors", ".pth", ".pt", ".bin", ".ckpt"}  # endings of files of weights
# timm's settings of where weights come from
ELSEWHERE = ("pretrained", "pretrained_cfg", "pretrained_cfg_overlay", "checkpoint_path", "cache_dir")


@dataclass(frozen=True, kw_only=True)
class Record:
    """What a run's weights are and how to use them; `model.json`.

    Attributes:
        model: the net's name and plain settings, as ``toughen.models.describe`` gives them.
        classes: class names, in the order of the logits.
        shape: [c, h, w] of the images.
        norm, eps: the threat that the run is validated and evaluated at; eps is None for training without one.
        method: the method's class name.
        data: what was trained on, as it was named.
        weights: "live" or "averaged".
        epoch: the epoch, from 0, whose weights these are.
        validation: accuracies on the validation images at that epoch, 0..1.
        image_size: what images were resized and cropped to, in pixels; None where they were left as they are.
        resize: what the shorter side was resized to before; None for ``image_size``.
        subset: whether ``classes`` are only some of the data set's.
        from_hub: whether ``data`` is the name of a set on the hub, and not of a local folder.
        adaptive: how the method's own objective is attacked, as ``toughen.attacks.Adaptive`` takes it; None for none.
    """

    model: dict[str, Any]
    classes: list[str]
    shape: list[int]
    norm: str
    eps: float | None
    method: str
    data: str
    weights: str
    epoch: int
    validation: dict[str, float]
    image_size: int | None = None
    resize: int | None = None
    subset: bool = False
    from_hub: bool = False
    adaptive: dict[str, Any] | None = None

    def trained_against(self, norm: str, eps: Real) -> bool:
        """Whether a threat is the one that was trained against; every threat is where there was none."""
        return self.eps is None or (norm == self.norm and float(eps) == self.eps)


def valid_record(fields: Any) -> Record:
    """A record out of what a file holds, which anyone may have changed.

    Raises:
        ValueError: it is not what toughen writes there.
    """
    hints = get_type_hints(Record)
    required = {name for name, field in Record.__dataclass_fields__.items() if field.default is MISSING}
    if not isinstance(fields, dict) or not required <= fields.keys() <= hints.keys():
        raise ValueError("its fields are not those of a run")
    wrong = first_mismatch(fields, {name: hint for name, hint in hints.items() if name in fields})
    if wrong is None and not isinstance(fields["model"].get("settings"), dict):
        wrong = "model"
    if wrong is None and len(fields["shape"]) != 3:
        wrong = "shape"
    if wrong is None and fields["norm"] not in ("linf", "l2"):
        wrong = "norm"
    if wrong is not None:
        raise ValueError(f"{wrong} is not what toughen writes there")
    return Record(**fields)


def write_model(folder: Path, record: Record, model: nn.Module) -> None:
    """Write the weights and what they are; the record is in both files, so that a kill between them is noticed."""
    write_tensors(folder / WEIGHTS, model.state_dict(), asdict(record))
    write_json(folder / RECORD, asdict(record))


def read_record(folder: Path) -> Record:
    """What a run's weights are.

    Raises:
        ValueError: the folder is no run directory, or its record is damaged.
    """
    if folder.is_file():
        raise ValueError(no_run(folder))
    if not folder.is_dir():
        raise ValueError(
            f"there is no run directory {folder}: {did_you_mean(folder) or _function(folder)}name one that `toughen "
            "train` wrote"
        )
    for name in (RECORD, WEIGHTS):
        if not (folder / name).is_file():
            begun = "its first epoch has not ended: repeat the command that started it, with --resume"
            other = "it is not a run directory: name one that `toughen train` wrote"
            raise ValueError(f"{folder} has no {name}: {begun if (folder / _CONFIG).is_file() else other}")
    fields = read_json(folder / RECORD)
    try:
        return valid_record(fields)
    except ValueError as error:
        raise ValueError(f"{folder / RECORD} is damaged ({error}): restore it from a copy, or train again") from None


def _function(folder: Path) -> str:
    """For a message: the import path of a net that may have been meant, "" for none."""
    place, _, name = str(folder).rpartition(".")
    return f"did you mean the function {place}:{name}? Else " if TYPED.fullmatch(f"{place}:{name}") else ""


def no_run(path: Path) -> str:
    """What to do with a file that was named in place of a run directory."""
    if (path.parent / RECORD).is_file():
        return f"{path} is a file of a run: name its folder, {path.parent}"
    advice = "name the folder that `toughen train` wrote"
    if path.suffix in _WEIGHTS:
        advice = f"to evaluate weights, name their net: `toughen evaluate package.module:function --weights {path}`"
    return f"{path} is a file, not a run directory: {advice}"


def load(run: str | Path, model: nn.Module | None = None) -> nn.Module:
    """A trained classifier: takes images in [0, 1], returns logits, in evaluation mode, normalisation inside.

    Args:
        run: a run directory.
        model: the net to put the weights into; needed only for a net of your own, which no file of a run may import.

    Raises:
        ValueError: the folder is no run directory, a file in it is damaged, or the weights belong to another net.
    """
    folder = Path(run)
    record = read_record(folder)
    net = models.from_description(record.model) if model is None else model
    tensors, about = read_tensors(folder / WEIGHTS)
    if not _same(about, record):
        raise ValueError(
            f"{folder / RECORD} and {WEIGHTS} do not belong together, as after a kill between the two: "
            "continue the run (`toughen train ... --resume`), or restore both from one copy"
        )
    try:
        check_kinds(net, tensors)
        net.load_state_dict(tensors)
    except (RuntimeError, ValueError) as error:
        raise ValueError(f"{folder / WEIGHTS} does not fit the net: {second_line(error)}") from None
    checked_tensors(folder / WEIGHTS, tensors)
    return net.eval()


def checked_tensors(path: Path, tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    """Tensors that are finite.

    Raises:
        ValueError: one is not.
    """
    broken = [name for name, tensor in tensors.items() if tensor.is_floating_point() and not tensor.isfinite().all()]
    if broken:
        raise ValueError(f"{path} holds NaN or infinity in {broken[0]}: use another checkpoint")
    return tensors


def check_kinds(module: nn.Module, tensors: Mapping[str, Any]) -> None:
    """See that whole numbers are put where whole numbers were, and so on: torch would convert them without a word.

    Raises:
        ValueError: a tensor is of another kind.
    """
    for name, own in module.state_dict().items():
        given = tensors.get(name)
        if isinstance(own, Tensor) and isinstance(given, Tensor) and _kind(own) != _kind(given):
            raise ValueError(f"{name} is of type {given.dtype}, and the net's of {own.dtype}")


def _kind(tensor: Tensor) -> tuple[bool, bool, bool]:
    return tensor.is_floating_point(), tensor.is_complex(), tensor.dtype == torch.bool


def _same(about: dict[str, Any], record: Record) -> bool:
    try:
        return valid_record(about) == record
    except ValueError:
        return False


def create_own(record: Record, name: str) -> nn.Module:
    """The user's own net that a run was trained with, from the import path that the user gives.

    Args:
        record: what the run's weights are.
        name: ``package.module:function`` or ``timm:NAME``, typed by the user.

    What a record tells timm of where to load weights is left out: they come from the run, and no file of a run may
    name another one.

    Raises:
        ValueError: it can't be made so.
    """
    about = record.model
    settings = {key: value for key, value in about["settings"].items() if name[:5] != "timm:" or key not in ELSEWHERE}
    for key in settings.keys() & {"name", "num_classes", "shape", "mean", "std"}:
        raise ValueError(f"{RECORD} is damaged (settings hold {key}): restore it from a copy, or train again")
    channels, height, width = record.shape
    net = (name, len(record.classes), (channels, height, width), about.get("mean"), about.get("std"))
    return models.create(*net, **settings)


def second_line(error: Exception) -> str:
    """What a message of torch's about weights says after its heading."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return lines[min(1, len(lines) - 1)][:200]


def write_history(folder: Path, history: list[dict[str, Any]]) -> None:
    """metrics.jsonl: a line an epoch."""
    write_text(folder / METRICS, _lines(history))


def read_history(folder: Path) -> list[dict[str, Any]]:
    """The lines of metrics.jsonl.

    Raises:
        ValueError: they are missing or damaged.
    """
    path = folder / METRICS
    try:
        lines = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
    except (OSError, ValueError):
        lines = []
    if not lines or not all(isinstance(line, dict) for line in lines):
        raise ValueError(f"{path} is missing or damaged: restore it from a copy, or train again")
    return lines


def holds_history(folder: Path, history: list[dict[str, Any]]) -> bool:
    """Whether metrics.jsonl has all lines."""
    path = folder / METRICS
    return path.is_file() and path.read_bytes() == _lines(history).encode()


def _lines(history: list[dict[str, Any]]) -> str:
    return "".join(json.dumps(line) + "\n" for line in history)


def write_seen(folder: Path, seen: dict[str, Tensor]) -> None:
    """Keep what tells the training images from others.

    That is "hashes" of each, so that an evaluation on training images can be refused, with those of the images that
    initial weights were trained on as "inherited"; or, of images that were streamed, the "identity" of all together.
    """
    write_tensors(folder / SEEN, seen)


def _seen(folder: Path) -> dict[str, Tensor] | None:
    if not (folder / SEEN).is_file():
        return None
    seen = read_tensors(folder / SEEN)[0]
    if len(seen.keys() & {"hashes", "identity"}) != 1:
        raise ValueError(f"{folder / SEEN} is damaged: restore it from a copy, or train again")
    return seen


def streamed(folder: Path) -> bool | None:
    """Whether a run was begun with images that stay encoded; None where none was begun."""
    seen = _seen(folder)
    return None if seen is None else "identity" in seen


def same_images(folder: Path, seen: dict[str, Tensor]) -> bool:
    """Whether a run was begun with just these training images; also true where it has no list of its images."""
    before = _seen(folder)
    return before is None or (
        before.keys() == seen.keys() and all(torch.equal(before[name], seen[name]) for name in seen)
    )


def count_seen(folder: Path, hashes: Tensor) -> int:
    """How many of these images the run was trained on; 0 where the run has no list of its images."""
    seen = seen_hashes(folder)
    return 0 if seen is None else int(torch.isin(hashes, seen).sum())


def seen_hashes(folder: Path) -> Tensor | None:
    """Of all images that a run and its initial weights were trained on; None where it has no list of its images."""
    seen = _seen(folder)
    if seen is None or "hashes" not in seen:
        return None
    return torch.cat([seen[name] for name in ("hashes", "inherited") if name in seen])
