"""jsonargparse's parser, with options written either way, readable help, and errors in the user's words."""

from __future__ import annotations

import difflib
import importlib
import inspect
import re
import sys
import traceback
from argparse import Action, ArgumentError
from collections.abc import Collection, Iterable, Sequence
from itertools import zip_longest
from typing import Any, get_args

import jsonargparse
from jsonargparse import ArgumentParser, DefaultHelpFormatter

from toughen.config import screens
from toughen.config.settings import flag, kebab
from toughen.utils import strict_yaml
from toughen.utils.configurable import hints_of
from toughen.utils.plugins import describe_error, did_you_mean

PROGRAM = "toughen"
WORDS = {"int": "a whole number", "float": "a number", "Fraction": "a number", "bool": "true or false"}
WORDS |= {"str": "a string", "NoneType": "null", "dict": "a mapping such as '{depth: 28}'", "list": "a list"}

jsonargparse.set_parsing_settings(import_path_denylist=[])  # its own list of os, subprocess and more is then enforced

NEGATIVE = re.compile(r"-[\d.]+(e[+-]?\d+)?(/[\d.]+)?", re.IGNORECASE)


class HelpFormatter(DefaultHelpFormatter):
    """Help on a part's settings, as `--method.help NAME` shows it, in the words of ``screens``."""

    def _get_help_string(self, action: Action) -> str:
        return screens.explained(action)

    def _format_action_invocation(self, action: Action, *given: Any) -> str:
        return screens.invocation(action)

    def _format_usage(self, usage: str | None, actions: Iterable[Action], *given: Any) -> str:
        parts = [action.dest.rsplit(".", 1)[0] for action in actions if "." in action.dest]
        part = screens.help_prefix.get() + min(parts, key=lambda name: name.count("."), default="")
        return f"usage: {PROGRAM} train --{part} NAME [--{part}.SETTING VALUE ...]\n\n"


class Parser(ArgumentParser):
    """A parser whose errors are ValueErrors of one short message; see ``read``.

    Args:
        about: what its help says; None for a parser that jsonargparse makes for a part.
    """

    def __init__(self, *args: Any, about: screens.Help | None = None, **settings: Any) -> None:
        given = {"exit_on_error": False, "allow_abbrev": False, "formatter_class": HelpFormatter, **settings}
        if prefix := screens.help_prefix.get():  # jsonargparse describes a part of a part by its last name alone
            given["description"] = (given.get("description") or "").replace("Help for --", f"Help for --{prefix}")
        super().__init__(*args, **given)
        self.about = about

    def read(self, arguments: Sequence[str], *, origin: str = "", defaults: bool = True) -> jsonargparse.Namespace:
        """Parse a command line.

        Args:
            arguments: as ``tidy`` leaves them.
            origin: what the message says these came from; "" for the command line.
            defaults: whether settings that were not given get their defaults.

        Raises:
            ValueError: they are not what the parser knows.
            SystemExit: they ask for help, which is printed.
        """
        if self.about and (which := screens.help_requested(arguments)):
            print(screens.screen(self.about, self.prog, self._actions, which == "all"), end="")
            raise SystemExit(0)
        for name, value in options(arguments):
            strict_yaml.check_value(value, flag(name))
            self._check_help(name, value)
        topic = next((name.removesuffix(".help") for name, _ in options(arguments) if name.endswith(".help")), "")
        above = "".join(f"{name}." for name in topic.split(".")[:-1])
        reset = screens.help_prefix.set(above)
        try:
            return self.parse_args(list(arguments), defaults=defaults)
        except ArgumentError as error:
            raise ValueError(origin + explain(str(error), self, "" if origin else "--")) from None
        except (Exception, SystemExit) as error:
            if isinstance(error, ValueError) or "--help" in arguments or not _elsewhere(error):
                raise
            raise ValueError(f"{origin}a class of your own cannot be imported: {describe_error(error)}") from error
        finally:
            screens.help_prefix.reset(reset)

    def _check_help(self, name: str, value: str) -> None:
        """Refuse `--method.help` without a name."""
        top = next((action for action in self._actions if action.dest == name.partition(".")[0]), None)
        names = screens.known(getattr(top, "_typehint", None))
        if name.endswith(".help") and names and (not value or value.startswith("-")):
            raise ValueError(f"{flag(name)} needs a name: {', '.join(names)}")


def _elsewhere(error: BaseException) -> bool:
    """Whether an error comes out of a user's module, and not of ours or of one that we use."""
    ours = {"toughen", "jsonargparse", *sys.stdlib_module_names}
    modules = (frame.f_globals.get("__name__", "") for frame, _ in traceback.walk_tb(error.__traceback__))
    return isinstance(error, SyntaxError) or any(name.partition(".")[0] not in ours for name in modules)


def options(arguments: Sequence[str]) -> list[tuple[str, str]]:
    """A tidy command line's options as (dotted name, value)."""
    pairs = []
    for word, following in zip_longest(arguments, arguments[1:], fillvalue=""):
        if word.startswith("--"):
            name, equals, value = word[2:].partition("=")
            pairs.append((name, value if equals else following))
    return pairs


def tidy(arguments: Sequence[str]) -> list[str]:
    """Options with underscores and negative fractions, and a part's settings after the option that names the part."""
    groups: list[list[str]] = [[]]
    for word in arguments:
        if word.startswith("--"):
            name, equals, value = word.partition("=")
            groups.append(["--" + name[2:].replace("-", "_") + equals + value])
        elif NEGATIVE.fullmatch(word) and len(groups[-1]) == 1 and re.fullmatch("--[^=]+", groups[-1][0]):
            groups[-1][0] += f"={word}"  # argparse takes -8/255 for an option
        else:
            groups[-1].append(word)
    groups[1:] = sorted(groups[1:], key=lambda group: group[0].partition("=")[0].count("."))
    return [word for group in groups for word in group]


def explain(message: str, parser: ArgumentParser, dashes: str = "--") -> str:
    """A parser's message in the user's words: which setting, what is wrong, what to do.

    Args:
        message: what jsonargparse says: nested lines that name keys and classes, then what is wrong with the innermost.
        parser: whose message it is.
        dashes: what stands before a setting's name.
    """
    lines = [line.strip() for line in message.splitlines() if line.strip()]
    path, owner = "", ""
    while match := re.fullmatch(r"Parser key \"(.+)\":|Problem with given class_path '(.+)':", lines[0]):
        path, owner = (f"{path}.{match[1]}".lstrip("."), owner) if match[1] else (path, match[2])
        lines = _in_part(lines[1:])
    path = kebab(path) if dashes else path
    text, option = "\n".join(lines), dashes + path
    if match := re.match(r"Option '(.+)' is not accepted", text):
        return _unknown_setting(match[1], path, owner, parser, dashes)
    if match := re.match(r"unrecognized arguments: (\S+)", text):
        return _unknown_option(match[1], parser)
    if match := re.match(r"the following arguments are required: (.+)", text):
        missing = ", ".join(f"{option}.{name}" if path else _shown(name, parser) for name in match[1].split(", "))
        if owner:
            return f"{_last(owner)} needs {missing}"
        return f"{missing} is missing: give it before all options; see `{parser.prog} --help`"
    if match := re.match(r"argument (\S+): (?:expected|ignored|invalid choice: (\S+) \(choose from (.+)\))", text):
        if match[2]:
            choices = match[3].replace(", ", " or ")
            return f"{match[1]} must be {choices}, not {match[2]}".replace("'", "")
        names = "/".join(kebab(name) for name in match[1].split("/") if not name.endswith("+"))
        return f"{names} {'takes no' if 'ignored' in text else 'needs a'} value"
    if match := re.match(r"--(\S+)\.help: (?:Expected a dot import path string: (\S+)|\"(\S+)\" is not)", text):
        part = screens.help_prefix.get() + match[1]
        return _unknown_class(match[2] or match[3], part, owner, parser, f"--{part}.help")
    if match := re.match(r"Importing '(.+)' is not allowed", text):
        return _unknown_class(match[1], path, owner, parser, option)
    if match := re.match(r"Expected a dot import path string: (.+)|(?:Import path (\S+)|Not a valid) .*subclass", text):
        return _unknown_class(match[1] or match[2] or "", path, owner, parser, option)
    if owner and re.match(r"No module named|module .* has no attribute", text):
        return _not_imported(owner, option, lines[0])
    return _wrong_value(text, option) or f"{option}: {lines[0]}".removeprefix(f"{dashes}: ")


def _last(name: str) -> str:
    return name.rsplit(".", 1)[-1]


def _choose(given: str, names: Collection[str], noun: str = "it takes") -> str:
    """A likely name in place of the given one, else all names."""
    return _alike(given, names) or (f"{noun} {', '.join(names)}" if names else f"{noun} none")


def _alike(given: str, names: Collection[str]) -> str:
    """A likely name in place of the given one; "" if there is none."""
    if same := [name for name in names if _letters(name) == _letters(given)]:
        return f"did you mean {same[0]}?"
    by_case = {name.lower(): name for name in names}
    close = difflib.get_close_matches(given.lower(), by_case, n=1)
    return f"did you mean {by_case[close[0]]}?" if close else ""


def _not_imported(path: str, option: str, reason: str) -> str:
    place, _, name = path.rpartition(".")
    if name == "py":
        return f"{option} {path} names a file: write {place}.CLASS, with its folder on PYTHONPATH"
    if (holder := sys.modules.get(place)) is not None:
        return f"{option} {path} cannot be found: {place} has no {name}{did_you_mean(name, holder)}"
    return f"{option} {path} cannot be imported: {reason}; is its folder on PYTHONPATH?"


def _letters(name: str) -> str:
    """A name without case and hyphens: R-MGM is RMGM."""
    return re.sub("[-_]", "", name).lower()


def _unknown_setting(name: str, path: str, owner: str, parser: ArgumentParser, dashes: str) -> str:
    if not owner:
        names = [each.dest for each in parser._actions if hasattr(each, "_typehint") and "." not in each.dest]
        return f"there is no setting {name!r}: {_alike(name, names) or f'`{parser.prog} --help all` lists all'}"
    write = kebab if dashes else str
    if name == "class_path":
        return f"{path}: its settings belong under init_args, beside class_path"
    module, kind = owner.rsplit(".", 1)
    owned, base = getattr(importlib.import_module(module), kind), _base(path, "", parser)
    if owned is base:
        choices = ", ".join(screens.known(base))
        return f"{dashes}{path} has settings and no class: name one of {choices} as its class_path"
    parameters = inspect.signature(owned).parameters.values()
    names = [write(each.name) for each in parameters if each.kind not in (each.VAR_POSITIONAL, each.VAR_KEYWORD)]
    return f"{kind} has no setting {dashes}{path}.{write(name)}: {_choose(write(name), names)}"


def _shown(name: str, parser: ArgumentParser) -> str:
    """A positional argument's name as the usage shows it."""
    found = next((action.metavar for action in parser._actions if action.dest == name), None)
    return found if isinstance(found, str) else name.upper()


def _unknown_option(word: str, parser: ArgumentParser) -> str:
    if not word.startswith("-"):
        return f"{word!r} is not expected here: `{parser.prog} --help` shows the order of arguments"
    names = [name for action in parser._actions for name in screens.flags(action) if name.startswith("--")]
    name, equals, value = word.partition("=")
    parts = {action.dest: getattr(action, "_typehint", None) for action in parser._actions if "." not in action.dest}
    if part := screens.owner(name.lstrip("-").replace("-", "_"), parts):
        return f"there is no option {kebab(name)}{equals}{value}: did you mean --{kebab(part)}.{kebab(name[2:])}?"
    close = difflib.get_close_matches(kebab(name)[2:], [each[2:] for each in names], n=1)
    return f"there is no option {kebab(name)}{equals}{value}: " + (
        f"did you mean --{close[0]}?" if close else f"`{parser.prog} --help all` lists all"
    )


def _in_part(lines: list[str]) -> list[str]:
    """A message on a part that may be null or another type: the lines from what is wrong with the part on."""
    if len(lines) > 1 and lines[0].startswith("Does not validate against any") and "<class 'toughen." in lines[1]:
        wrong = re.compile("- (Problem with given class_path|Expected a dot import path)")
        place = next((number for number, line in enumerate(lines) if wrong.match(line)), None)
        if place is not None:
            return [lines[place].removeprefix("- "), *lines[place + 1 :]]
    return lines


def _base(path: str, owner: str, parser: ArgumentParser) -> Any:
    """The class that a part is one of: by the types of the class ``owner``, or else of the parser."""
    module, _, name = owner.rpartition(".")
    kind = getattr(sys.modules.get(module), name, None)  # nothing is imported for a message
    if isinstance(kind, type):
        hint = hints_of(kind).get(_last(path).replace("-", "_"))
        if found := [each for each in (*get_args(hint), hint) if screens.known(each)]:
            return found[0]
    top = next((action for action in parser._actions if kebab(action.dest) == kebab(path.split(".")[0])), None)
    return getattr(top, "_typehint", None)


def _unknown_class(name: str, path: str, owner: str, parser: ArgumentParser, option: str) -> str:
    base = _base(path, owner, parser)
    names = screens.known(base)
    if ":" in name:
        return f"{option} {name} is not a class: write it as {name.replace(':', '.')}, with dots alone"
    if not name:
        return f"{option} must be the name of a class: {_choose('', names, 'use')}"
    close = _choose(name, names, "use")
    if not any(_letters(name) == _letters(each) for each in names) and len(similar := screens.called(name, base)) == 1:
        close = f"did you mean {similar[0]}?"
    return f"{option} {name} is unknown: {close}" + (
        f", or your own as package.module.Class: {option} takes subclasses of toughen's" if "." in name else ""
    )


def _wrong_value(text: str, option: str) -> str:
    """What a value of a simple type should have been; "" where the message is about something else."""
    if match := re.search(r"Not of type Fraction: (.+)", text):
        return f"{option}: {match[1]}"
    types = text.split("Errors:")[0].split("Got value:")[0]
    words = [word.strip("' ") for choices in re.findall(r"Literal\[(.+?)\]", types) for word in choices.split(",")]
    words += [WORDS.get(kind, kind) for kind in re.findall(r"<class '(?:[\w.]*\.)?(\w+)'>", types)]
    value = re.search(r"(?:Got|Given) value: (.*)", text)
    return f"{option} must be {' or '.join(dict.fromkeys(words))}, not {value[1][:80]}" if words and value else ""
