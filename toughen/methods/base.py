"""The shape of every method: min over max, as a module used like a criterion."""

from __future__ import annotations

import copy
import inspect
from collections.abc import Hashable
from dataclasses import replace
from typing import Any, ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from toughen.attacks.base import threat_of
from toughen.core import cost
from toughen.core.gradients import logits, mode
from toughen.core.rng import Noise
from toughen.core.threat import Threat
from toughen.core.types import Batch, Crafted, Eps, Images, Labels, Logits, Norm, Plan, Step

KINDS: dict[str, type[Method]] = {}
"""All methods by the names that the command line knows, those of other packages by their import paths."""


class Method(nn.Module):
    """The base of all methods: ``loss = method(model, x, y).loss``.

    A method consists of ``craft``, the inner maximum, and ``loss``, the outer minimum; calling it does one after the
    other. What it must remember between batches is its buffers, submodules and extra state, so that it travels in
    checkpoints. Copies of the model that it keeps are frozen; extra weights that are trained are its parameters.

    ``loss`` may be called more than once, and with other weights, for the same crafted images: what a step moves in the
    method's memory is moved in ``craft`` or ``after_step``.

    Attributes:
        replays: how often a loop should train on the same batch.
        label_smoothing: share of a label that is spread over all classes in the loss's cross-entropy, 0..1.
        reports_clean: whether ``Step.terms`` holds "clean", the cross-entropy on clean images.
        rescued_by: the name of the method that trains after a collapse, ``package.module.Class`` for one of your own.
        per_image_buffers: names of those with a row for each training image; where many processes train, each image's
            row is that of the process which last saw it.
        per_process_buffers: names of those of which each of many processes has its own, such as what belongs to a
            place in the batch; all others are the same in every process.
    """

    eps: Eps | None = None
    norm: Norm = "linf"
    replays: int = 1
    scale_now: Tensor
    label_smoothing: float = 0.0
    reports_clean: bool = False
    rescued_by: ClassVar[str] = "PGDAT"
    per_image_buffers: tuple[str, ...] = ()
    per_process_buffers: tuple[str, ...] = ()
    _stop_reason: str | None = None
    _progress: float = 1.0
    _prepared: bool = False

    def __init_subclass__(cls, **options: Any) -> None:
        super().__init_subclass__(**options)
        own = cls.__module__.rpartition(".")[0] == __package__
        KINDS[cls.__name__ if own else f"{cls.__module__}.{cls.__qualname__}"] = cls
        if {"craft", "loss"} & vars(cls).keys() and "graph_key" not in vars(cls):
            cls.graph_key = Method.graph_key  # type: ignore[method-assign]  # what a parent promised of its own steps

    def __init__(self) -> None:
        super().__init__()
        # a tensor, so that a recorded step reads what it is now
        self.register_buffer("scale_now", torch.ones((), dtype=torch.float64), persistent=False)
        self._perturbation_scale = 1.0

    @property
    def perturbation_scale(self) -> float:
        """Share of the way from the clean to the crafted images at which a step is trained; 1 but for a warm-up."""
        return self._perturbation_scale

    @perturbation_scale.setter
    def perturbation_scale(self, share: float) -> None:
        if share != self._perturbation_scale:
            self._perturbation_scale = share
            self.scale_now.fill_(share)

    @property
    def progress(self) -> float:
        """The share of training done, 0..1; 1 unless a trainer sets it, so that a bare loop trains the real thing."""
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
        """Names what ``craft`` and ``loss`` do, so that a GPU may replay their kernels while it stays the same.

        They then use no number of Python's that changes from step to step, read nothing back from the GPU, draw from
        ``batch.noise`` and not from its ``shared``, and set no attribute. None, the default: they run in each step. A
        class with a ``craft`` or ``loss`` of its own does not inherit its parent's name.
        """
        return None

    @property
    def differentiates_twice(self) -> bool:
        """Whether it, or one that it wraps, differentiates a gradient of the model."""
        return any(inner.differentiates_twice for inner in self.inner())

    @property
    def keeps_images(self) -> bool:
        """Whether it, or one that it wraps, remembers something of each image, and follows it by shift and flip."""
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
        """Whether the next batch trains against the threat in full, so that a model that is not robust collapsed."""
        return self.threat is not None

    @property
    def adaptive(self) -> dict[str, Any] | None:
        """What ``toughen.attacks.Adaptive`` must be told to raise what this method is trained against at its end.

        Plain data, without eps and norm, which are the threat's; None where cross-entropy is all there is to raise. A
        wrapper's is that of the last method it wraps.
        """
        inner = self.inner()
        return inner[-1].adaptive if inner else None

    def prepare(self, model: nn.Module, shape: tuple[int, int, int], classes: int, images: int | None = None) -> None:
        """Allocate all state, before an optimizer is built or a state is loaded; called on first use otherwise.

        Args:
            model: the model that will be trained.
            shape: one image's [c, h, w].
            classes: number of classes.
            images: size of the training set, None where nobody knows it.
        """
        self._prepared = True
        for inner in self.inner():
            inner.prepare(model, shape, classes, images)

    def forward(self, model: nn.Module, x: Images, y: Labels, batch: Batch | None = None) -> Step:
        """One step's loss on a batch: crafts images and takes the loss on them.

        Args:
            model: returns logits; in training mode for training.
            x: images in [0, 1].
            y: their classes.
            batch: image index, crop, flip and the source of random numbers, where the loop knows them.
        """
        if not self._prepared:
            with mode(model, "eval"), torch.no_grad():  # a batch need not hold the last class: the model knows
                classes = logits(model, x[:1]).shape[1]
            self.prepare(model, (x.shape[1], x.shape[2], x.shape[3]), classes)
        with cost.crafting():
            crafted = self.craft(model, x, y, batch)
        if self.perturbation_scale < 1:
            crafted = weaker(crafted, x, self.scale_now)
        return self.loss(model, x, y, crafted)

    def craft(self, model: nn.Module, x: Images, y: Labels, batch: Batch | None = None) -> Crafted:
        """The inner maximum: the images to train on."""
        raise NotImplementedError

    def loss(self, model: nn.Module, x: Images, y: Labels, crafted: Crafted) -> Step:
        """The outer minimum: what is lowered, given the crafted images."""
        raise NotImplementedError

    def cross_entropy(self, out: Logits, y: Labels) -> Tensor:
        """The batch's mean cross-entropy with smoothed labels, as ``loss`` takes it; an attack knows no smoothing."""
        return F.cross_entropy(out, y, label_smoothing=self.label_smoothing)

    def adversarial_cross_entropy(self, model: nn.Module, y: Labels, crafted: Crafted) -> Step:
        """Cross-entropy on the crafted images and on nothing else, the outer minimum of plain adversarial training."""
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
        """Called before the first step of each session, of one that goes on, too, after its state was loaded."""
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

    def rescue(self) -> Method | None:
        """What to train after a collapse: ``rescued_by`` at the same threat, for a wrapper what the method in it says.

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
        """What ``rescued_by`` is told besides the threat: two steps of PGD."""
        assert self.threat is not None
        # of 0.5 to 1.25 eps tried on 3,600 MNIST images at eps 0.3, this step learns and is blind to single steps least
        return {"steps": 2, "step_size": 5 / 6 * self.threat.eps}

    def _load_from_state_dict(self, state_dict: dict[str, Any], prefix: str, *rest: Any) -> None:
        """Own buffers take the size that was saved: what is kept per slot of a batch grows with the first batches."""
        for name, buffer in self.named_buffers(recurse=False):
            saved = state_dict.get(prefix + name)
            if isinstance(saved, Tensor) and saved.shape[1:] == buffer.shape[1:] and saved.shape != buffer.shape:
                setattr(self, name, torch.empty(saved.shape, dtype=buffer.dtype, device=buffer.device))
        super()._load_from_state_dict(state_dict, prefix, *rest)

    def extra_repr(self) -> str:
        """The settings, by the names of ``__init__``; each is an attribute of the method's attack or its own."""
        attack, names = getattr(self, "attack", None), inspect.signature(type(self)).parameters
        values = {name: getattr(attack, name, vars(self).get(name)) for name in names}
        return ", ".join(f"{name}={value!r}" for name, value in values.items() if value is not None)


def noise_of(batch: Batch | None) -> Noise | None:
    """Where a step's random numbers come from; None means torch's global generator."""
    return batch.noise if batch else None


def weaker(crafted: Crafted, x: Images, share: float | Tensor) -> Crafted:
    """All adversarial images brought back to this share of their way from the clean ones.

    Logits that craft shared are kept only where no other images than the clean ones can have given them.
    """
    moved = {name: base + share * (crafted.extra[name] - base) for name, base in crafted.bases.items()}
    return replace(
        crafted,
        x_adv=x + share * (crafted.x_adv - x),
        clean=None if crafted.bases else crafted.clean,
        extra={**crafted.extra, **moved},
    )


def frozen_copy(model: nn.Module, *, persistent: bool = True) -> nn.Module:
    """A copy in evaluation mode whose weights are buffers: none is among ``parameters()``, so nothing trains them.

    Args:
        model: what is copied.
        persistent: whether the copy's state travels in checkpoints.
    """
    copied = copy.deepcopy(model).eval()
    copied.__dict__.pop("forward", None)  # a compiled one would go on computing with the model's own weights
    for module in copied.modules():
        for name, weight in list(module.named_parameters(recurse=False)):
            delattr(module, name)
            module.register_buffer(name, weight.detach(), persistent=persistent)
        if not persistent:
            module._non_persistent_buffers_set |= set(module._buffers)
    return copied
