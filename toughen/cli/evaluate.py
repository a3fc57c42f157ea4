"""`toughen evaluate`."""

from __future__ import annotations

import json
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from rich.console import Console
from rich.table import Table
from rich.text import Text

from toughen import runs
from toughen.cli.shared import (
    ATTACK,
    PROGRAM,
    Help,
    add_model_options,
    add_output,
    add_threat,
    own_model,
    progress_console,
    resumable,
)
from toughen.config import settings
from toughen.config.parsing import Parser, tidy
from toughen.report.ending import read_recipe
from toughen.report.read import CONFIG, read_run
from toughen.runs import follow_up
from toughen.utils.console import say
from toughen.utils.statistics import percent, warning
from toughen.utils.units import format_radius

if TYPE_CHECKING:
    from torch import nn

HELP = Help(
    usage=f"{PROGRAM} evaluate RUN|MODULE:FUNCTION|timm:NAME [settings]",
    about="Measure a model's accuracy under attack on test images, and check whether the number can be believed.",
    examples=(
        f"{PROGRAM} evaluate runs/mine",
        f"{PROGRAM} evaluate runs/mine --suite standard --limit 1000 --time-budget 10m",
        f"{PROGRAM} evaluate nets:small --weights net.pth --data photos --eps 8/255",
    ),
    shown={
        "Model": "spec weights",
        "Attacks and threat": "suite attacks eps norm",
        "Test images": "data limit",
        "Length and output": "time_budget out json",
        "Device": "device processes",
    },
    more={
        "Model": "model image_size resize",
        "Attacks and threat": "seed verdict surrogate details",
        "Length and output": "quiet",
        "Device": "precision batch_size",
    },
)
STYLES = {"sound": "bold green", "doubtful": "bold yellow", "masked": "bold red", "unfinished": "bold"}


def run(arguments: Sequence[str]) -> int:
    settings.find_own_classes(arguments)
    given = vars(evaluate_parser().read(tidy(arguments)))
    from toughen.core.distributed import world  # import torch, which --help does not need
    from toughen.evaluation import evaluate_run, output_folder
    from toughen.evaluation.conclude import Unfinished

    quiet, as_json = given.pop("quiet"), given.pop("json")
    console = progress_console(quiet)
    show = print_json if as_json else print_evaluation
    given["model"] = own_model(given["spec"], given["model"])
    if given["surrogate"]:
        given["surrogate"] = partial(
            surrogate_model, given["spec"], given["surrogate"], given["device"], console, given["data"]
        )
    folder = output_folder(given["spec"], given["out"])
    warn_unfinished(Path(given["spec"]), console)
    with resumable():
        try:
            result = evaluate_run(**given, console=console)
        except Unfinished as stopped:
            show(Console(), folder, stopped.result)
            raise
    world().on_main(show, Console(), folder, result)
    return 0


def warn_unfinished(run: Path, console: Console) -> None:
    """Warn, before the results, that a run's training is not finished."""
    if not all((run / name).is_file() for name in (runs.RECORD, CONFIG)):
        return
    read = read_run(run, str(run))
    read_recipe(read)
    if read.unfinished:
        console.print(f"warning: {read.name}: {read.unfinished}", highlight=False, markup=False, style="bold")


def evaluate_parser() -> Parser:
    parser = Parser(prog=f"{PROGRAM} evaluate", about=HELP)
    parser.add_argument(
        "spec",
        type=str,
        metavar="RUN",
        help="a run directory; an exported file, or hf://user/name; package.module:function, timm:NAME or a net of "
        "`toughen list models`, with --weights",
    )
    parser.add_argument(
        "--suite",
        type=Literal["quick", "standard", "papers"] | None,
        help="quick, if none is named (FGSM, PGD, APGD), standard (PGD-100, GAMA-PGD, AutoAttack) or papers (the "
        "attacks in the papers' tables); quick uses 1,000 images, and standard's PGD-100 uses 5 starts",
    )
    parser.add_argument("--attacks", nargs="+", metavar="ATTACK", help=f"attacks instead of a suite, {ATTACK}")
    add_threat(parser)
    add_model_options(parser)
    parser.add_argument(
        "--surrogate", type=str | None, help="a run trained without attacks, for black-box checks; `train` trains one"
    )
    parser.add_argument(
        "--processes",
        type=int,
        default=1,
        help="number of parallel processes; the result is the same, and on a CPU each computes on one core",
    )
    parser.add_argument(
        "--time_budget",
        type=str | None,
        help="end within this time, such as 5m, by attacking a smaller sample of images",
    )
    parser.add_argument("--verdict", type=bool, default=True, help="whether to check that the number can be believed")
    parser.add_argument(
        "--details", type=bool, default=True, help="whether to write images and curves for `toughen report`"
    )
    parser.add_argument(
        "--out", type=str | None, metavar="DIR", help="the folder for the results (default: the run directory)"
    )
    add_output(parser, json="evaluation.json and its folder")
    return parser


def surrogate_model(spec: str, surrogate: str, device: str, console: Console, data: str | None) -> nn.Module:
    """The surrogate for transfer attacks: the net of a run, or one that is trained for this model and kept."""
    from toughen.evaluation.target import is_elsewhere

    if surrogate != "train":
        return runs.load(surrogate)
    if is_elsewhere(spec):
        raise ValueError(
            f"{spec} is no run directory, so no standard model can be trained for it: give --surrogate RUN"
        )
    from toughen.training.surrogate import train_source

    return runs.load(train_source(Path(spec), device, console, data))


def print_json(_: Console, folder: Path, result: dict[str, Any]) -> None:
    """Print an evaluation as JSON."""
    print(json.dumps({"folder": str(folder), **result}, indent=2))


def print_evaluation(console: Console, folder: Path, result: dict[str, Any]) -> None:
    """Print an evaluation: accuracy clean, under each attack, and under all attacks; then the verdict."""
    from toughen.evaluation.result import RESULT

    threat = result["threat"]
    images = (
        f"{result['images']:,} test images of {result['data']}, {threat['norm']} eps {format_radius(threat['eps'])}"
    )
    console.print(f"{folder}\n{images}", highlight=False, markup=False)
    table = Table("attack", "accuracy", "seconds", "passes per image", box=None, pad_edge=False)
    for column in table.columns[1:]:
        column.justify = "right"
    table.add_row("none (clean)", percent(result["clean_accuracy"]))
    for name, figures in result["attacks"].items():
        _attack_row(table, name, figures, result["images"])
        for part, each in figures.get("parts", {}).items():
            _attack_row(table, f"  then {part}", each, result["images"])
    table.add_row("all attacks", percent(result["robust_accuracy"]), style="bold")
    console.print(table)
    for name, (low, high) in result.get("interval", {}).items():
        console.print(f"{name.replace('_', ' ')}: 95 % interval {percent(low)} to {percent(high)}", highlight=False)
    if drawn := result.get("draws"):
        counts = f"{drawn['wrong']} of {drawn['total']}"
        rule = f"an image is broken if at least {counts} repeated predictions are wrong"
        console.print(f"the model's predictions are random: {rule}", highlight=False)
    print_verdict(console, result)
    if matched := result.get("classes_matched"):
        say(console, f"classes of the data are matched with those of the run {matched}", style="bold red")
    if membership := result.get("seen_images"):
        console.print(f"whether these images were used for training: {membership}", highlight=False)
    if warned := warning(result):
        console.print(warned, highlight=False, style="bold red")
    console.print(f"written: {folder / RESULT}, examples.parquet", highlight=False, markup=False)
    say(console, f"view it: {follow_up.report(folder)}")


def _attack_row(table: Table, name: str, figures: dict[str, Any], images: int) -> None:
    passes = f"{figures['passes'] / images:,.1f}"
    table.add_row(Text(name), percent(figures["robust_accuracy"]), f"{figures['seconds']:.1f}", passes)


def print_verdict(console: Console, result: dict[str, Any]) -> None:
    """Print whether the number can be believed, and the failed checks; all checks are in evaluation.json."""
    from toughen.evaluation.examination import STOPPED

    word, checks = result.get("verdict"), result.get("checks", [])
    if word is None:
        return
    failed = [check for check in checks if check["passed"] is False]
    missing = sum(check["passed"] is None for check in checks)
    counts = f"{len(checks) - len(failed) - missing} checks passed, {len(failed)} failed, {missing} not made"
    console.print(Text.assemble("verdict on the number: ", (word, STYLES[word]), f" ({counts})"))
    for check in failed:
        console.print(Text(f"- {check['name']}: {check['sentence']}"))
    if unmade := [check["name"] for check in checks if check["sentence"].endswith(f"{STOPPED}.")]:
        console.print(Text(f"stopped before: {', '.join(unmade)}"))
    if cut := result.get("price", {}).get("note"):
        console.print(Text(cut))
