"""Data classes for the tables and figures of papers: the models, what is measured, and the published figures."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, TypeAlias

STATED = "stated"  # a column that only describes its row, without a measurement

Curve: TypeAlias = Literal[
    "eps", "steps", "restarts", "loss", "watched", "surface", "confusion", "nuclear", "old weights", "by epoch"
]


@dataclass(frozen=True)
class Column:
    """One column of a table.

    Attributes:
        name: the heading in the paper.
        of: the quantity: "clean", or an attack by its short name (`toughen list attacks`), both in percent;
            "epoch seconds", "train seconds", "train hours", "hours saved" (percent, against the row's ``against``);
            "gamma", gradients spent on making an image; "entropy nuclear" and "entropy frobenius", in units of log k;
            "close", the percentage of images within eps of a linear boundary, and "close at start", the same from where
            eFGSM's step starts; or "stated".
        source: for a black-box attack, the arguments of `toughen train` for the net that the images are made on.
        spread: whether it is the standard deviation over seeds instead of the mean.
    """

    name: str
    of: str
    source: str = ""
    spread: bool = False

    @property
    def timed(self) -> bool:
        """Whether it is a time, so that only ratios can be compared."""
        return self.of in ("epoch seconds", "train seconds", "train hours")


@dataclass(frozen=True)
class Row:
    """One row of a table: a trained model.

    Attributes:
        name: the name in the paper.
        run: the arguments of `toughen train`: a recipe and changes to it.
        published: the figures in the order of the columns, as printed, separated by blanks; "-" for none.
        sources: the arguments of `toughen train` for the source nets of the method (EAT).
        against: the row that "hours saved" refers to.
        cannot: why toughen cannot run it; "" if it can.
        note: choices of ours where the paper does not state a setting.
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
        net: the net's name in the paper.
        eps: radius of the L-inf threat of the evaluation, such as "8/255".
        columns, rows: the measured quantities, and the models.
        unit: the row that times are divided by.
    """

    data: str
    net: str
    eps: str
    columns: tuple[Column, ...]
    rows: tuple[Row, ...]
    unit: str = ""

    @property
    def names(self) -> list[str]:
        """The names of its rows."""
        return [row.name for row in self.rows]

    def printed(self, row: Row, column: Column) -> str:
        """A published figure as it is printed; "-" if the paper has none."""
        return row.published.split()[self.columns.index(column)] if row.published else "-"

    def published(self, row: Row, column: Column) -> float | None:
        """A published figure as a number; None if there is none, or if it is a text."""
        text = self.printed(row, column)
        return None if text == "-" or column.of == STATED else float(text)

    def row(self, name: str) -> Row:
        return next(row for row in self.rows if row.name == name)


@dataclass(frozen=True, kw_only=True)
class Table:
    """A table of measured figures.

    Attributes:
        name: the identifier on the command line.
        title: the title.
        source: the place in the paper.
        panels: one for each data set and net.
        notes: remarks for the reader.
        headline: row and column of the figure that a list shows for the table.
        seeds: the number of seeds of the paper's figures.
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
        name: the name in the paper.
        run: the arguments of `toughen train`.
    """

    name: str
    run: str


@dataclass(frozen=True, kw_only=True)
class Plot:
    """One set of axes.

    Attributes:
        data, net, eps: as in a ``Panel``.
        curve: the quantity that is drawn.
            "eps", "steps", "restarts": accuracy against the attack's radius, steps or random starts.
            "loss": mean loss against eps under FGSM, R-FGSM and PGD. "watched": the same at kept steps, and the
            distance between FGSM's and R-FGSM's logits as training goes on.
            "surface": loss over the gradient's direction and another. "confusion": classes under an attack on the
            nuclear and on the Frobenius norm. "nuclear": nuclear norm of robust and of broken images.
            "old weights": the final model's accuracy on images made with the weights of earlier epochs.
            "by epoch": training loss, and accuracy on attacked test images with the weights of each epoch.
        lines: the models.
        attack: the attack's short name, if the curve needs one.
        at: values on the x axis: radii as "8/255", steps, starts, or steps and epochs whose weights are kept.
        every: for "watched", optimizer steps between measurements; for curves over epochs, epochs.
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
        """The names of its lines."""
        return [line.name for line in self.lines]

    @property
    def tested(self) -> bool:
        """Whether it uses test images."""
        return self.curve != "watched" and (self.curve != "by epoch" or bool(self.attack))


@dataclass(frozen=True, kw_only=True)
class Figure:
    """A figure; the paper gives no numbers for it, except those in ``notes``.

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
        of: the data set, method or net that it belongs to.
        name: the setting's name.
        published: the value as the paper states it.
        run: the arguments of `toughen train` for our value.
        path: where our value is: a setting such as "epochs" or "method.lam"; or "attack NAME.FIELD", "layers" of the
            net, "parameters" and "reconstructor parameters", "sources" for the models of ``sources``.
        sources: as in a ``Row``.
        unit: the factor that converts a number to the paper's unit, such as 100 for percent.
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
        eps: the radius of the attacks, by ``Setting.of``.
        entries: the settings.
    """

    name: str
    title: str
    entries: tuple[Setting, ...]
    source: str = ""
    eps: tuple[tuple[str, str], ...] = ()
    notes: tuple[str, ...] = ()


Exhibit: TypeAlias = Table | Figure | Settings
