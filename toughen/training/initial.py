"""Initial weights of a run: those of another run, of a file or of a model on the hub."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

from torch import Tensor, nn

from toughen import runs
from toughen.models.external import data_configuration
from toughen.models.layers import head_of
from toughen.models.normalize import parts_of
from toughen.runs.directory import checked_tensors, valid_record
from toughen.runs.files import read_tensors
from toughen.runs.repository import SCHEME, fetch
from toughen.runs.weights_file import find_mismatch, read_weights, without_wrapper_names
from toughen.utils.paths import expanded
from toughen.utils.plural import count, some
from toughen.utils.units import format_radius

Statistics = tuple[Sequence[float] | None, Sequence[float] | None]


@dataclass(frozen=True)
class Initial:
    """Weights to begin with.

    Attributes:
        source: where they come from, as it was named.
        tensors: by their names in the net, without its normalisation.
        statistics: mean and std that the net was trained with; None where the file doesn't say.
        record: what toughen says of them; None for a file from elsewhere.
        more: what else the file holds, which is left out.
        seen: hashes of the images that they were trained on; None where they are not known.
    """

    source: str
    tensors: Mapping[str, Tensor]
    statistics: Statistics | None
    record: runs.Record | None
    more: Sequence[str] = ()
    seen: Tensor | None = None


def read_initial(spec: str) -> Initial:
    """The weights that ``init`` names: a run directory, a file, or a model of the hub.

    Raises:
        ValueError: there are none.
    """
    record: runs.Record | None = None
    path = fetch(spec) if spec.startswith(SCHEME) else expanded(Path(spec))
    if path.is_dir():
        record = runs.read_record(path)
        tensors = without_wrapper_names(read_tensors(path / runs.WEIGHTS)[0])
        more: Sequence[str] = ()
    else:
        tensors, about, more = read_weights(path)
        with suppress(ValueError):
            record = valid_record(dict(about))
    checked_tensors(path, tensors)
    mean, std = tensors.pop("normalize.mean", None), tensors.pop("normalize.std", None)
    statistics: Statistics | None = None
    if mean is not None and std is not None:
        statistics = mean.tolist(), std.tolist()
    elif record is not None:
        statistics = record.model.get("mean"), record.model.get("std")
    seen = runs.seen_hashes(path) if path.is_dir() else None
    return Initial(spec, tensors, statistics, record, more, seen)


class TrainedOn(NamedTuple):
    """The images that weights were trained on, as far as it is known.

    Attributes:
        size: rows and columns.
        statistics: mean and std.
    """

    size: int | None = None
    statistics: Statistics | None = None


def trained_on(initial: Initial, net: str, settings: Mapping[str, Any]) -> TrainedOn:
    """What the run or the file says of its images, or else timm's configuration of the net.

    Args:
        initial: the weights.
        net, settings: the net's name and its settings.

    Raises:
        ValueError: timm is missing, or does not know the net or its images.
    """
    if initial.record is not None:
        _, rows, columns = initial.record.shape
        unchanged = rows if rows == columns else None  # images that were of one size; others keep their own
        return TrainedOn(initial.record.image_size or unchanged, initial.statistics)
    if not net.startswith("timm:"):
        return TrainedOn(None, initial.statistics)
    known, size = data_configuration(net.removeprefix("timm:")), settings.get("img_size")
    return TrainedOn(size if isinstance(size, int) else known.size, initial.statistics or (known.mean, known.std))


def statistics(initial: Initial, images: TrainedOn, channels: int) -> Statistics | None:
    """Mean and std that the weights were trained with; None where they are not known.

    Args:
        initial: the weights.
        images: that they were trained on.
        channels: of the images to train on.

    Raises:
        ValueError: the weights are known to be for images with another number of channels.
    """
    if initial.statistics is not None:
        mean = initial.statistics[0]
        if mean is not None and len(mean) != channels:
            raise ValueError(
                f"--init {initial.source} was trained on images with {count(len(mean), 'channel')}, and these have "
                f"{channels}: give other --data"
            )
        return initial.statistics
    known = images.statistics  # timm's, for colour images
    return known if known is not None and known[0] is not None and len(known[0]) == channels else None


def load_into(initial: Initial, model: nn.Module, net_name: str, classes: Sequence[str]) -> str:
    """Load the weights into a model, except the last layer where the classes differ.

    Args:
        initial: the weights.
        model: as ``toughen.models.create`` makes it; changed in place.
        net_name: the net's name in messages.
        classes: of the images that it is for.

    Returns:
        A message on what was loaded.

    Raises:
        ValueError: the weights are another net's.
    """
    _, net = parts_of(model)
    full, given = net.state_dict(), dict(initial.tensors)
    own = without_wrapper_names(full)
    head = head_of(net, len(classes))
    in_head = [short for short, name in zip(own, full, strict=True) if head and name.startswith(f"{head}.")]
    known = None if initial.record is None else initial.record.classes
    is_new = known != list(classes) if known is not None else False
    is_new |= any(name in given and given[name].shape != own[name].shape for name in in_head)
    if is_new:
        given |= {name: own[name] for name in in_head}
    if fault := find_mismatch(own, given, dict(zip(own, full, strict=True))):
        raise ValueError(f"--init {initial.source} does not fit {net_name}: {fault}; name its --model and its settings")
    net.load_state_dict({name: given.get(short, full[name]) for short, name in zip(own, full, strict=True)})
    return describe(initial, head if is_new else "", list(classes))


def describe(initial: Initial, new_head: str, classes: list[str]) -> str:
    """A message on the initial weights, and on the last layer where it is new."""
    sentence = f"initial weights: those of {initial.source}"
    if initial.record is not None and initial.record.eps is not None:
        sentence += f" ({initial.record.method}, {initial.record.norm} eps {format_radius(initial.record.eps)})"
    if new_head:
        known = None if initial.record is None else initial.record.classes
        before = "" if known is None else f" instead of {some(known)}"
        why = "because its shape is different" if known == classes else f"for {len(classes)} classes{before}"
        sentence += f"; the last layer, {new_head}, is new, {why}"
    if initial.more:
        sentence += f"; the rest of the file ({some(initial.more)}) is not used"
    return sentence
