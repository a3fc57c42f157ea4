"""Write docs/reference from docstrings, signatures and the parsers of the commands.

python tools/reference.py
python tools/reference.py --out DIR
"""

from __future__ import annotations

import argparse
import inspect
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from docstring_parser import parse

from toughen import attacks, data, methods, models
from toughen.cli.list import recipe_summary
from toughen.cli.main import COMMANDS
from toughen.cli.shared import parser_of
from toughen.config import settings
from toughen.config.parsing import Parser
from toughen.config.screens import flags, invocation
from toughen.config.train import train_parser
from toughen.evaluation.suite import SUITES, names
from toughen.evaluation.verdict import check_functions
from toughen.papers.markdown import folded
from toughen.runs.files import write_text
from toughen.training import optimizers, schedules
from toughen.training.recipe import Recipe
from toughen.utils.collect import summary

OUT = Path(__file__).parent.parent / "docs" / "reference"
MADE = "This page is made by `make docs` (`tools/reference.py`). Do not edit it by hand.\n"
STATUS = "A command ends with 0 if it is done, 1 if a run failed, 2 on bad input, 128 + n on signal n."


def table(head: Sequence[str], rows: Iterable[Sequence[object]]) -> str:
    """A table in Markdown."""
    lines = [[str(cell).replace("|", "\\|").replace("][", "]\\[") for cell in row] for row in rows]
    return "\n".join("| " + " | ".join(row) + " |" for row in [list(head), ["---"] * len(head), *lines]) + "\n"


def code(text: object) -> str:
    return f"`{text}`"


def plain(text: str | None) -> str:
    """A part of a docstring as one line of Markdown."""
    return " ".join((text or "").replace("``", "`").split()).replace("None", "null")


def written(value: Any) -> str:
    """A default as the command line takes it."""
    if value is inspect.Parameter.empty:
        return "required"
    if value is None or isinstance(value, bool):
        return code({None: "null", True: "true", False: "false"}[value])
    return code(getattr(value, "__name__", None) or (type(value).__name__ if hasattr(value, "__dict__") else value))


def explained(kind: type) -> dict[str, str]:
    """The docstring's sentence on each setting of a class, from the class or a base class."""
    texts = [vars(each).get("__doc__") or "" for each in reversed(kind.__mro__) if each is not object]
    entries = [entry for text in texts for entry in parse(text).params]
    return {name: plain(entry.description) for entry in entries for name in entry.arg_name.split(", ")}


def setting_table(kind: type) -> str:
    """A class's settings with their defaults and meanings; "" where it has none."""
    about = explained(kind)
    given = [each for each in inspect.signature(kind).parameters.values() if each.kind is each.KEYWORD_ONLY]
    rows = [(code(each.name), written(each.default), about.get(each.name, "")) for each in given]
    return table(["setting", "default", "meaning"], rows) if rows else "No settings.\n"


def part(kind: type) -> str:
    """A class: what it is, what its docstring says of it, and its settings."""
    found = parse(inspect.getdoc(kind) or "")
    more = [plain(text) + "\n" for text in (found.long_description or "").split("\n\n") if text]
    return "\n".join([f"## {kind.__name__}\n", plain(found.short_description) + "\n", *more, setting_table(kind)])


def option_rows(parser: Parser, leave_out: Sequence[str] = ()) -> list[tuple[str, str, str]]:
    """A command's arguments: how they are written, their default and their help."""
    rows = []
    for action in parser._actions:
        if action.dest in ("help", *leave_out) or action.dest.endswith(".help"):
            continue
        name = ", ".join(flags(action)) or invocation(action)
        default = settings.PARTS.get(action.dest, action.default)
        default = " ".join(default) if isinstance(default, list) else default
        shown = written(default) if default not in (None, "", "==SUPPRESS==") and action.nargs != 0 else ""
        rows.append((code(name), shown, plain(action.help) or ", ".join(action.choices or ())))
    return rows


def examples(parser: Parser) -> str:
    """A command's examples as a block of code."""
    return "```sh\n" + "\n".join(parser.about.examples if parser.about else ()) + "\n```\n"


def commands() -> str:
    rows = [(f"[{name}](#{name})", about) for name, about in COMMANDS.items()]
    parts = [f"# Commands\n\n{MADE}", table(["command", ""], rows)]
    for name, about in COMMANDS.items():
        parts.append(f"## {name}\n\n{about[0].upper()}{about[1:]}.\n")
        parser = parser_of(name)
        parts.append(examples(parser))
        if name == "plan":
            parts.append("It takes the arguments of [train](#train), except `--json`.\n")
            continue
        if name == "train":
            parts.append("Every field of a [recipe](recipe.md) is an option: `--batch-size 64` or `--batch_size 64`.\n")
        given = option_rows(parser, [*Recipe.__dataclass_fields__] if name == "train" else [])
        parts.append(table(["argument", "default", "meaning"], given))
    parts.append(f"## Status\n\n{STATUS}\n")
    return "\n".join(parts)


def classes(title: str, about: str, kinds: Mapping[str, type]) -> str:
    rows = [(f"[{name}](#{name.lower()})", plain(summary(kind))) for name, kind in kinds.items()]
    return "\n".join([f"# {title}\n\n{MADE}\n{about}\n", table(["name", ""], rows), *map(part, kinds.values())])


def method_page() -> str:
    about = "`--method NAME` chooses one, `--method.SETTING VALUE` sets it. Passes are those of one image in a step."
    return classes("Training methods", about, methods.REGISTRY)


def attack_page() -> str:
    about = "`toughen evaluate --attacks` takes the short names below; `toughen.attacks` has the classes."
    short = table(["short name", ""], [(code(name), plain(text)) for name, (_, text) in names().items()])
    suites = table(["suite", "attacks"], [(name, " ".join(map(code, made))) for name, made in SUITES.items()])
    head, rest = classes("Attacks", about, attacks.REGISTRY).split("| name |", 1)
    return f"{head}{short}\n{suites}\nThe classes:\n\n| name |{rest}"


def recipe_page() -> str:
    parser = train_parser()
    others = [action.dest for action in parser._actions if action.dest not in Recipe.__dataclass_fields__]
    fields = [(name.replace("`--", "`").replace("-", "_"), *rest) for name, *rest in option_rows(parser, others)]
    kinds = [kind for module in (optimizers, schedules) for kind in vars(module).values() if inspect.isclass(kind)]
    own = [kind for kind in kinds if kind.__module__.startswith("toughen.training.") and kind.__subclasses__() == []]
    head = (
        f"# Recipe\n\n{MADE}\nA recipe is a YAML file with these fields. Each field is an option of `toughen train`.\n"
    )
    return "\n".join([head, table(["field", "default", "meaning"], fields), *map(part, own)])


def name_page() -> str:
    listed = {
        "Nets": models.summaries(),
        "Data sets": data.names(),
        "Recipes": {name: recipe_summary(path) for name, path in settings.recipes().items()},
    }
    parts = [f"# Names of nets, data sets and recipes\n\n{MADE}"]
    for title, of in listed.items():
        parts.append(f"## {title}\n\n" + table(["name", ""], [(code(name), plain(text)) for name, text in of.items()]))
    return "\n".join(parts)


def check_page() -> str:
    found = {name: parse(inspect.getdoc(make) or "") for name, make in check_functions().items()}
    rows = [(name, plain(each.short_description), plain(each.long_description)) for name, each in found.items()]
    about = (
        "`toughen evaluate` makes these checks of a robust accuracy. [Why a robust number can be wrong]"
        "(../explanation/verdict.md) explains the verdict, the allowance, and what checks cost. Points are percentage "
        "points. Limits that are points or shares of images have the allowance added.\n"
    )
    return "\n".join([f"# Checks of the verdict\n\n{MADE}", about, table(["check", "passes if", "details"], rows)])


PAGES: dict[str, Callable[[], str]] = {
    "attacks": attack_page,
    "checks": check_page,
    "commands": commands,
    "methods": method_page,
    "names": name_page,
    "recipe": recipe_page,
}


def main() -> None:
    parser = argparse.ArgumentParser(description="Write docs/reference.")
    parser.add_argument("--out", type=Path, default=OUT)
    out = parser.parse_args().out
    for name, write in PAGES.items():
        write_text(out / f"{name}.md", folded(write()))


if __name__ == "__main__":
    main()
