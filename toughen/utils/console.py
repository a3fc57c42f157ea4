"""Lines on a terminal that may hold anything, and tables of two columns."""

from __future__ import annotations

from rich.console import Console
from rich.table import Table
from rich.text import Text


def say(console: Console, text: str = "", style: str = "") -> None:
    """A line as it is: no markup is read in it, no number coloured, and it is not folded."""
    console.print(text, highlight=False, markup=False, soft_wrap=True, style=style or None)


def plain(text: str) -> Text:
    """A text without markup, control characters and lone surrogates, so that names cannot control the terminal."""
    return Text("".join(each if each.isprintable() else "\N{REPLACEMENT CHARACTER}" for each in text))


def two_columns() -> Table:
    """An empty table of names, in bold, and what belongs to them."""
    table = Table(box=None, show_header=False, pad_edge=False)
    table.add_column(no_wrap=True, style="bold")
    table.add_column(overflow="fold")
    return table
