"""`toughen compare`."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table
from rich.text import Text

from toughen.commands.shared import PROGRAM
from toughen.files import read_json
from toughen.parsing import Parser, tidy
from toughen.shares import percent, warning

RESULT = "evaluation.json"


def run(arguments: Sequence[str]) -> int:
    print_comparison(Console(), [Path(run) for run in compare_parser().read(tidy(arguments)).runs])
    return 0


def compare_parser() -> Parser:
    parser = Parser(prog=f"{PROGRAM} compare", description="Show evaluated runs side by side.")
    parser.add_argument("runs", nargs="+", type=str, metavar="RUN", help="evaluated run directories")
    return parser


def print_comparison(console: Console, folders: list[Path]) -> None:
    """Evaluated runs side by side."""
    results = {folder: read_result(folder) for folder in folders}
    table = Table("run", "threat", "clean", "FGSM", "robust", "train s", "passes/step", box=None, pad_edge=False)
    for column in table.columns[2:]:
        column.justify = "right"
    for folder, result in results.items():
        threat, cost = result["threat"], training_cost(folder)
        fgsm = result["attacks"].get("fgsm")
        table.add_row(
            Text(str(folder)),
            f"{threat['norm']} {threat['eps']:.4g}",
            percent(result["clean_accuracy"]),
            percent(fgsm["robust_accuracy"]) if fgsm else "-",
            percent(result["robust_accuracy"]),
            f"{cost['seconds']:.0f}" if cost else "-",
            f"{cost['passes']:.1f}" if cost else "-",
        )
    console.print(table)
    console.print(f"robust: right while clean and under {_attacks(results)}", highlight=False)
    if len({(r["threat"]["norm"], r["threat"]["eps"], r["data"], r["images"]) for r in results.values()}) > 1:
        console.print("These were not measured alike (threat, data or images differ): compare with care.", style="bold")
    for folder, result in results.items():
        if warned := warning(result):
            console.print(f"{folder}: {warned}", highlight=False, style="bold red")


def _attacks(results: dict[Path, dict[str, Any]]) -> str:
    kinds = {folder: ", ".join(result["attacks"]) for folder, result in results.items()}
    if len(set(kinds.values())) == 1:
        return next(iter(kinds.values()))
    return "its own attacks: " + "; ".join(f"{folder}: {names}" for folder, names in kinds.items())


def read_result(folder: Path) -> dict[str, Any]:
    """A folder's evaluation.json.

    Raises:
        ValueError: there is none, or it is damaged.
    """
    if not (folder / RESULT).is_file():
        raise ValueError(f"{folder} has not been evaluated: run `toughen evaluate {folder}` first")
    result = read_json(folder / RESULT)
    wanted = {"clean_accuracy", "robust_accuracy", "attacks", "threat", "images"}
    if not isinstance(result, dict) or not wanted <= result.keys():
        raise ValueError(f"{folder / RESULT} is damaged: evaluate the run again")
    return result


def training_cost(folder: Path) -> dict[str, float] | None:
    """Seconds of training and mean passes per image, from metrics.jsonl; None where it is missing."""
    path = folder / "metrics.jsonl"
    if not path.is_file():
        return None
    try:
        lines = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
        seconds = sum(line["seconds"] for line in lines)
        passes = sum(line["passes"] for line in lines) / len(lines)
    except (ValueError, KeyError, TypeError, ZeroDivisionError):
        raise ValueError(f"{path} is damaged: restore it from a copy") from None
    return {"seconds": seconds, "passes": passes}
