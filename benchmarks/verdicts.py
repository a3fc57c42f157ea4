"""Verdicts on numbers that are known to be right or wrong.

python benchmarks/verdicts.py --mnist DIR --cifar10 DIR
python benchmarks/verdicts.py --mnist DIR --rec RUN        a net with a re-constructor besides, by all of AutoAttack
python benchmarks/verdicts.py --mnist DIR --cifar10 DIR --passes 1000 3000 10000   what is said at these prices

Nets are those of tests/nets. One line of results/verdicts.json for each case: what was reported, by which attacks, the
word, the checks that failed. A case that is there already is left out; the file is written after each. With --passes
(results/verdicts-cheap.json) checks may cost so many passes together: no number that may not be believed must be called
sound at any price, and how many of the others are is told.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

import toughen
from toughen.core.types import Norm
from toughen.engine.batch_size import batch_size_for
from toughen.engine.device import pick_device, provenance
from toughen.engine.fixed_batch import FixedBatchModel
from toughen.evaluation.conclude import claim_of
from toughen.evaluation.config import EvaluationConfig, chosen_attacks
from toughen.evaluation.evaluate import from_function
from toughen.evaluation.examination import SMALL, Examination
from toughen.evaluation.examination_state import ExaminationState
from toughen.evaluation.runner import measure
from toughen.evaluation.verdict import verdict_of
from toughen.runs.files import read_json, write_json

NETS = Path(__file__).parent.parent / "tests" / "nets"
PGD = ("pgd-50", "pgd-margin-50")
ALL = ("apgd-ce", "apgd-t", "square")
Spoil = Callable[[nn.Module], Callable[[Tensor], Tensor]]
SPOILED: dict[str, Spoil] = {
    "16 input levels": lambda net: lambda x: net((x * 15).round() / 15),
    "256 input levels": lambda net: lambda x: net((x * 255).round() / 255),
    "logits times 1,000": lambda net: lambda x: net(x) * 1000,
    "noise at the input": lambda net: lambda x: net((x + 0.1 * torch.randn_like(x)).clamp(0, 1)),
    "probabilities": lambda net: lambda x: net(x).softmax(1),
}


@dataclass(frozen=True)
class Case:
    """A net, the threat model, and the attacks that make the number.

    Attributes:
        net: a folder of tests/nets, or a run directory.
        spoiled: a name out of ``SPOILED``, or "".
        sound: whether the number may be believed.
    """

    net: str
    sound: bool
    norm: Norm = "linf"
    eps: float = 0.3
    attacks: tuple[str, ...] = PGD
    spoiled: str = ""

    @property
    def name(self) -> str:
        """Its name in the results."""
        what = f"{Path(self.net).name}, {self.spoiled}" if self.spoiled else Path(self.net).name
        return f"{what}, {self.norm} {self.eps:.4g}, by {' '.join(self.attacks)}"


CASES = [
    *(Case(net, sound=True) for net in ("pgd-at", "trades", "nuat")),
    *(Case(net, sound=True, eps=0.1) for net in ("pgd-at", "nuat", "fbf")),
    Case("pgd-at", sound=True, eps=0.05),
    Case("fbf", sound=False),  # AutoAttack is far below PGD on this one
    Case("fbf", sound=True, attacks=ALL),
    *(Case(net, sound=True, norm="l2", eps=1.0) for net in ("pgd-at", "trades")),
    Case("nuat", sound=True, norm="l2", eps=1.5, attacks=ALL),
    Case("cifar-pgd-at", sound=True, eps=8 / 255),
    Case("cifar-pgd-at-l2", sound=True, norm="l2", eps=0.5),
    Case("fgsm-at", sound=False, attacks=("fgsm",)),
    Case("fgsm-at", sound=True),
    Case("standard", sound=True),
    Case("pgd-at", sound=False, attacks=("fgsm",)),
    *(Case(net, sound=False, spoiled=spoiled) for net in ("pgd-at", "standard") for spoiled in SPOILED),
]


def judge(case: Case, data: str, images: int, seed: int) -> dict[str, Any]:
    """The evaluation of one case."""
    folder = Path(case.net) if Path(case.net).exists() else NETS / case.net
    net: Any = toughen.load(folder).eval()
    model = SPOILED[case.spoiled](net) if case.spoiled else net
    started = time.perf_counter()
    found = toughen.evaluate(
        model, data, eps=case.eps, norm=case.norm, attacks=list(case.attacks), limit=images, seed=seed
    )
    return {
        "images": found["images"],
        "clean": found["clean_accuracy"],
        "reported": found["robust_accuracy"],
        "verdict": found["verdict"],
        "may be believed": case.sound,
        "agrees": (found["verdict"] == "sound") == case.sound,
        "failed": [check for check in found["checks"] if check["passed"] is False],
        "seed": seed,
        "seconds": round(time.perf_counter() - started, 1),
        "provenance": provenance(pick_device("cpu")),
    }


def judge_cheaply(case: Case, data: str, images: int, seed: int, prices: Sequence[int]) -> dict[str, Any]:
    """The verdict on one case's number at each price, in passes."""
    folder = Path(case.net) if Path(case.net).exists() else NETS / case.net
    net: Any = toughen.load(folder).eval()
    model = SPOILED[case.spoiled](net) if case.spoiled else net
    candidate = from_function(model, data, eps=case.eps, norm=case.norm, limit=images, seed=seed)
    block = batch_size_for(candidate.net, candidate.split.images)
    attacks = chosen_attacks(candidate, EvaluationConfig(attacks=case.attacks))
    found = measure(candidate.net, candidate.split, attacks, seed=seed, index=candidate.index, batch_size=block)
    blocks = FixedBatchModel(candidate.net, block)
    claim = claim_of(found, candidate, blocks, seed)
    words = {}
    for passes in prices:
        examination = Examination(claim, blocks, ExaminationState(budget=passes, size=SMALL))
        examination.make()
        words[str(passes)] = verdict_of(examination.checks())
    return {
        "images": len(candidate.split),
        "reported": found.summary()["robust_accuracy"],
        "passes of the attacks": sum(each["passes"] for each in found.summary()["attacks"].values()),
        "verdict": words,
        "may be believed": case.sound,
        "agrees": case.sound or "sound" not in words.values(),
        "seed": seed,
        "provenance": provenance(pick_device("cpu")),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--mnist", required=True, metavar="DIR")
    parser.add_argument("--cifar10", metavar="DIR", help="without it those nets are left out")
    parser.add_argument("--rec", metavar="RUN", help="a run of Reconstruct")
    parser.add_argument("--images", type=int, default=300)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--passes", type=int, nargs="+", help="prices of the checks, instead of none")
    parser.add_argument("--out", type=Path, help="where to write (default: results/verdicts.json or -cheap.json)")
    arguments = parser.parse_args()
    name = "verdicts-cheap.json" if arguments.passes else "verdicts.json"
    arguments.out = arguments.out or Path(__file__).parent / "results" / name
    cases = [case for case in CASES if arguments.cifar10 or not case.net.startswith("cifar")]
    cases += [Case(arguments.rec, sound=True, attacks=("autoattack",))] if arguments.rec else []
    known = read_json(arguments.out) if arguments.out.exists() else {}
    for case in cases:
        if case.name in known:
            continue
        data = arguments.cifar10 if case.net.startswith("cifar") else arguments.mnist
        asked = (case, data, arguments.images, arguments.seed)
        known[case.name] = judge_cheaply(*asked, arguments.passes) if arguments.passes else judge(*asked)
        write_json(arguments.out, known)
        line = known[case.name]
        print(f"{case.name}: {line['reported']:.3f} {line['verdict']}", flush=True)
    wrong = [name for name, line in known.items() if not line["agrees"]]
    print(f"{len(known) - len(wrong)} of {len(known)} as they should be", *wrong, sep="\n  ")


if __name__ == "__main__":
    main()
