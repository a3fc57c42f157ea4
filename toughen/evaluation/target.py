"""What is to be evaluated: a run, a model from elsewhere with its weights, or any function of images."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from toughen import data as data_sets
from toughen import models, runs
from toughen.core.threat import Threat
from toughen.core.types import Eps, Norm
from toughen.data import Data, Split
from toughen.evaluation.function_model import FunctionModel
from toughen.evaluation.images import left_unchecked, load_test, refuse_seen, sample
from toughen.evaluation.weights import load_weights
from toughen.utils.fraction import radius


@dataclass(frozen=True)
class EvaluationTarget:
    """A model and the images that it is judged by.

    Attributes:
        name: what it is called in messages and results.
        net: the model, in whatever mode it came.
        split: the test images, or a sample of them.
        index: their places in the test set.
        total: how many images the whole test set has.
        threat: norm and radius.
        data: the data set, as it was named.
        class_names: in the order of the logits; () where only numbers are known.
        folder: the run directory; None for any other model.
        about: what results say of the model besides: method, weights, epoch.
        adaptive: what the run says of its method's own objective, for the adaptive attack.
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
    """What the command line names: a run directory, ``package.module:function``, ``timm:NAME`` or a net of toughen's.

    Args:
        spec: the model.
        data: the data set; None means the one that the run was trained on.
        weights: a safetensors file, for a model from elsewhere.
        eps, norm: the threat; None means the one that was trained against.
        limit: how many test images, a stratified sample; None means all.
        seed: decides the sample.
        model: the net, for a run of a net of your own.
        image_size: bring images to so many pixels a side, for a model from elsewhere; None leaves them as they are.
        resize: with ``image_size``, bring the shorter side to so many pixels before the centre is cut out.

    Raises:
        ValueError: model, data and threat can't be used together.
    """
    if is_elsewhere(spec):
        if eps is None:
            raise ValueError(f"{spec} needs a threat: give --eps, such as 8/255 (and --norm l2 for L2)")
        test = test_images(str(spec), data, image_size, resize)
        return from_elsewhere(str(spec), test, weights, usable_threat(norm or "linf", eps), limit, seed)
    for option, given in (("--weights", weights), ("--image-size", image_size), ("--resize", resize)):
        if given is not None:
            raise ValueError(f"{spec} is a run, which has its own weights and image size: leave {option} out")
    return from_run(Path(spec), data=data, eps=eps, norm=norm, limit=limit, seed=seed, model=model)


def is_elsewhere(spec: str | Path) -> bool:
    """Whether a model is named by where it is made, and not by a run directory."""
    return (":" in str(spec) or models.knows(str(spec))) and not Path(spec).exists()


def from_run(
    folder: Path,
    *,
    data: str | None,
    eps: Eps | None,
    norm: Norm | None,
    limit: int | None,
    seed: int,
    model: nn.Module | None = None,
) -> EvaluationTarget:
    """A run's weights and the test images of the data set that it was trained on, or of another with its classes.

    Raises:
        ValueError: run, data and threat can't be used together, or the images were trained on.
    """
    record = runs.read_record(folder)
    if eps is None and record.eps is not None and norm not in (None, record.norm):
        raise ValueError(
            f"{folder} was trained against {record.norm} eps {radius(record.eps)}: give --eps for {norm}, too"
        )
    eps = record.eps if eps is None else eps
    if eps is None:
        raise ValueError(f"{folder} was trained without a threat: give one, such as --eps 8/255")
    threat = usable_threat(norm or ("l2" if record.norm == "l2" else "linf"), eps)
    net = runs.load(folder, model)
    test = load_test(folder, record, data)
    split, index = sample(test.test, limit, seed)
    refuse_seen(folder, test, split)
    about = {"weights": record.weights, "epoch": record.epoch, "method": record.method, **left_unchecked(folder)}
    named, total = data or record.data, len(test.test)
    names, off = tuple(record.classes), test.split_off
    return EvaluationTarget(
        str(folder), net, split, index, total, threat, named, names, folder, about, record.adaptive, off
    )


def test_images(spec: str, data: str | None, image_size: int | None, resize: int | None) -> Data:
    """The data set that a model from elsewhere is judged by, as it was named.

    Raises:
        ValueError: none was named, or it can't be read.
    """
    if data is None:
        raise ValueError(f"{spec} needs images to be evaluated on: give --data, a folder or a data set's name")
    if resize is not None and (image_size is None or resize < image_size):
        raise ValueError(f"--resize {resize} needs an --image-size of at most that, such as 224, to crop to")
    images = data_sets.load_test(data, image_size=image_size, resize=resize)
    return replace(images, name=data)


def from_elsewhere(
    spec: str, test: Data, weights: str | None, threat: Threat, limit: int | None, seed: int
) -> EvaluationTarget:
    """A model of ``package.module:function``, ``timm:NAME`` or toughen's, on the test images of a data set.

    Raises:
        ValueError: it can't be made, or the weights don't fit it.
    """
    if weights is None and models.knows(spec):
        raise ValueError(f"{spec} has no weights of its own: give --weights FILE, or a run directory in its place")
    fetched = spec.startswith("timm:") and weights is None
    make = models.pretrained if fetched else models.create
    net = make(spec.removeprefix("timm:") if fetched else spec, len(test.classes), test.shape)
    loaded = None if weights is None else load_weights(net, Path(weights))
    net.eval()  # it has just been made, so the mode that it is in was nobody's choice
    split, index = sample(test.test, limit, seed)
    about = {"weights": loaded or ("pretrained" if fetched else "as made")}
    total, off = len(test.test), test.split_off
    return EvaluationTarget(spec, net, split, index, total, threat, test.name, test.classes, about=about, split_off=off)


def from_function(
    model: nn.Module | Callable[[Tensor], Any],
    data: str | Data | Split | tuple[Tensor, Tensor],
    *,
    eps: Eps,
    norm: Norm,
    limit: int | None,
    seed: int,
) -> EvaluationTarget:
    """Any model that PyTorch can call, on images given in any way.

    Raises:
        ValueError: the images are none, or not in [0, 1], or the labels are no class numbers.
    """
    name = type(model).__name__ if isinstance(model, nn.Module) else getattr(model, "__name__", "function")
    if isinstance(data, str):
        data = data_sets.load(data)
    named, names = (data.name, data.classes) if isinstance(data, Data) else ("", ())
    given = data.test if isinstance(data, Data) else data
    if isinstance(given, tuple | list):
        if len(given) != 2:
            raise ValueError(f"data is a {type(given).__name__} of {len(given)}: give (images, labels)")
        test = Split(*checked(*given))
    elif isinstance(given, Split):
        test = Split(*checked(given.images, given.labels))
    else:
        raise ValueError(
            f"data is {type(given).__name__}: give (images, labels), a Split, a Data, or a data set's name"
        )
    net = model if isinstance(model, nn.Module) else FunctionModel(model).to(test.images.device)
    split, index = sample(test, limit, seed)
    named = named or f"{len(test):,} images"
    return EvaluationTarget(name, net, split, index, len(test), usable_threat(norm, eps), named, names)


def checked(images: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
    """Images, bytes or float32 in [0, 1], and labels, as an evaluation takes them.

    Raises:
        ValueError: they are of another kind, or there are none.
    """
    for name, given in (("images", images), ("labels", labels)):
        if not isinstance(given, Tensor):
            raise ValueError(f"{name} are {type(given).__name__}: give tensors, such as torch.as_tensor({name})")
    if images.ndim != 4 or not len(images):
        raise ValueError(f"images have shape {list(images.shape)}: give some, [n, channels, rows, columns]")
    if images.dtype != torch.uint8:
        low, high = float(images.min()), float(images.max())
        if not images.is_floating_point() or not (low >= 0 and high <= 1):
            raise ValueError(f"images are {images.dtype} from {low:g} to {high:g}: give bytes, or floats in [0, 1]")
    numbers = not (labels.is_floating_point() or labels.is_complex() or labels.dtype == torch.bool)
    if not numbers or labels.shape != images.shape[:1]:
        raise ValueError(
            f"labels are {labels.dtype} of shape {list(labels.shape)} for {len(images)} images: "
            "give one class number per image"
        )
    if len(labels) and int(labels.min()) < 0:
        raise ValueError(f"labels go down to {int(labels.min())}: number the classes from 0")
    return images if images.dtype == torch.uint8 else images.float(), labels.long()


def usable_threat(norm: Norm, eps: Eps) -> Threat:
    """A threat that leaves something to withstand.

    Raises:
        ValueError: eps is 0, or none that the norm admits.
    """
    if not isinstance(eps, int | float):
        raise ValueError(f"eps is {eps!r}: give a number, such as 8 / 255")
    if eps == 0:
        raise ValueError("eps 0 allows no change of the image: give a radius above 0, such as --eps 8/255")
    return Threat(norm, eps)
