"""`toughen diagnose`."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

from rich.console import Console
from torch import nn

from toughen import runs
from toughen.cli.shared import PROGRAM, Help, add_output, add_threat, progress_console
from toughen.config import settings
from toughen.config.parsing import Parser, tidy
from toughen.evaluation.diagnostics.diagnose import TRANSFER, diagnose_runs
from toughen.evaluation.diagnostics.names import NAMES
from toughen.runs import RECORD, follow_up
from toughen.runs.follow_up import needs_name
from toughen.utils.console import say

HELP = Help(
    usage=f"{PROGRAM} diagnose RUN ... [settings]",
    about="Look closer at trained runs: curves, surfaces, transfer.",
    examples=(
        f"{PROGRAM} diagnose runs/mine",
        f"{PROGRAM} diagnose runs/mine --which eps steps loss --limit 200",
        f"{PROGRAM} diagnose runs/mine runs/other --which transfer --out comparison",
    ),
    shown={
        "Runs": "runs",
        "Diagnostics": "which",
        "Threat": "eps norm",
        "Test images": "data limit",
        "Output": "out json",
        "Device": "device",
    },
    more={"Runs": "model", "Diagnostics": "transfer_attacks seed", "Output": "quiet", "Device": "precision"},
)


def run(arguments: Sequence[str]) -> int:
    settings.find_own_classes(arguments)
    given = vars(diagnose_parser().read(tidy(arguments)))
    quiet, as_json = given.pop("quiet"), given.pop("json")
    given["models"] = own_models(given["runs"], given.pop("model") or ())
    results = diagnose_runs(given.pop("runs"), **given, console=progress_console(quiet))
    if as_json:
        print(json.dumps(results, indent=2))
    else:
        print_diagnostics(Console(), results)
    return 0


def diagnose_parser() -> Parser:
    parser = Parser(prog=f"{PROGRAM} diagnose", about=HELP)
    parser.add_argument("runs", nargs="+", type=str, metavar="RUN", help="run directories; transfer needs two or more")
    parser.add_argument("--which", nargs="+", metavar="NAME", help=f"some of {', '.join(NAMES)} (default: all)")
    parser.add_argument(
        "--transfer_attacks",
        nargs="+",
        metavar="ATTACK",
        default=list(TRANSFER),
        help="what transfer is measured with; named as in `toughen evaluate`",
    )
    parser.add_argument(
        "--model",
        nargs="+",
        metavar="MODEL",
        help="package.module:function or timm:NAME, for runs of nets that toughen did not write: one for all of these, "
        "or one for each, in their order",
    )
    add_threat(parser, limit=500)
    parser.add_argument(
        "--precision",
        type=Literal["bf16", "fp32", "fp64"],
        default="fp32",
        help="what attacks search in; figures are float32",
    )
    parser.add_argument(
        "--out",
        type=str | None,
        metavar="DIR",
        help="where comparisons of runs go, and other eps or data (default: into each run)",
    )
    add_output(parser, json="what was written, and where,")
    return parser


def own_models(folders: Sequence[str], names: Sequence[str]) -> dict[str, nn.Module]:
    """The nets that toughen did not write, by their runs; made from names that the user typed, never from a file's.

    Raises:
        ValueError: there are not as many names as such runs, or one can't be made.
    """
    records = {folder: runs.read_record(Path(folder)) for folder in folders} if names else {}
    foreign = {folder: record for folder, record in records.items() if ":" in str(record.model.get("name"))}
    own = {folder: record for folder, record in foreign.items() if needs_name(record.model)}
    if not own or len(names) not in (1, len(own)):  # timm's nets may be named, too
        own = foreign
    if names and (not own or len(names) not in (1, len(own))):
        raise ValueError(
            f"--model names {len(names)}, and {len(own)} of the runs are of nets that toughen did not write: give one "
            "for all of these, or one for each"
        )
    each = [*names] * len(own) if len(names) == 1 else names
    return {folder: runs.create_own(record, name) for (folder, record), name in zip(own.items(), each, strict=True)}


def print_diagnostics(console: Console, results: dict[str, Any]) -> None:
    """Where each run's diagnostics went, and what they are."""
    for place, each in [*results["runs"].items(), *([("all runs", results["shared"])] if results["shared"] else [])]:
        console.print(f"{place}: {', '.join(each)}", highlight=False, markup=False)
    console.print(f"written: diagnostics.json in {', '.join(results['folders'])}", highlight=False, markup=False)
    for folder in results["folders"]:
        if (Path(folder) / RECORD).is_file():
            say(console, f"look at it: {follow_up.report(folder)}")
