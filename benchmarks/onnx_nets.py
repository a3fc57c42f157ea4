"""Nets of several kinds, exported to ONNX: the same predictions, and the same images found by attacks.

python benchmarks/onnx_nets.py --cifar10 DIR
python benchmarks/onnx_nets.py --cifar10 DIR --nets m-lenet resnet18

Each net is trained for some steps on real images, exported, and run by ONNX Runtime. On test images it is told how many
are classified otherwise and the largest difference of a logit. The first of them are attacked: by PGD, whose gradients
are the original's, and which images it breaks is judged on the original and on the exported net; by Square, which asks
nothing but logits, once those of the original, once those of the exported net. One line of results/onnx-nets.json for
each net; a net that is there already is left out. timm's nets need timm.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from toughen import models
from toughen.attacks import PGD, Square
from toughen.core.rng import ImageNoise
from toughen.data import Data, load
from toughen.engine.device import pick_device, provenance
from toughen.models.export import difference, export, load_exported
from toughen.runs.files import read_json, write_json

BATCH = 100
STEPS_OF_PGD, QUERIES = 10, 20


@dataclass(frozen=True)
class Net:
    """A net and how it is trained.

    Attributes:
        data: "mnist-5k", which is embedded, or "cifar10".
        settings: of the net.
        lr: AdamW's rate.
        steps: of training, of 64 images each.
        eps: of the attacks, for which some images stand and some fall.
    """

    data: str
    settings: dict[str, Any] = field(default_factory=dict)
    lr: float = 1e-3
    steps: int = 150
    eps: float = 1 / 255


NETS = {
    "m-lenet": Net("mnist-5k", eps=0.1),
    "resnet18": Net("cifar10", {"width": 16}, lr=3e-3),
    "wrn-16-4": Net("cifar10", lr=3e-3, steps=20, eps=8 / 255),
    "timm:mobilenetv3_small_050": Net("mnist-5k", lr=3e-3, eps=0.02),
    "timm:vit_tiny_patch16_224": Net("mnist-5k", {"img_size": 28, "patch_size": 7}, lr=5e-4, eps=0.02),
}


class Exported(nn.Module):
    """An exported net where an attack wants a module: it has no gradient."""

    def __init__(self, run: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.run = run

    def forward(self, x: Tensor) -> Tensor:
        return self.run(x.contiguous())


def trained(name: str, net: Net, data: Data, seed: int) -> nn.Module:
    """A net after some steps of training."""
    torch.manual_seed(seed)
    mean, std = data.statistics()
    model = models.create(name, len(data.classes), data.shape, mean, std, **net.settings)
    optimizer = torch.optim.AdamW(model.train().parameters(), lr=net.lr)
    for step in range(net.steps):
        for group in optimizer.param_groups:
            group["lr"] = net.lr * min(1, step / 20, (net.steps - step) / (0.5 * net.steps))
        rows = torch.randint(len(data.train), (64,))
        x, y = data.train.images[rows].float() / 255, data.train.labels[rows]
        optimizer.zero_grad()
        F.cross_entropy(model(x), y).backward()
        optimizer.step()
    return model.eval().requires_grad_(False)


def compare(name: str, net: Net, data: Data, images: int, attack: int, seed: int) -> dict[str, Any]:
    """The row of one net; the numbers of images that are classified and attacked are given."""
    started = time.perf_counter()
    model = trained(name, net, data, seed)
    chosen = torch.randperm(len(data.test), generator=torch.Generator().manual_seed(seed))[:images]
    x, y = data.test.images[chosen].float() / 255, data.test.labels[chosen]
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "net.onnx"
        export(model, data.shape, path, "onnx", {"classes": "[]"})
        exported = Exported(load_exported(path, "onnx"))
        clean, accuracy = difference(model, exported, x, BATCH), accuracies(model, exported, x, y)
        predictions = len(predicted(model, x).unique())
        x, y = x[:attack], y[:attack]
        pgd = attacked(PGD(eps=net.eps, steps=STEPS_OF_PGD), model, x, y, seed)
        moved = difference(model, exported, pgd, BATCH)
        square = Square(eps=net.eps, queries=QUERIES, rescale_schedule=True)
        squares = [attacked(square, each, x, y, seed) for each in (model, exported)]
        right = {"original": predicted(model, x) == y, "exported": predicted(exported, x) == y}
        broken = {
            "pgd": {of: right[of] & (predicted(each, pgd) != y) for of, each in both(model, exported)},
            "square": {
                of: right[of] & (predicted(each, x_adv) != y)
                for (of, each), x_adv in zip(both(model, exported), squares, strict=True)
            },
        }
    return {
        "data": data.name,
        "settings": net.settings,
        "eps": net.eps,
        "steps of training": net.steps,
        "images": images,
        "clean accuracy": accuracy,
        "classes predicted": predictions,
        "classified otherwise": {"clean": clean.classes, "adversarial": moved.classes},
        "largest difference of a logit": {"clean": clean.logit, "adversarial": moved.logit},
        "images attacked": len(x),
        "right before": int(right["original"].sum()),
        "broken": {
            name: {
                **{of: int(mask.sum()) for of, mask in masks.items()},
                "on one alone": int((masks["original"] != masks["exported"]).sum()),
            }
            for name, masks in broken.items()
        },
        "steps of PGD": STEPS_OF_PGD,
        "queries of Square": QUERIES,
        "seed": seed,
        "seconds": round(time.perf_counter() - started, 1),
        "provenance": provenance(pick_device("cpu")) | versions(name),
    }


def both(model: nn.Module, exported: nn.Module) -> list[tuple[str, nn.Module]]:
    return [("original", model), ("exported", exported)]


def accuracies(model: nn.Module, exported: nn.Module, x: Tensor, y: Tensor) -> dict[str, float]:
    return {of: float((predicted(each, x) == y).float().mean()) for of, each in both(model, exported)}


def versions(name: str) -> dict[str, str]:
    packages = ("onnx", "onnxruntime", "onnxscript", *(["timm"] if name.startswith("timm:") else []))
    return {package: version(package) for package in packages}


def attacked(attack: PGD | Square, model: nn.Module, x: Tensor, y: Tensor, seed: int) -> Tensor:
    """Adversarial images; each has its own noise, whatever the batch."""
    parts = []
    for rows in torch.arange(len(x)).split(BATCH):
        parts.append(attack(model, x[rows], y[rows], ImageNoise(seed, "onnx", rows.tolist())))
    return torch.cat(parts)


@torch.no_grad()
def predicted(model: nn.Module, x: Tensor) -> Tensor:
    return torch.cat([model(part).argmax(1) for part in x.split(BATCH)])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cifar10", required=True, metavar="DIR")
    parser.add_argument("--nets", nargs="+", choices=NETS, default=list(NETS), metavar="NET", help=", ".join(NETS))
    parser.add_argument("--images", type=int, default=1000)
    parser.add_argument("--attack", type=int, default=100, help="of these, how many are attacked")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, default=Path(__file__).parent / "results" / "onnx-nets.json")
    arguments = parser.parse_args()
    known = read_json(arguments.out) if arguments.out.exists() else {}
    for name in arguments.nets:
        if name in known:
            continue
        net = NETS[name]
        data = load(arguments.cifar10 if net.data == "cifar10" else net.data)
        line = compare(name, net, data, arguments.images, arguments.attack, arguments.seed)
        known[name] = line
        write_json(arguments.out, known)
        said = (line["classified otherwise"], line["largest difference of a logit"], line["broken"])
        print(f"{name}: clean {line['clean accuracy']['original']:.3f}", *said, f"{line['seconds']} s", flush=True)


if __name__ == "__main__":
    main()
