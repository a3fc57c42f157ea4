"""Time of PGD in toughen, in a plain loop, and in other packages, on the same images of the same net.

python benchmarks/evaluate.py --data DIR                              an untrained ResNet-18, 64 images
python benchmarks/evaluate.py --data DIR --run RUN --device cuda      a trained net, at the threat it was trained for

All make the same number of steps of the same size from the clean image, with the same labels, in evaluation mode. They
run alternately. The unit is one plain training step (forward, backward with weight gradients, SGD) in float32 on these
images in the same round. So that no implementation does less work unnoticed, the operations of each are counted, its
images are classified by the net in float32, and their distance is checked. "toughen" is the attack alone, all steps on
all images; "toughen evaluate", which needs a trained net, is what `toughen evaluate` does: it does not attack
misclassified images further, and it confirms adversarial images in float32. AutoAttack against its reference:
benchmarks/autoattack.py.
"""

from __future__ import annotations

import argparse
import copy
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path
from typing import Any

import official
import torch
import torch.nn.functional as F
import torchattacks
from arithmetic import counted
from foolbox.attacks import LinfPGD
from foolbox.models.pytorch import PyTorchModel
from torch import Tensor, nn
from torch.optim import SGD
from turns import figures, ratio, take_turns

import toughen
from toughen import data as data_sets
from toughen import models
from toughen.attacks import PGD
from toughen.core.cost import flops
from toughen.core.gradients import mode
from toughen.core.rng import derive_seed
from toughen.data import Split
from toughen.engine.device import Precision, provenance
from toughen.engine.fixed_batch import FixedBatchModel
from toughen.engine.memory import keep_freed_memory
from toughen.evaluation import measure
from toughen.evaluation.harness import as_floats
from toughen.runs.files import read_json, write_json

UNIT, PLAIN = "plain training step", "plain loop"
PRECISIONS: tuple[Precision, ...] = ("fp32", "bf16")


class Implementation:
    """Attacks the images when called, and keeps the result.

    Args:
        attack: images and labels to adversarial images, or to a mask of the images that stand.
    """

    def __init__(self, attack: Callable[[Tensor, Tensor], Tensor], x: Tensor, y: Tensor) -> None:
        self.attack, self.x, self.y = attack, x, y
        self.found = torch.empty(0)

    def __call__(self) -> None:
        self.found = self.attack(self.x, self.y)


def plain_loop(net: nn.Module, eps: float, step_size: float, steps: int) -> Callable[[Tensor, Tensor], Tensor]:
    """PGD as a plain loop, without weight gradients."""

    def attack(x: Tensor, y: Tensor) -> Tensor:
        x_adv = x
        for _ in range(steps):
            x_adv = x_adv.detach().requires_grad_()
            (gradient,) = torch.autograd.grad(F.cross_entropy(net(x_adv), y), x_adv)
            x_adv = torch.min(torch.max(x_adv + step_size * gradient.sign(), x - eps), x + eps).clamp(0, 1)
        return x_adv.detach()

    return attack


def of_foolbox(net: nn.Module, eps: float, step_size: float, steps: int) -> Callable[[Tensor, Tensor], Tensor]:
    """foolbox's PGD, called as in its documentation."""
    model = PyTorchModel(net, bounds=(0, 1), device=next(net.parameters()).device)
    attack = LinfPGD(abs_stepsize=step_size, steps=steps, random_start=False)

    def run(x: Tensor, y: Tensor) -> Tensor:
        clipped: Tensor = attack(model, x, y, epsilons=eps)[1]
        return clipped

    return run


def ours(net: nn.Module, attack: PGD, precision: Precision, images: int) -> Callable[[Tensor, Tensor], Tensor]:
    """toughen's attack alone, all images in one block."""
    blocks = FixedBatchModel(net, images, precision)

    def run(x: Tensor, y: Tensor) -> Tensor:
        with mode(blocks, "eval"):
            x_adv: Tensor = attack(blocks, x, y)
        return x_adv

    return run


def whole(net: nn.Module, split: Split, attack: PGD, precision: Precision) -> Callable[[Tensor, Tensor], Tensor]:
    """toughen's evaluation: which images are robust."""

    def run(x: Tensor, y: Tensor) -> Tensor:
        return measure(net, split, {"pgd": attack}, precision=precision).robust

    return run


def implementations(
    net: nn.Module, split: Split, eps: float, step_size: float, steps: int, trained: bool
) -> dict[str, Implementation]:
    """All implementations, each with its own copy of the net."""
    x, y = as_floats(split.images), split.labels
    pgd = PGD(eps=eps, steps=steps, step_size=step_size, start="none")
    attacks = {
        PLAIN: plain_loop(copy.deepcopy(net), eps, step_size, steps),
        "torchattacks": torchattacks.PGD(copy.deepcopy(net), eps=eps, alpha=step_size, steps=steps, random_start=False),
        "foolbox": of_foolbox(copy.deepcopy(net), eps, step_size, steps),
    }
    for precision in PRECISIONS:
        attacks[f"toughen {precision}"] = ours(copy.deepcopy(net), pgd, precision, len(x))
        if trained:
            attacks[f"toughen evaluate {precision}"] = whole(copy.deepcopy(net), split, pgd, precision)
    return {name: Implementation(attack, x, y) for name, attack in attacks.items()}


def measured(net: nn.Module, found: Tensor, split: Split, eps: float) -> dict[str, float]:
    """Accuracy on the adversarial images, and their largest distance."""
    if found.dtype == torch.bool:
        return {"robust_accuracy": float(found.float().mean())}
    x = as_floats(split.images)
    moved = float((found - x).abs().max())
    if not moved <= eps * (1 + 1e-4) + 1e-6 or float(found.min()) < 0 or float(found.max()) > 1:
        raise RuntimeError(f"images were moved by {moved:.6g}, eps is {eps:.6g}: this implementation is wrong")
    with torch.no_grad():
        right = net(found).argmax(1) == split.labels
    return {"robust_accuracy": float(right.float().mean()), "distance": moved}


def training_step(net: nn.Module, split: Split) -> Callable[[], None]:
    """A plain training step: the unit of time."""
    own = copy.deepcopy(net).train()
    optimizer = SGD(own.parameters(), lr=0.01, momentum=0.9, weight_decay=5e-4)
    x, y = as_floats(split.images), split.labels
    return lambda: official.standard(own, optimizer, x, y, 0)


def compare(net: nn.Module, split: Split, steps: int, arguments: argparse.Namespace) -> dict[str, Any]:
    """Time all implementations alternately, for one number of steps."""
    found = implementations(net, split, arguments.eps, arguments.step_size, steps, arguments.run is not None)
    runs: dict[str, Callable[[], object]] = {UNIT: training_step(net, split), **found}
    seconds = take_turns(runs, arguments.device, arguments.rounds)
    forward = flops(net, as_floats(split.images[:1])) * len(split)
    result: dict[str, Any] = {UNIT: figures(seconds[UNIT], seconds[UNIT])}
    for name, implementation in found.items():
        result[name] = {
            **figures(seconds[name], seconds[UNIT]),
            "times_as_fast_as_plain_loop": ratio(seconds[PLAIN], seconds[name]),
            "work": None if name.startswith("toughen evaluate") else counted(runs[name]) / forward,
            **measured(net, implementation.found, split, arguments.eps),
        }
    return result


def loaded(arguments: argparse.Namespace) -> tuple[nn.Module, Split]:
    """The net in evaluation mode, and its images."""
    data = data_sets.load(arguments.data)
    split = data.test.take(data_sets.stratified(data.test.labels, arguments.images, 0)).to(arguments.device)
    if arguments.run is not None:
        record = toughen.runs.read_record(arguments.run)
        arguments.eps = record.eps if arguments.eps is None else arguments.eps
        net: nn.Module = toughen.load(arguments.run)
    else:
        torch.manual_seed(derive_seed("weights", 0))
        mean, std = data.statistics()
        net = models.create(arguments.model, len(data.classes), data.shape, mean, std)
    arguments.eps = 8 / 255 if arguments.eps is None else arguments.eps
    arguments.step_size = arguments.eps / 4
    return net.to(arguments.device).eval(), split


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", required=True)
    parser.add_argument("--model", default="resnet18", help="untrained; or")
    parser.add_argument("--run", type=Path, help="a run directory, whose net is attacked")
    parser.add_argument("--eps", type=float, help="L-inf; the run's by default, 8/255 without one; steps are eps / 4")
    parser.add_argument("--images", type=int, default=64)
    parser.add_argument("--steps", type=int, nargs="+", default=[20, 10])
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--out", type=Path, default=Path(__file__).parent / "results" / "evaluate.json")
    arguments = parser.parse_args()
    arguments.out.parent.mkdir(parents=True, exist_ok=True)
    keep_freed_memory()
    torch.backends.cudnn.benchmark = True
    net, split = loaded(arguments)
    about = {"rounds": arguments.rounds, "images": len(split), "eps": arguments.eps, "seed": 0}
    about |= {"data": Path(arguments.data).name, **provenance(torch.device(arguments.device))}
    about |= {name: version(name) for name in ("torchattacks", "foolbox")}
    known = read_json(arguments.out) if arguments.out.exists() else {}
    what = arguments.run.name if arguments.run else arguments.model
    for steps in arguments.steps:
        result = compare(net, split, steps, arguments)
        known[f"{what}, PGD-{steps}, {about['processor']}"] = {"times": result, "steps": steps, "about": about}
        write_json(arguments.out, known)
        for name, line in result.items():
            if name != UNIT:
                work = f"{line['work']:6.1f} F" if line["work"] else "        "
                print(
                    f"PGD-{steps:<3d} {name:22s} {1000 * line['seconds']:8.0f} ms {line['units']:6.2f} units {work}"
                    f"  {100 * line['robust_accuracy']:5.1f} % right"
                )


if __name__ == "__main__":
    main()
