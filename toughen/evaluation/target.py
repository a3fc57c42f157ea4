"""What is evaluated: a run, another model with its weights, or any function, with images and a threat."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from toughen import data as data_sets
from toughen import models, runs
from toughen.core.threat import Threat
from toughen.core.types import Eps, Norm
from toughen.data import Data, Split
from toughen.evaluation.images import left_unchecked, load_test, matched_by_order, refuse_seen, sample
from toughen.runs.files import sha256
from toughen.runs.loading import is_exported, load, read_record
from toughen.runs.weights_file import load_into, read_weights
from toughen.utils.units import format_radius


@dataclass(frozen=True)
class EvaluationTarget:
    """A model, and the images and the threat that it is evaluated with.

    Attributes:
        name: the model's name in messages and results.
        net: the model, in any mode.
        split: the test images, or a sample of them.
        index: [n], their positions in the test set.
        total: how many images the whole test set has.
        threat: norm and radius.
        data: the data set, as it was named.
        class_names: in the order of the logits; () where only numbers are known.
        folder: the run directory; None for any other model.
        weights: the SHA-256 hash of the run's weights' file; "" for any other model.
        about: further fields of the results: method, weights, epoch.
        adaptive: settings of the adaptive attack, from the run's model.json.
        split_off: as in ``Data``.
    """

    name: str
    net: nn.Module
    split: Split
    index: Tensor
    total: int
    threat: Threat
    data: str
    class_names: tuple[str, ...] = ()
    folder: Path | None = None
    weights: str = ""
    about: Mapping[str, Any] = field(default_factory=dict)
    adaptive: Mapping[str, Any] | None = None
    split_off: int = 0


def find_target(
    spec: str | Path,
    *,
    data: str | None = None,
    weights: str | None = None,
    eps: Eps | None = None,
    norm: Norm | None = None,
    limit: int | None = None,
    seed: int = 0,
    model: nn.Module | None = None,
    image_size: int | None = None,
    resize: int | None = None,
) -> EvaluationTarget:
    """The target that the command line names.

    Args:
        spec: a run directory; an exported safetensors file, or hf://user/name; ``package.module:function``,
            ``timm:NAME`` or a net of toughen's.
        data: the data set; None means the one that the run was trained on.
        weights: a safetensors file, for a model that is no run.
        eps, norm: the threat; None means the one that was trained against.
        limit: use a stratified sample of this many test images; None means all.
        seed: of the sample.
        model: the net, for a run of a net of your own.
        image_size: resize images to this height and width in pixels, for a model that is no run; None: don't resize.
        resize: with ``image_size``, first resize the shorter side to this many pixels, then crop the centre.

    Raises:
        ValueError: model, data and threat can't be used together.
    """
    exported = is_exported(spec)
    if is_elsewhere(spec) and not exported:
        if eps is None:
            raise ValueError(f"{spec} needs a threat: give --eps, such as 8/255 (and --norm l2 for L2)")
        test = test_images(str(spec), data, image_size, resize)
        return from_spec(str(spec), test, weights, usable_threat(norm or "linf", eps), limit, seed)
    what = "an exported model" if exported else "a run"
    for option, value in (("--weights", weights), ("--image-size", image_size), ("--resize", resize)):
        if value is not None and Path(spec).exists():
            raise ValueError(f"{spec} is {what}, which has its own weights and image size: leave {option} out")
    return from_run(spec, data=data, eps=eps, norm=norm, limit=limit, seed=seed, model=model)


def is_elsewhere(spec: str | Path) -> bool:
    """Whether ``spec`` names no run directory, but an exported model, a function or a net of timm's or toughen's."""
    return is_exported(spec) or ((":" in str(spec) or models.knows(str(spec))) and not Path(spec).exists())


def check_norm(spec: str | Path, record: runs.Record, eps: Eps | None, norm: str | None) -> None:
    """Check that a run's radius is not used in another norm.

    Args:
        spec: the run, for the message.
        record: its record.
        eps, norm: the threat as it was given; None for what the run was trained against.

    Raises:
        ValueError: there is a norm, and no radius for it.
    """
    if eps is None and record.eps is not None and norm not in (None, record.norm):
        raise ValueError(
            f"{spec} was trained against {record.norm} eps {format_radius(record.eps)}: give --eps for {norm}, too"
        )


def from_run(
    spec: str | Path,
    *,
    data: str | None,
    eps: Eps | None,
    norm: Norm | None,
    limit: int | None,
    seed: int,
    model: nn.Module | None = None,
) -> EvaluationTarget:
    """A run, or its exported model, with the test images of its data set or of another with the same classes.

    The arguments are those of ``find_target``.

    Raises:
        ValueError: run, data and threat can't be used together, or the run was trained on the images.
    """
    record = read_record(spec)
    check_norm(spec, record, eps, norm)
    eps = record.eps if eps is None else eps
    if eps is None:
        raise ValueError(f"{spec} was trained without a threat: give one, such as --eps 8/255")
    threat = usable_threat(norm or ("l2" if record.norm == "l2" else "linf"), eps)
    net = load(spec, model)
    folder = None if is_exported(spec) else Path(spec)
    weights = "" if folder is None else sha256(folder / runs.WEIGHTS)
    test = load_test(spec, record, data)
    split, index = sample(test.test, limit, seed)
    about = {"weights": record.weights, "epoch": record.epoch, "method": record.method, **left_unchecked(folder)}
    about |= matched_by_order(tuple(record.classes), test.classes)
    if folder is not None:
        about |= refuse_seen(folder, test, split)
    return EvaluationTarget(
        name=str(spec),
        net=net,
        split=split,
        index=index,
        total=len(test.test),
        threat=threat,
        data=data or record.data,
        class_names=tuple(record.classes),
        folder=folder,
        weights=weights,
        about=about,
        adaptive=record.adaptive,
        split_off=test.split_off,
    )


def test_images(spec: str, data: str | None, image_size: int | None, resize: int | None) -> Data:
    """The data set for a model that is no run.

    Raises:
        ValueError: none was named, it can't be read, or ``resize`` does not fit ``image_size``.
    """
    if data is None:
        raise ValueError(f"{spec} needs images to be evaluated on: give --data, a folder or a data set's name")
    if resize is not None and (image_size is None or resize < image_size):
        raise ValueError(f"--resize {resize} needs an --image-size of at most that, such as 224, to crop to")
    images = data_sets.load_test(data, image_size=image_size, resize=resize)
    return replace(images, name=data)


def from_spec(
    spec: str, test: Data, weights: str | None, threat: Threat, limit: int | None, seed: int
) -> EvaluationTarget:
    """A model named ``package.module:function``, ``timm:NAME`` or like a net of toughen's, on a data set's test images.

    Raises:
        ValueError: it can't be made, or the weights don't fit it.
    """
    if weights is None and models.knows(spec):
        raise ValueError(f"{spec} has no weights of its own: give --weights FILE, or a run directory in its place")
    pretrained = spec.startswith("timm:") and weights is None
    make = models.pretrained if pretrained else models.create
    net = make(spec.removeprefix("timm:") if pretrained else spec, len(test.classes), test.shape)
    loaded = None if weights is None else load_weights(net, Path(weights))
    net.eval()  # a new model is in training mode, but not because the user chose it
    split, index = sample(test.test, limit, seed)
    return EvaluationTarget(
        name=spec,
        net=net,
        split=split,
        index=index,
        total=len(test.test),
        threat=threat,
        data=test.name,
        class_names=test.classes,
        about={"weights": loaded or ("pretrained" if pretrained else "as made")},
        split_off=test.split_off,
    )


def load_weights(net: nn.Module, path: Path) -> str:
    """Load the tensors of a .safetensors or .pth file into a model; nothing in the file is executed.

    Returns:
        The file's name, and which of its contents were left out.

    Raises:
        ValueError: there is no such file, it has another format, or it belongs to another model.
    """
    weights = read_weights(path)
    try:
        load_into(net, weights.tensors)
    except ValueError as error:
        raise ValueError(f"{path} does not fit the model: {error}") from None
    return f"{path}, without {', '.join(weights.more)}" if weights.more else str(path)


def usable_threat(norm: Norm, eps: Eps) -> Threat:
    """A threat with a radius above 0.

    Raises:
        ValueError: eps is not a number, is 0, or is not valid for the norm.
    """
    if not isinstance(eps, int | float):
        raise ValueError(f"eps is {eps!r}: give a number, such as 8 / 255")
    if eps == 0:
        raise ValueError("eps 0 allows no change of the image: give a radius above 0, such as --eps 8/255")
    return Threat(norm, eps)
