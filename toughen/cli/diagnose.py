"""`toughen diagnose`."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

from rich.console import Console
from torch import nn

from toughen import runs
from toughen.cli.evaluate import warn_unfinished
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
    about="Measure details of trained runs: accuracy curves, loss surfaces, transfer of attacks.",
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
    console = progress_console(quiet)
    for folder in given["runs"]:
        warn_unfinished(Path(folder), console)
    results = diagnose_runs(given.pop("runs"), **given, console=console)
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
        help="the attacks for transfer, named as in `toughen evaluate`",
    )
    parser.add_argument(
        "--model",
        nargs="+",
        metavar="MODEL",
        help="package.module:function or timm:NAME, for runs whose nets are not part of toughen: one for all of them, "
        "or one for each, in the order of the runs",
    )
    add_threat(parser, limit=500)
    parser.add_argument(
        "--precision",
        type=Literal["bf16", "fp32", "fp64"],
        default="fp32",
        help="precision of the attacks; results are computed in float32",
    )
    parser.add_argument(
        "--out",
        type=str | None,
        metavar="DIR",
        help="folder for results that compare runs or use another eps or data (default: each run)",
    )
    add_output(parser, json="the results and their folders")
    return parser


def own_models(folders: Sequence[str], names: Sequence[str]) -> dict[str, nn.Module]:
    """The nets that are not part of toughen, by run; created from names that the user typed, never from a file's.

    Raises:
        ValueError: the number of names does not match the number of such runs, or a net cannot be created.
    """
    records = {folder: runs.read_record(Path(folder)) for folder in folders} if names else {}
    foreign = {folder: record for folder, record in records.items() if ":" in str(record.model.get("name"))}
    own = {folder: record for folder, record in foreign.items() if needs_name(record.model)}
    if not own or len(names) not in (1, len(own)):  # nets of timm may be named, but need not be
        own = foreign
    if names and (not own or len(names) not in (1, len(own))):
        raise ValueError(
            f"--model has {len(names)} names, but {len(own)} of the runs have nets that are not part of toughen: give "
            "one name for all of them, or one for each"
        )
    each = [*names] * len(own) if len(names) == 1 else names
    return {folder: runs.create_own(record, name) for (folder, record), name in zip(own.items(), each, strict=True)}


def print_diagnostics(console: Console, results: dict[str, Any]) -> None:
    """Print the diagnostics of each run, and the folders that they were written to."""
    for place, each in [*results["runs"].items(), *([("all runs", results["shared"])] if results["shared"] else [])]:
        if each:
            console.print(f"{place}: {', '.join(each)}", highlight=False, markup=False)
    console.print(f"written: diagnostics.json in {', '.join(results['folders'])}", highlight=False, markup=False)
    for folder in results["folders"]:
        if (Path(folder) / RECORD).is_file():
            say(console, f"view it: {follow_up.report(folder)}")
