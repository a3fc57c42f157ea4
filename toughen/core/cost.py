"""Counts passes through a model: a forward is 1 F per image, a gradient to the input 1 F more, to the weights 2 F."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from toughen.core.modules import mode, unwrap


class _Within:
    """How many blocks of a kind are open, in whatever threads; a backward pass may run in one of its own."""

    def __init__(self) -> None:
        self.lock, self.depth = threading.Lock(), 0

    @contextmanager
    def __call__(self) -> Iterator[None]:
        with self.lock:
            self.depth += 1
        try:
            yield
        finally:
            with self.lock:
                self.depth -= 1


_input_only, _crafting = _Within(), _Within()
_counting: list[PassCounter] = []


def towards_input() -> AbstractContextManager[None]:
    """Within the block a backward pass is one that computes no weight gradient."""
    return _input_only()


def crafting() -> AbstractContextManager[None]:
    """Within the block passes serve to make adversarial images; a gradient to images that went forward here is one."""
    return _crafting()


def flops(net: nn.Module, *inputs: Tensor) -> int:
    """Floating-point operations of one forward pass, counted by torch where they happen (a multiply-add is two)."""
    with mode(net, "eval"), torch.no_grad(), FlopCounterMode(display=False) as counter:
        net.forward(*inputs)
    return int(counter.get_total_flops())


def trained_share(net: nn.Module, image: Tensor) -> float:
    """What a gradient to the weights costs against one to all weights, where some are frozen; 1 where none is.

    Args:
        net: gives logits.
        image: one image, [1, c, h, w].
    """
    trained = [weight for weight in net.parameters() if weight.requires_grad]
    frozen = [weight for weight in net.parameters() if not weight.requires_grad]
    if not frozen or not trained:
        return 1.0
    some = _backward_flops(net, image, trained)
    for weight in frozen:
        weight.requires_grad_()
    try:
        return some / _backward_flops(net, image, [*trained, *frozen])
    finally:
        for weight in frozen:
            weight.requires_grad_(False)


def _backward_flops(net: nn.Module, image: Tensor, weights: list[nn.Parameter]) -> int:
    with mode(net, "eval"), torch.enable_grad():
        total = unwrap(net.forward(image), len(image)).sum()
        with FlopCounterMode(display=False) as counter:
            torch.autograd.grad(total, weights, allow_unused=True)
    return int(counter.get_total_flops())


class PassCounter:
    """Counts, while the ``with`` block lasts, what a model really did, in images times passes.

    Args:
        model: the net whose forward pass is the unit.
        companions: other nets that may run; each weighs as much as its forward pass costs against the model's.
        image: one image, [1, c, h, w], to measure the model's forward pass with; needed for companions.
        costs: these weights by the nets' identity, where they are known; others are measured on first use and added.
        share: of the model's weight gradient that is computed, where some of its weights are frozen.

    Attributes:
        forward, input_gradient, weight_gradient: images that went forward, and backward to the input or to weights.
        crafted: gradients to the input that made adversarial images, several of one forward each by itself, and those
            that a weight gradient brought along too: PAP's gamma (Definition 1) times the images.
    """

    def __init__(
        self,
        model: nn.Module,
        companions: Iterable[nn.Module] = (),
        image: Tensor | None = None,
        costs: dict[int, float] | None = None,
        share: float = 1.0,
    ) -> None:
        self.nets, self.image, self.share = [model, *companions], image, share
        self.costs = {} if costs is None else costs
        self.forward = self.input_gradient = self.weight_gradient = self.crafted = 0.0

    @property
    def total(self) -> float:
        """Forward equivalents: a gradient towards weights passes every layer twice."""
        return self.forward + self.input_gradient + 2 * self.weight_gradient

    def _cost(self, net: nn.Module, x: Tensor) -> float:
        """A companion's forward pass of one image, in the model's."""
        if net is self.nets[0]:
            return 1.0
        if id(net) not in self.costs:
            if self.image is None:
                raise ValueError("passes of companions are counted in the model's: give one image to measure it with")
            self.costs[id(net)] = flops(net, x[:1].detach()) / flops(self.nets[0], self.image)
        return self.costs[id(net)]

    def _on_forward(self, module: nn.Module, args: Any, out: Any) -> None:
        out = getattr(out, "logits", out)
        if not isinstance(out, Tensor):
            return
        n = len(out) * self._cost(module, args[0])
        self.forward += n
        if out.requires_grad:
            share = self.share if module is self.nets[0] else 1.0
            rest = (1 - share) * args[0].requires_grad  # frozen layers are passed on the way to images alone
            out.register_hook(lambda gradient: self._on_backward(n, share, rest))
            if args[0].requires_grad:
                args[0].register_hook(self._on_images(n, len(out) if _crafting.depth else 0))

    def _on_backward(self, n: float, share: float = 1.0, rest: float = 0.0) -> None:
        if _input_only.depth:
            self.input_gradient += n
        else:
            self.weight_gradient += share * n
            self.input_gradient += rest * n

    def _on_images(self, n: float, images: int) -> Callable[[Tensor], None]:
        """What happens when a gradient reaches the images that went forward."""

        seen = False

        def hook(gradient: Tensor) -> None:
            nonlocal seen
            if _crafting.depth or not seen:  # a loss that goes on from an attack's pass makes no more images
                self.crafted += images
            seen = True
            if gradient.requires_grad:  # to differentiate a gradient is one more backward through each layer
                gradient.register_hook(lambda second: self._on_backward(n))

        return hook

    def add(self, other: PassCounter) -> None:
        """Count what another counter has counted, too."""
        self.forward += other.forward
        self.input_gradient += other.input_gradient
        self.weight_gradient += other.weight_gradient
        self.crafted += other.crafted

    def __enter__(self) -> PassCounter:
        _counting.append(self)
        self._hooks = [net.register_forward_hook(self._on_forward) for net in self.nets]
        return self

    def __exit__(self, *error: object) -> None:
        _counting.remove(self)
        for hook in self._hooks:
            hook.remove()


def add_passes(passes: PassCounter) -> None:
    """Tell all counters at work of passes that they cannot see."""
    for counter in _counting:
        counter.add(passes)


@contextmanager
def uncounted() -> Iterator[None]:
    """Within the block passes are not counted."""
    names = ("forward", "input_gradient", "weight_gradient", "crafted")
    before = [(counter, {name: getattr(counter, name) for name in names}) for counter in _counting]
    try:
        yield
    finally:
        for counter, figures in before:
            vars(counter).update(figures)


def is_hooked(module: nn.Module) -> bool:
    """Whether others than counters of passes listen to what goes forward or backward through a module."""
    own = {hook.id for counter in _counting for hook in counter._hooks}
    forward = (module._forward_hooks, module._forward_pre_hooks)
    backward = (module._backward_hooks, module._backward_pre_hooks)
    return any(set(hooks) - own for hooks in forward) or any(backward)
