"""The command line: parse, call, print. Bad input ends with one message and status 2, a run that failed with 1."""

from __future__ import annotations

import json
import os
import shlex
import sys
import warnings
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import NoReturn

from rich.console import Console
from torch import nn

from toughen import data as data_sets
from toughen import listing, methods, models, ranks, runs, settings
from toughen.evaluation import attack_images, evaluate_run, output_folder
from toughen.evaluation.diagnostics.diagnose import diagnose_runs
from toughen.evaluation.suite import names as attack_names
from toughen.parsers import (
    PROGRAM,
    attack_parser,
    compare_parser,
    demo_parser,
    diagnose_parser,
    evaluate_parser,
    list_parser,
    report_parser,
    reproduce_parser,
    train_parser,
)
from toughen.parsing import options, tidy
from toughen.training.recipe import Recipe

INTRODUCTION = "Train image classifiers that hold under adversarial attack, and measure how well they hold."


def fail(message: str, status: int = 2) -> NoReturn:
    """Say what is wrong, in one of the processes that it happens in, and leave."""
    if ranks.first_to_say(message):
        print(f"{PROGRAM}: {message}", file=sys.stderr, flush=True)
    raise SystemExit(status)


def parse_train(arguments: Sequence[str]) -> tuple[Recipe, str, str, bool]:
    """The recipe, its YAML, the run directory and whether to go on with it.

    Raises:
        ValueError: a setting is unknown, of another type, missing or contradicts another.
    """
    name, arguments = split_recipe(arguments)
    if not name and not arguments:
        raise ValueError(
            f"name a recipe, such as nuat-mnist (`{PROGRAM} list recipes`), or settings: see `{PROGRAM} train --help`"
        )
    parser, base = train_parser(), settings.read_recipe(name) if name else {}
    settings.find_own_classes(arguments, base)
    parser.read(["--config", json.dumps(settings.under(base, []))], origin=f"recipe {name}: ")
    arguments = ["--config", json.dumps(settings.under(base, options(arguments))), *arguments]
    parsed, given = parser.read(arguments), parser.read(arguments, defaults=False)
    settings.refuse_bases(parsed)
    settings.fill_threat(parsed, given)
    out, resume = parsed.pop("out"), parsed.pop("resume")
    parsed.pop("config")
    config = parser.dump(parsed, skip_validation=True)
    fields = parser.instantiate(parsed)
    recipe = Recipe(**{name: fields[name] for name in Recipe.__dataclass_fields__})
    return recipe, config, out or f"runs/{Path(name).stem or default_name(recipe)}", resume


def split_recipe(arguments: Sequence[str]) -> tuple[str, list[str]]:
    """The name of the recipe, "" without one, and the rest of the command line, tidied."""
    arguments = list(arguments)
    if arguments and not arguments[0].startswith("-"):
        return arguments[0], tidy(arguments[1:])
    given = [value for name, value in options(tidy(arguments)) if name == "config" and value]
    if not given:
        return "", tidy(arguments)
    place = next(number for number, word in enumerate(arguments) if word.partition("=")[0] == "--config")
    return given[0], tidy(arguments[:place] + arguments[place + (1 if "=" in arguments[place] else 2) :])


def default_name(recipe: Recipe) -> str:
    parts = (type(recipe.method).__name__, recipe.model, Path(recipe.data).name)
    return "-".join(part.replace(":", "-").replace("/", "-") for part in parts).lower()


def train_command(arguments: Sequence[str]) -> int:
    from toughen.training import checkpoint
    from toughen.training.run import train  # TensorBoard and the like take a while to import
    from toughen.training.stop import Stopped
    from toughen.training.trainer import Diverged

    recipe, config, out, resume = parse_train(arguments)
    try:
        folder = train(recipe, out, config=config, resume=resume)
    except Stopped as stopped:
        program = [PROGRAM] if ranks.count() == 1 else ["torchrun", "...", "-m", PROGRAM]
        command = shlex.join([*program, "train", *arguments]) + ("" if resume else " --resume")
        if ranks.first():
            print(f"\nstopped on {stopped}; the state is saved. Go on with:\n  {command}", file=sys.stderr)
        return 128 + stopped.number
    except Diverged as error:
        kept = f"; {out} keeps the last healthy checkpoint" if (Path(out) / checkpoint.NAME).exists() else ""
        fail(
            f"training failed: {error}. Lower --optimizer.lr (now {recipe.optimizer.lr:g}) or use --precision fp32, "
            f"with another --out{kept}",
            status=1,
        )
    if ranks.first():
        print(f"weights: {folder / 'model.safetensors'}\nevaluate them: toughen evaluate {folder}")
    return 0


def own_model(spec: str, name: str | None) -> nn.Module | None:
    """The net that the user names for a run of a net of their own."""
    return runs.create_own(runs.read_record(Path(spec)), name) if name else None


def evaluate_command(arguments: Sequence[str]) -> int:
    settings.find_own_classes(arguments)
    given = vars(evaluate_parser().read(tidy(arguments)))
    console = Console(stderr=True, quiet=not ranks.first())
    given["model"] = own_model(given["spec"], given["model"])
    if given["source"]:
        given["source"] = partial(source_model, given["spec"], given["source"], given["device"], console, given["data"])
    try:
        result = evaluate_run(**given, console=console)
    except KeyboardInterrupt:
        fail("stopped; what is done is kept, and the same command goes on", status=130)
    if ranks.first():
        listing.print_evaluation(Console(), output_folder(given["spec"], given["out"]), result)
    return 0


def source_model(spec: str, source: str, device: str, console: Console, data: str | None) -> nn.Module:
    """The net whose adversarial images are tried on the model: a run's, or one that is trained for it and kept."""
    if source != "train":
        return runs.load(source)
    from toughen.training.source import train_source

    return runs.load(train_source(Path(spec), device, console, data))


def attack_command(arguments: Sequence[str]) -> int:
    settings.find_own_classes(arguments)
    given = vars(attack_parser().read(tidy(arguments)))
    given["model"] = own_model(given["spec"], given["model"])
    print(attack_images(**given, console=Console(stderr=True)))
    return 0


def diagnose_command(arguments: Sequence[str]) -> int:
    given = vars(diagnose_parser().read(tidy(arguments)))
    found = diagnose_runs(given.pop("runs"), **given, console=Console(stderr=True))
    listing.print_diagnostics(Console(), found)
    return 0


def compare_command(arguments: Sequence[str]) -> int:
    listing.print_comparison(Console(), [Path(run) for run in compare_parser().read(tidy(arguments)).runs])
    return 0


def report_command(arguments: Sequence[str]) -> int:
    from toughen.report import write_report

    given = report_parser().read(tidy(arguments))
    path = write_report(given.runs, given.out, overwrite=given.overwrite)
    print(f"written: {path}, open it in a browser")
    return 0


def list_command(arguments: Sequence[str]) -> int:
    what = list_parser().read(tidy(arguments)).what
    if what == "methods":
        listing.print_methods(Console(), methods.REGISTRY)
        return 0
    entries: dict[str, dict[str, str]] = {
        "attacks": {name: about for name, (_, about) in attack_names().items()},
        "models": models.names(),
        "data": data_sets.names(),
        "recipes": {name: listing.recipe_summary(path) for name, path in settings.recipes().items()},
    }
    listing.print_entries(Console(), entries[what])
    return 0


def demo_command(arguments: Sequence[str]) -> int:
    from toughen.demo import demo

    return demo(Path(demo_parser().read(tidy(arguments)).out))


def reproduce_command(arguments: Sequence[str]) -> int:
    from toughen.reproduction.reproduce import list_all, reproduce
    from toughen.training.stop import Stopped

    given = vars(reproduce_parser().read(tidy(arguments)))
    listed, name = given.pop("list"), given.pop("name")
    if listed:
        list_all(given["out"], Console())
        return 0
    if not name:
        fail(f"name a table or figure: `{PROGRAM} reproduce --list` names all")
    given["rows"] = [row.strip() for row in (given["rows"] or "").split(",") if row.strip()]
    try:
        failed = reproduce(name, **given)
    except (Stopped, KeyboardInterrupt) as stopped:
        status = 128 + stopped.number if isinstance(stopped, Stopped) else 130
        fail("stopped; what is done is kept, and the same command goes on", status=status)
    return 1 if failed else 0


COMMANDS: dict[str, tuple[Callable[[Sequence[str]], int], str]] = {
    "train": (train_command, "train a classifier as a recipe says"),
    "evaluate": (evaluate_command, "attack a model on test images, and judge the number that comes out"),
    "attack": (attack_command, "write the adversarial images of an attack as parquet"),
    "diagnose": (diagnose_command, "look closer at runs: curves, surfaces, transfer"),
    "compare": (compare_command, "show evaluated runs side by side"),
    "report": (report_command, "write runs and their results as one HTML page"),
    "list": (list_command, "list methods, attacks, models, data or recipes"),
    "reproduce": (reproduce_command, "run a paper's table or figure, and show it beside what was published"),
    "demo": (demo_command, "train a standard and a robust classifier, and attack both"),
}


SHARED = ("train", "evaluate")  # what torchrun may start several times


def usage() -> str:
    commands = "\n".join(f"  {name:9s} {about}" for name, (_, about) in COMMANDS.items())
    return f"usage: {PROGRAM} COMMAND ...\n\n{INTRODUCTION}\n\n{commands}\n\n`{PROGRAM} COMMAND --help` tells more."


def main(arguments: Sequence[str] | None = None) -> NoReturn:
    """Run a command and leave with its status: 0 done, 1 a run that failed, 2 bad input, 128 + n on signal n."""
    arguments = list(sys.argv[1:] if arguments is None else arguments)
    if not arguments or arguments[0] in ("-h", "--help"):
        print(usage())
        raise SystemExit(0 if arguments else 2)
    if arguments[0] == "--version":
        from toughen import __version__

        print(f"{PROGRAM} {__version__}")
        raise SystemExit(0)
    if arguments[0] not in COMMANDS:
        fail(f"command {arguments[0]!r} is unknown: use {', '.join(COMMANDS)}")
    warnings.filterwarnings("ignore")
    try:
        with ranks.joined():
            _run(*arguments)
    except RuntimeError as error:
        fail(str(error), status=1)


def _run(name: str, *arguments: str) -> NoReturn:
    """Run a command, and turn what goes wrong into one message and a status."""
    if ranks.count() > 1 and name not in SHARED:
        fail(f"{name} works in one process: start it without torchrun (more of them: {', '.join(SHARED)})")
    try:
        raise SystemExit(COMMANDS[name][0](arguments))
    except BrokenPipeError:  # who reads our output has seen enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        raise SystemExit(0) from None
    except OSError as error:
        fail(f"{error.filename}: {error.strerror}" if error.filename and error.strerror else str(error))
    except ValueError as error:
        fail(str(error))
    except RuntimeError as error:
        fail(str(error), status=1)
    except KeyboardInterrupt:
        fail("stopped", status=130)
