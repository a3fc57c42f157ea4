"""The loop that the README prints is the loop that runs here: for every method, and to a robust end."""

from __future__ import annotations

import copy
import re
from collections.abc import Iterator
from typing import Any

import pytest
import torch
from contract import Net, build
from paths import ROOT
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

import toughen
from toughen import models
from toughen.attacks.fgsm import FGSM
from toughen.attacks.pgd import PGD
from toughen.core.types import Images, Labels
from toughen.data import load
from toughen.methods import REGISTRY
from toughen.methods.nuat import NuAT

README = ROOT / "README.md"
SHAPE = (1, 28, 28)
SIZES: dict[str, Any] = {"shape": SHAPE, "classes": 10, "images": 64}


def run_loop(given: dict[str, Any], **instead: str) -> dict[str, Any]:
    """Run what README.md prints between its marks <!-- loop --> and <!-- /loop -->; returns the loop's variables.

    Args:
        given: what the reader has: model, loader, and one image's shape and the number of classes.
        instead: other right-hand sides for lines that assign a name.
    """
    (text,) = re.findall(r"^<!-- loop -->\n+```python\n(.*?)^```\n+<!-- /loop -->$", README.read_text(), re.M | re.S)
    for name, value in instead.items():
        text, count = re.subn(rf"^{name} = .*$", f"{name} = {value}", text, flags=re.M)
        assert count == 1, name
    imports = {"torch": torch, "toughen": toughen, "AveragedModel": AveragedModel}
    names = {**imports, "get_ema_multi_avg_fn": get_ema_multi_avg_fn, **given}
    exec(compile(text, README.name, "exec"), names)
    return names


def weights(model: nn.Module) -> list[torch.Tensor]:
    return [weight.detach().clone() for weight in model.parameters()]


def test_the_loop_runs_as_it_is_printed(mnist: tuple[Images, Labels]) -> None:
    x, y = mnist
    model = Net().train()
    before = weights(model)
    names = run_loop({"model": model, "loader": [(x, y, torch.arange(len(x)))] * 3, **SIZES})
    method = names["method"]
    assert isinstance(method, NuAT) and method.eps == 8 / 255 and method.iteration == 3 and method.progress == 1.0
    assert all((a != b).any() for a, b in zip(weights(model), before, strict=True))
    assert int(names["average"].n_averaged) == 3
    lag = [(a - b).abs().max() for a, b in zip(weights(names["average"].module), weights(model), strict=True)]
    assert min(lag) > 0


@pytest.mark.parametrize("name", REGISTRY)
def test_the_loop_runs_for_every_method(name: str, mnist: tuple[Images, Labels]) -> None:
    x, y = mnist
    model, method = Net().train(), build(name)
    model.frozen.eval()
    before, prepared = weights(model), copy.deepcopy(method)
    prepared.prepare(model, SHAPE, 10, 64)
    extra = [weight.clone() for weight in prepared.parameters()]
    given = {"model": model, "loader": [(x[rows], y[rows], rows) for rows in torch.arange(64).split(32)] * 4, **SIZES}
    names = run_loop({**given, "chosen": method}, method="chosen")
    assert names["method"] is method and int(names["average"].n_averaged) == 8 * method.replays
    assert all((a != b).any() and a.isfinite().all() for a, b in zip(weights(model), before, strict=True))
    assert len(list(method.parameters())) == len(extra)
    trained = sum(len(group["params"]) for group in names["optimizer"].param_groups)
    assert trained == len(before) + len(extra)  # what the method learns is there when the optimizer is built
    assert model.training and not model.frozen.training


def accuracy(model: nn.Module, x: Images, y: Labels) -> float:
    with torch.no_grad():
        return float((model(x).argmax(1) == y).float().mean())


def epochs(x: Images, y: Labels, number: int, size: int) -> Iterator[tuple[Images, Labels, Tensor]]:
    for _ in range(number):
        for rows in torch.randperm(len(x)).split(size):
            yield x[rows], y[rows], rows


@pytest.mark.slow
def test_a_loop_that_never_touches_progress_ends_robust() -> None:
    """All of lam from the first step, at eps 0.3. lam = 1 learns; 2 and more, which a ramp carries, stay at chance."""
    data = load("mnist-5k")
    x, y = data.train.images.float() / 255, data.train.labels
    model = models.create("fbf-mnist-cnn", 10, SHAPE).train()
    method = NuAT(eps=0.3, lam=1, start_size=0.3, alternate=False)
    given = {"model": model, "loader": epochs(x, y, 15, 64), **SIZES, "chosen": method}
    run_loop(given, method="chosen", optimizer="torch.optim.SGD(model.parameters(), lr=0.05, momentum=0.9)")
    assert method.progress == 1.0

    some = torch.randperm(len(data.test))[:500]
    x, y = data.test.images[some].float() / 255, data.test.labels[some]
    model.eval()
    clean = accuracy(model, x, y)
    fgsm = accuracy(model, FGSM(eps=0.3)(model, x, y), y)
    pgd = accuracy(model, PGD(eps=0.3, steps=20)(model, x, y), y)
    assert clean >= 0.85 and pgd >= 0.6
    assert fgsm - pgd <= 0.2  # a net that has collapsed holds against one step alone
