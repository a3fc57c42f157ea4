"""The default recipe, chosen for the images.

docs/explanation/defaults.md has the reasons, and the measurements behind them.
"""

from __future__ import annotations

from collections.abc import Collection
from importlib import import_module
from typing import Any, Literal

from toughen import data as data_sets
from toughen import models
from toughen.core.types import Eps, Norm
from toughen.data.ingest import Outline
from toughen.engine.device import pick_device
from toughen.training.recipe import Recipe, data_image_size
from toughen.utils.units import scale_radius

SMALL_GREY = 32  # rows and columns up to which grey images need no ResNet
SMALL = 64  # up to which images keep all their pixels in a ResNet's first stage
WIDTH = 16  # channels of a ResNet-18's first stage on a CPU, where 64 would take twelve times as long
FEW_CLASSES = 20  # up to which the nuclear norm of a batch's logits guides well
VISITS = 90_000  # images times epochs, for sets that are neither small nor large
EPOCHS = (30, 60)  # of large sets and of small ones
LOOKS = 20  # validations of a run, about
BATCH = 64  # images per step, as NuAT's weight was found with
LARGE, LARGE_BATCH = 100_000, 128
EPS_WARMUP = 0.3  # share of the run over which eps grows for PGD-AT, which else stays near chance for long
STEPS, SMALLEST_BATCH = 8, 8  # an epoch has so many steps at least, unless the batch would be smaller than this


def default_recipe(data: str, *, eps: Eps | None = None, norm: Norm = "linf", **settings: Any) -> Recipe:
    """The recipe that `toughen train --data DATA --eps EPS` takes, with the method that it chooses.

    Args:
        data: a folder, or a data set's name.
        eps: radius of the threat in image units, such as 8/255.
        norm: norm of the threat.
        settings: other fields of the recipe, each in place of what is chosen.

    Raises:
        FileNotFoundError: there are no such data.
        ValueError: a setting is missing or makes no sense.
    """
    names = ("classes", "image_size", "device", "epochs", "model")
    given = {name: settings[name] for name in names if name in settings}
    methods = {type(each).__name__ for each in settings["method"].modules()} if "method" in settings else ()
    fields = {**for_data(data, **given, methods=methods), **settings}
    for name in ("method", "optimizer", "schedule"):
        if name not in settings:
            radius = None if eps is None else scale_radius(eps, settings.get("eps_factor", 1.0))
            threat: dict[str, Any] = {"eps": radius, "norm": norm} if name == "method" else {}
            fields[name] = _instance(**fields[name], **threat)
    return Recipe(data=data, eps=eps, norm=norm, **fields)


def _instance(*, class_path: str, init_args: dict[str, Any] | None = None, **more: Any) -> Any:
    module, _, name = class_path.rpartition(".")
    return getattr(import_module(module), name)(**(init_args or {}), **more)


def for_data(
    data: str,
    *,
    classes: str | None = None,
    image_size: int | Literal["keep"] | None = None,
    device: str = "auto",
    epochs: int | None = None,
    model: str | None = None,
    methods: Collection[str] = (),
) -> dict[str, Any]:
    """``chosen`` for a folder or a data set's name, given these fields of a recipe.

    Args:
        data, classes, image_size, device, epochs, model: as in a recipe.
        methods: names of the classes of its method and of those in it.

    Raises:
        FileNotFoundError, ValueError: the data cannot be used as it is.
    """
    outline = data_sets.peek(data, classes=classes, image_size=data_image_size(image_size))
    fields = chosen(outline, pick_device(device).type, epochs, methods)
    if model is not None:
        fields["model"] = model
        fields.pop("model_settings", None)
        stem = stem_for(outline.shape)
        if stem == "imagenet" and models.takes(model, "stem"):  # the other stem would take sixteen times as long
            fields["model_settings"] = {"stem": stem}
    return fields


def chosen(outline: Outline, device: str, length: int | None = None, methods: Collection[str] = ()) -> dict[str, Any]:
    """A recipe for a set, as a YAML file would hold it.

    Args:
        outline: what the set is like, with the image size that the user gives, if any.
        device: the type of the device, such as "cpu".
        length: epochs, where the user gives them.
        methods: names of the classes of the method that the user gives, and of those in it.
    """
    net_settings = net(outline.shape, device)
    length = length or epochs(outline.train)
    lr = 0.1 if net_settings["model"] == "resnet18" else 0.05
    return {
        **net_settings,
        "method": {"class_path": f"toughen.methods.{method(len(outline.classes))}"},
        "eps_warmup": EPS_WARMUP if "PGDAT" in methods else 0.0,
        "epochs": length,
        "validation_every": max(1, round(length / LOOKS)),
        "batch_size": batch_size(outline.train),
        "optimizer": {"class_path": "toughen.training.SGD", "init_args": {"lr": lr, "weight_decay": 5e-4}},
        "schedule": {"class_path": "toughen.training.Cyclic", "init_args": {"peak": 0.25}},
        "averaging": 0.9998,
    }


def method(classes: int) -> Literal["NuAT", "PGI"]:
    """NuAT, which falls far behind with a hundred classes; PGI, which does not, where there are many."""
    return "NuAT" if classes <= FEW_CLASSES else "PGI"


def net(shape: tuple[int, int, int], device: str) -> dict[str, Any]:
    """The net for images of [c, h, w]: a small one for small grey images, else ResNet-18 with a stem to their size."""
    channels, *sides = shape
    if channels == 1 and max(sides) <= SMALL_GREY:
        return {"model": "fbf-mnist-cnn"}
    width = WIDTH if device == "cpu" else 64
    return {"model": "resnet18", "model_settings": {"stem": stem_for(shape), "width": width}}


def stem_for(shape: tuple[int, int, int]) -> Literal["cifar", "imagenet"]:
    """The first layers of a ResNet for images of [c, h, w]; those for large images reduce them at once."""
    return "cifar" if max(shape[1:]) <= SMALL else "imagenet"


def epochs(images: int) -> int:
    """Passes over so many training images: more over few of them."""
    least, most = EPOCHS
    return max(least, min(most, VISITS // max(1, images)))


def batch_size(images: int) -> int:
    """Images per step."""
    size = LARGE_BATCH if images >= LARGE else BATCH
    while size > SMALLEST_BATCH and images < STEPS * size:
        size //= 2
    return size
