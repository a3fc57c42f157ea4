"""What a paper's tables and figures are made of, as plain data: who is compared, by what, and what was published."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, TypeAlias

STATED = "stated"  # a column that only describes its row: nothing is measured for it

Curve: TypeAlias = Literal[
    "eps", "steps", "restarts", "loss", "watched", "surface", "confusion", "nuclear", "old weights", "by epoch"
]


@dataclass(frozen=True)
class Column:
    """One column of a table.

    Attributes:
        name: as the paper heads it.
        of: what it holds: "clean", or an attack by its short name (`toughen list attacks`), both in percent;
            "epoch seconds", "train seconds", "train hours", "hours saved" (percent, against the row's ``against``);
            "gamma", gradients spent on making an image; "entropy nuclear" and "entropy frobenius", in units of log k;
            "close", the percentage of images within eps of a linear boundary, and "close at start", the same from where
            eFGSM's step sets out; or "stated".
        source: for a black-box attack, the words of `toughen train` that make the net whose images are shown.
        spread: whether it holds the standard deviation over seeds instead of the mean.
    """

    name: str
    of: str
    source: str = ""
    spread: bool = False

    @property
    def timed(self) -> bool:
        """Whether a clock decides, so that only ratios can be compared."""
        return self.of in ("epoch seconds", "train seconds", "train hours")


@dataclass(frozen=True)
class Row:
    """One row of a table: a trained model.

    Attributes:
        name: as the paper calls it.
        run: what `toughen train` is told, a recipe and changes to it.
        published: the figures in the columns' order, digits as printed, with blanks between; "-" for none.
        sources: the words of the nets that the method takes as its sources (EAT).
        against: the row that "hours saved" refers to.
        cannot: why toughen cannot run it; "" where it can.
        note: what the paper leaves open and is ours here.
    """

    name: str
    run: str
    published: str = ""
    sources: tuple[str, ...] = ()
    against: str = ""
    cannot: str = ""
    note: str = ""


@dataclass(frozen=True, kw_only=True)
class Panel:
    """The part of a table that belongs to one data set and net.

    Attributes:
        data: "mnist", "cifar10", "cifar100", "imagenet100" or "imagenet".
        net: the net, as the paper names it.
        eps: radius of the L-inf threat that models are evaluated at, such as "8/255".
        columns, rows: what was measured, and on whom.
        unit: the row whose times are 1.
    """

    data: str
    net: str
    eps: str
    columns: tuple[Column, ...]
    rows: tuple[Row, ...]
    unit: str = ""

    @property
    def names(self) -> list[str]:
        """Of its rows."""
        return [row.name for row in self.rows]

    def printed(self, row: Row, column: Column) -> str:
        """A published figure as it is printed; "-" where the paper has none."""
        return row.published.split()[self.columns.index(column)] if row.published else "-"

    def published(self, row: Row, column: Column) -> float | None:
        """The same as a number; None where there is none, or where it is a text."""
        text = self.printed(row, column)
        return None if text == "-" or column.of == STATED else float(text)

    def row(self, name: str) -> Row:
        return next(row for row in self.rows if row.name == name)


@dataclass(frozen=True, kw_only=True)
class Table:
    """A table of measured figures.

    Attributes:
        name: its identifier on the command line.
        title: what it shows.
        source: where it stands in the paper.
        panels: one for each data set and net.
        notes: what a reader must know beside the figures.
        headline: row and column of the figure that stands for the table in a list.
        seeds: how many seeds the paper's figures come from.
    """

    name: str
    title: str
    panels: tuple[Panel, ...]
    source: str = ""
    notes: tuple[str, ...] = ()
    headline: tuple[str, str] = ("", "")
    seeds: int = 1

    @property
    def parts(self) -> tuple[Panel, ...]:
        return self.panels


@dataclass(frozen=True)
class Line:
    """A model that is drawn in a figure.

    Attributes:
        name: as the paper calls it.
        run: what `toughen train` is told.
    """

    name: str
    run: str


@dataclass(frozen=True, kw_only=True)
class Plot:
    """One set of axes.

    Attributes:
        data, net, eps: as in a ``Panel``.
        curve: what is drawn.
            "eps", "steps", "restarts": accuracy against the attack's radius, steps or random starts.
            "loss": mean loss against eps under FGSM, R-FGSM and PGD. "watched": the same at kept steps, and the
            distance between FGSM's and R-FGSM's logits as training goes on.
            "surface": loss over the gradient's direction and another. "confusion": classes under an attack on the
            nuclear and on the Frobenius norm. "nuclear": nuclear norm of robust and of broken images.
            "old weights": the final model's accuracy on images made with the weights of earlier epochs.
            "by epoch": training loss, and accuracy on attacked test images with the weights of each epoch.
        lines: the models.
        attack: short name, where there is one to choose.
        at: places on the x axis: radii as "8/255", steps, starts, or steps and epochs whose weights are kept.
        every: for "watched", optimizer steps from one look to the next; for curves over epochs, epochs.
    """

    data: str
    net: str
    eps: str
    curve: Curve
    lines: tuple[Line, ...]
    attack: str = ""
    at: tuple[str | int, ...] = ()
    every: int = 1

    @property
    def names(self) -> list[str]:
        """Of its lines."""
        return [line.name for line in self.lines]

    @property
    def tested(self) -> bool:
        """Whether it shows anything of test images."""
        return self.curve != "watched" and (self.curve != "by epoch" or bool(self.attack))


@dataclass(frozen=True, kw_only=True)
class Figure:
    """A figure; its values are only drawn in the paper, but for those in ``notes``.

    Attributes:
        name, title, source, notes: as in a ``Table``.
        plots: its axes.
    """

    name: str
    title: str
    plots: tuple[Plot, ...]
    source: str = ""
    notes: tuple[str, ...] = ()

    @property
    def parts(self) -> tuple[Plot, ...]:
        return self.plots


@dataclass(frozen=True)
class Setting:
    """One setting that a paper states.

    Attributes:
        of: whose: a data set, a method, a net.
        name: what it sets.
        published: as the paper states it.
        run: the words of `toughen train` that are to show it.
        path: where it stands there, such as "epochs" or "method.lam"; or "attack NAME.FIELD", "layers" for those of
            the net, "parameters" and "reconstructor parameters", "sources" for those of ``sources``.
        sources: as in a ``Row``.
        unit: what a number is multiplied by to be in the paper's units, as 100 for percent.
    """

    of: str
    name: str
    published: str
    run: str
    path: str
    sources: tuple[str, ...] = ()
    unit: int = 1


@dataclass(frozen=True, kw_only=True)
class Settings:
    """A table that only states settings.

    Attributes:
        name, title, source, notes: as in a ``Table``.
        eps: radius of the attacks among them, by what ``Setting.of`` names.
        entries: all of them.
    """

    name: str
    title: str
    entries: tuple[Setting, ...]
    source: str = ""
    eps: tuple[tuple[str, str], ...] = ()
    notes: tuple[str, ...] = ()


Exhibit: TypeAlias = Table | Figure | Settings
