"""`toughen completion`: prints a script for tab completion in a shell."""

from __future__ import annotations

import argparse
import inspect
import re
from argparse import Action, ArgumentParser
from collections.abc import Iterable, Sequence
from typing import Any

from toughen import data, methods, models
from toughen.cli.main import COMMANDS, INTRODUCTION
from toughen.cli.shared import PROGRAM, Help, parser_of
from toughen.config import settings
from toughen.config.parsing import Parser, tidy
from toughen.config.screens import explained, flags, known, metavar, values
from toughen.evaluation.diagnostics.names import NAMES as DIAGNOSTICS
from toughen.evaluation.suite import names as attack_names
from toughen.papers.arguments import ALL
from toughen.papers.published import EXHIBITS
from toughen.training import optimizers, schedules

HELP = Help(
    usage=f"{PROGRAM} completion bash|zsh|fish",
    about="Print a script for tab completion of commands, options and names in a shell.",
    examples=(
        f"{PROGRAM} completion bash > ~/.local/share/bash-completion/completions/{PROGRAM}",
        f"{PROGRAM} completion zsh > ~/.zfunc/_{PROGRAM}",
        f"{PROGRAM} completion fish > ~/.config/fish/completions/{PROGRAM}.fish",
    ),
    shown={"Shell": "shell"},
)
FOLDERS = {"run", "runs", "spec", "surrogate"}  # settings that take a folder
FILES = {"files", "weights", "config", "classes"}
PARTS = {"method": methods, "optimizer": optimizers, "schedule": schedules}


def run(arguments: Sequence[str]) -> int:
    shell = completion_parser().read(tidy(arguments)).shell
    try:
        import shtab
    except ImportError:
        raise ValueError("scripts for tab completion need shtab: pip install 'toughen[completion]'") from None
    text = shtab.complete(tree(), shell=shell)
    if shell == "zsh":  # shtab's (*) completes only the first of several words
        text = re.sub(r'"\(\*\)::?', '"*:', text)
    print(text)
    return 0


def completion_parser() -> Parser:
    parser = Parser(prog=f"{PROGRAM} completion", about=HELP)
    parser.add_argument("shell", choices=["bash", "zsh", "fish"], metavar="SHELL", help="bash, zsh or fish")
    return parser


def tree() -> ArgumentParser:
    """All commands as one ``ArgumentParser``, from which shtab generates the scripts; it never parses anything."""
    top = ArgumentParser(prog=PROGRAM, description=INTRODUCTION)
    top.add_argument("--version", action="store_true", help="print the version")
    commands = top.add_subparsers(dest="command")
    for name, about in COMMANDS.items():
        command = commands.add_parser(name, help=plain(about), description=plain(about))
        if name in ("train", "plan"):
            recipe = command.add_argument("recipe", nargs="?", help="a recipe or its YAML file")
            complete(recipe, words("recipes", settings.recipes(), files="f"))
        for action in parser_of(name)._actions:
            if action.help != argparse.SUPPRESS and action.dest != "help":
                copy(action, command)
        if name in ("train", "plan"):
            for option in part_settings():
                command.add_argument(option, help="a setting of this method, optimizer or schedule")
    return top


def copy(action: Action, command: ArgumentParser) -> None:
    """Add an argument to the parser for shtab, with its possible values."""
    about: dict[str, Any] = {"help": plain(explained(action, everything=False, defaults=False))}
    if action.nargs == 0:
        command.add_argument(*flags(action), action="store_true", **about)
        return
    many = action.nargs if action.nargs in ("+", "*", "?") else None
    about |= {"nargs": many, "metavar": plain(metavar(action)), "choices": values(action) or None}
    made = command.add_argument(*(flags(action) or [action.dest]), **about)
    if not about["choices"]:
        complete(made, value(action))


def value(action: Action) -> Any:
    """The completions of a setting's value, as shtab takes them; None if there are none."""
    import shtab

    name = action.dest.removesuffix(".help")
    if name in PARTS:
        return words(name, known(getattr(action, "_typehint", None)))
    if name == "out":
        return shtab.FILE if action.metavar == "FILE" else shtab.DIRECTORY
    if name in FOLDERS or name in FILES:
        return shtab.DIRECTORY if name in FOLDERS else shtab.FILE
    lists: dict[str, Iterable[str]] = {
        "attack": attack_names(), "attacks": attack_names(), "transfer_attacks": attack_names(),
        "which": DIAGNOSTICS, "model": models.names(),
    }  # fmt: skip
    if name == "data":
        return words("data", data.names(), files="d")
    if name == "init":
        return shtab.FILE
    if name == "name" and action.nargs == "*":  # of tables; `push` and `card` have other names
        return words("tables", (ALL, *EXHIBITS))
    return words(name, lists[name]) if name in lists else None


def words(name: str, listed: Iterable[str], files: str = "") -> dict[str, Any]:
    """Completions from a list of names, and also from files ("f") or folders ("d"), as shtab takes them."""
    kind = {"f": "_file", "d": "_dir", "": ""}[files]  # by these shtab lets bash quote what it inserts
    function, joined = f"_{PROGRAM}_{name}{kind}", " ".join(listed)
    bash = f'{function}() {{\n  compgen -W "{joined}" -- "$1"\n'
    bash += f'  compgen -{files} -- "$1"\n' if files else ""
    paths = {"f": " 'files:file:_files'", "d": " 'folders:folder:_files -/'", "": ""}[files]
    fish = f"function {function}\n  printf '%s\\n' {joined}\n"
    fish += {"f": "  __fish_complete_path (commandline -ct)\n", "d": "  __fish_complete_directories\n", "": ""}[files]
    zsh = f"{function}() {{\n  _alternative '{name}:{name}:({joined})'{paths}\n"
    preamble = {"bash": bash + "}\n", "zsh": zsh + "}\n", "fish": fish + "end\n"}
    return {"bash": function, "zsh": function, "fish": f"({function})", "preamble": preamble}


def complete(action: Action, completion: Any) -> None:
    if completion is not None:
        action.complete = completion  # type: ignore[attr-defined]


def part_settings() -> list[str]:
    """The settings of all methods, optimizers and schedules, as options."""
    names = set()
    for part, module in PARTS.items():
        kinds = [kind for kind in vars(module).values() if inspect.isclass(kind)]
        own = [kind for kind in kinds if kind.__module__.startswith(f"{PROGRAM}.") and not kind.__subclasses__()]
        for kind in own:
            given = inspect.signature(kind).parameters.values()
            names |= {f"--{part}.{each.name.replace('_', '-')}" for each in given if each.kind is each.KEYWORD_ONLY}
    return sorted(names)


def plain(text: str) -> str:
    """A text without the characters that a shell would interpret."""
    return "".join(" " if each in "`'\"$[]{}():;|\\%" else each for each in text)
