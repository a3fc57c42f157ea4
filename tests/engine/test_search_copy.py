"""Attacks search on copies: one that answers something else than its model is found out, and no two threads share one.

The nets here are odd, as those are that people bring, and each is compared with itself asked in the plainest way.
"""

from __future__ import annotations

import gc
import time
import weakref
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import pytest
import torch
from paths import NETS
from torch import Tensor, nn

import toughen
from toughen.core.gradients import input_gradient, logits
from toughen.core.objectives import cross_entropy
from toughen.core.threat import Threat
from toughen.core.types import Images, Labels, Logits
from toughen.engine.device import Precision, without_tf32
from toughen.engine.fixed_batch import FixedBatchModel
from toughen.engine.search_copy import fast_copy
from toughen.evaluation.fingerprint import fingerprint
from toughen.evaluation.function_model import FunctionModel
from toughen.evaluation.harness import Harness

PLAIN: dict[str, Any] = {"verdict": False, "details": False}


def trained() -> nn.Module:
    return toughen.load(NETS / "pgd-at").eval()


class Hooked(nn.Module):
    """Reads a map that a hook of its first layer has written on it; a copy's hook writes on the original."""

    def __init__(self) -> None:
        super().__init__()
        self.net, self.map = trained(), torch.empty(0)
        self.net[0].register_forward_hook(lambda module, given, out: setattr(self, "map", out))  # type: ignore[index]

    def forward(self, x: Images) -> Logits:
        self.net[0](x)  # type: ignore[index]
        out = self.map
        for part in list(self.net)[1:]:  # type: ignore[call-overload]
            out = part(out)
        return out


class Keeping(nn.Module):
    """Keeps the image on itself while it looks at it."""

    def __init__(self, pause: float = 0.0) -> None:
        super().__init__()
        self.net, self.pause = trained(), pause

    def forward(self, x: Images) -> Logits:
        self.image = x
        time.sleep(self.pause)
        out: Tensor = self.net(self.image)
        return out


class Drawing(nn.Module):
    """Answers another thing each time."""

    def __init__(self) -> None:
        super().__init__()
        self.net = trained()

    def forward(self, x: Images) -> Logits:
        out: Tensor = self.net(x)
        return out + torch.randn_like(out)


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_a_copy_that_is_tied_to_its_model_is_not_searched(precision: Precision, mnist: tuple[Images, Labels]) -> None:
    x, y = mnist
    hooked = Hooked().eval()
    with torch.no_grad():
        hooked(x[:8])
    blocks = FixedBatchModel(hooked, 8, precision)
    assert blocks.search_net is not hooked
    slope = input_gradient(blocks, x, y, cross_entropy).gradient
    assert blocks.search_net is hooked
    wanted = input_gradient(trained(), x, y, cross_entropy)
    loose = 1e-5 if precision == "fp32" else 0.1
    assert (slope - wanted.gradient).norm() <= loose * wanted.gradient.norm()
    assert (logits(blocks, x) - wanted.logits).norm() <= loose * wanted.logits.norm()


def test_copies_of_other_models_are_searched(mnist: tuple[Images, Labels]) -> None:
    """Of one that draws, too: nothing it says could be compared."""
    for net in (trained(), Keeping().eval(), Drawing().eval()):
        for precision in ("fp32", "bf16"):
            blocks = FixedBatchModel(net, 16, precision)
            logits(blocks, mnist[0])
            assert blocks.search_net is not net


def test_a_hook_hides_nothing_from_an_evaluation(mnist: tuple[Images, Labels]) -> None:
    x, y = mnist
    how: dict[str, Any] = {"eps": 0.3, "attacks": ["pgd-10", "apgd-ce-10"], **PLAIN}
    found, plain = (toughen.evaluate(net, (x, y), **how) for net in (Hooked().eval(), trained()))
    assert found["attacks"]["pgd-10"]["robust_accuracy"] == plain["attacks"]["pgd-10"]["robust_accuracy"] < 1
    assert found["robust_accuracy"] == plain["robust_accuracy"]


@torch.no_grad()
@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_a_copy_computes_in_channels_last_on_grey_images_too(precision: Precision) -> None:
    """With one channel both formats have the same bytes, and PyTorch would compute in the other one."""
    net, x = toughen.models.create("small-cnn", 10, (1, 28, 28)).eval(), torch.rand(8, 1, 28, 28)
    maps: list[Tensor] = []
    copied = fast_copy(net, bf16=precision == "bf16")
    first = next(part for part in copied.modules() if isinstance(part, nn.Conv2d))
    first.register_forward_hook(lambda part, given, out: maps.append(out))
    out = copied(x.bfloat16() if precision == "bf16" else x)
    assert maps[0].is_contiguous(memory_format=torch.channels_last) and not maps[0].is_contiguous()
    torch.testing.assert_close(out.float(), net(x), rtol=0, atol=1e-5 if precision == "fp32" else 0.05)


# ---- Threads.


def test_a_twin_shares_the_weights_and_nothing_else(mnist: tuple[Images, Labels]) -> None:
    blocks = FixedBatchModel(Keeping().eval(), 16)
    twin = blocks.thread_copy(mnist[0])
    assert twin is not None
    for mine, other in ((blocks.net, twin.net), (blocks.search_net, twin.search_net)):
        assert mine is not other and mine.net is not other.net
        assert all(one is two for one, two in zip(mine.parameters(), other.parameters(), strict=True))
    assert torch.equal(logits(twin, mnist[0]), logits(blocks, mnist[0]))
    assert twin.counts.forward == blocks.counts.forward == len(mnist[0]) and twin.counts is not blocks.counts
    twin.net.net = nn.Identity()
    assert not isinstance(blocks.net.net, nn.Identity)


def test_a_model_that_cannot_be_copied_has_no_twin(mnist: tuple[Images, Labels]) -> None:
    net = trained()
    for model in (Hooked().eval(), FunctionModel(lambda x: net(x))):
        assert FixedBatchModel(model, 16).thread_copy(mnist[0]) is None


@contextmanager
def threads(count: int) -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(before)


@pytest.mark.parametrize("wrapped", [False, True])
def test_threads_do_not_see_each_other_s_images(wrapped: bool, mnist: tuple[Images, Labels]) -> None:
    x, y = mnist
    model = Keeping(0.001).eval()
    how: dict[str, Any] = {"eps": 0.2, "attacks": ["pgd-3"], "batch_size": 8, "precision": "fp32", **PLAIN}
    found = []
    for count in (1, 2):
        with threads(count):
            found.append(toughen.evaluate((lambda each: model(each)) if wrapped else model, (x, y), **how))
    assert found[0]["attacks"]["pgd-3"]["robust_accuracy"] == found[1]["attacks"]["pgd-3"]["robust_accuracy"]


# ---- Functions.


@pytest.mark.slow
def test_a_function_s_net_is_judged_in_evaluation_mode_and_left_as_it_was(mnist: tuple[Images, Labels]) -> None:
    torch.manual_seed(0)
    net = nn.Sequential(trained(), nn.BatchNorm1d(10), nn.Dropout(0.5))
    with torch.no_grad():
        net(mnist[0])
    for each in (lambda x: net(x), net.forward):
        before = {name: tensor.clone() for name, tensor in net.state_dict().items()}
        found = toughen.evaluate(each, mnist, eps=0.2, attacks=["fgsm"], details=False)
        assert net.training and all(torch.equal(tensor, before[name]) for name, tensor in net.state_dict().items())
        check = next(check for check in found["checks"] if check["name"] == "evaluation mode")
        assert check["passed"] is None and "function" in check["sentence"]
        assert next(c for c in found["checks"] if c["name"] == "the same answer each time")["passed"]
        wanted = toughen.evaluate(net, mnist, eps=0.2, attacks=["fgsm"], **PLAIN)
        assert found["clean_accuracy"] == wanted["clean_accuracy"]
        assert found["robust_accuracy"] == wanted["robust_accuracy"]


# ---- What else a model may be.


def with_source(source: str) -> nn.Module:
    """A net over the trained one whose forward is this."""
    names: dict[str, Any] = {"nn": nn, "__name__": "typed_in"}
    exec(f"class Net(nn.Module):\n    def forward(self, x):\n        return self.net({source})\n", names)
    made: nn.Module = names["Net"]()
    made.net = trained()
    return made.eval()


def test_a_state_of_a_model_whose_code_has_changed_is_another_one(mnist: tuple[Images, Labels]) -> None:
    """Its weights and its logits are the same."""

    def found(net: nn.Module) -> object:
        return fingerprint(Harness(FixedBatchModel(net, 8), *mnist, torch.arange(len(mnist[0])), 0), {})

    assert found(with_source("x")) == found(with_source("x")) != found(with_source("x.detach()"))
    one, other = with_source("x"), with_source("x.detach()")
    assert found(FunctionModel(lambda x: one(x))) != found(FunctionModel(lambda x: other(x)))


class Sieve(nn.Module):
    """Stops what lies in the middle, where no clean pixel lies; its settings are no tensors of its state."""

    def __init__(self, least: float = 0.5, table: object = None, unsaved: float = 0.0) -> None:
        super().__init__()
        self.net, self._least, self.table = trained(), least, {"a": [1]} if table is None else table
        self.register_buffer("unsaved", torch.tensor(unsaved), persistent=False)

    def forward(self, x: Images) -> Logits:
        return self.net(x)  # type: ignore[no-any-return]


LEAST = 0.5  # what a function of this module asks for by name


def asks_by_name(x: Images) -> Logits:
    return x.flatten(1)[:, :10] + 0 * LEAST


def test_a_state_of_a_model_with_other_settings_is_another_one(
    mnist: tuple[Images, Labels], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Plain attributes, buffers that are not saved, what a function was given or asks for by name; not the mode."""

    def found(net: nn.Module) -> object:
        return fingerprint(Harness(FixedBatchModel(net, 8), *mnist, torch.arange(len(mnist[0])), 0), {})

    def closed(least: float, *more: float) -> nn.Module:
        net = trained()

        def answer(x: Images, add: float = more[0] if more else 0.0) -> Logits:
            return net(x + 0 * (least + add))  # type: ignore[no-any-return]

        return FunctionModel(answer)

    kept = found(Sieve())
    assert kept == found(Sieve()) == found(Sieve().train())
    assert kept not in (found(Sieve(0.6)), found(Sieve(table={"a": [2]})), found(Sieve(unsaved=1.0)))
    large = [np.linspace(0, 1, 2000, dtype=np.float32) for _ in range(3)]
    large[2][1000] += 1e-6  # what is printed of them is the same
    for table, same, other in (
        (large[0], large[1], large[2]),
        (np.array(["a", "b"]), np.array(["a", "b"]), np.array(["a", "c"])),
        (np.float32(0.5), np.float32(0.5), np.float64(0.5)),
        ({"a", "b", "c"}, {"c", "b", "a"}, {"a", "b"}),
        (frozenset({(1, 2)}), frozenset({(1, 2)}), frozenset({(1, 3)})),
    ):
        assert found(Sieve(table=table)) == found(Sieve(table=same)) != found(Sieve(table=other))
    assert found(closed(0.5)) == found(closed(0.5)) not in (found(closed(0.6)), found(closed(0.5, 1.0)))
    itself = Sieve()
    object.__setattr__(itself, "again", itself)
    found(itself)  # it ends
    before = found(FunctionModel(asks_by_name))
    assert before == found(FunctionModel(asks_by_name))
    monkeypatch.setitem(globals(), "LEAST", 0.9)
    assert before != found(FunctionModel(asks_by_name))


class OffInBf16(nn.Module):
    """The net itself, but for what bf16 loses where 256 is added and taken away again."""

    def __init__(self) -> None:
        super().__init__()
        self.net, self.back = trained(), nn.Conv2d(1, 1, 1)
        with torch.no_grad():
            self.back.weight.fill_(1.0)
            assert self.back.bias is not None
            self.back.bias.fill_(-256.0)

    def forward(self, x: Images) -> Logits:
        return self.net(self.back(x + 256.0))  # type: ignore[no-any-return]


def test_a_model_that_answers_otherwise_in_bf16_is_searched_in_float32(mnist: tuple[Images, Labels]) -> None:
    blocks = FixedBatchModel(OffInBf16().eval(), 8, "bf16")
    x = mnist[0][:16]
    assert torch.equal(blocks(x), blocks.exact(x)) and blocks.precision == "fp32"
    assert FixedBatchModel(trained(), 8, "bf16")(x).dtype == torch.float32
    kept = FixedBatchModel(trained(), 8, "bf16")
    kept(x)
    assert kept.precision == "bf16"
    told = toughen.evaluate(OffInBf16(), mnist, eps=0.1, attacks=["pgd-5"], precision="bf16", **PLAIN)
    assert told["precision"] == "fp32"


def test_a_model_that_writes_into_its_images_is_refused(mnist: tuple[Images, Labels]) -> None:
    images = mnist[0].clone()
    with pytest.raises(ValueError, match="changes its input images"):
        toughen.evaluate(with_source("x.mul_(0.5)"), (images, mnist[1]), eps=0.1, attacks=["fgsm"], **PLAIN)
    assert torch.equal(images, mnist[0])


def test_weights_of_five_dimensions_are_no_obstacle(mnist: tuple[Images, Labels]) -> None:
    net = with_source("(x[:, :, None] * self.scale[0]).flatten(1, 2)")
    net.scale = nn.Parameter(torch.ones(1, 1, 1, 1, 1))
    found = toughen.evaluate(net, mnist, eps=0.2, attacks=["fgsm"], **PLAIN)
    plain = toughen.evaluate(trained(), mnist, eps=0.2, attacks=["fgsm"], **PLAIN)
    assert found["robust_accuracy"] == plain["robust_accuracy"]


def test_a_gpu_multiplies_all_of_float32_where_a_number_is_judged() -> None:
    before = torch.backends.cudnn.allow_tf32
    torch.backends.cudnn.allow_tf32 = True
    try:
        with without_tf32(torch.device("cuda")):
            assert not torch.backends.cudnn.allow_tf32
        assert torch.backends.cudnn.allow_tf32
    finally:
        torch.backends.cudnn.allow_tf32 = before


def test_a_gradient_that_is_no_number_moves_nothing_in_l2_either() -> None:
    gradient = torch.tensor([3.0, float("nan"), 4.0, float("inf")]).view(1, 1, 2, 2)
    step = Threat("l2", 1.0).steepest(gradient)
    assert step.flatten().tolist() == pytest.approx([0.6, 0, 0.8, 0])


def test_a_copy_does_not_wait_for_the_garbage_collector() -> None:
    """Each validation makes one, as large as the net."""
    gc.collect()
    gc.disable()
    try:
        model = FixedBatchModel(trained(), 4)
        weight = weakref.ref(next(model.search_net.parameters()))
        del model
        assert weight() is None
    finally:
        gc.enable()
