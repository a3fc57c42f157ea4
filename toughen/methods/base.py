"""The base class of training methods: modules that are called like a criterion."""

from __future__ import annotations

from collections.abc import Hashable
from typing import Any, ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from toughen.attacks.base import check_classes, check_images, check_target, threat_of
from toughen.core import cost
from toughen.core.gradients import logits, mode
from toughen.core.rng import Noise
from toughen.core.threat import Threat
from toughen.core.types import Batch, Crafted, Eps, Images, Labels, Logits, Norm, Plan, Step
from toughen.methods.own_method import CraftCheck
from toughen.utils.configurable import Configurable, init_args

KINDS: dict[str, type[Method]] = {}
"""All methods by class name; those of other packages by import path."""


class Method(Configurable, nn.Module):
    """The base of all methods: ``loss = method(model, x, y).loss``.

    A method solves a min-max problem: ``craft`` makes adversarial images (the inner maximum), and ``loss`` is minimised
    on them (the outer minimum). Calling the method does one after the other. Its state between batches is held in
    buffers, submodules and extra state, so that checkpoints contain it. Copies of the model are frozen; additional
    weights to train are parameters of the method.

    ``loss`` may be called several times for the same images, also at other weights. So it must not change the method's
    state; ``craft`` and ``after_step`` may.

    Attributes:
        replays: how often a loop should train on the same batch.
        label_smoothing: share of a label that is spread over all classes in the loss's cross-entropy, 0..1.
        batch_share: this process's share of a batch's images, which the trainer sets; None means an equal one.
        reports_clean: whether ``Step.terms`` holds "clean", the cross-entropy on clean images.
        rescued_by: name of the method that trains after a collapse; ``package.module.Class`` for one of your own.
        per_image_buffers: names of buffers with a row per training image; with several processes, each image's row is
            synchronised from the process that last saw the image.
        per_process_buffers: names of buffers that differ between processes, such as those with a row per place in the
            batch; all others are the same in every process.
    """

    eps: Eps | None = None
    norm: Norm = "linf"
    replays: int = 1
    scale_now: Tensor
    label_smoothing: float = 0.0
    batch_share: float | None = None
    reports_clean: bool = False
    rescued_by: ClassVar[str] = "PGDAT"
    per_image_buffers: tuple[str, ...] = ()
    per_process_buffers: tuple[str, ...] = ()
    _stop_reason: str | None = None
    _progress: float = 1.0
    _prepared: bool = False
    _range_checked: bool = False

    def __init_subclass__(cls, **options: Any) -> None:
        super().__init_subclass__(**options)
        own = cls.__module__.rpartition(".")[0] == __package__
        KINDS[cls.__name__ if own else f"{cls.__module__}.{cls.__qualname__}"] = cls
        if {"craft", "loss"} & vars(cls).keys() and "graph_key" not in vars(cls):
            cls.graph_key = Method.graph_key  # type: ignore[method-assign]  # the parent's key is valid for its own craft and loss only

    def __init__(self) -> None:
        super().__init__()
        # a tensor, so that a replayed CUDA graph reads the current value
        self.register_buffer("scale_now", torch.ones((), dtype=torch.float64), persistent=False)
        self._perturbation_scale = 1.0

    @property
    def perturbation_scale(self) -> float:
        """The factor by which crafted perturbations are scaled, 0..1; below 1 only during a warm-up of eps."""
        return self._perturbation_scale

    @perturbation_scale.setter
    def perturbation_scale(self, share: float) -> None:
        if share != self._perturbation_scale:
            self._perturbation_scale = share
            self.scale_now.fill_(share)

    @property
    def progress(self) -> float:
        """The share of training done, 0..1; 1 without a trainer, so that ramps are at their end."""
        return self._progress

    @progress.setter
    def progress(self, value: float | int) -> None:
        self._progress = float(value)
        for inner in self.inner():
            inner.progress = value

    def inner(self) -> list[Method]:
        """The methods that this one wraps."""
        return [child for child in self.children() if isinstance(child, Method)]

    def companions(self) -> list[nn.Module]:
        """The nets besides the trained one that a step runs, so that their cost is counted."""
        return [net for inner in self.inner() for net in inner.companions()]

    @property
    def graph_key(self) -> Hashable:
        """A key of what ``craft`` and ``loss`` compute: while it is the same, a GPU may replay a CUDA graph of it.

        This requires that they use no Python number that changes between steps, do not synchronise with the GPU, draw
        random numbers from ``batch.noise`` but not from its ``shared``, and set no attribute. None, the default, means
        that they run in each step. A class that defines ``craft`` or ``loss`` does not inherit its parent's key.
        """
        return None

    @property
    def differentiates_twice(self) -> bool:
        """Whether it, or one that it wraps, differentiates a gradient of the model."""
        return any(inner.differentiates_twice for inner in self.inner())

    @property
    def keeps_images(self) -> bool:
        """Whether it, or one that it wraps, keeps a state per image, which it aligns by shift and flip."""
        return any(inner.keeps_images for inner in self.inner())

    @property
    def stop_reason(self) -> str | None:
        """Why training should end early; None while it should go on. Set by the method or by one that it wraps."""
        return self._stop_reason or next((inner.stop_reason for inner in self.inner() if inner.stop_reason), None)

    @stop_reason.setter
    def stop_reason(self, reason: str | None) -> None:
        self._stop_reason = reason

    @property
    def threat(self) -> Threat | None:
        """The threat that the method trains against; a wrapper's is that of the last method it wraps."""
        if self.eps is not None:
            return threat_of(self)
        return next((inner.threat for inner in reversed(self.inner()) if inner.threat is not None), None)

    @property
    def is_adversarial(self) -> bool:
        """Whether the next batch is trained against the threat; then a model that is not robust has collapsed."""
        return self.threat is not None

    @property
    def adaptive(self) -> dict[str, Any] | None:
        """The settings of ``toughen.attacks.Adaptive`` for this method's own objective at the end of training.

        Plain data, without eps and norm; None where the objective is cross-entropy. A wrapper's are those of the last
        method that it wraps.
        """
        inner = self.inner()
        return inner[-1].adaptive if inner else None

    def prepare(self, model: nn.Module, shape: tuple[int, int, int], classes: int, images: int | None = None) -> None:
        """Allocate all state, before an optimizer is built or a state is loaded; called on first use otherwise.

        A method that was trained before begins anew.

        Args:
            model: the model that will be trained.
            shape: one image's [c, h, w].
            classes: number of classes.
            images: size of the training set, None where nobody knows it.
        """
        if self._prepared:
            self.forget()
        self._prepared = True
        for inner in self.inner():
            inner.prepare(model, shape, classes, images)

    def forget(self) -> None:
        """Forget an earlier run; called by ``prepare`` where it was called before."""
        self._stop_reason = None

    def forward(self, model: nn.Module, x: Images, y: Labels, batch: Batch | None = None) -> Step:
        """One step's loss on a batch: crafts images and takes the loss on them.

        Args:
            model: returns logits; in training mode for training.
            x: images in [0, 1], [n, c, h, w].
            y: their classes, int64 [n].
            batch: image index, crop, flip and the source of random numbers, where the loop knows them.

        Raises:
            ValueError: in the first batch of a loop of your own, images outside [0, 1] or labels of another kind.
        """
        first = not self._range_checked
        unchecked = first and (batch is None or batch.noise is None)  # the trainer gives noise
        if unchecked:
            check_images(x)
            check_target(y, x)
        self._range_checked = True
        if not self._prepared:
            with mode(model, "eval"), torch.no_grad():  # a batch need not hold the last class: the model knows
                classes = logits(model, x[:1]).shape[1]
            if unchecked:
                check_classes(y, classes)
            self.prepare(model, (x.shape[1], x.shape[2], x.shape[3]), classes)
        check = CraftCheck.of(self, model)
        with cost.crafting():
            crafted = self.craft(model, x, y, batch)
        if check is not None:
            check.check(crafted, x, values=first)
        if self.perturbation_scale < 1:
            crafted = crafted.scaled(x, self.scale_now)
        return self.loss(model, x, y, crafted)

    def craft(self, model: nn.Module, x: Images, y: Labels, batch: Batch | None = None) -> Crafted:
        """The inner maximum: the images to train on."""
        raise NotImplementedError(f"{type(self).__name__} has no craft: define it")

    def loss(self, model: nn.Module, x: Images, y: Labels, crafted: Crafted) -> Step:
        """The outer minimum: the loss to minimise on the crafted images."""
        raise NotImplementedError(f"{type(self).__name__} has no loss: define it")

    def cross_entropy(self, out: Logits, y: Labels) -> Tensor:
        """The batch's mean cross-entropy with ``label_smoothing``, for ``loss``; attacks use none."""
        return F.cross_entropy(out, y, label_smoothing=self.label_smoothing)

    def adversarial_cross_entropy(self, model: nn.Module, y: Labels, crafted: Crafted) -> Step:
        """Cross-entropy on the crafted images alone, the loss of plain adversarial training."""
        out = logits(model, crafted.x_adv)
        robust = self.cross_entropy(out, y)
        return Step(robust, out, {"robust": robust.detach()})

    def check(self, epochs: int) -> None:
        """Called before a run is begun.

        Raises:
            ValueError: the method makes no sense in a run of so many epochs.
        """
        for inner in self.inner():
            inner.check(epochs)

    def start(self, plan: Plan) -> None:
        """Called before the first step of each session, after its state was loaded, and when the plan changes."""
        for inner in self.inner():
            inner.start(plan)

    def after_step(self, model: nn.Module) -> None:
        """Called after each optimizer step."""
        for inner in self.inner():
            inner.after_step(model)

    def after_epoch(self, metrics: dict[str, Any]) -> None:
        """Called after each epoch with its line of metrics."""
        for inner in self.inner():
            inner.after_epoch(metrics)

    def missed_epoch(self, metrics: dict[str, Any]) -> None:
        """Called instead of ``after_epoch`` where another method, a rescue, trained the end of the epoch."""
        for inner in self.inner():
            inner.missed_epoch(metrics)

    def rescue(self) -> Method | None:
        """What to train after a collapse: ``rescued_by`` at the same threat; for a wrapper, the inner method's rescue.

        Raises:
            ValueError: there is no method of that name.
        """
        if self.threat is None:
            return None
        if self.eps is None:
            return next(inner for inner in reversed(self.inner()) if inner.threat is not None).rescue()
        if self.rescued_by not in KINDS:
            raise ValueError(f"{type(self).__name__} is rescued by {self.rescued_by!r}, and there is no such method")
        return KINDS[self.rescued_by](eps=self.eps, norm=self.norm, **self.rescue_settings())  # type: ignore[call-arg]

    def rescue_settings(self) -> dict[str, Any]:
        """The settings of ``rescued_by`` besides the threat: two steps of PGD."""
        assert self.threat is not None
        # the best of step sizes from 0.5 to 1.25 eps, tried on 3,600 MNIST images at eps 0.3
        return {"steps": 2, "step_size": 5 / 6 * self.threat.eps}

    def _load_from_state_dict(self, state_dict: dict[str, Any], prefix: str, *rest: Any) -> None:
        """Resize own buffers to the saved size: those with a row per place in the batch grow with the first batches."""
        for name, buffer in self.named_buffers(recurse=False):
            saved = state_dict.get(prefix + name)
            if isinstance(saved, Tensor) and saved.shape[1:] == buffer.shape[1:] and saved.shape != buffer.shape:
                setattr(self, name, torch.empty(saved.shape, dtype=buffer.dtype, device=buffer.device))
        super()._load_from_state_dict(state_dict, prefix, *rest)

    def extra_repr(self) -> str:
        """The settings, and the attack's choice for those left open; torch lists wrapped methods and nets below."""
        attack = getattr(self, "attack", None)
        known = {name: getattr(attack, name, None) if v is None else v for name, v in init_args(self).items()}
        shown = {name: value for name, value in known.items() if value is not None and not isinstance(value, nn.Module)}
        return ", ".join(f"{name}={value!r}" for name, value in shown.items())


def noise_of(batch: Batch | None) -> Noise:
    """The source of a step's random numbers: the batch's, or else torch's global generator."""
    return (batch.noise if batch else None) or Noise()
