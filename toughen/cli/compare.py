"""`toughen compare`."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from rich.cells import cell_len
from rich.console import Console
from rich.table import Table

from toughen.cli.shared import PROGRAM, Help
from toughen.config.parsing import Parser, tidy
from toughen.report.compare import cautions, differing, differing_warning
from toughen.report.ending import read_recipe
from toughen.report.evaluations import Evaluation
from toughen.report.read import METRICS, RESULT, RUN_FILES, Run, names, read_run
from toughen.utils.console import plain
from toughen.utils.statistics import percent
from toughen.utils.units import format_radius

COLUMNS = ("run", "threat", "clean", "FGSM", "robust", "verdict", "train s", "passes a step")
NEVER_WRAPPED = ("run", "clean", "FGSM", "robust", "verdict")  # the other columns wrap if long names need the space
REST = 57  # the least width, in characters, of all columns except the names
NARROWEST = 80  # characters; a narrower terminal wraps the table's lines, since a cut number would be wrong

HELP = Help(
    usage=f"{PROGRAM} compare RUN ... [--json]",
    about="Compare evaluated runs: clean and robust accuracy, the verdict, and the cost of training.",
    examples=(
        f"{PROGRAM} compare runs/mine runs/other",
        f"{PROGRAM} compare runs/*",
        f"{PROGRAM} compare runs/* --json",
    ),
    shown={"Runs": "runs", "Output": "json"},
)


def run(arguments: Sequence[str]) -> int:
    given = compare_parser().read(tidy(arguments))
    folders = [Path(run) for run in given.runs]
    if given.json:
        print(json.dumps(comparison(folders), indent=2))
        return 0
    console = Console()
    console.width = max(console.width, NARROWEST)
    print_comparison(console, folders)
    return 0


def compare_parser() -> Parser:
    parser = Parser(prog=f"{PROGRAM} compare", about=HELP)
    parser.add_argument("runs", nargs="+", type=str, metavar="RUN", help="evaluated run directories")
    parser.add_argument("--json", action="store_true", help="print JSON, with accuracies from 0 to 1")
    return parser


def comparison(folders: Sequence[Path]) -> list[dict[str, Any]]:
    """The numbers that ``print_comparison`` prints, as a dictionary for each run; accuracies are 0..1.

    Raises:
        ValueError: as ``print_comparison``.
    """
    rows = []
    for folder, name in zip(folders, names(folders), strict=True):
        run, own = evaluated(folder, name)
        seconds, passes = training_cost(run) or (None, None)
        attacks = {attack.name: attack.accuracy for attack in own.attacks if not attack.part}
        about = {"run": str(folder), "norm": own.norm, "eps": own.eps, "data": own.data, "images": own.images}
        figures = {"clean": own.clean, "attacks": attacks, "robust": own.robust, "verdict": own.verdict or None}
        rows.append({**about, **figures, "train_seconds": seconds, "passes_per_step": passes})
    return rows


def print_comparison(console: Console, folders: Sequence[Path]) -> None:
    """Print a table of evaluated runs.

    Raises:
        ValueError: a run has not been evaluated, or its files are damaged.
    """
    evaluated_runs = [evaluated(folder, name) for folder, name in zip(folders, names(folders), strict=True)]
    table = Table(*COLUMNS, box=None, pad_edge=False, padding=(0, 1, 0, 0))
    for column in table.columns:
        column.no_wrap = column.header in NEVER_WRAPPED
        column.justify = "left" if column.header in ("run", "threat", "verdict") else "right"
    fits = max(cell_len(run.name) for run, _ in evaluated_runs) <= console.width - REST
    for number, (run, own) in enumerate(evaluated_runs, 1):
        if not fits:  # cut names could be equal, so the table has numbers instead of names
            console.print(plain(f"[{number}] {run.name}"), overflow="fold")
        fgsm = next((attack for attack in own.attacks if attack.name == "fgsm" and not attack.part), None)
        cost = training_cost(run)
        table.add_row(
            plain(run.name if fits else f"[{number}]"),
            plain(f"{own.norm} {format_radius(own.eps)}"),
            percent(own.clean),
            percent(fgsm.accuracy) if fgsm else "-",
            percent(own.robust),
            own.verdict or "-",
            f"{cost[0]:.0f}" if cost else "-",
            f"{cost[1]:.1f}" if cost else "-",
        )
    console.print(table)
    console.print(plain(f"robust: right without an attack and under {_attacks(evaluated_runs)}"))
    console.print(plain(f"accuracies on {_images(evaluated_runs)}"))
    if differences := differing([run for run, _ in evaluated_runs]):
        _bold(console, differing_warning(differences))
    for run, _ in evaluated_runs:
        for caution in (*cautions(run), *filter(None, [run.unfinished])):
            _bold(console, f"{run.name}: {caution}", "red")


def _bold(console: Console, text: str, colour: str = "") -> None:
    console.print(plain(text), style=f"bold {colour}".strip())


def _attacks(evaluated_runs: Sequence[tuple[Run, Evaluation]]) -> str:
    if len({own.names for _, own in evaluated_runs}) == 1:
        return evaluated_runs[0][1].names
    return "its own attacks: " + "; ".join(f"{run.name}: {own.names}" for run, own in evaluated_runs)


def _images(evaluated_runs: Sequence[tuple[Run, Evaluation]]) -> str:
    """The number of test images: one number if it is the same for all runs, else one for each run."""
    if len({own.images for _, own in evaluated_runs}) == 1:
        return f"{evaluated_runs[0][1].images:,} test images"
    return "different numbers of test images: " + ", ".join(
        f"{own.images:,} of {run.name}" for run, own in evaluated_runs
    )


def evaluated(folder: Path, name: str) -> tuple[Run, Evaluation]:
    """A run and its own evaluation.

    Raises:
        ValueError: the run has not been evaluated, or its evaluation is damaged.
    """
    if folder.is_dir() and not (folder / RESULT).is_file():
        if not any((folder / file).is_file() for file in RUN_FILES):
            raise ValueError(
                f"{folder} is not a run directory: name one that `toughen train` or `toughen evaluate` wrote"
            )
        raise ValueError(f"{folder} has not been evaluated: run `{read_run(folder, name).evaluate}` first")
    run = read_run(folder, name)
    read_recipe(run)
    if run.own is None or not run.own.attacks:
        raise ValueError(f"{folder / RESULT} is damaged: evaluate the run again")
    return run, run.own


def training_cost(run: Run) -> tuple[float, float] | None:
    """Seconds of training and mean forward passes per image and step; None if the run has no metrics.jsonl.

    Raises:
        ValueError: metrics.jsonl is damaged.
    """
    seconds, passes = run.history.seconds, run.history.passes
    if not (run.folder / METRICS).is_file():
        return None
    if run.history.partial or seconds is None or passes is None:
        raise ValueError(f"{run.folder / METRICS} is damaged: restore it from a copy")
    return seconds, passes
