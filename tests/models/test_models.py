"""Nets against parameter counts worked out by hand and against literal transcriptions; what is let in and refused."""

from __future__ import annotations

import json
import math
import re
import sys
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any, TypeAlias

import pytest
import torch
import torch.nn.functional as F
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

import toughen
from toughen import models
from toughen.models.external import data_configuration
from toughen.models.parts import ContrastStretching

Shape: TypeAlias = tuple[int, int, int]
Weights: TypeAlias = dict[str, Tensor]
MNIST = (1, 28, 28)
CIFAR = (3, 32, 32)
SMALL: list[tuple[str, Shape, dict[str, Any]]] = [  # every net, made small, away from its defaults
    ("small-cnn", MNIST, {"dropout": 0.25}),
    ("m-lenet", MNIST, {}),
    ("fbf-mnist-cnn", MNIST, {}),
    ("madry-cnn", MNIST, {}),
    ("lenet+", MNIST, {"padding": "none"}),
    ("efgsm-cnn", MNIST, {}),
    *((name, MNIST, {"variant": variant}) for name in "ABCD" for variant in ("paper", "code")),
    ("conv-4", CIFAR, {"width": 8}),
    ("vgg11", CIFAR, {"width": 4}),
    ("vgg16", CIFAR, {"width": 4}),
    ("vgg19", CIFAR, {"width": 4}),
    ("resnet34", CIFAR, {"width": 4, "extra_relu": True}),
    ("resnet50", CIFAR, {"width": 4}),
    ("resnet50", CIFAR, {"width": 4, "stem": "imagenet"}),
    ("resnet56", CIFAR, {"width": 4}),
    ("resnet18", CIFAR, {"width": 4, "extra_relu": True}),
    ("resnet18", CIFAR, {"width": 4, "stem": "imagenet"}),
    ("preact-resnet18", CIFAR, {"width": 4}),
    ("wrn-16-2", CIFAR, {}),
    ("wrn-34-10", CIFAR, {"depth": 10, "width": 1, "variant": "val-iisc", "stem": "imagenet"}),
]


def parameters(model: nn.Module) -> int:
    return sum(each.numel() for each in model.parameters())


def randomized(model: nn.Module) -> nn.Module:
    """In float64, with batch norms that do something in evaluation mode and a last layer that isn't zero."""
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            assert module.running_mean is not None and module.running_var is not None
            for values in (module.weight, module.bias, module.running_mean):
                nn.init.normal_(values)
            nn.init.uniform_(module.running_var, 0.5, 2)
        elif isinstance(module, nn.Linear):
            nn.init.normal_(module.weight)
    return model.double()


# ---- numbers of parameters: a convolution has k k c_in c_out, a batch norm 2 c, a bias c

RESNET_PAIRS = [(64, 64), (64, 64), (64, 128), (128, 128), (128, 256), (256, 256), (256, 512), (512, 512)]


@pytest.mark.parametrize(
    ("name", "shape", "layers", "total"),
    [
        ("small-cnn", MNIST, (10 * 32, 289 * 32, 289 * 64, 577 * 64, 1025 * 200, 201 * 200, 201 * 10), 312_202),
        ("small-cnn", CIFAR, (28 * 32, 289 * 32, 289 * 64, 577 * 64, 1601 * 200, 201 * 200, 201 * 10), 427_978),
        ("m-lenet", MNIST, (26 * 32, 801 * 32, 801 * 64, 1601 * 64, 3137 * 512, 513 * 10), 1_791_466),
        ("fbf-mnist-cnn", MNIST, (17 * 16, 257 * 32, 1569 * 100, 101 * 10), 166_406),
        ("madry-cnn", MNIST, (26 * 32, 801 * 64, 3137 * 1024, 1025 * 10), 3_274_634),
        ("lenet+", MNIST, (26 * 32, 801 * 64, 3137 * 1024, 1025 * 10), 3_274_634),
        ("lenet+ none", MNIST, (26 * 32, 801 * 64, 1025 * 1024, 1025 * 10), 1_111_946),
        ("efgsm-cnn", MNIST, (10 * 32, 289 * 32, 289 * 64, 577 * 64, 1025 * 128, 129 * 10), 197_482),
        ("A", MNIST, (26 * 64, 1601 * 64, 25_601 * 128, 129 * 10), 3_382_346),
        ("A code", MNIST, (26 * 64, 1601 * 64, 25_601 * 128, 129 * 10), 3_382_346),
        ("B", MNIST, (65 * 64, 2305 * 128, 3201 * 128, 18_433 * 10), 893_258),
        ("B code", MNIST, (65 * 64, 2305 * 128, 3201 * 128, 129 * 10), 710_218),
        ("C", MNIST, (10 * 128, 1153 * 64, 1601 * 128, 129 * 10), 281_290),
        ("C code", MNIST, (10 * 128, 1153 * 64, 36_865 * 128, 129 * 10), 4_795_082),
        ("D", MNIST, (785 * 300, 301 * 300, 301 * 300, 301 * 300, 301 * 10), 509_410),
        ("D code", MNIST, (785 * 300, 301 * 300, 301 * 300, 301 * 300, 301 * 10), 509_410),
        ("conv-4", CIFAR, (28 * 64, 577 * 64, 577 * 128, 1153 * 128, 8193 * 256, 257 * 256, 257 * 10), 2_425_930),
    ],
)
def test_the_plain_nets_have_the_sources_parameters(
    name: str, shape: Shape, layers: tuple[int, ...], total: int
) -> None:
    name, _, form = name.partition(" ")
    settings: dict[str, Any] = {"padding" if form == "none" else "variant": form} if form else {}
    model = models.create(name, 10, shape, **settings)
    sizes = [[each.numel() for each in layer.parameters()] for layer in model.children()]
    assert [sum(size) for size in sizes if size] == list(layers)
    assert sum(layers) == total


def test_the_width_of_efgsm_s_net() -> None:
    layers = (10 * 64, 577 * 64, 577 * 128, 1153 * 128, 2049 * 256, 257 * 10)
    net = models.create("efgsm-cnn", 10, MNIST, width=64)
    assert sum(each.numel() for each in net.parameters()) == sum(layers) == 786_122


def resnet_block(c_in: int, c_out: int) -> int:
    shortcut = 0 if c_in == c_out else c_in * c_out + 2 * c_out
    return 9 * c_in * c_out + 9 * c_out * c_out + 4 * c_out + shortcut


def preact_block(c_in: int, c_out: int) -> int:
    shortcut = 0 if c_in == c_out else c_in * c_out
    return 9 * c_in * c_out + 9 * c_out * c_out + 2 * c_in + 2 * c_out + shortcut


def resnet18(kernel: int, classes: int) -> int:
    blocks = sum(resnet_block(*pair) for pair in RESNET_PAIRS)
    return kernel * kernel * 3 * 64 + 2 * 64 + blocks + 513 * classes


def resnet34(kernel: int, classes: int) -> int:
    further = resnet_block(64, 64) + 2 * resnet_block(128, 128) + 4 * resnet_block(256, 256) + resnet_block(512, 512)
    return resnet18(kernel, classes) + further


def resnet50(kernel: int, classes: int) -> int:
    total, c_in = kernel * kernel * 3 * 64 + 2 * 64, 64
    for inner, blocks in ((64, 3), (128, 4), (256, 6), (512, 3)):
        c_out = 4 * inner
        total += c_in * c_out + 2 * c_out  # the first block's shortcut
        for _ in range(blocks):
            total += c_in * inner + 9 * inner * inner + inner * c_out + 4 * inner + 2 * c_out
            c_in = c_out
    return total + 2049 * classes


def resnet56() -> int:
    total, c_in = 27 * 16 + 2 * 16, 16
    for c_out in (16, 32, 64):
        total += 9 * c_in * c_out + 17 * 9 * c_out * c_out + 18 * 2 * c_out  # nine blocks, shortcuts without weights
        c_in = c_out
    return total + 65 * 10


def vgg(*stages: int) -> int:
    total, c_in = 0, 3
    for c_out, convolutions in zip((64, 128, 256, 512, 512), stages, strict=True):
        for _ in range(convolutions):
            total += (9 * c_in + 1) * c_out + 2 * c_out
            c_in = c_out
    return total + 513 * 10


def wide_resnet(depth: int, width: int, biases: bool) -> int:
    total, c_in = 27 * 16 + 16 * biases, 16
    for c_out in (16 * width, 32 * width, 64 * width):
        for _ in range((depth - 4) // 6):
            total += preact_block(c_in, c_out) + biases * (2 * c_out + (c_out if c_in != c_out else 0))
            c_in = c_out
    return total + 2 * c_in + (c_in + 1) * 10


@pytest.mark.parametrize(
    ("name", "classes", "settings", "count", "published"),
    [
        ("resnet18", 10, {}, resnet18(3, 10), 11_173_962),
        ("resnet18", 10, {"extra_relu": True}, resnet18(3, 10), 11_173_962),
        ("resnet18", 1000, {"stem": "imagenet"}, resnet18(7, 1000), 11_689_512),  # torchvision's figure
        ("resnet34", 10, {}, resnet34(3, 10), 21_282_122),
        ("resnet34", 1000, {"stem": "imagenet"}, resnet34(7, 1000), 21_797_672),  # torchvision's figure
        ("resnet50", 10, {}, resnet50(3, 10), 23_520_842),
        ("resnet50", 1000, {"stem": "imagenet"}, resnet50(7, 1000), 25_557_032),  # torchvision's figure
        ("resnet56", 10, {}, resnet56(), 853_018),
        ("vgg11", 10, {}, vgg(1, 1, 2, 2, 2), 9_231_114),
        ("vgg16", 10, {}, vgg(2, 2, 3, 3, 3), 14_728_266),
        ("vgg19", 10, {}, vgg(2, 2, 4, 4, 4), 20_040_522),
        ("preact-resnet18", 10, {}, 27 * 64 + sum(preact_block(*p) for p in RESNET_PAIRS) + 1024 + 5130, 11_172_170),
        ("wrn-34-10", 10, {}, wide_resnet(34, 10, False), 46_160_474),
        ("wrn-34-10", 10, {"variant": "val-iisc"}, wide_resnet(34, 10, True), 46_172_810),
        ("wrn-28-10", 10, {}, wide_resnet(28, 10, False), 36_479_194),
        ("wrn-22-5", 10, {}, wide_resnet(22, 5, False), 6_711_194),
    ],
)
def test_the_deep_nets_have_the_sources_parameters(
    name: str, classes: int, settings: dict[str, Any], count: int, published: int
) -> None:
    with torch.device("meta"):
        model = models.create(name, classes, **settings)
    assert parameters(model) == count == published


@pytest.mark.parametrize(
    ("name", "shape", "millions", "tolerance"),  # as the papers round them; the first is only "0.2 million" there
    [
        ("efgsm-cnn", MNIST, 0.2, 0.05),
        ("madry-cnn", MNIST, 3.3, 0.03),
        ("wrn-22-5", CIFAR, 6.7, 0.01),
        ("wrn-34-10", CIFAR, 46, 0.01),
        ("conv-4", CIFAR, 2.4, 0.02),
        ("vgg16", CIFAR, 14.7, 0.01),
        ("resnet56", CIFAR, 0.85, 0.01),
    ],
)
def test_a_net_has_the_millions_of_parameters_that_papers_state(
    name: str, shape: Shape, millions: float, tolerance: float
) -> None:
    with torch.device("meta"):
        assert parameters(models.create(name, 10, shape)) == pytest.approx(millions * 1e6, rel=tolerance)


def test_summaries_say_how_many_parameters_a_net_has() -> None:
    lines = models.summaries()
    assert (
        list(lines)
        == models.names()
        == [
            *("small-cnn", "madry-cnn", "m-lenet", "lenet+", "fbf-mnist-cnn", "efgsm-cnn", "A", "B", "C", "D"),
            *("conv-4", "vgg11", "vgg16", "vgg19", "resnet18", "resnet34", "resnet50", "resnet56", "preact-resnet18"),
            *("wrn-22-5", "wrn-28-10", "wrn-34-10"),
        ]
    )
    assert "312,202 parameters on 1x28x28" in lines["small-cnn"] and "893,258 parameters on 1x28x28" in lines["B"]
    assert "6,711,194 parameters on 3x32x32" in lines["wrn-22-5"]
    assert "46,160,474 parameters" in lines["wrn-34-10"]
    assert all("\n" not in line for line in lines.values())
    choices = "stem=cifar (or imagenet), extra_relu=false, activation=relu (or silu, gelu)."
    assert lines["resnet18"].endswith(f"3x32x32. Settings: width=64, {choices}")
    assert "Settings: depth=22, width=5, " in lines["wrn-22-5"]
    assert lines["m-lenet"].endswith("parameters on 1x28x28.")  # it has no settings


# ---- the forward pass, written out again with functions


def stretched_by_hand(x: Tensor) -> Tensor:
    return torch.where(x < 0, 0.02 * x, torch.where(x > 1, 1 + 0.02 * (x - 1), x))


class Transcription:
    """torch's functional operations over a net's weights, batch norm worked out by hand."""

    def __init__(self, weights: Weights, training: bool) -> None:
        self.w, self.training = weights, training

    def norm(self, x: Tensor, name: str) -> Tensor:
        mean, var = self.w.get(f"{name}.running_mean"), self.w.get(f"{name}.running_var")
        if self.training:
            mean = x.mean((0, 2, 3))
            var = ((x - mean.view(1, -1, 1, 1)) ** 2).mean((0, 2, 3))
        assert mean is not None and var is not None
        scale = self.w[f"{name}.weight"] / (var + 1e-5).sqrt()
        return (x - mean.view(1, -1, 1, 1)) * scale.view(1, -1, 1, 1) + self.w[f"{name}.bias"].view(1, -1, 1, 1)

    def conv(self, x: Tensor, name: str, stride: int = 1, padding: int = 1) -> Tensor:
        return F.conv2d(x, self.w[f"{name}.weight"], self.w.get(f"{name}.bias"), stride, padding)

    def linear(self, x: Tensor, name: str) -> Tensor:
        return x @ self.w[f"{name}.weight"].T + self.w[f"{name}.bias"]

    def resnet(
        self,
        x: Tensor,
        blocks: tuple[int, ...],
        extra_relu: bool = False,
        padded: bool = False,
        act: Callable[[Tensor], Tensor] = F.relu,
    ) -> Tensor:
        x = act(self.norm(self.conv(x, "stem.0"), "stem.1"))
        for stage, number in enumerate(blocks):
            for block in range(number):
                at, stride = f"stages.{stage}.{block}", 2 if stage > 0 and block == 0 else 1
                out = act(self.norm(self.conv(x, f"{at}.residual.0", stride), f"{at}.residual.1"))
                out = self.norm(self.conv(out, f"{at}.residual.3"), f"{at}.residual.4")
                if extra_relu:
                    out = F.relu(out)
                if stride == 2 and padded:
                    x = torch.cat([x[:, :, ::2, ::2], torch.zeros_like(x[:, :, ::2, ::2])], dim=1)
                elif stride == 2:
                    x = self.norm(self.conv(x, f"{at}.shortcut.0", stride, 0), f"{at}.shortcut.1")
                x = act(out + x)
        return self.linear(F.avg_pool2d(x, x.shape[2]).flatten(1), "linear")

    def resnet50(self, x: Tensor) -> Tensor:
        x = F.relu(self.norm(self.conv(x, "stem.0"), "stem.1"))
        for stage, blocks in enumerate((3, 4, 6, 3)):
            for block in range(blocks):
                at, stride = f"stages.{stage}.{block}", 2 if stage > 0 and block == 0 else 1
                out = F.relu(self.norm(self.conv(x, f"{at}.residual.0", 1, 0), f"{at}.residual.1"))
                out = F.relu(self.norm(self.conv(out, f"{at}.residual.3", stride, 1), f"{at}.residual.4"))
                out = self.norm(self.conv(out, f"{at}.residual.6", 1, 0), f"{at}.residual.7")
                if block == 0:
                    x = self.norm(self.conv(x, f"{at}.shortcut.0", stride, 0), f"{at}.shortcut.1")
                x = F.relu(out + x)
        return self.linear(F.avg_pool2d(x, 4).flatten(1), "linear")

    def vgg(self, x: Tensor, *stages: int) -> Tensor:
        for stage, convolutions in enumerate(stages):
            for place in range(0, 3 * convolutions, 3):
                x = F.relu(self.norm(self.conv(x, f"stages.{stage}.{place}"), f"stages.{stage}.{place + 1}"))
            x = F.max_pool2d(x, 2)
        assert x.shape[2:] == (1, 1)
        return self.linear(x.flatten(1), "linear")

    def preact_resnet18(self, x: Tensor) -> Tensor:
        x = self.conv(x, "stem.0")
        for block in range(8):
            at, stride = f"blocks.{block}", 2 if block in (2, 4, 6) else 1
            out = self.conv(F.relu(self.norm(x, f"{at}.residual.0")), f"{at}.residual.2", stride)
            out = self.conv(F.relu(self.norm(out, f"{at}.residual.3")), f"{at}.residual.5")
            x = out + (self.conv(x, f"{at}.shortcut", stride, 0) if stride == 2 else x)
        return self.linear(F.avg_pool2d(F.relu(self.norm(x, "norm")), 4).flatten(1), "linear")

    def trades_wrn(self, x: Tensor) -> Tensor:  # 16 layers: two blocks a stage
        x = self.conv(x, "stem.0")
        for stage in range(3):
            for block in range(2):
                at, stride = f"stages.{stage}.{block}", 2 if stage > 0 and block == 0 else 1
                ready = F.relu(self.norm(x, f"{at}.ready.0"))
                out = F.relu(self.norm(self.conv(ready, f"{at}.residual.0", stride), f"{at}.residual.1"))
                out = self.conv(out, f"{at}.residual.3")
                x = out + (self.conv(ready, f"{at}.shortcut", stride, 0) if block == 0 else x)
        return self.linear(F.avg_pool2d(F.relu(self.norm(x, "norm")), 8).flatten(1), "linear")

    def val_iisc_wrn(self, x: Tensor) -> Tensor:
        x = self.conv(x, "stem.0")
        for stage in range(3):
            for block in range(2):
                at, stride = f"stages.{stage}.{block}", 2 if stage > 0 and block == 0 else 1
                out = self.conv(F.relu(self.norm(x, f"{at}.residual.0")), f"{at}.residual.2")
                out = self.conv(F.relu(self.norm(out, f"{at}.residual.3")), f"{at}.residual.5", stride)
                x = out + (self.conv(x, f"{at}.shortcut", stride, 0) if block == 0 else x)
        return self.linear(F.avg_pool2d(F.relu(self.norm(x, "norm")), 8).flatten(1), "linear")

    def small_cnn(self, x: Tensor) -> Tensor:
        x = F.relu(self.conv(F.relu(self.conv(x, "0", 1, 0)), "2", 1, 0))
        x = F.max_pool2d(x, 2)
        x = F.relu(self.conv(F.relu(self.conv(x, "5", 1, 0)), "7", 1, 0))
        x = F.max_pool2d(x, 2).flatten(1)
        return self.linear(F.relu(self.linear(F.relu(self.linear(x, "11")), "14")), "16")

    def m_lenet(self, x: Tensor) -> Tensor:
        x = F.max_pool2d(F.relu(self.conv(F.relu(self.conv(x, "0", 1, 2)), "2", 1, 2)), 2)
        x = F.max_pool2d(F.relu(self.conv(F.relu(self.conv(x, "5", 1, 2)), "7", 1, 2)), 2)
        return self.linear(F.relu(self.linear(x.flatten(1), "11")), "13")

    def fbf_net(self, x: Tensor) -> Tensor:
        x = F.relu(self.conv(F.relu(self.conv(x, "0", 2, 1)), "2", 2, 1))
        return self.linear(F.relu(self.linear(x.flatten(1), "5")), "7")

    def efgsm_cnn(self, x: Tensor, first: int = 0) -> Tensor:
        one, two, three, four, hidden, last = (str(first + number) for number in (0, 2, 5, 7, 11, 13))
        x = F.max_pool2d(F.relu(self.conv(F.relu(self.conv(x, one, 1, 0)), two, 1, 0)), 2)
        x = F.max_pool2d(F.relu(self.conv(F.relu(self.conv(x, three, 1, 0)), four, 1, 0)), 2)
        return self.linear(F.relu(self.linear(x.flatten(1), hidden)), last)

    def lenet_plus(self, x: Tensor, padding: int = 2) -> Tensor:
        x = F.max_pool2d(F.relu(self.conv(x, "0", 1, padding)), 2)
        x = F.max_pool2d(F.relu(self.conv(x, "3", 1, padding)), 2)
        return self.linear(F.relu(self.linear(x.flatten(1), "7")), "9")

    def net_a(self, x: Tensor) -> Tensor:
        x = F.relu(self.conv(F.relu(self.conv(x, "0", 1, 0)), "2", 1, 0))
        return self.linear(F.relu(self.linear(x.flatten(1), "6")), "9")

    def net_b(self, x: Tensor) -> Tensor:
        x = F.relu(self.conv(x, "1", 1, 0))
        x = F.relu(self.conv(F.relu(self.conv(x, "3", 1, 0)), "5", 1, 0))
        return self.linear(x.flatten(1), "9")

    def net_b_code(self, x: Tensor) -> Tensor:
        x = F.relu(self.conv(F.pad(x, (3, 3, 3, 3)), "1", 2, 0))  # "same": six pixels for 28, half on each side
        x = F.relu(self.conv(F.relu(self.conv(x, "3", 2, 0)), "5", 1, 0))
        return self.linear(x.flatten(1), "9")

    def net_c(self, x: Tensor) -> Tensor:
        x = F.max_pool2d(torch.tanh(self.conv(x, "0", 1, 0)), 2)
        x = F.max_pool2d(torch.tanh(self.conv(x, "3", 1, 0)), 2)
        return self.linear(F.relu(self.linear(x.flatten(1), "7")), "9")

    def net_c_code(self, x: Tensor) -> Tensor:
        x = F.relu(self.conv(F.relu(self.conv(x, "0", 1, 0)), "2", 1, 0))
        return self.linear(F.relu(self.linear(x.flatten(1), "6")), "9")

    def net_d(self, x: Tensor) -> Tensor:
        x = x.flatten(1)
        for place in ("1", "4", "7", "10"):
            x = F.relu(self.linear(x, place))
        return self.linear(x, "13")

    def conv_4(self, x: Tensor) -> Tensor:
        x = F.max_pool2d(F.relu(self.conv(F.relu(self.conv(x, "0")), "2")), 2)
        x = F.max_pool2d(F.relu(self.conv(F.relu(self.conv(x, "5")), "7")), 2)
        return self.linear(F.relu(self.linear(F.relu(self.linear(x.flatten(1), "11")), "13")), "15")


@pytest.mark.parametrize("training", [False, True], ids=["eval", "train"])
@pytest.mark.parametrize(
    ("name", "shape", "settings", "transcribed"),
    [
        ("resnet18", CIFAR, {"width": 6}, lambda t, x: t.resnet(x, (2, 2, 2, 2))),
        ("resnet18", CIFAR, {"width": 6, "extra_relu": True}, lambda t, x: t.resnet(x, (2, 2, 2, 2), extra_relu=True)),
        ("resnet34", CIFAR, {"width": 6}, lambda t, x: t.resnet(x, (3, 4, 6, 3))),
        ("resnet34", CIFAR, {"width": 6, "extra_relu": True}, lambda t, x: t.resnet(x, (3, 4, 6, 3), extra_relu=True)),
        (
            "resnet18",
            CIFAR,
            {"width": 6, "activation": "silu"},
            lambda t, x: t.resnet(x, (2, 2, 2, 2), act=lambda v: v / (1 + torch.exp(-v))),
        ),
        (
            "resnet18",
            CIFAR,
            {"width": 6, "activation": "gelu"},
            lambda t, x: t.resnet(x, (2, 2, 2, 2), act=lambda v: v * (1 + torch.erf(v / 2**0.5)) / 2),
        ),
        ("resnet50", CIFAR, {"width": 4}, Transcription.resnet50),
        ("resnet56", CIFAR, {"width": 6}, lambda t, x: t.resnet(x, (9, 9, 9), padded=True)),
        ("vgg11", CIFAR, {"width": 6}, lambda t, x: t.vgg(x, 1, 1, 2, 2, 2)),
        ("vgg16", CIFAR, {"width": 6}, lambda t, x: t.vgg(x, 2, 2, 3, 3, 3)),
        ("vgg19", CIFAR, {"width": 6}, lambda t, x: t.vgg(x, 2, 2, 4, 4, 4)),
        ("conv-4", CIFAR, {"width": 6}, Transcription.conv_4),
        ("preact-resnet18", CIFAR, {"width": 6}, Transcription.preact_resnet18),
        ("wrn-16-2", CIFAR, {}, Transcription.trades_wrn),
        ("wrn-16-2", CIFAR, {"variant": "val-iisc"}, Transcription.val_iisc_wrn),
        ("small-cnn", MNIST, {"dropout": 0}, Transcription.small_cnn),
        ("m-lenet", MNIST, {}, Transcription.m_lenet),
        ("fbf-mnist-cnn", MNIST, {}, Transcription.fbf_net),
        ("efgsm-cnn", MNIST, {}, Transcription.efgsm_cnn),
        ("efgsm-cnn", MNIST, {"stretch": 0.25}, lambda t, x: t.efgsm_cnn(stretched_by_hand(2 * x - 0.5), first=1)),
        ("efgsm-cnn", MNIST, {"width": 6}, Transcription.efgsm_cnn),
        ("madry-cnn", MNIST, {}, Transcription.lenet_plus),
        ("lenet+", MNIST, {}, Transcription.lenet_plus),
        ("lenet+", MNIST, {"padding": "none"}, lambda t, x: t.lenet_plus(x, padding=0)),
        ("A", MNIST, {}, Transcription.net_a),
        ("A", MNIST, {"variant": "code"}, Transcription.net_a),
        ("B", MNIST, {}, Transcription.net_b),
        ("B", MNIST, {"variant": "code"}, Transcription.net_b_code),
        ("C", MNIST, {}, Transcription.net_c),
        ("C", MNIST, {"variant": "code"}, Transcription.net_c_code),
        ("D", MNIST, {}, Transcription.net_d),
        ("D", MNIST, {"variant": "code"}, Transcription.net_d),
    ],
)
def test_a_net_computes_what_its_literal_transcription_does(
    name: str,
    shape: Shape,
    settings: dict[str, Any],
    transcribed: Callable[[Transcription, Tensor], Tensor],
    training: bool,
) -> None:
    model = randomized(models.create(name, 10, shape, **settings)).train(training)
    for module in model.modules():
        if isinstance(module, nn.Dropout):
            module.p = 0.0
    x = torch.rand(4, *shape, dtype=torch.float64)
    expected = transcribed(Transcription({k: v.clone() for k, v in model.state_dict().items()}, training), x)
    assert expected.std() > 0.1
    torch.testing.assert_close(model(x), expected, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize(
    ("name", "paper", "code"),
    [
        ("A", [(4, 0.25), (8, 0.5)], [(4, 0.25), (8, 0.5)]),
        ("B", [(0, 0.2), (7, 0.5)], [(0, 0.2), (7, 0.5)]),
        ("C", [], [(4, 0.25), (8, 0.5)]),
        ("D", [(place, 0.5) for place in (3, 6, 9, 12)], [(place, 0.5) for place in (3, 6, 9, 12)]),
    ],
)
def test_the_ensembles_nets_drop_what_their_sources_drop(
    name: str, paper: list[tuple[int, float]], code: list[tuple[int, float]]
) -> None:
    for variant, expected in (("paper", paper), ("code", code)):
        layers = enumerate(models.create(name, 10, MNIST, variant=variant).children())
        assert [(place, layer.p) for place, layer in layers if isinstance(layer, nn.Dropout)] == expected


def test_small_cnn_drops_hidden_units_only_while_training() -> None:
    model = randomized(models.create("small-cnn", 10, MNIST, dropout=0.5))
    x = torch.rand(8, *MNIST, dtype=torch.float64)
    seen: list[Tensor] = []
    model.get_submodule("13").register_forward_hook(lambda *call: seen.append(call[2]))
    model.train()(x)
    model.eval()(x)
    kept = F.relu(seen[1]) > 0
    assert 0.4 < (seen[0][kept] == 0).double().mean() < 0.6  # half of the units that the evaluation pass keeps
    torch.testing.assert_close(seen[0][seen[0] > 0], 2 * seen[1][seen[0] > 0])


# ---- the state a net starts in


def test_small_cnn_starts_kaiming_normal_with_zero_logits() -> None:
    model = models.create("small-cnn", 10, MNIST).eval()
    assert (model(torch.rand(3, *MNIST)) == 0).all()
    assert model.get_parameter("7.weight").std().item() == pytest.approx(math.sqrt(2 / (9 * 64)), rel=0.03)
    biases = {name: bias for name, bias in model.named_parameters() if name.endswith("bias")}
    zero = {name for name, bias in biases.items() if not bias.any()}
    assert zero == {"0.bias", "2.bias", "5.bias", "7.bias", "16.bias"}  # the four convolutions' and the last layer's
    assert biases["11.bias"].abs().max().item() == pytest.approx(1 / 32, rel=0.03)  # torch's: uniform, 1,024 inputs


def test_wide_resnets_start_as_their_sources_do() -> None:
    trades = models.create("wrn-10-4")
    assert isinstance(trades.linear, nn.Linear) and (trades.linear.bias == 0).all()
    weight = trades.get_parameter("stages.2.0.residual.0.weight")  # 128 to 256 channels
    assert weight.std().item() == pytest.approx(math.sqrt(2 / (9 * 256)), rel=0.03)
    theirs = models.create("wrn-10-4", variant="val-iisc")
    weight = theirs.get_parameter("stages.2.0.residual.2.weight")
    assert weight.abs().max().item() == pytest.approx(1 / math.sqrt(9 * 128), rel=0.03)  # torch's: uniform


def test_only_the_last_batch_norm_of_val_iisc_forgets_fast() -> None:
    def momenta(**settings: Any) -> list[float | None]:
        modules = models.create("wrn-10-1", **settings).modules()
        return [module.momentum for module in modules if isinstance(module, nn.BatchNorm2d)]

    assert momenta() == [0.1] * 7
    assert momenta(variant="val-iisc") == [0.1] * 6 + [0.9]


@pytest.mark.parametrize(("name", "stage"), [("resnet18", "2.0"), ("resnet34", "2.0")])
def test_resnets_start_as_torch_does_and_as_torchvision_for_large_images(name: str, stage: str) -> None:
    small, large = models.create(name), models.create(name, stem="imagenet")
    weight = f"stages.{stage}.residual.0.weight"  # 128 to 256 channels
    assert small.get_parameter(weight).abs().max().item() == pytest.approx(1 / math.sqrt(9 * 128), rel=0.03)
    assert large.get_parameter(weight).std().item() == pytest.approx(math.sqrt(2 / (9 * 256)), rel=0.03)


def test_resnet50_starts_as_torch_does_and_as_torchvision_for_large_images() -> None:
    small, large = models.create("resnet50"), models.create("resnet50", stem="imagenet")
    name = "stages.2.0.residual.0.weight"  # 1x1, 512 to 256 channels
    assert small.get_parameter(name).abs().max().item() == pytest.approx(1 / math.sqrt(512), rel=0.03)
    assert large.get_parameter(name).std().item() == pytest.approx(math.sqrt(2 / 256), rel=0.03)


def test_resnet56_starts_kaiming_normal_over_the_fan_in() -> None:
    weight = models.create("resnet56").get_parameter("stages.2.0.residual.0.weight")  # 32 to 64 channels
    assert weight.std().item() == pytest.approx(math.sqrt(2 / (9 * 32)), rel=0.03)


def test_madrys_net_starts_as_its_source_does_and_lenet_plus_as_torch_does() -> None:
    madry = dict(models.create("madry-cnn", 10, MNIST).named_parameters())
    assert all((value == 0.1).all() for name, value in madry.items() if "bias" in name)
    weight = madry["7.weight"]
    assert weight.abs().max() <= 0.2
    # a standard normal cut off at 2 has the variance 1 - 2 * 2 phi(2) / (Phi(2) - Phi(-2)) = 1 - 4 * 0.05399 / 0.9545
    assert weight.std().item() == pytest.approx(0.1 * math.sqrt(1 - 4 * 0.05399 / 0.9545), rel=0.01)
    weight = models.create("lenet+", 10, MNIST).get_parameter("7.weight")
    assert weight.abs().max().item() == pytest.approx(1 / math.sqrt(3136), rel=0.03)


@pytest.mark.parametrize(
    ("name", "weight", "largest", "spread"),  # Glorot: uniform up to sqrt(6 / (in + out)); D's: normal, sqrt(2 / in)
    [
        ("A", "2.weight", math.sqrt(6 / (1600 + 1600)), math.sqrt(2 / 3200)),
        ("B", "3.weight", math.sqrt(6 / (2304 + 4608)), math.sqrt(2 / 6912)),
        ("C", "2.weight", math.sqrt(6 / (1152 + 576)), math.sqrt(2 / 1728)),
        ("D", "13.weight", math.sqrt(6 / (300 + 10)), math.sqrt(2 / 310)),
        ("D", "1.weight", None, math.sqrt(2 / 784)),
        ("D", "10.weight", None, math.sqrt(2 / 300)),
    ],
)
def test_the_ensembles_nets_of_the_code_start_as_it_does(
    name: str, weight: str, largest: float | None, spread: float
) -> None:
    weights = dict(models.create(name, 10, MNIST, variant="code").named_parameters())
    assert all((value == 0).all() for key, value in weights.items() if "bias" in key)
    assert weights[weight].std().item() == pytest.approx(spread, rel=0.03)
    found = weights[weight].abs().max().item()
    assert found == pytest.approx(largest, rel=0.03) if largest else found > 3 * spread


@pytest.mark.parametrize(
    ("name", "weight", "inputs"),
    [("A", "2.weight", 1600), ("B", "3.weight", 2304), ("C", "7.weight", 1600), ("D", "4.weight", 300)],
)
def test_the_ensembles_nets_of_the_paper_start_as_torch_does(name: str, weight: str, inputs: int) -> None:
    found = models.create(name, 10, MNIST).get_parameter(weight).abs().max().item()
    assert found == pytest.approx(1 / math.sqrt(inputs), rel=0.03)


# ---- sizes


@pytest.mark.parametrize(("name", "shape", "settings"), SMALL)
@pytest.mark.parametrize("shape_given", [None, (2, 33, 38)])
def test_a_net_takes_other_channels_sizes_and_classes(
    name: str, shape: Shape, settings: dict[str, Any], shape_given: Shape | None
) -> None:
    shape = shape_given or shape
    assert models.create(name, 7, shape, **settings)(torch.rand(2, *shape)).shape == (2, 7)


@pytest.mark.parametrize("name", ["resnet18", "resnet34", "resnet50", "preact-resnet18", "wrn-10-2"])
def test_the_imagenet_stem_divides_each_side_by_four(name: str) -> None:
    model = randomized(models.create(name, 100, (3, 96, 64), stem="imagenet")).eval()
    x = torch.rand(2, 3, 96, 64, dtype=torch.float64)
    t = Transcription(model.state_dict(), training=False)
    expected = t.conv(x, "stem.0", 2, 3)
    if name.startswith("resnet"):
        expected = F.relu(t.norm(expected, "stem.1"))
    expected = F.max_pool2d(expected, 3, 2, 1)
    assert expected.shape[2:] == (24, 16)
    torch.testing.assert_close(model.get_submodule("stem")(x), expected, rtol=1e-9, atol=1e-9)
    assert model(x).shape == (2, 100)


@pytest.mark.parametrize(
    ("name", "side", "settings"),
    [
        ("small-cnn", 16, {}),
        ("madry-cnn", 4, {}),
        ("m-lenet", 4, {}),
        ("lenet+", 4, {}),
        ("lenet+", 16, {"padding": "none"}),
        ("fbf-mnist-cnn", 4, {}),
        ("efgsm-cnn", 16, {}),
        ("A", 9, {}),
        ("B", 17, {}),
        ("B", 28, {"variant": "code"}),
        ("C", 10, {}),
        ("C", 5, {"variant": "code"}),
        ("conv-4", 4, {}),
        ("vgg11", 32, {"width": 2}),
        ("vgg19", 32, {"width": 2}),
    ],
)
def test_too_small_images_are_refused(name: str, side: int, settings: dict[str, Any]) -> None:
    model = models.create(name, 10, (1, side, side), **settings).eval()
    assert model(torch.rand(2, 1, side, side)).shape == (2, 10)
    message = f"^{re.escape(name)} needs images of at least {side}x{side} pixels, these are {side}x{side - 1}"
    with pytest.raises(ValueError, match=message):
        models.create(name, 10, (1, side, side - 1), **settings)


@pytest.mark.parametrize(("name", "shape", "settings"), SMALL)
def test_a_net_runs_channels_last_in_bf16(name: str, shape: Shape, settings: dict[str, Any]) -> None:
    model = models.create(name, 10, shape, mean=[0.4] * shape[0], std=[0.3] * shape[0], **settings).eval()
    x = torch.rand(4, *shape)
    exact = model(x)
    model.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    x = x.to(memory_format=torch.channels_last)
    assert model.get_submodule("normalize")(x).is_contiguous(memory_format=torch.channels_last)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        out = model(x)
    assert out.dtype is torch.bfloat16
    assert (out.float() - exact).abs().max() <= 0.05 * (1 + exact.abs().max())


# ---- normalisation


def test_normalisation_inside_is_normalisation_outside() -> None:
    mean, std = (0.4914, 0.4822, 0.4465), (0.2471, 0.2435, 0.2616)
    inside = models.create("resnet18", width=4, mean=mean, std=std).eval()
    outside = models.create("resnet18", width=4).eval()
    outside.load_state_dict({k.removeprefix("net."): v for k, v in inside.state_dict().items() if k[:4] == "net."})
    x = torch.rand(3, *CIFAR)
    by_hand = torch.stack([(x[:, c] - mean[c]) / std[c] for c in range(3)], dim=1)
    torch.testing.assert_close(inside(x), outside(by_hand))
    assert (inside(x) - outside(x)).abs().max() > 1e-3


def test_normalize_subtracts_and_divides_per_channel() -> None:
    layer = models.Normalize([0.5, 0.25], [0.25, 2])
    assert layer(torch.ones(1, 2, 1, 1)).flatten().tolist() == [2.0, 0.375]
    assert set(layer.state_dict()) == {"mean", "std"}


def test_grey_images_are_not_normalised_as_colour_ones() -> None:
    """A single channel would be used for all three, and an attack would change only the brightness."""
    model = models.create("resnet18", width=4, mean=[0.5] * 3, std=[0.25] * 3).eval()
    with pytest.raises(ValueError, match="the images have 1 channel, and the model takes 3"):
        model(torch.rand(2, 1, 32, 32))
    with pytest.raises(ValueError, match=r"cannot take images of shape \[1, 32, 32\]: the images have 1 channel"):
        toughen.evaluate(model, (torch.rand(2, 1, 32, 32), torch.tensor([0, 1])), eps=0.1, attacks=["fgsm"])


@pytest.mark.parametrize(
    ("mean", "std", "message"),
    [
        ([0.5] * 3, None, "only one of mean and std"),
        (None, [0.5] * 3, "only one of mean and std"),
        ([0.5], [0.5], "1 numbers, the images 3 channels"),
        ([0.5] * 3, [0.5], "mean has 3 numbers and std 1"),
        ([0.5] * 3, [0.5, 0.5, 0.0], "std above 0"),
        ([0.5, 0.5, math.nan], [0.5] * 3, "must be finite"),
    ],
)
def test_wrong_statistics_are_refused(mean: list[float] | None, std: list[float] | None, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        models.create("resnet18", width=1, mean=mean, std=std)


# ---- names and settings


@pytest.mark.parametrize(
    ("name", "settings", "message"),
    [
        ("resnet-18", {}, r"'resnet-18' is unknown: did you mean resnet18\? There are small-cnn, .*timm:NAME"),
        ("nothing", {}, "'nothing' is unknown: There are small-cnn"),
        ("wrn-34-10-2", {}, "is unknown"),
        ("resnet18", {"widht": 32}, "resnet18 has no setting 'widht': it takes width, stem, extra_relu"),
        ("resnet18", {"num_blocks": 2}, "has no setting 'num_blocks'"),
        ("m-lenet", {"dropout": 0.5}, "m-lenet has no setting 'dropout': it takes none"),
        ("e", {}, "model 'e' is unknown"),
        ("B", {"variant": "val-iisc"}, 'must be "paper" or "code"'),
        ("lenet+", {"padding": 2}, 'must be "same" or "none"'),
        ("resnet34", {"width": 0}, "width=0 of resnet34 must be 1 or more"),
        ("resnet50", {"width": 0}, "width=0 of resnet50 must be 1 or more"),
        ("resnet50", {"extra_relu": True}, "has no setting 'extra_relu': it takes width, stem"),
        ("resnet56", {"width": 0}, "width=0 of resnet56 must be 1 or more"),
        ("vgg16", {"width": 0}, "width=0 of vgg16 must be 1 or more"),
        ("conv-4", {"width": 0}, "width=0 of conv-4 must be 1 or more"),
        ("resnet18", {"width": 0}, "width=0 of resnet18 must be 1 or more"),
        ("resnet18", {"width": 1.5}, "width=1.5 of model resnet18 must be a whole number"),
        ("resnet18", {"width": True}, "must be a whole number"),
        ("resnet18", {"extra_relu": 1}, "extra_relu=1 of model resnet18 must be true or false"),
        ("resnet18", {"activation": "tanh"}, 'must be "relu" or "silu" or "gelu"'),
        ("resnet18", {"stem": "svhn"}, 'must be "cifar" or "imagenet"'),
        ("small-cnn", {"dropout": "0.5"}, "dropout='0.5' of model small-cnn must be a number"),
        ("small-cnn", {"dropout": 1.0}, "at least 0 and below 1"),
        ("small-cnn", {"dropout": math.nan}, "at least 0 and below 1"),
        ("wrn-30-10", {}, r"depth=30 of a wide ResNet must be 6 n \+ 4"),
        ("wrn-4-1", {}, "depth=4"),
        ("wrn-10-0", {}, "width=0"),
        ("wrn-34-10", {"variant": "madry"}, 'must be "trades" or "val-iisc"'),
        ("resnet18", {"num_classes": 1}, "num_classes must be a whole number, 2 or more"),
        ("resnet18", {"shape": (3, 0, 32)}, "shape must be channels, height and width"),
        ("efgsm-cnn", {"width": 0}, "width=0"),
        ("efgsm-cnn", {"stretch": 0.5}, "the contrast stretching's low is 0.5: it must be above 0 and below 0.5"),
        ("efgsm-cnn", {"stretch": math.nan}, "the contrast stretching's low is nan"),
    ],
)
def test_wrong_names_and_settings_are_refused_by_name(name: str, settings: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        models.create(name, **settings)


@pytest.mark.parametrize(
    ("given", "name"), [("b", "B"), ("LeNet+", "lenet+"), ("ResNet56", "resnet56"), ("WRN-10-1", "wrn-10-1")]
)
def test_a_name_is_found_in_capitals_or_not(given: str, name: str) -> None:
    shape = MNIST if name in "B lenet+" else CIFAR
    assert str(models.create(given, 10, shape)) == str(models.create(name, 10, shape))
    assert models.describe(given, 10, shape, None, None, {})["name"] == name


def test_depth_and_width_win_over_a_name() -> None:
    model = models.create("wrn-34-10", depth=10, width=1)
    assert parameters(model) == wide_resnet(10, 1, False)
    assert models.describe("wrn-34-10", 10, CIFAR, None, None, {"depth": 10, "width": 1})["name"] == "wrn-10-1"


# ---- models from elsewhere


@pytest.fixture
def users(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """The name of an importable module of a user's."""
    (tmp_path / "a_users_nets.py").write_text(
        "from torch import nn\n"
        "def full(num_classes, shape, bias=True):\n"
        "    return nn.Sequential(nn.Flatten(), nn.Linear(shape[0] * shape[1] * shape[2], num_classes, bias=bias))\n"
        "def passes_on(**rest):\n"
        "    assert set(rest) == {'num_classes'}\n"
        "    return nn.Sequential(nn.Flatten(), nn.LazyLinear(rest['num_classes']))\n"
        "def plain():\n"
        "    return nn.Flatten()\n"
        "def wrong():\n"
        "    return 5\n"
        "def fails():\n"
        "    return {}['weights']\n"
        "number = 5\n"
        "made = nn.Flatten()\n"
        "def deep(width=3):\n"
        "    return nn.Conv2d(1, width, 3)\n"
    )
    (tmp_path / "a_users_relative_nets.py").write_text("from .parts import net\n")
    (tmp_path / "a_users_broken_nets.py").write_text("import no_such_package_anywhere\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    return "a_users_nets"


def test_a_users_function_gets_what_its_signature_takes(users: str) -> None:
    full = models.create(f"{users}:full", 7, (1, 4, 5), mean=[0.5], std=[0.5], bias=False)
    assert full(torch.rand(2, 1, 4, 5)).shape == (2, 7) and parameters(full) == 7 * 20
    assert isinstance(full.normalize, models.Normalize)
    assert models.create(f"{users}:passes_on", 7, (1, 4, 5))(torch.rand(2, 1, 4, 5)).shape == (2, 7)
    assert isinstance(models.create(f"{users}:plain"), nn.Flatten)


@pytest.mark.parametrize(
    ("path", "settings", "message"),
    [
        ("a_users_nets:full", {"typo": 1}, r"cannot be called with \(num_classes, shape, typo\).*'typo'"),
        ("a_users_nets:wrong", {}, "returned int: it must return an nn.Module"),
        ("a_users_nets:number", {}, "is not a function"),
        ("a_users_nets:fails", {}, r"a_users_nets:fails failed at .*a_users_nets.py, line \d+: KeyError: 'weights'"),
        ("a_users_nets:deep", {"width": "x"}, r"a_users_nets:deep failed at .*a_users_nets.py, line 16: TypeError"),
        ("a_users_nets:missing", {}, "module a_users_nets has no 'missing'$"),
        ("a_users_nets:fulll", {}, r"module a_users_nets has no 'fulll': did you mean full\?"),
        ("a_users_nets:made", {}, "'a_users_nets:made' is a net: name its class, or a function that returns it"),
        ("a_users_nets.py:full", {}, "'a_users_nets.py:full' names a file: write a_users_nets:full"),
        ("./folder/a_users_nets.py:full", {}, "names a file: write a_users_nets:full, with its folder on PYTHONPATH"),
        ("a_users_nets:", {}, "names no function: write a_users_nets:FUNCTION"),
        (
            "a_users_relative_nets:net",
            {},
            "cannot be imported: at .*a_users_relative_nets.py, line 1: ImportError: attempted relative import with no "
            "known parent package$",
        ),
        ("a_users_nowhere:full", {}, "cannot be imported: No module named 'a_users_nowhere'; is its folder on PYTHON"),
        (
            "a_users_broken_nets:full",
            {},
            "a_users_broken_nets imports no_such_package_anywhere, which is neither installed nor on PYTHONPATH",
        ),
        (":full", {}, "cannot be imported"),
        (".nets:full", {}, "cannot be imported"),
    ],
)
def test_a_users_function_that_does_not_work_is_refused(
    users: str, path: str, settings: dict[str, Any], message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        models.create(path, **settings)


def test_timm_that_is_missing_is_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "timm", None)
    with pytest.raises(ValueError, match=r"timm:resnet50 needs the package timm: pip install 'toughen\[timm\]'"):
        models.create("timm:resnet50")


def test_timm_gets_classes_channels_and_settings(monkeypatch: pytest.MonkeyPatch) -> None:
    def create_model(name: str, **given: Any) -> nn.Module:
        if name != "tiny":
            raise RuntimeError(f"Unknown model ({name})")
        assert given == {"num_classes": 7, "in_chans": 1, "drop_rate": 0.1}
        return nn.Sequential(nn.Flatten(), nn.Linear(16, 7))

    weights = ["tiny.a1_in1k", "tiny.a2_in1k"]
    listed = {"list_models": lambda: ["tiny", "hugest"], "list_pretrained": lambda wanted: weights}
    known = SimpleNamespace(create_model=create_model, is_model=lambda net: net == "tiny", **listed)
    monkeypatch.setitem(sys.modules, "timm", known)
    assert models.create("timm:tiny", 7, (1, 4, 4), drop_rate=0.1)(torch.rand(2, 1, 4, 4)).shape == (2, 7)
    with pytest.raises(ValueError, match=r"make model 'huge': Unknown model \(huge\); did you mean hugest\?"):
        models.create("timm:huge")
    with pytest.raises(ValueError, match=r"did you mean tiny.a2_in1k or tiny.a1_in1k\?"):
        models.create("timm:tiny.a2_in9k")
    with pytest.raises(ValueError, match=r"Unknown model \(nothing\); python -c .* prints their names$"):
        models.create("timm:nothing")
    with pytest.raises(ValueError, match=r"timm has no model 'huge'; did you mean hugest\?"):
        data_configuration("huge")


# ---- descriptions and weights in files


@pytest.mark.parametrize(("name", "shape", "settings"), SMALL)
def test_a_description_and_its_weights_rebuild_a_model(
    name: str, shape: Shape, settings: dict[str, Any], tmp_path: Path
) -> None:
    mean, std = [0.4] * shape[0], [0.3] * shape[0]
    model = models.create(name, 7, shape, mean, std, **settings)
    for module in model.modules():
        if isinstance(module, nn.Linear):
            nn.init.normal_(module.weight)  # a small-cnn fresh from the shop returns zeros
    save_file(model.state_dict(), tmp_path / "model.safetensors")
    record = models.describe(name, 7, shape, mean, std, settings)
    rebuilt = models.from_description(json.loads(json.dumps(record)))
    rebuilt.load_state_dict(load_file(tmp_path / "model.safetensors"))
    x = torch.rand(2, *shape)
    assert torch.equal(rebuilt.eval()(x), model.eval()(x))
    assert [type(each) for each in rebuilt.modules()] == [type(each) for each in model.modules()]
    again = models.describe(record["name"], 7, shape, record["mean"], record["std"], record["settings"])
    assert again == record


def test_a_description_writes_defaults_out() -> None:
    assert models.describe("resnet18", 10, CIFAR, None, None, {"width": 8}) == {
        "name": "resnet18",
        "num_classes": 10,
        "shape": [3, 32, 32],
        "mean": None,
        "std": None,
        "settings": {"width": 8, "stem": "cifar", "extra_relu": False, "activation": "relu"},
    }


def test_a_description_of_a_users_model_is_plain_or_refused() -> None:
    record = models.describe("nets:own", 10, CIFAR, None, None, {"depth": 3})
    assert record["name"] == "nets:own" and record["settings"] == {"depth": 3}
    with pytest.raises(ValueError, match="settings of model nets:own must be plain"):
        models.describe("nets:own", 10, CIFAR, None, None, {"act": nn.ReLU})


@pytest.mark.parametrize("name", ["a_users_nets:plain", "timm:hf-hub:them/resnet50"])
def test_a_file_may_not_name_what_to_import(users: str, name: str) -> None:
    record = models.describe(name, 10, CIFAR, None, None, {})
    sys.modules.pop(users, None)
    with pytest.raises(ValueError, match="give --model package.module:function or timm:NAME yourself"):
        models.from_description(record)
    assert users not in sys.modules


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"extra": 1}, "must have the fields name, num_classes, shape, mean, std, settings, this one has"),
        ({"name": 5}, "a text as name"),
        ({"settings": [1]}, "a mapping as settings"),
        ({"settings": {"name": "x"}}, "has no setting 'name'"),
        ({"settings": {"mean": [0.5]}}, "has no setting 'mean'"),
        ({"settings": {"class_path": "os.system"}}, "has no setting 'class_path'"),
        ({"num_classes": "10"}, "num_classes must be a whole number"),
        ({"num_classes": True}, "num_classes must be a whole number"),
        ({"shape": [3, 32]}, "shape must be channels, height and width"),
        ({"shape": [3, 32, 1.5]}, "shape must be channels, height and width"),
        ({"shape": "3x32"}, "a list as shape"),
        ({"mean": [0.5, 0.5, "0.5"], "std": [0.5] * 3}, "mean in a model's description must be null or a list"),
        ({"mean": [0.5] * 3, "std": 0.5}, "std in a model's description must be null or a list"),
        ({"mean": [0.5] * 3}, "only one of mean and std"),
    ],
)
def test_a_tampered_description_is_refused(change: dict[str, Any], message: str) -> None:
    record = models.describe("resnet18", 10, CIFAR, None, None, {"width": 1})
    models.from_description(record)
    with pytest.raises(ValueError, match=message):
        models.from_description(record | change)


@pytest.mark.parametrize("record", [{}, [], "resnet18", {"name": "resnet18"}])
def test_what_is_no_description_is_refused(record: object) -> None:
    with pytest.raises(ValueError, match="must have the fields"):
        models.from_description(record)


# ---- check


def flat(*more: nn.Module, classes: int = 10) -> nn.Sequential:
    return nn.Sequential(nn.Flatten(), nn.Linear(48, classes), *more)


class Returns(nn.Module):
    """Turns logits into something else."""

    def __init__(self, change: Callable[[Tensor], object]) -> None:
        super().__init__()
        self.change = change

    def forward(self, logits: Tensor) -> object:
        return self.change(logits)


def with_weight(name: str, value: float) -> nn.Module:
    model = nn.Sequential(nn.BatchNorm2d(3), *flat())
    model.state_dict()[name].view(-1)[0] = value
    return model


@pytest.mark.parametrize(
    ("model", "message"),
    [
        (flat(classes=9), "has 9 outputs and the data 10 classes: create it with num_classes=10"),
        (
            flat(Returns(lambda z: z[:, :, None])),
            r"returns torch.float32 of shape \[2, 10, 1\] for 2 images: logits are needed",
        ),
        (flat(Returns(lambda z: z[0])), r"returns torch.float32 of shape \[10\]"),
        (flat(Returns(lambda z: [z])), "returns list for 2 images"),
        (flat(Returns(lambda z: z.long())), "returns torch.int64 of shape"),
        (flat(Returns(lambda z: z / 0)), "NaN or infinite logits although its weights are finite"),
        (flat(Returns(lambda z: z * math.nan)), "NaN or infinite logits although its weights are finite"),
        (with_weight("2.weight", math.nan), "weight '2.weight' holds NaN or infinity"),
        (with_weight("0.bias", math.inf), "weight '0.bias' holds NaN or infinity"),
        (with_weight("0.running_var", math.nan), "buffer '0.running_var' holds NaN"),
        (flat(nn.Softmax(1)), "returns probabilities .* remove the softmax at its end"),
        (nn.Sequential(nn.Flatten(), nn.Linear(3072, 10)), r"cannot take images of shape \[3, 4, 4\]: .*mat1 and mat2"),
        (nn.Conv2d(1, 10, 3), r"cannot take images of shape \[3, 4, 4\]"),
    ],
)
def test_check_refuses(model: nn.Module, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        models.check(model, 10, (3, 4, 4))


@pytest.mark.parametrize("model", [flat(), flat(nn.ReLU()), flat(nn.LogSoftmax(1)), flat().double()])
def test_check_lets_logits_pass(model: nn.Module) -> None:
    models.check(model, 10, (3, 4, 4))


@pytest.mark.parametrize(
    "model",
    [
        flat(Returns(lambda z: SimpleNamespace(logits=z))),
        flat(Returns(lambda z: z * 0)),
        flat(Returns(lambda z: z - z.mean(1, keepdim=True) + 0.1)),  # adds up to 1, but falls below 0
    ],
)
def test_check_lets_unusual_logits_pass(model: nn.Module) -> None:
    models.check(model, 10, (3, 4, 4))


def test_check_changes_neither_model_nor_random_state() -> None:
    model = nn.Sequential(nn.BatchNorm2d(3), nn.Dropout(0.5), *flat()).train()
    model[0].eval()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    model[1].train()
    random = torch.get_rng_state()
    models.check(model, 10, (3, 4, 4))
    assert [module.training for module in model] == [False, True, True, True]
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    assert torch.equal(torch.get_rng_state(), random)
    assert all(each.grad is None for each in model.parameters())
    model[0].train()
    models.check(model, 10, (3, 4, 4))  # in evaluation mode, so running statistics stay
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())


# ---- contrast stretching


def test_contrast_stretching_by_hand() -> None:
    x = torch.tensor([0, 0.2, 0.4, 0.5, 0.6, 1.0]).view(1, 1, 2, 3).requires_grad_()
    out = ContrastStretching(0.3)(x)
    torch.testing.assert_close(out.flatten(), torch.tensor([-0.015, -0.005, 0.25, 0.5, 0.75, 1.015]))
    out.sum().backward()
    assert x.grad is not None
    torch.testing.assert_close(x.grad.flatten(), torch.tensor([0.05, 0.05, 2.5, 2.5, 2.5, 0.05]))


def test_an_attack_of_the_width_changes_a_black_or_white_pixel_by_a_fiftieth_of_its_stretched_size() -> None:
    x = torch.tensor([[0.0, 1.0], [1.0, 0.0]]).view(1, 1, 2, 2)
    layer = ContrastStretching(0.3)
    changed = (layer(x + 0.3 * (1 - 2 * x)) - layer(x)).abs()
    torch.testing.assert_close(changed, torch.full_like(x, 0.3 / 0.4 / 50))


def test_a_description_rebuilds_a_net_with_contrast_stretching() -> None:
    model = models.create("efgsm-cnn", 10, MNIST, stretch=0.3)
    rebuilt = models.from_description(models.describe("efgsm-cnn", 10, MNIST, None, None, {"stretch": 0.3}))
    rebuilt.load_state_dict(model.state_dict())
    x = torch.rand(2, *MNIST)
    assert torch.equal(rebuilt(x), model(x))


def test_contrast_stretching_refuses_normalised_images() -> None:
    with pytest.raises(ValueError, match="takes values in .0, 1.: leave normalisation out, with --normalize false"):
        models.create("efgsm-cnn", 10, MNIST, [0.13], [0.3], stretch=0.3)
