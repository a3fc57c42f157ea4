"""Lines on a terminal that may hold anything, and tables of two columns."""

from __future__ import annotations

from rich.console import Console
from rich.table import Table


def say(console: Console, text: str = "", style: str = "") -> None:
    """A line as it is: no markup is read in it, no number coloured, and it is not folded."""
    console.print(text, highlight=False, markup=False, soft_wrap=True, style=style or None)


def two_columns() -> Table:
    """An empty table of names, in bold, and what belongs to them."""
    table = Table(box=None, show_header=False, pad_edge=False)
    table.add_column(no_wrap=True, style="bold")
    table.add_column()
    return table
