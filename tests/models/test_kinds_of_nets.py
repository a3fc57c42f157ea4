"""Nets of other kinds than toughen's own: trained against a threat for some steps, evaluated, exported, fine-tuned.

Two of them are written here. timm's are tested where timm is installed.
"""

from __future__ import annotations

import json
import os
import sys
from functools import cache
from pathlib import Path
from typing import Any

import onnxruntime
import pytest
import torch
import torch.nn.functional as F
from commands import digits, process, toughen
from safetensors.torch import load_file
from timm_nets import needs_timm
from torch import Tensor, nn

from toughen import models
from toughen.data import load
from toughen.models.layers import head_of

EPS, SIDE = 0.02, 32  # what nets that halve their images five times leave one of
ATTACKED = 0.1  # a larger eps, which nets of so few steps do not withstand
NETS: dict[str, dict[str, Any]] = {
    "test_kinds_of_nets:depthwise": {},
    "test_kinds_of_nets:attention": {},
    "timm:mobilenetv3_small_050": {},
    "timm:efficientnet_b0": {},
    "timm:convnext_atto": {},
    "timm:vit_tiny_patch16_224": {"img_size": SIDE, "patch_size": 16},
}
every_net = pytest.mark.parametrize(
    "name", [pytest.param(name, marks=needs_timm) if name.startswith("timm:") else name for name in NETS]
)


class Separable(nn.Module):
    """A depthwise convolution, a gate over channels, a pointwise convolution, and a shortcut around them."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.depthwise = nn.Sequential(
            nn.Conv2d(channels, channels, 5, padding=2, groups=channels, bias=False),
            nn.BatchNorm2d(channels), nn.Hardswish(),
        )  # fmt: skip
        self.gate = nn.Sequential(nn.Conv2d(channels, channels, 1), nn.Hardsigmoid())
        self.pointwise = nn.Sequential(nn.Conv2d(channels, channels, 1, bias=False), nn.BatchNorm2d(channels))

    def forward(self, x: Tensor) -> Tensor:
        found = self.depthwise(x)
        gate = self.gate(found.mean((2, 3), keepdim=True))
        return x + self.pointwise(found * gate)  # type: ignore[no-any-return]


def depthwise(num_classes: int, shape: tuple[int, int, int]) -> nn.Module:
    return nn.Sequential(
        nn.Conv2d(shape[0], 16, 4, stride=4), nn.BatchNorm2d(16), nn.Hardswish(),
        Separable(16), Separable(16),
        nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(16, num_classes),
    )  # fmt: skip


class Attention(nn.Module):
    """A transformer over patches of 8x8 pixels, with a class token and a position for each."""

    def __init__(self, num_classes: int, shape: tuple[int, int, int]) -> None:
        super().__init__()
        self.token = nn.Parameter(torch.zeros(1, 1, 32))
        self.place = nn.Parameter(0.02 * torch.randn(1, 1 + shape[1] // 8 * (shape[2] // 8), 32))
        self.patches = nn.Conv2d(shape[0], 32, 8, stride=8)
        layer = nn.TransformerEncoderLayer(32, 4, 64, dropout=0.0, activation="gelu", batch_first=True, norm_first=True)
        self.encoder = nn.TransformerEncoder(layer, 2, enable_nested_tensor=False)
        self.norm, self.head = nn.LayerNorm(32), nn.Linear(32, num_classes)

    def forward(self, x: Tensor) -> Tensor:
        patches = self.patches(x).flatten(2).transpose(1, 2)
        found = self.encoder(torch.cat([self.token.expand(len(x), -1, -1), patches], 1) + self.place)
        return self.head(self.norm(found[:, 0]))  # type: ignore[no-any-return]


def attention(num_classes: int, shape: tuple[int, int, int]) -> nn.Module:
    return Attention(num_classes, shape)


def own(name: str) -> list[str]:
    """What a command is told so that it trusts a net of the user's own."""
    return [] if name.startswith("timm:") else ["--model", name]


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("kinds")


def words(name: str, data: object = "mnist-5k", held_out: int = 100) -> list[object]:
    """Training by FGSM for one epoch, of 122 steps on the embedded images."""
    settings = json.dumps(NETS[name])
    run = f"train --data {data} --model {name} --image_size {SIDE} --validation {held_out} --validation_steps 2"
    how = f"--epochs 1 --eps {EPS} --method FGSMAT --optimizer AdamW --optimizer.lr 0.002 --batch_size 32 --watch off"
    return [*run.split(), *how.split(), "--precision", "fp32", "--weights", "last", "--model_settings", settings]


@cache
def trained(name: str, place: Path) -> Path:
    folder = place / name.replace(":", "-")
    ended = toughen(*words(name), "--out", folder)
    assert ended.status == 0, ended.err
    return folder


def restored(name: str, folder: Path) -> nn.Module:
    """The run's net, put together here: made anew, its weights out of the run's file."""
    record = json.loads((folder / "model.json").read_text())["model"]
    net = models.create(name, 10, (1, SIDE, SIDE), record["mean"], record["std"], **NETS[name])
    net.load_state_dict(load_file(folder / "model.safetensors"))
    return net.eval()


@cache
def digit_images() -> tuple[Tensor, Tensor]:
    test = load(str(digits()), image_size=SIDE).test  # 40 of the embedded test images
    return test.images.float() / 255, test.labels


@pytest.mark.slow
@every_net
def test_training_moves_every_weight(name: str, place: Path) -> None:
    folder = trained(name, place)
    torch.manual_seed(0)
    fresh = models.create(name, 10, (1, SIDE, SIDE), (0.1,), (0.3,), **NETS[name]).state_dict()
    after = load_file(folder / "model.safetensors")
    weights = dict(restored(name, folder).named_parameters())
    assert fresh.keys() == after.keys() and all(weight.isfinite().all() for weight in weights.values())
    constant = [key for key in weights if fresh[key].unique().numel() == 1]  # such as a norm's scale of ones
    assert [key for key in constant if torch.equal(fresh[key], after[key])] == []


@every_net
def test_an_evaluation_says_what_a_loop_of_our_own_says(name: str, place: Path, tmp_path: Path) -> None:
    folder = trained(name, place)
    more = ("--attacks", "fgsm", "--verdict", "false", "--details", "false", "--precision", "fp32")
    ended = toughen("evaluate", folder, *own(name), "--data", digits(), "--eps", ATTACKED, *more, "--out", tmp_path)
    assert ended.status == 0, ended.err
    found = json.loads((tmp_path / "evaluation.json").read_text())
    net, (x, y) = restored(name, folder), digit_images()
    clean = net(x).argmax(1) == y
    slope = torch.autograd.grad(F.cross_entropy(net(given := x.clone().requires_grad_()), y), given)[0]
    robust = clean & (net((x + ATTACKED * slope.sign()).clamp(0, 1)).argmax(1) == y)
    assert (found["clean_accuracy"], found["images"]) == (pytest.approx(clean.double().mean().item()), 40)
    assert found["attacks"]["fgsm"]["robust_accuracy"] == pytest.approx(robust.double().mean().item())
    assert len(net(x).argmax(1).unique()) > 2 and found["robust_accuracy"] < found["clean_accuracy"]


@pytest.mark.slow
@every_net
def test_an_exported_net_says_the_same(name: str, place: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """In a process of its own: the exporter cannot read functions whose arguments are checked while tests run."""
    folder = trained(name, place)
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join(filter(None, sys.path)))
    for form, file in (("onnx", "net.onnx"), ("torch-export", "net.pt2")):
        more = ("--format", form, "--attack", "fgsm", "--limit", 100, "--out", tmp_path / file)
        ended = process("-m", "toughen", "export", folder, *own(name), *more)
        assert ended.returncode == 0 and ended.stdout.count("the same classes") == 2, ended.stderr
    session = onnxruntime.InferenceSession(str(tmp_path / "net.onnx"), providers=["CPUExecutionProvider"])
    x, _ = digit_images()
    with torch.no_grad():
        ours = restored(name, folder)(x)
    theirs = torch.from_numpy(session.run(["logits"], {"images": x.numpy()})[0])
    torch.testing.assert_close(theirs, ours, rtol=1e-4, atol=1e-3)
    torch.testing.assert_close(torch.export.load(tmp_path / "net.pt2").module()(x), ours, rtol=1e-4, atol=1e-3)


@every_net
def test_a_net_is_fine_tuned_by_its_last_layer_and_layer_by_layer(name: str, place: Path, tmp_path: Path) -> None:
    folder = trained(name, place)
    before = load_file(folder / "model.safetensors")
    head = head_of(restored(name, folder).get_submodule("net"), 10)
    for more in (("--frozen", "backbone"), ("--frozen", 2, "--layer_decay", 0.5)):
        out = tmp_path / str(more[1])
        ended = toughen(*words(name, digits(), 10), "--init", folder, *more, "--out", out)
        assert ended.status == 0, ended.err
        after = load_file(out / "model.safetensors")
        moved = {key for key in before if not torch.equal(before[key], after[key])}
        weights = {key for key in moved if key.startswith(f"net.{head}.")}
        assert len(weights) == 2 and (moved == weights) == (more[1] == "backbone")
