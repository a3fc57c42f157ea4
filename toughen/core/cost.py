"""Counts passes: a forward pass is 1 F per image, a backward pass to the input 1 F, one to the weights 2 F."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from toughen.core.modules import mode, unwrap


class _OpenBlocks:
    """Counts the open ``with`` blocks of a kind in all threads: a backward pass may run in a thread of its own."""

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


_input_only, _crafting = _OpenBlocks(), _OpenBlocks()
_counting: list[PassCounter] = []


def towards_input() -> AbstractContextManager[None]:
    """Within the block, a backward pass is counted as one to the input: it computes no weight gradient."""
    return _input_only()


def crafting() -> AbstractContextManager[None]:
    """Within the block, passes make adversarial images: input gradients of its forward passes count as crafting."""
    return _crafting()


def flops(net: nn.Module, *inputs: Tensor) -> int:
    """Floating-point operations of one forward pass, as torch counts them (a multiply-add is two)."""
    with mode(net, "eval"), torch.no_grad(), FlopCounterMode(display=False) as counter:
        net.forward(*inputs)
    return int(counter.get_total_flops())


def trained_share(net: nn.Module, image: Tensor) -> float:
    """The cost of a backward pass to the trained weights, relative to one to all weights; 1 where none is frozen.

    Args:
        net: returns logits.
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
    """Counts the passes through a model within a ``with`` block, in images times passes.

    Args:
        model: the net whose forward pass is the unit.
        companions: other nets that may run; a pass of theirs counts by its cost relative to the model's.
        image: one image, [1, c, h, w], to measure the model's forward pass with; needed for companions.
        costs: these relative costs by ``id(net)``; missing ones are measured on first use and added.
        share: the cost of the model's backward pass to the weights, as ``trained_share`` gives it.

    Attributes:
        forward, input_gradient, weight_gradient: passes forward, backward to the input, and backward to the weights.
        crafted: gradients to the input that made adversarial images, also those that come with a weight gradient: PAP's
            gamma (Definition 1) times the images.
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
        """Passes in F: a weight gradient costs two forward passes."""
        return self.forward + self.input_gradient + 2 * self.weight_gradient

    def _cost(self, net: nn.Module, x: Tensor) -> float:
        """The cost of a net's forward pass, relative to the model's."""
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
            share, to_images = self.share if module is self.nets[0] else 1.0, args[0].requires_grad
            rest = (1 - share) * to_images  # the gradient passes frozen layers only on its way to the images
            out.register_hook(lambda gradient: self._on_backward(n, share, rest))
            if to_images:
                args[0].register_hook(self._on_images(n, len(out) if _crafting.depth else 0))

    def _on_backward(self, n: float, share: float = 1.0, rest: float = 0.0) -> None:
        if _input_only.depth:
            self.input_gradient += n
        else:
            self.weight_gradient += share * n
            self.input_gradient += rest * n

    def _on_images(self, n: float, images: int) -> Callable[[Tensor], None]:
        """A hook for the images of a forward pass: counts each gradient that reaches them."""

        seen = False

        def hook(gradient: Tensor) -> None:
            nonlocal seen
            if _crafting.depth or not seen:  # a loss that reuses an attack's pass makes no images
                self.crafted += images
            seen = True
            if gradient.requires_grad:  # differentiating it again is one more backward pass
                gradient.register_hook(lambda second: self._on_backward(n))

        return hook

    def add(self, other: PassCounter) -> None:
        """Add the counts of another counter."""
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
    """Add passes that no hook sees, such as replayed ones, to all open counters."""
    for counter in _counting:
        counter.add(passes)


@contextmanager
def uncounted() -> Iterator[None]:
    """Within the block, passes are not counted."""
    names = ("forward", "input_gradient", "weight_gradient", "crafted")
    before = [(counter, {name: getattr(counter, name) for name in names}) for counter in _counting]
    try:
        yield
    finally:
        for counter, figures in before:
            vars(counter).update(figures)


def is_hooked(module: nn.Module) -> bool:
    """Whether a module has hooks other than those of pass counters."""
    own = {hook.id for counter in _counting for hook in counter._hooks}
    forward = (module._forward_hooks, module._forward_pre_hooks)
    backward = (module._backward_hooks, module._backward_pre_hooks)
    return any(set(hooks) - own for hooks in forward) or any(backward)
