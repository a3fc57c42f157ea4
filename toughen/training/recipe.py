"""The settings of a training run: every field is a key in a recipe and an option of ``toughen train``."""

from __future__ import annotations

import math
import re
from dataclasses import dataclass, field
from functools import cache
from typing import Any, Literal, get_type_hints

from toughen.attacks.base import threat_of
from toughen.core.threat import Threat
from toughen.core.types import Eps, Norm, Real
from toughen.data.common_size import ImageSize
from toughen.methods.base import Method
from toughen.methods.hybrid import Hybrid
from toughen.training.collapse import Watching
from toughen.training.compiled import Compiling
from toughen.training.fine_tuning import Frozen, check_settings
from toughen.training.optimizers import SGD, Optimizer
from toughen.training.schedules import Cyclic, Schedule
from toughen.utils.type_hints import description, matches
from toughen.utils.units import CLOSE, parse_duration, parse_size, scale_radius


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """The settings of a training run.

    It has one method and fixed defaults. What suits the images in their place, as `toughen train` without a recipe
    chooses it, is `toughen.training.default_recipe`.

    Attributes:
        data: a folder of parquet shards or of class-named image folders, or a data set's name (`toughen list data`).
        classes: a file that names the classes to keep, one a line, or "imagenet100"; None keeps all.
        image_size: resize the shorter side to this many pixels and crop the centre; "keep" leaves images as they are.
            None chooses a size if sizes differ or exceed 224x224, and otherwise leaves images as they are.
        memory_limit: memory that images may take, such as 512MB; a larger data set stays encoded, and is read and
            decoded during training. None means half of the available memory, here and on the device.
        num_workers: processes that then decode images; 0: the run's own. None means one fewer than cores, up to 8.
        shuffle_buffer: size of the buffer that then shuffles a shard's images; class folders are shuffled fully.
        model: a net's name (`toughen list models`), `timm:NAME`, or `package.module:function`.
        model_settings: settings of the net by name, such as depth or width (`toughen list models`).
        init: initial weights, instead of random ones: a run directory, a .safetensors or .pth file, or
            hf://user/name. Their normalisation is used, too; the last layer is new if the classes differ.
        frozen: how many of the net's layers keep their weights, counted from the images; "backbone" is all but the
            last one. Their batch norms keep their statistics, too.
        layer_decay: layer-wise decay of the learning rate: each layer's rate is this factor times the rate of the next
            layer; 1 gives all the same. 0.65 to 0.9 are usual for fine-tuning.
        normalize: give the net the training images' mean and standard deviation as its first layer.
        eps: radius of the threat in image units, such as 8/255; for all parts of the method that set none. Step sizes
            and starts that a recipe sets stay as they are if a command line gives another eps.
        norm: norm of the threat; for all parts of the method that set none. Where a command line gives another one,
            the recipe's step sizes and starts are left out, and the method chooses its own.
        eps_factor: the method trains on attacks of this factor times eps; validation, the watch and evaluations use
            eps itself.
        eps_warmup: share of the run over which perturbations grow linearly from zero to full size, from the first step
            that trains against the threat; at a large eps some nets do not learn without it.
        method: how to train (`toughen list methods`).
        label_smoothing: share of a label that is spread over all classes in the loss, 0..1; attacks do not use it.
        epochs: passes over the training images.
        time_budget: end within this time, such as 90s, 5m or 1h30m, with the complete schedule, instead of after
            ``epochs``; the number of steps is estimated from their time, and updated during the run.
        batch_size: images per step; an epoch's last batch may be smaller, and is left out if it is a single image.
        optimizer: how weights are updated.
        schedule: how the learning rate changes.
        averaging: share of the averaged weights kept at each step, such as 0.9998; None: no average. At step t at
            most (1 + t) / (10 + t) is kept, so that a short run's average forgets its beginning.
        crop: pixels of padding for random crops; None means 4 for colour images and 0 for grey ones. "resized" resizes
            a random part of each image, 8 to 100 % of its area, to ``image_size``, and for validation and test the
            shorter side to 256/224 of that before the centre is cropped, as is usual for ImageNet.
        padding: what the border of a crop is filled with.
        flip: mirror images left to right at random; None means yes for colour images and no for grey ones.
        transform: your own augmentation, `package.module.function`: it gets each training batch after crop and flip,
            floats in [0, 1] of shape [n, c, h, w], and returns as many. torch's, Python's and NumPy's random numbers
            are seeded for each batch.
        validation: training images held out to choose the best weights, from each class in proportion; None means a
            tenth of them, at most 1,000.
        validation_steps: steps of the PGD that chooses them.
        validation_every: validate every so many epochs, from the first epoch on, and after the last one.
        weights: which are kept: "best", of the epoch with the best accuracy under that PGD (clean accuracy without a
            threat; the last without validation), or "last", of the last one.
        watch: what happens if a robust model loses its accuracy under PGD (collapse): "off" nothing, "warn" a message,
            "rescue" training goes back to the last state near the best, then uses the method's rescue for some epochs.
        watch_epochs: epochs of the first rescue, at least ``validation_every``; each further one takes twice as many.
        log_every: steps between two measurements of the distance of FGSM and R-FGSM logits, the watch's signal.
        keep_at: steps (500) and epochs from 0 ("epoch 3") whose weights are kept in the run's folder "kept".
        stop_epoch: end after this many of the epochs that the schedule is laid over (early stop); None: all of them.
        precision: "fp32", "bf16" for autocast to bfloat16, "auto" for bf16 if the processor supports it; "fp64" is for
            tests.
        compile: "default" compiles the net of training steps with torch.compile, "off" does not. The first steps then
            take minutes.
        cuda_graphs: on a GPU, record a step's kernels once and replay them, where the method allows it: a small net's
            step takes longer to launch than to compute. A net whose steps differ in other ways, such as by Python's own
            random numbers, is detected and no longer replayed.
        sync_batch_norm: with several processes, batch norm uses the images of all of them, not only its own (GPUs).
        channels_last: store images and filters in torch's channels_last memory format.
        seed: of the initial weights, order, crops and noise.
        device: "cpu", "cuda" and the like; "auto" uses a GPU if there is one.
        deterministic: on a GPU, use deterministic kernels instead of the fastest; a resumed run then ends exactly as an
            uninterrupted one. On a CPU they are always deterministic.
        checkpoint_seconds: seconds between two checkpoints within an epoch; each epoch also ends with one.
        callbacks: additional callbacks: the class name of one of toughen's optional ones, `package.module.MyCallback`,
            or a list of such; created without arguments.
    """

    data: str = "mnist-5k"
    classes: str | None = None
    image_size: int | Literal["keep"] | None = None
    memory_limit: str | None = None
    num_workers: int | None = None
    shuffle_buffer: int = 4096
    model: str = "resnet18"
    model_settings: dict[str, Any] = field(default_factory=dict)
    init: str | None = None
    frozen: Frozen = 0
    layer_decay: float | int = 1.0
    normalize: bool = True
    eps: Eps | None = None
    norm: Norm = "linf"
    eps_factor: Real = 1.0
    eps_warmup: float | int = 0.0
    method: Method
    label_smoothing: Real = 0.0
    epochs: int = 30
    time_budget: str | None = None
    batch_size: int = 128
    optimizer: Optimizer = field(default_factory=SGD)
    schedule: Schedule = field(default_factory=Cyclic)
    averaging: float | None = None
    crop: int | Literal["resized"] | None = None
    padding: Literal["zero", "reflect"] = "zero"
    flip: bool | None = None
    transform: str | None = None
    validation: int | None = None
    validation_steps: int = 10
    validation_every: int = 1
    weights: Literal["best", "last"] = "best"
    watch: Watching = "rescue"
    watch_epochs: int = 1
    log_every: int = 100
    keep_at: list[int | str] = field(default_factory=list)
    stop_epoch: int | None = None
    precision: Literal["auto", "fp32", "bf16", "fp64"] = "auto"
    compile: Compiling = "off"
    cuda_graphs: bool = True
    sync_batch_norm: bool = False
    channels_last: bool = True
    seed: int = 0
    device: str = "auto"
    deterministic: bool = False
    checkpoint_seconds: float | int = 180.0
    callbacks: list[str] | str | None = None

    def __post_init__(self) -> None:
        for name, hint in _hints().items():
            if not matches(value := getattr(self, name), hint):
                raise ValueError(f"{name} is {value!r}: it must be {description(hint)}")
            if isinstance(value, float) and not math.isfinite(value):
                raise ValueError(f"{name} is {value}: give a finite number")
        if "_modules" not in vars(self.method):
            name = type(self.method).__name__
            raise ValueError(f"{name}.__init__ does not call super().__init__(): call it in its first line")
        for name in self.model_settings.keys() & {"name", "num_classes", "shape", "mean", "std"}:
            raise ValueError(f"model_settings has {name}, which is --model or comes from the images: leave it out")
        counts = "epochs batch_size validation_steps validation_every watch_epochs log_every shuffle_buffer stop_epoch"
        for name in counts.split():
            if (value := getattr(self, name)) is not None and value < 1:
                raise ValueError(f"{name} is {value}: it must be at least 1")
        if self.stop_epoch is not None and self.stop_epoch > self.epochs:
            raise ValueError(f"stop_epoch is {self.stop_epoch}: it must not exceed the {self.epochs} epochs")
        if self.budget_seconds is not None and self.stop_epoch is not None:
            raise ValueError("time_budget and stop_epoch both set the end of training: give one of them")
        _ = self.memory_bytes  # raises where it is no size
        if self.averaging is not None and not 0 <= self.averaging < 1:
            raise ValueError(f"averaging is {self.averaging}: it must be in 0..1, below 1, such as 0.9998")
        if not 0 <= self.label_smoothing < 1:
            raise ValueError(f"label_smoothing is {self.label_smoothing}: it must be a share of a label, 0..1, below 1")
        if self.label_smoothing and (own := [each for each in _with_losses(self.method) if hasattr(each, "smoothing")]):
            name = type(own[0]).__name__
            raise ValueError(f"{name} has its own smoothing (--method.smoothing): use that instead of label_smoothing")
        if self.label_smoothing and any(isinstance(each, Hybrid) for each in _with_losses(self.method)):
            raise ValueError(
                "Hybrid waits for a sudden fall of the clean loss, which label_smoothing hides: leave it at 0"
            )
        if not 0 <= self.eps_warmup < 1:
            raise ValueError(f"eps_warmup is {self.eps_warmup}: it must be a share of the run, 0..1, below 1")
        if (self.validation or 0) < 0 or self.pad < 0 or (self.num_workers or 0) < 0 or self.checkpoint_seconds < 0:
            raise ValueError("validation, crop, num_workers and checkpoint_seconds must not be below 0")
        check_settings(self.frozen, self.layer_decay, has_weights=self.init is not None or ":" in self.model)
        self._check_threat()
        if self.compile != "off" and self.method.differentiates_twice:
            raise ValueError(
                f"{type(self.method).__name__} differentiates gradients, which compiled nets cannot: use --compile off"
            )
        if self.crop == "resized":
            self._check_resized()
        if self.transform is not None and self.method.keeps_images:
            raise ValueError(
                f"{type(self.method).__name__} keeps a history of each image's pixels, which a transform may move: "
                "leave transform out, or use another method"
            )
        for moment in self.keep_at:
            if not isinstance(moment, int) and not re.fullmatch(r"epoch (0|[1-9][0-9]*)", moment):
                raise ValueError(f'keep_at holds {moment!r}: write a step such as 500, or an epoch such as "epoch 3"')

    def _check_threat(self) -> None:
        """Check that the recipe's eps and norm are those of the method: in Python nothing fills them in."""
        threat, name = self.method.threat, type(self.method).__name__
        if self.eps is None:
            if self.eps_factor != 1:
                raise ValueError(f"eps_factor is {self.eps_factor}, and there is no eps to multiply: give eps, too")
            return
        if threat is None:
            raise ValueError(f"eps is {self.eps}, and {name} trains without attacks: give a method with this eps")
        trained = scale_radius(self.eps, self.eps_factor)
        times = "" if self.eps_factor == 1 else f" (times eps_factor {self.eps_factor:g}: {trained})"
        for part in (each for each in self.method.modules() if isinstance(each, Method) and each.eps is not None):
            threat = threat_of(part)
            if not math.isclose(float(threat.eps), float(trained), rel_tol=CLOSE) or threat.norm != self.norm:
                raise ValueError(
                    f"the recipe's threat is {self.norm} eps {self.eps}{times}, that of {type(part).__name__} "
                    f"{threat.norm} eps {threat.eps}: give both the same, or leave the recipe's eps out"
                )

    @property
    def threat(self) -> Threat | None:
        """What the model is validated, watched and evaluated against; None if the method trains without attacks."""
        threat = self.method.threat
        return threat if threat is None or self.eps is None else Threat(threat.norm, self.eps)

    def _check_resized(self) -> None:
        if not isinstance(self.image_size, int):
            raise ValueError("crop resized needs a size: add --image-size, such as 224")
        if self.method.keeps_images:
            raise ValueError(
                f"{type(self.method).__name__} keeps a history of each image's pixels, which resized "
                "crops do not fit: use --crop 4, or another method"
            )

    @property
    def budget_seconds(self) -> float | None:
        """The time budget in seconds.

        Raises:
            ValueError: it is no time.
        """
        return None if self.time_budget is None else parse_duration(self.time_budget)

    @property
    def memory_bytes(self) -> int | None:
        """The memory limit in bytes.

        Raises:
            ValueError: it is no size.
        """
        return None if self.memory_limit is None else parse_size(self.memory_limit)

    @property
    def pad(self) -> int:
        """Pixels of padding for random crops, where the recipe gives them."""
        return self.crop if isinstance(self.crop, int) else 0

    @property
    def resize(self) -> int | None:
        """What the shorter side of a validation or test image is resized to, where that is not ``image_size``."""
        if self.crop != "resized" or not isinstance(self.image_size, int):
            return None
        return round(self.image_size * 256 / 224)


@cache
def _hints() -> dict[str, Any]:
    """The types of a recipe's fields."""
    return get_type_hints(Recipe)


def _with_losses(method: Method) -> list[Method]:
    """A method and those that it wraps, except one that only crafts images."""
    inner = [each for each in method.inner() if each is not getattr(method, "crafter", None)]
    return [method, *(wrapped for each in inner for wrapped in _with_losses(each))]


def data_image_size(image_size: int | Literal["keep"] | None) -> ImageSize:
    """A recipe's ``image_size`` as ``toughen.data`` takes it."""
    if image_size is None:
        return "auto"
    return None if image_size == "keep" else image_size
