"""No step waits for the device: on a GPU, to look at a number that lies there is to wait for all that was asked before.

torch's fake tensors have shapes and no values, so a step that goes through with them looked at none. Beside what they
refuse, two things are noted that wait on a GPU and not here: writing at a mask, and singular values, where torch itself
reads whether they were found.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any

import pytest
import torch
from contract import EPS, batch, build, net
from torch import nn
from torch._subclasses.fake_tensor import (
    DataDependentOutputException,
    DynamicOutputShapeException,
    FakeTensor,
    FakeTensorMode,
    unset_fake_temporarily,
)
from torch.utils._python_dispatch import TorchDispatchMode

from toughen.attacks import REGISTRY as ATTACKS
from toughen.attacks import Adaptive, LogitMatrix, Transfer
from toughen.attacks.fgsm import FGSM
from toughen.attacks.pgd import PGD
from toughen.core import nuclear_norm
from toughen.core.rng import StepNoise
from toughen.core.types import Images, Labels, Norm
from toughen.methods import REGISTRY as METHODS
from toughen.methods import Method
from toughen.methods.delayed import Delayed
from toughen.methods.efgsm import EFGSM
from toughen.methods.hybrid import Hybrid
from toughen.methods.nuat import NuAT
from toughen.methods.pap import PAP
from toughen.methods.pgd_at import PGDAT
from toughen.methods.reconstruct import Reconstruct
from toughen.methods.trades import TRADES

aten = torch.ops.aten
IMAGES = 32

VARIANTS: dict[str, Callable[[], Method]] = {
    "NuAT-H": lambda: Hybrid(cheap=NuAT(eps=EPS), strong=PGDAT(eps=EPS, steps=2)),
    "DAT, switched": lambda: Delayed(after=PGDAT(eps=EPS, steps=2), switch_epoch=0),
    "PAP over TRADES": partial(PAP, eps=EPS, over="trades"),
    "PAP, naive": partial(PAP, eps=EPS, schedule="naive"),
    "PAP, replay": partial(PAP, eps=EPS, schedule="replay"),
    "TRADES on eFGSM's images": lambda: TRADES(eps=EPS, crafter=EFGSM(eps=EPS)),
    "eFGSM with re-constructor": lambda: Reconstruct(inner=EFGSM(eps=EPS)),
}
MAKERS: dict[str, Callable[[], Method]] = {name: partial(build, name) for name in METHODS} | VARIANTS

ELSEWHERE = ("AutoAttack", "Transfer")  # made of the others, all of them here; needs a source, see below
FORMS: dict[str, Callable[..., Any]] = {
    **{name: kind for name, kind in ATTACKS.items() if name not in ELSEWHERE},
    "Adaptive, nuclear": partial(Adaptive, defence="nuclear"),
    "Adaptive, kl": partial(Adaptive, defence="kl"),
    "FGSM, random start": partial(FGSM, start="bernoulli"),
    "LogitMatrix, Frobenius": partial(LogitMatrix, kind="frobenius"),
    "PGD, momentum": partial(PGD, decay=0.5),
    "PGD, restarts": partial(PGD, restarts=2),
    "PGD, stop early": partial(PGD, stop_early=True),
}

LEAVES = "images leave the batch where they fall, which saves all of their later passes"
WAITING = {  # which of them wait, and what for
    "PAP, replay": "it looks whether the batch is the one that its cycle began with, and saves a pass where it is",
}
STOPPING = {
    "Adaptive": LEAVES,
    "Adaptive, kl": LEAVES,
    "APGD": LEAVES,
    "APGDT": LEAVES,
    "DeepFool": LEAVES,
    "FAB": LEAVES,
    "GAMAPGD": LEAVES,
    "GAMAFW": LEAVES,
    "PGD, stop early": LEAVES,
    "PGDADP": LEAVES,
    "PGDLL": LEAVES,
    "PGDR": LEAVES,
    "RandomPoints": LEAVES,
    "Square": LEAVES,
}


@pytest.fixture(autouse=True)
def as_on_a_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    """The nuclear norm is computed as on a GPU, where singular values would be waited for."""
    monkeypatch.setattr(nuclear_norm, "by_singular_values", nuclear_norm.by_polar_factor)


class Waits(Exception):
    """A tensor was asked for what a GPU's host would have to wait for."""


class Watched(TorchDispatchMode):
    """Raises ``Waits`` for what fake tensors let through; single numbers drawn on the CPU are real ones."""

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        if func in (aten.index_put_.default, aten.index_put.default):
            if any(rows is not None and rows.dtype in (torch.bool, torch.uint8) for rows in args[1]):
                raise Waits("writes at a mask")
        if func is aten._linalg_svd.default:
            raise Waits("torch reads whether it succeeded")
        drawn = func is aten.rand.generator and not args[0]
        if drawn or func is aten._local_scalar_dense.default and not isinstance(args[0], FakeTensor):
            with unset_fake_temporarily():
                return func(*args, **kwargs)
        return func(*args, **kwargs)


@contextmanager
def valueless(*modules: nn.Module) -> Iterator[FakeTensorMode]:
    """Within the block tensors have no values, those of the modules neither.

    Raises:
        Waits: something in it needs one.
    """
    fake, seen = FakeTensorMode(), dict[int, Any]()
    for module in nn.ModuleList(modules).modules():
        for tensors in (module._parameters, module._buffers):
            for name, tensor in tensors.items():
                if tensor is not None:  # one that two modules share stays one
                    tensors[name] = seen.setdefault(id(tensor), fake.from_tensor(tensor))
    try:
        with fake, Watched():  # type: ignore[no-untyped-call]
            yield fake
    except (DataDependentOutputException, DynamicOutputShapeException) as error:
        raise Waits(str(error.func)) from error


def waits(run: Callable[[], None]) -> bool:
    """Whether this waits."""
    try:
        run()
    except Waits:
        return True
    return False


def steps(method: Method, x: Images, y: Labels) -> None:
    """Three steps, the last on fewer images, as a loop takes them."""
    model = net()
    method.prepare(model, (1, 28, 28), 10, len(x))
    with valueless(model, method) as fake:
        optimizer = torch.optim.SGD([*model.parameters(), *method.parameters()], lr=0.1, momentum=0.9)
        for number, size in enumerate((IMAGES, IMAGES, IMAGES - 12)):
            optimizer.zero_grad()
            x_now, y_now = fake.from_tensor(x)[:size], fake.from_tensor(y)[:size]
            method(model, x_now, y_now, batch(size, number)).loss.backward()
            optimizer.step()
            method.after_step(model)


def test_what_waits_is_seen() -> None:
    x = torch.rand(4, 4)

    def run(look: Callable[[torch.Tensor], Any]) -> None:
        with valueless() as fake:
            look(fake.from_tensor(x))

    looks: list[Callable[[torch.Tensor], Any]] = [
        lambda x: x.sum().item(),
        lambda x: bool((x > 0).any()),
        lambda x: x.tolist(),
        lambda x: torch.equal(x, x),
        lambda x: (x > 0).nonzero(),
        lambda x: x[x > 0],
        lambda x: x.__setitem__(x[:, 0] > 0, x[:1]),
        lambda x: torch.linalg.svdvals(x),
    ]
    assert all(waits(partial(run, look)) for look in looks)
    assert not waits(partial(run, lambda x: torch.where(x > 0, x, 0).argsort(1)[:, :2].clamp(max=1).sum()))


@pytest.mark.parametrize("name", MAKERS)
def test_a_training_step_waits_for_nothing(name: str, mnist: tuple[Images, Labels]) -> None:
    x, y = (each[:IMAGES] for each in mnist)
    assert waits(partial(steps, MAKERS[name](), x, y)) is (name in WAITING), WAITING.get(name)


def test_neither_does_what_trains_after_a_collapse(mnist: tuple[Images, Labels]) -> None:
    x, y = (each[:IMAGES] for each in mnist)
    found = [make().rescue() for make in MAKERS.values()]
    rescuers = {repr(method): method for method in found if method is not None}
    for method in rescuers.values():
        assert waits(partial(steps, method, x, y)) is (type(method).__name__ in WAITING), method


@pytest.mark.parametrize("norm", ["linf", "l2"])
@pytest.mark.parametrize("name", [*FORMS, "Transfer"])
def test_an_attack_waits_only_to_let_images_leave(name: str, norm: Norm, mnist: tuple[Images, Labels]) -> None:
    model, source = net(), net()
    make = FORMS.get(name) or partial(Transfer, source=source)
    x, y = (each[:8] for each in mnist)

    def run() -> None:
        with valueless(model, source) as fake:
            make(eps=EPS, norm=norm)(model, fake.from_tensor(x), fake.from_tensor(y), StepNoise(0, 0))

    assert waits(run) is (name in STOPPING), STOPPING.get(name)


def test_the_lists_name_what_there_is() -> None:
    assert set(WAITING) <= set(MAKERS) and set(STOPPING) <= set(FORMS)
