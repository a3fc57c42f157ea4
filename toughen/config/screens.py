"""A command's help on the terminal: the settings that most runs need on a screen, or all of them."""

from __future__ import annotations

import inspect
import re
import shutil
import textwrap
from argparse import Action
from collections.abc import Iterator, Mapping, Sequence
from contextvars import ContextVar
from dataclasses import dataclass, field
from types import UnionType
from typing import Any, Literal, Union, get_args, get_origin

from toughen.config.settings import PARTS, kebab

INDENT = 24  # columns before what a setting means
NARROWEST, WIDEST = 40, 100  # columns that help is folded to
OTHERS = "Other"  # settings that a command's groups leave out
KINDS = {int: "N", float: "X"}  # what stands for a value, by its type
STANDS = {
    "eps": "EPS",
    "time_budget": "TIME",
    "time_limit": "TIME",
    "memory_limit": "SIZE",
}  # and by the setting's name
# while help on a method inside another is printed: what its options begin with, such as "method."
help_prefix: ContextVar[str] = ContextVar("help_prefix", default="")


@dataclass(frozen=True, kw_only=True)
class Help:
    """What a command says of itself.

    Attributes:
        usage: how it is written, without the word "usage:"; further lines as they stand.
        about: what it does, in a sentence.
        examples: command lines that work as they stand.
        shown: titles of groups, each with the settings that ``--help`` shows, blanks between.
        more: the settings that only ``--help all`` shows, under the same titles or further ones.
        defaults: whether ``--help`` names defaults.
    """

    usage: str
    about: str
    examples: Sequence[str]
    shown: Mapping[str, str]
    more: Mapping[str, str] = field(default_factory=dict)
    defaults: bool = True

    def groups(self, everything: bool) -> dict[str, list[str]]:
        """The names of settings by title."""
        titles = dict.fromkeys([*self.shown, *(self.more if everything else ())])
        more = self.more if everything else {}
        return {title: [*self.shown.get(title, "").split(), *more.get(title, "").split()] for title in titles}


def help_requested(arguments: Sequence[str]) -> Literal["", "short", "all"]:
    """Which help a command line asks for; "" for none."""
    words = [*arguments, ""]
    for word, following in zip(words, words[1:], strict=False):
        if word in ("-h", "--help"):
            return "all" if following == "all" else "short"
        if word == "--help=all":
            return "all"
    return ""


def screen(about: Help, prog: str, actions: Sequence[Action], everything: bool) -> str:
    """A command's help.

    Args:
        about: what it says of itself.
        prog: its name, with the program's.
        actions: its parser's.
        everything: all settings with all that is to be said of them; otherwise the first sentence of those that most
            runs need.
    """
    width = max(NARROWEST, min(WIDEST, shutil.get_terminal_size().columns - 2))
    by_name = {kebab(action.dest): action for action in actions}
    groups = {title: [by_name.pop(kebab(name)) for name in names] for title, names in about.groups(everything).items()}
    hidden = [name for name, action in by_name.items() if action.help != "==SUPPRESS==" and name != "help"]
    if everything:
        groups[OTHERS] = [by_name[name] for name in hidden]
    lines = [f"usage: {about.usage}", "", *textwrap.wrap(about.about, width), "", "Examples:"]
    lines += [f"  {example}" for example in about.examples]
    for title, members in groups.items():
        entries = [line for each in members for line in entry(each, width, everything, about.defaults or everything)]
        lines += ["", f"{title}:", *entries] if entries else []
    lines += ["", f"`{prog} --help all` shows every setting."] if hidden and not everything else []
    return "\n".join(lines) + "\n"


def entry(action: Action, width: int, everything: bool, defaults: bool) -> Iterator[str]:
    """The lines of one setting."""
    head, text = f"  {invocation(action)}", explained(action, everything, defaults)
    lines = textwrap.wrap(text, width - INDENT) or [""]
    if len(head) > INDENT - 2:
        yield head
    else:
        lines[0] = head.ljust(INDENT) + lines[0]
    yield lines[0] if len(head) <= INDENT - 2 else " " * INDENT + lines[0]
    yield from (" " * INDENT + line for line in lines[1:])


def flags(action: Action) -> list[str]:
    """How an option may be written; jsonargparse's form that adds to a list is left out."""
    words = [kebab(word) for word in action.option_strings if not word.endswith("+")]
    return [word.replace("--", f"--{help_prefix.get()}", 1) if "." in word else word for word in words]


def invocation(action: Action) -> str:
    """A setting as it is written, with what stands for its value."""
    value = metavar(action)
    if not action.option_strings:
        return f"{value} ..." if action.nargs in ("+", "*") else value
    if action.nargs == 0:
        return ", ".join(flags(action))
    if value.startswith("[="):
        return f"{', '.join(flags(action))}{value}"
    if action.nargs == "?":
        return f"{', '.join(flags(action))} [{value}]"
    return f"{', '.join(flags(action))} {value}" + (" ..." if action.nargs in ("+", "*") else "")


def metavar(action: Action) -> str:
    """What stands for a setting's value."""
    if action.dest.endswith(".help"):
        return "NAME"
    if isinstance(action.metavar, str) and not action.metavar.startswith("{"):
        return action.metavar.strip(" \b")  # jsonargparse rubs out the blank before ``[=flags]``
    if choices := values(action):
        return "|".join(choices)
    name = action.dest.rsplit(".", 1)[-1]
    kinds = [KINDS[kind] for kind in _kinds(getattr(action, "_typehint", action.type)) if kind in KINDS]
    return STANDS.get(name) or next(iter(kinds), name.rsplit("_", 1)[-1].upper())


def values(action: Action) -> list[str]:
    """The values that a setting takes, where they are few words; none where it takes others."""
    if action.choices is not None:
        return [str(each) for each in action.choices]
    kinds = [kind for kind in _kinds(getattr(action, "_typehint", None)) if kind is not type(None)]
    if kinds == [bool]:
        return ["true", "false"]
    if len(kinds) == 1 and get_origin(kinds[0]) is Literal:
        return [str(each) for each in get_args(kinds[0])]
    return []


def _kinds(hint: Any) -> list[Any]:
    """The members of a union, or the type itself."""
    return list(get_args(hint)) if get_origin(hint) in (Union, UnionType) else [hint]


def explained(action: Action, everything: bool = True, defaults: bool = True) -> str:
    """What a setting means, in the command line's words: its flags, ``null`` and lower-case truth values.

    Args:
        action: the parser's.
        everything: all of it; otherwise the first sentence, up to a full stop or a semicolon.
        defaults: whether to add the default and, for a part, its choices.
    """
    kinds = known(getattr(action, "_typehint", None))
    if action.dest.endswith(".help"):
        part = help_prefix.get() + action.dest.removesuffix(".help")
        example = f", such as {kinds[0]}" if kinds else ""
        return f"show the settings of one{example}; they are given as --{part}.SETTING"
    text = (action.help or "").replace("None", "null")
    text = re.sub(r"``(\w+)``", r"`\1`" if "." in action.dest else lambda name: f"--{kebab(name[1])}", text)
    text = text if everything else re.split(r"[.;](?: |$)", text)[0]
    default = PARTS.get(action.dest, action.default)
    default = " ".join(map(str, default)) if isinstance(default, list) else default
    default = str(default).lower() if isinstance(default, bool) else default
    silent = default in (None, "", "==SUPPRESS==") or default == {} or action.nargs == 0 or "(default" in text
    notes = [] if silent or not defaults else [f"default: {default}"]
    notes += [f"one of {', '.join(kinds)}, or package.module.Class"] if kinds and everything else []
    return f"{text} ({'; '.join(notes)})" if notes else text


def known(base: Any) -> list[str]:
    """The names of the classes that may stand for a part of this type; none where it is no part."""
    if not inspect.isclass(base) or base.__module__.split(".")[0] != "toughen":
        return []
    own = [kind.__name__ for kind in _below(base) if kind.__module__.startswith("toughen.")]
    return sorted(name for name in own if not name.startswith("_"))


def called(word: str, base: Any) -> list[str]:
    """The classes of a part that a paper calls by this name: those with it in parentheses in their summary line."""
    summaries = {kind.__name__: (inspect.getdoc(kind) or "").partition("\n")[0] for kind in _below(base)}
    pattern = re.compile(rf"\([^)]*\b{re.escape(word)}\b", re.IGNORECASE)
    return [name for name in known(base) if pattern.search(summaries[name])]


def owner(name: str, bases: dict[str, Any]) -> str | None:
    """Which of these parts first has a class with a setting of this name.

    Args:
        name: of the setting.
        bases: the types of the parts, by the parts' names.
    """
    for part, base in bases.items():
        if known(base) and any(name in inspect.signature(kind).parameters for kind in _below(base)):
            return part
    return None


def _below(base: Any) -> list[Any]:
    return [each for kind in base.__subclasses__() for each in (kind, *_below(kind))]
