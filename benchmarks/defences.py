"""Verdicts on small copies of seven published defences that adaptive attacks broke, on several samples of test images.

python benchmarks/defences.py [--names NAME ...] [--seeds 0 1 2] [--autoattack NAME ...]

The defences are those of `tests/broken_defences.py`. Each sample of 300 images of mnist-5k is attacked at eps 0.1 with
seven steps of PGD and with the quick suite; the verdicts have the quick suite's price. For the names after --autoattack
the sample is attacked with AutoAttack, too: how far the reported accuracies are above it. What is in the file is not
measured again.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import Any

from torch import nn

import toughen
from toughen.engine.device import pick_device, provenance
from toughen.runs.files import read_json, write_json

ROOT = Path(__file__).parent.parent
sys.path.insert(0, str(ROOT / "tests"))

from broken_defences import DEFENCES  # noqa: E402

EPS, IMAGES = 0.1, 300
ATTACKS: dict[str, dict[str, Any]] = {
    "seven steps": {"attacks": ["pgd-7@0.01"], "depth": "cheap"},
    "quick suite": {"suite": "quick"},
}


def judge(model: nn.Module, seed: int, options: dict[str, Any]) -> dict[str, Any]:
    """The accuracy under these attacks and the verdict on it."""
    found = toughen.evaluate(model, "mnist-5k", eps=EPS, limit=IMAGES, seed=seed, details=False, **options)
    failed = [check["name"] for check in found["checks"] if check["passed"] is False]
    return {
        "reported": found["robust_accuracy"],
        "verdict": found["verdict"],
        "failed": failed,
        "price": found["price"],
    }


def measure(name: str, seed: int, autoattack: bool) -> dict[str, Any]:
    """One sample of one defence."""
    model = DEFENCES[name]().eval()
    figures: dict[str, Any] = {each: judge(model, seed, options) for each, options in ATTACKS.items()}
    if autoattack:
        options: dict[str, Any] = {"attacks": ["autoattack"], "verdict": False, "details": False}
        found = toughen.evaluate(model, "mnist-5k", eps=EPS, limit=IMAGES, seed=seed, **options)
        figures["AutoAttack"] = found["robust_accuracy"]
    return {"defence": name, "seed": seed, "images": IMAGES, **figures, "provenance": provenance(pick_device("cpu"))}


def table(rows: list[dict[str, Any]]) -> str:
    """The rows in Markdown, in percent."""
    lines = [f"| defence | sample | {' | '.join(ATTACKS)} | AutoAttack |", "|---|---|---|---|---|"]
    for row in rows:
        cells = [f"{100 * row[each]['reported']:.1f}, {row[each]['verdict']}" for each in ATTACKS]
        cells.append(f"{100 * row['AutoAttack']:.1f}" if "AutoAttack" in row else "")
        lines.append(f"| {row['defence']} | {row['seed']} | {' | '.join(cells)} |")
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--names", nargs="+", choices=DEFENCES, default=list(DEFENCES))
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--autoattack", nargs="+", choices=DEFENCES, default=[], metavar="NAME")
    parser.add_argument("--write", type=Path, default=ROOT / "benchmarks" / "results" / "broken-defences.json")
    arguments = parser.parse_args()
    rows = read_json(arguments.write)["rows"] if arguments.write.exists() else []
    for name in arguments.names:
        for seed in arguments.seeds:
            if (name, seed) not in {(row["defence"], row["seed"]) for row in rows}:
                rows.append(measure(name, seed, name in arguments.autoattack))
                write_json(arguments.write, {"eps": EPS, "data": "mnist-5k", "rows": rows})
                print(table(rows[-1:]).splitlines()[-1], flush=True)
    print(table(rows))


if __name__ == "__main__":
    main()
