"""`toughen list`."""

from __future__ import annotations

import inspect
import re
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from rich.console import Console
from rich.text import Text

from toughen.cli.shared import PROGRAM, Help
from toughen.config import settings
from toughen.config.parsing import Parser, tidy
from toughen.utils.collect import summary
from toughen.utils.console import two_columns

ELSEWHERE = {  # nets that are not part of toughen
    "timm:NAME": "Any net of the package timm, as in `--model timm:resnet18`. timm must be installed (pip install "
    "'toughen[timm]'); python -c \"import timm; print(timm.list_models())\" prints its names.",
    "package.module:function": "A net of your own: the function returns it. It is called with num_classes, and with "
    "shape if it has that parameter.",
}

WHAT = ("methods", "attacks", "models", "data", "recipes", "callbacks", "checks")
HELP = Help(
    usage=f"{PROGRAM} list {'|'.join(WHAT)}",
    about="List the names of methods, attacks, models, data sets, recipes, callbacks or checks.",
    examples=(f"{PROGRAM} list recipes", f"{PROGRAM} list methods", f"{PROGRAM} list attacks"),
    shown={"What to list": "what"},
)


def run(arguments: Sequence[str]) -> int:
    what = list_parser().read(tidy(arguments)).what
    from toughen import data, methods, models  # import torch, which --help does not need
    from toughen.evaluation.suite import names as attack_names
    from toughen.evaluation.verdict import check_functions
    from toughen.training.callbacks.selection import optional_callbacks

    if what == "methods":
        print_methods(Console(), methods.REGISTRY)
        return 0
    entries: dict[str, Callable[[], dict[str, str]]] = {
        "attacks": lambda: {name: about for name, (_, about) in attack_names().items()},
        "models": lambda: models.summaries() | ELSEWHERE,
        "data": data.names,
        "recipes": lambda: {name: recipe_summary(path) for name, path in settings.recipes().items()},
        "callbacks": lambda: {name: summary(kind) for name, kind in optional_callbacks().items()},
        "checks": lambda: {name: summary(function) for name, function in check_functions().items()},
    }
    print_entries(Console(), entries[what]())
    return 0


def list_parser() -> Parser:
    parser = Parser(prog=f"{PROGRAM} list", about=HELP)
    parser.add_argument(
        "what",
        choices=list(WHAT),
        metavar="WHAT",
        help=f"{', '.join(WHAT[:-1])} or {WHAT[-1]}",
    )
    return parser


def recipe_summary(path: Path) -> str:
    """The first comment line of a recipe."""
    return next((line.lstrip("# ") for line in path.read_text(encoding="utf-8").splitlines()), "").strip()


def method_facts(kind: type) -> dict[str, str]:
    """Facts from a method's docstring and signature: "about", "paper", "passes" and "settings"; "" if missing.

    The paper is in the last parentheses of the docstring's first line. The passes are the number in its line
    ``Passes:``; a plus sign means that a wrapper adds them to those of the wrapped method.
    """
    text, about = inspect.getdoc(kind) or "", summary(kind)
    cited = list(re.finditer(r" \(([^()]+)\)", about))
    stated = re.search(r"^Passes: (\+?[\d.]*\d)", text, re.MULTILINE)
    own = [p for p in inspect.signature(kind).parameters.values() if p.kind is p.KEYWORD_ONLY]
    settings = [p.name if p.default is p.empty or p.name == "eps" else f"{p.name}={p.default}" for p in own]
    return {
        "about": about[: cited[-1].start()] + about[cited[-1].end() :] if cited else about,
        "paper": cited[-1][1] if cited else "",
        "passes": stated[1] if stated else "",
        "settings": ", ".join(settings),
    }


def print_methods(console: Console, kinds: Mapping[str, type]) -> None:
    """Print each method with its paper, the cost of a step, and its settings; required settings have no default."""
    table = two_columns()
    for name, kind in kinds.items():
        facts = method_facts(kind)
        passes = f"{facts['passes']} passes per step" + (
            " in addition to the wrapped method" * ("+" in facts["passes"])
        )
        cost = "; ".join(part for part in (facts["paper"], passes) if part)
        table.add_row(Text(name), Text(facts["about"]))
        table.add_row("", Text(cost, style="dim"))
        if facts["settings"]:
            table.add_row("", Text(facts["settings"], style="cyan"))
        table.add_row("", "")
    console.print(table)
    console.print("A pass is one image's forward pass. `toughen train --method.help NAME` explains the settings.")


def print_entries(console: Console, entries: dict[str, str]) -> None:
    """Print names with their descriptions."""
    table = two_columns()
    for name, about in entries.items():
        table.add_row(Text(name), Text(about))
    console.print(table)
