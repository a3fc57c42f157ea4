"""`toughen diagnose`."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal

from rich.console import Console

from toughen import settings
from toughen.commands.shared import PROGRAM, add_threat
from toughen.evaluation.diagnostics.diagnose import NAMES, TRANSFER, diagnose_runs
from toughen.parsing import Parser, tidy


def run(arguments: Sequence[str]) -> int:
    settings.find_own_classes(arguments)
    given = vars(diagnose_parser().read(tidy(arguments)))
    found = diagnose_runs(given.pop("runs"), **given, console=Console(stderr=True))
    print_diagnostics(Console(), found)
    return 0


def diagnose_parser() -> Parser:
    parser = Parser(prog=f"{PROGRAM} diagnose", description="Look closer at trained runs: curves, surfaces, transfer.")
    parser.add_argument("runs", nargs="+", type=str, metavar="RUN", help="run directories; transfer needs two or more")
    parser.add_argument("--which", nargs="+", metavar="NAME", help=f"some of {', '.join(NAMES)} (default: all)")
    parser.add_argument(
        "--transfer_attacks", nargs="+", metavar="ATTACK", default=list(TRANSFER), help="what transfer is measured with"
    )
    add_threat(parser, limit=500)
    parser.add_argument(
        "--precision",
        type=Literal["bf16", "fp32", "fp64"],
        default="fp32",
        help="what attacks search in; figures are float32",
    )
    parser.add_argument(
        "--out", type=str | None, help="where comparisons of runs go, and other eps or data (default: into each run)"
    )
    return parser


def print_diagnostics(console: Console, found: dict[str, Any]) -> None:
    """Where each run's diagnostics went, and what they are."""
    for place, each in [*found["runs"].items(), *([("all runs", found["shared"])] if found["shared"] else [])]:
        console.print(f"{place}: {', '.join(each)}", highlight=False, markup=False)
    console.print(f"written: diagnostics.json in {', '.join(found['folders'])}", highlight=False, markup=False)
