"""Layers of nets, written out by hand, and those of timm's by timm."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from timm_nets import NETS as TIMM
from timm_nets import needs_timm
from torch import Tensor, nn

from toughen import models
from toughen.models.layers import head_of, layers_of


class Block(nn.Module):
    """A residual block, with a norm on each side."""

    def __init__(self) -> None:
        super().__init__()
        self.before, self.mix = nn.BatchNorm2d(4), nn.Sequential(nn.Conv2d(4, 4, 1), nn.ReLU(), nn.Conv2d(4, 4, 1))

    def forward(self, x: Tensor) -> Tensor:
        return x + self.mix(self.before(x))  # type: ignore[no-any-return]


class Backbone(nn.Module):
    """A net without its head: a position for each pixel, a convolution with its norm, two blocks, a norm."""

    def __init__(self) -> None:
        super().__init__()
        self.place = nn.Parameter(torch.zeros(1, 1, 8, 8))
        self.stem = nn.Sequential(nn.Conv2d(1, 4, 1), nn.BatchNorm2d(4))
        self.blocks = nn.ModuleList([Block(), Block()])
        self.norm = nn.BatchNorm2d(4)

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x + self.place)
        for block in self.blocks:
            x = block(x)
        return self.norm(x).mean((2, 3))  # type: ignore[no-any-return]


class Whole(nn.Module):
    """A head in front of a backbone, as modules are registered, not as they run."""

    def __init__(self) -> None:
        super().__init__()
        self.head, self.backbone = nn.Linear(4, 3), Backbone()

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.backbone(x))  # type: ignore[no-any-return]


def modules_of(layer: list[str]) -> list[str]:
    """The modules whose parameters a layer holds."""
    return list(dict.fromkeys(name.rpartition(".")[0] for name in layer))


def test_a_net_within_a_net_has_the_layers_of_both_and_the_head_is_the_last() -> None:
    net = Whole()
    layers = layers_of(net, 3)
    assert [modules_of(layer) for layer in layers] == [
        ["backbone", "backbone.stem.0", "backbone.stem.1"],
        ["backbone.blocks.0.before", "backbone.blocks.0.mix.0", "backbone.blocks.0.mix.2"],
        ["backbone.blocks.1.before", "backbone.blocks.1.mix.0", "backbone.blocks.1.mix.2", "backbone.norm"],
        ["head"],
    ]
    assert sorted(name for layer in layers for name in layer) == sorted(dict(net.named_parameters()))


@pytest.mark.parametrize(
    ("name", "settings", "firsts"),
    [
        ("m-lenet", {}, ["0", "2", "5", "7", "11", "13"]),
        ("vgg11", {"width": 4}, [*(f"stages.{n}.{k}" for n, k in [(0, 0), (1, 0), (2, 0), (2, 3)]),
                                 *(f"stages.{n}.{k}" for n in (3, 4) for k in (0, 3)), "linear"]),
        ("resnet18", {"width": 4}, ["stem.0", *(f"stages.{n}.{k}.residual.0" for n in range(4) for k in range(2)),
                                    "linear"]),
        ("wrn-16-1", {}, ["stem.0", *(f"stages.{n}.{k}.ready.0" for n in range(3) for k in range(2)), "linear"]),
        ("preact-resnet18", {"width": 4}, ["stem.0", *(f"blocks.{n}.residual.0" for n in range(8)), "linear"]),
    ],
)  # fmt: skip
def test_toughens_own_nets_have_the_layers_of_their_papers(
    name: str, settings: dict[str, Any], firsts: list[str]
) -> None:
    net = models.create(name, 10, (3, 32, 32), **settings)
    layers = layers_of(net, 10)
    assert [modules_of(layer)[0] for layer in layers] == firsts
    assert [each for layer in layers for each in layer] == [each for each, _ in net.named_parameters()]


def test_a_shared_weight_is_in_one_layer() -> None:
    one = nn.Linear(4, 4)
    assert layers_of(nn.Sequential(one, nn.ReLU(), one, nn.Linear(4, 2)), 2) == [
        ["0.weight", "0.bias"],
        ["3.weight", "3.bias"],
    ]


@needs_timm
@pytest.mark.parametrize("name", TIMM)
def test_nets_of_timms_are_divided_as_timm_divides_them(name: str) -> None:
    from timm.optim import param_groups_layer_decay

    net = models.create(name, 10, (1, 28, 28), **TIMM[name])
    layers = layers_of(net, 10)
    names = {id(weight): each for each, weight in net.named_parameters()}
    theirs: dict[float, set[str]] = {}
    for group in param_groups_layer_decay(net, layer_decay=0.5):
        theirs.setdefault(group["lr_scale"], set()).update(names[id(weight)] for weight in group["params"])
    assert {0.5**depth: set(layer) for depth, layer in enumerate(reversed(layers))} == theirs


def test_the_layer_that_gives_the_logits_is_found() -> None:
    for name in ("resnet18", "wrn-16-1", "vgg11"):
        settings: dict[str, Any] = {"width": 8} if name == "resnet18" else {}
        net = models.create(name, 10, (3, 32, 32), **settings)
        head = dict(net.named_modules())[head_of(net, 10)]
        assert isinstance(head, nn.Linear) and head.out_features == 10
