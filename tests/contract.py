"""What the tests of every method's contract share: how a method is built, a net, and a batch."""

from __future__ import annotations

import atexit
import inspect
import shutil
import tempfile
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from toughen import models, runs
from toughen.core.rng import StepNoise
from toughen.core.types import Batch, Images, Labels
from toughen.data import load
from toughen.methods import REGISTRY, Method
from toughen.methods.pgd_at import PGDAT
from toughen.methods.trades import TRADES

EPS = 0.1
THREATENED = [name for name, method in REGISTRY.items() if "eps" in inspect.signature(method).parameters]
every_method = pytest.mark.parametrize("name", REGISTRY)
every_threat = pytest.mark.parametrize("name", THREATENED)


def build(name: str, **settings: Any) -> Method:
    """A method by name: at ``EPS`` unless told, and around plain PGD training where it wraps a method."""
    parameters = inspect.signature(REGISTRY[name]).parameters
    if "eps" in parameters:
        settings.setdefault("eps", EPS)
    if "sources" in parameters:
        settings.setdefault("sources", [str(source_run())])
    for key, parameter in parameters.items():
        if parameter.default is parameter.empty and "Method" in str(parameter.annotation):
            inner = TRADES if key == "cheap" else PGDAT  # what Hybrid begins with must report the clean loss
            settings.setdefault(key, inner(eps=settings.get("eps", EPS), steps=2))
    return REGISTRY[name](**settings)


@cache
def source_run() -> Path:
    """The run directory of a net that was trained for a moment, for methods that take pretrained nets."""
    folder = Path(tempfile.mkdtemp())
    atexit.register(shutil.rmtree, folder)
    about = ("fbf-mnist-cnn", 10, (1, 28, 28))
    data = load("mnist-5k")
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = models.create(*about)
        optimizer = torch.optim.Adam(model.parameters(), lr=2e-3)
        for rows in torch.randperm(len(data.train)).split(100):  # they lie in the order of their classes
            optimizer.zero_grad()
            x, y = data.train.images[rows].float() / 255, data.train.labels[rows]
            F.cross_entropy(model(x), y).backward()
            optimizer.step()
    record = runs.Record(
        model=models.describe(*about, None, None, {}),
        classes=list(data.classes),
        shape=[1, 28, 28],
        norm="linf",
        eps=None,
        method="Standard",
        data="mnist-5k",
        weights="live",
        epoch=0,
        validation={},
    )
    runs.write_model(folder, record, model)
    return folder


class Net(nn.Module):
    """Two batch norms, the second for a user to freeze: [n, 1, 28, 28] to [n, classes]."""

    def __init__(self, classes: int = 10) -> None:
        super().__init__()
        self.first, self.norm = nn.Conv2d(1, 6, 5, stride=3, bias=False), nn.BatchNorm2d(6)
        self.second, self.frozen = nn.Conv2d(6, 8, 3, stride=2, bias=False), nn.BatchNorm2d(8)
        self.linear = nn.Linear(8 * 3 * 3, classes)

    def forward(self, x: Tensor) -> Tensor:
        x = F.relu(self.norm(self.first(x)))
        out: Tensor = self.linear(F.relu(self.frozen(self.second(x))).flatten(1))
        return out


def net() -> Net:
    """In training mode but for one batch norm, whose statistics are away from (0, 1)."""
    model = Net().train()
    assert model.frozen.running_mean is not None
    model.frozen.running_mean.fill_(0.2)
    model.frozen.eval()
    return model


def batch(n: int, step: int = 0) -> Batch:
    """What a loop knows of a batch."""
    still = torch.zeros(n, dtype=torch.bool)
    index = torch.arange(n)
    return Batch(index=index, shift=torch.zeros(n, 2, dtype=torch.int64), flip=still, noise=StepNoise(5, step))


def prepared(name: str, model: nn.Module, **settings: Any) -> Method:
    method = build(name, **settings)
    method.prepare(model, (1, 28, 28), 10, 64)
    return method


def train(method: Method, model: nn.Module, x: Images, y: Labels, steps: int) -> None:
    """A few plain steps, keyed noise."""
    optimizer = torch.optim.SGD([*model.parameters(), *method.parameters()], lr=0.1, momentum=0.9)
    for step in range(steps):
        optimizer.zero_grad()
        method(model, x, y, batch(len(x), step)).loss.backward()
        optimizer.step()
        method.after_step(model)
