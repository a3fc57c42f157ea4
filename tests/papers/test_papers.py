"""The papers' figures against a second transcription, and their rows against what toughen can train and attack with."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator
from pathlib import Path
from typing import TypeAlias

import published
import pytest

from toughen.config.train import parse_train
from toughen.core.threat import Threat
from toughen.evaluation.suite import parse_attack
from toughen.methods.fast import RFGSMAT
from toughen.papers import stated_settings
from toughen.papers.published import EXHIBITS, PAPERS, find, read_paper
from toughen.papers.published.exhibits import STATED, Column, Figure, Panel, Settings, Table
from toughen.papers.run_spec import run_spec
from toughen.papers.scales import SCALES, nodes
from toughen.utils.units import Fraction

Cells: TypeAlias = dict[tuple[str, int, str, str], str]
TABLES = [each for each in EXHIBITS.values() if isinstance(each, Table)]
SETTINGS = [each for each in EXHIBITS.values() if isinstance(each, Settings)]
FIGURES = [each for each in EXHIBITS.values() if isinstance(each, Figure)]
ISSUED = (  # what has to be there
    "pap-table1 pap-table2 pap-table3 pap-table4 pap-table5 pap-table6 pap-table7 pap-figure2 pap-figure3 "
    "rmgm-table1 rmgm-table2 rmgm-table3 rmgm-table4 rmgm-table5 rmgm-table6 rmgm-table7 "
    "rmgm-figure1 rmgm-figure2 rmgm-figure3 rmgm-figure4 "
    "nuat-table1a nuat-table1b nuat-table2 nuat-figure1 nuat-figure2 nuat-figure3a nuat-figure3b "
    "nuat-imagenet nuat-seeds nuat-entropy "
    "efgsm-table1 efgsm-table2 efgsm-table3 efgsm-table4 efgsm-table5 efgsm-figure2 efgsm-figure3 "
    "efgsm-early-stop efgsm-trades efgsm-restarts efgsm-sizes "
    "dat-table1 dat-hours dat-blackbox dat-figure-attacks dat-figure-loss dat-figure-generalization "
    "dat-figure-steps dat-figure-eps"
)


# ---- The second transcription, cell by cell.


def lines(table: str) -> list[list[str]]:
    """A printed table's cells."""
    return [[cell.strip() for cell in line.split("|")] for line in published.TABLES[table].strip().splitlines()]


def plain(cell: str) -> str:
    """A figure without its unit, and without commas between thousands."""
    return cell.removeprefix("~ ").removesuffix("%").removesuffix(" hours").replace(",", "")


def name(label: str) -> str:
    """A row's name here."""
    label = re.sub(r" Adv\.( Training)?$| Training$", "", label)
    label = {"Ablation-Proposed lambda=0": "Lambda = 0", **{each: f"EAT {each}" for each in "ABCD"}}.get(label, label)
    return label.removesuffix(" (Ours)")


def side_by_side(table: str, *widths: int, labels: bool = False) -> Iterator[tuple[int, str, list[str]]]:
    """Rows (panel, name, figures) of a table whose panels share lines, each so many figures wide.

    ``labels``: whether each panel repeats the rows' names.
    """
    for label, *cells in lines(table):
        for panel, width in enumerate(widths):
            if labels and panel:
                label, *cells = cells
            yield panel, name(label), cells[:width]
            cells = cells[width:]
        assert not cells, table


def turned(table: str, widths: tuple[int, ...], rows: tuple[str, ...]) -> Iterator[tuple[int, str, list[str]]]:
    """The same of a table that is printed the other way round; ``rows``: the names of all panels' rows."""
    columns: dict[tuple[int, int], list[str]] = {}
    for panel, _, cells in side_by_side(table, *widths, labels=True):
        for place, cell in enumerate(cells):
            columns.setdefault((panel, place), []).append(cell)
    for row, ((panel, _), cells) in zip(rows, sorted(columns.items()), strict=True):
        yield panel, row, cells


def halves() -> Iterator[tuple[str, str, list[str]]]:
    """NuAT's tables 1a and 1b, which share lines but for the last one."""
    for cells in lines("nuat-table1"):
        if len(cells) >= 7:
            yield "nuat-table1a", name(cells[0]), cells[1:7]
            cells = cells[7:]
        if len(cells) == 1:
            assert cells == ["Variants of NuAT (Ours)"]
            continue
        method, said, *figures = cells
        steps, epochs = said.replace("(", "").replace(")", "").split()
        yield "nuat-table1b", f"{method} {epochs}", [steps, epochs, *figures]


def slides() -> Iterator[tuple[int, str, list[str]]]:
    """DAT's main table; the time saved is printed once for a pair, beside its first row, and belongs to DAT."""
    panel, saved = -1, ""
    for cells in lines("dat-table1"):
        if cells[1].startswith("RAT"):
            panel, cells = panel + 1, cells[1:]
        method, hours, *rest = cells
        if len(rest) == 3:
            saved, rest = rest[0], rest[1:]
        yield panel, method, [hours, saved if method.startswith("DAT") else "-", *rest]


def sentences() -> Iterator[tuple[str, int, str, str, str]]:
    for table, text in published.PROSE.items():
        for part in text.split("; "):
            row, figures = part.split(": ")
            for figure in figures.split(", "):
                column, value = figure.rsplit(" ", 1)
                yield table, 0, row, column, value
    for panel, value in enumerate(published.CLOSE.values()):
        yield "efgsm-early-stop", panel, "Ours", "high risk", value


MNIST_LAMBDAS = tuple(f"lambda {each}" for each in ("1.0", "0.5", "0.1", "0.01", "0.001"))
CIFAR_LAMBDAS = tuple(f"lambda {each}" for each in ("1.0", "0.5", "0.1", "0.05", "0.01"))
ROWS = {
    "pap-table3": side_by_side("pap-table3", 6),
    "pap-table4": side_by_side("pap-table4", 6),
    "pap-table5": side_by_side("pap-table5", 2, 2),
    "pap-table6": side_by_side("pap-table6", 3, 3),
    "pap-table7": side_by_side("pap-table7", 1, 1),
    "rmgm-table3": side_by_side("rmgm-table3", 5),
    "rmgm-table4": side_by_side("rmgm-table4", 5),
    "rmgm-table5": turned("rmgm-table5", (2,), ("PGD", "Proposed")),
    "rmgm-table6": turned("rmgm-table6", (2,), ("PGD", "Proposed")),
    "rmgm-table7": side_by_side("rmgm-table7", 1, 1),
    "nuat-table2": side_by_side("nuat-table2", 4, 4, 4),
    "efgsm-table1": side_by_side("efgsm-table1", 4, 4, labels=True),
    "efgsm-table2": turned("efgsm-table2", (5, 5), MNIST_LAMBDAS + CIFAR_LAMBDAS),
    "efgsm-table3": turned("efgsm-table3", (5, 5), MNIST_LAMBDAS + CIFAR_LAMBDAS),
    "efgsm-table4": turned("efgsm-table4", (3, 3), ("AdvTrain", "REC", "Combined") * 2),
    "efgsm-table5": ((0, "Ours", cells) for _, _, cells in side_by_side("efgsm-table5", 3)),
    "dat-table1": slides(),
    "dat-hours": (
        (panel, row, [hours])
        for panel, (_, *cells) in enumerate(lines("dat-hours"))
        for row, hours in zip(("Natural", "RAT"), cells, strict=True)
    ),
    "dat-blackbox": ((0, "DAT", cells) for _, _, cells in side_by_side("dat-blackbox", 4)),
}


def second() -> Cells:
    """Every published figure, out of the texts; columns by their order."""
    found: Cells = {}
    for table, rows in ROWS.items():
        for panel, row, cells in rows:
            found |= {(table, panel, row, str(place)): plain(cell) for place, cell in enumerate(cells) if cell != "-"}
    for table, row, cells in halves():
        found |= {(table, 0, row, str(place)): cell for place, cell in enumerate(cells)}
    for table, panel, row, column, value in sentences():
        (whole,) = (each for each in TABLES if each.name == table)
        names = [each.name for each in whole.panels[panel].columns]
        found[table, panel, row, str(names.index(column))] = value
    return found


def first() -> Cells:
    """Every published figure, out of ``toughen.papers``."""
    return {
        (table.name, number, row.name, str(place)): panel.printed(row, column)
        for table in TABLES
        for number, panel in enumerate(table.panels)
        for row in panel.rows
        for place, column in enumerate(panel.columns)
        if panel.printed(row, column) != "-"
    }


def test_every_published_figure_is_that_of_the_text_and_none_is_missing() -> None:
    ours, text = first(), second()
    assert {place for place in ours if place not in text} == set()
    assert {place for place in text if place not in ours} == set()
    assert {place: (ours[place], text[place]) for place in ours if ours[place] != text[place]} == {}
    assert len(ours) > 700


def test_the_gains_that_nuat_s_text_names_follow_from_its_table() -> None:
    (table,) = (each for each in TABLES if each.name == "nuat-table2")
    for panel in table.panels:
        last = panel.columns[-1]
        aa = {row.name: panel.published(row, last) or 0.0 for row in panel.rows}
        found = (round(aa["NuAT"] - aa["GAT"], 2), round(aa["NuAT-WA"] - aa["GAT-WA"], 2))
        assert found == published.GAINS[panel.data]


def test_the_time_that_dat_saves_follows_from_its_hours() -> None:
    (table,) = (each for each in TABLES if each.name == "dat-table1")
    pairs = [(panel, row) for panel in table.panels for row in panel.rows if row.against]
    assert len(pairs) == 6
    for panel, row in pairs:
        hours, saved, *_ = panel.columns
        spent, whole = panel.published(row, hours), panel.published(panel.row(row.against), hours)
        assert spent and whole and panel.published(row, saved) == pytest.approx(100 * (1 - spent / whole), abs=0.06)


def test_nuat_s_tables_1a_and_2_differ_in_one_figure() -> None:
    whole, consolidated = (
        next(t for t in TABLES if t.name == name).panels[0] for name in ("nuat-table1a", "nuat-table2")
    )
    shared = [(row, column) for row in consolidated.rows for column in consolidated.columns]

    def value(panel: Panel, row: str, column: Column) -> str:
        return panel.printed(panel.row(row), next(each for each in panel.columns if each.name == column.name))

    differing = [
        (row.name, column.name)
        for row, column in shared
        if value(whole, row.name, column) != value(consolidated, row.name, column)
    ]
    assert differing == [("FBF", "AA (v1)")]


def test_settings_that_papers_only_state_are_those_of_the_text() -> None:
    ours = {(table.name, entry.of, entry.name): entry.published for table in SETTINGS for entry in table.entries}
    heads = [entry.name for entry in SETTINGS[0].entries if entry.of == "MNIST"]
    text = {
        ("pap-table1", of, head): cell
        for of, *cells in lines("pap-table1")
        for head, cell in zip(heads, cells, strict=True)
    }
    for of, method, share, weight in lines("pap-table2"):
        text["pap-table2", f"{of} {method}", "k, %"] = plain(share)
        text["pap-table2", f"{of} {method}", "lambda"] = weight
    for net, *parts in lines("rmgm-table1"):
        layers = re.sub(r"\{ (.*) \} x 4", lambda found: " ".join([found[1]] * 4), " ".join(parts))
        text["rmgm-table1", net, "layers"] = layers.replace(" + ", " ").removesuffix(" Softmax")
    for of, trained, named in lines("rmgm-table2"):
        net, letter = re.fullmatch(r"(.+)\(Ensemble (.)\)", trained).groups()  # type: ignore[union-attr]
        text["rmgm-table2", f"{of} {letter}", "trained"] = net
        text["rmgm-table2", f"{of} {letter}", "sources"] = named
    for of, sizes in published.SIZES.items():
        text |= {("efgsm-sizes", of, net): f"{size} million" for net, size in sizes.items()}
    assert ours == text


def test_nets_of_a_stated_size_have_it_but_for_the_one_that_a_note_is_about() -> None:
    table = find("efgsm-sizes")
    assert isinstance(table, Settings)
    for entry in table.entries:
        theirs = float(entry.published.removeprefix("near ").split()[0])
        ours = float(stated_settings.stated(table, entry).split()[0])
        assert (abs(ours / theirs - 1) < 0.02) == (entry.name != "TRADES' classifier"), entry


# ---- What is compared can be trained and attacked.


def test_every_table_and_figure_is_there_under_its_name() -> None:
    assert set(EXHIBITS) == set(ISSUED.split())
    assert len(EXHIBITS) == sum(map(len, PAPERS.values()))
    with pytest.raises(ValueError, match="did you mean pap-table3"):
        find("pap-tabel3")


def words() -> set[str]:
    """Everything that `toughen train` is told."""
    found = {entry.run for table in SETTINGS for entry in table.entries}
    found |= {line.run for figure in FIGURES for plot in figure.plots for line in plot.lines}
    for panel in (panel for table in TABLES for panel in table.panels):
        found |= {column.source for column in panel.columns if column.source}
        found |= {source for row in panel.rows for source in row.sources}
        found |= {row.run + " --method.sources [one]" * bool(row.sources) for row in panel.rows}
    return found


@pytest.mark.parametrize("run", sorted(words()))
def test_every_run_can_be_parsed(run: str) -> None:
    recipe, _, _ = parse_train(shlex.split(run))
    assert recipe.data in ("mnist", "cifar10", "imagenet")


def test_r_fgsm_s_random_step_is_half_of_eps_in_every_row_that_trains_on_it() -> None:
    """As Tramer et al. have it (arXiv:1705.07204, alpha = eps / 2)."""
    trained = {run for run in words() if "--method RFGSMAT" in run or "--method.cross_entropy_on both" in run}
    assert len(trained) == 7
    for run in trained:
        method = parse_train(shlex.split(run))[0].method
        start = method.attack.start_size if isinstance(method, RFGSMAT) else vars(method)["start_size"]
        assert start == pytest.approx(float(method.eps or 0) / 2), run


@pytest.mark.slow
def test_a_run_has_one_wording() -> None:
    """Results are looked up by their words, so that another wording of a run that was made would be "not run"."""
    wordings: dict[str, str] = {}
    for run in words():
        sources = ["standard-mnist"] if "--method.sources" in run else []
        key = run_spec(run.removesuffix(" --method.sources [one]"), "any", 0, SCALES["full"], sources).key
        assert wordings.setdefault(key, run) == run


@pytest.mark.slow
@pytest.mark.parametrize("scale", SCALES)
def test_every_run_ends_after_what_it_is_to_change_within_it(scale: str) -> None:
    """A run that stops before its own switch would not be the row's."""
    changes = 0
    for run in words():
        sources = ["standard-mnist"] if "--method.sources" in run else []
        settings = run_spec(run.removesuffix(" --method.sources [one]"), "any", 0, SCALES[scale], sources).settings
        ended = settings.get("stop_epoch") or settings["epochs"]
        assert 1 <= ended <= settings["epochs"], run
        for node in nodes(settings):
            for when in (node[name] for name in ("switch_epoch", "reset") if isinstance(node.get(name), int)):
                assert 0 < when < ended, run
                changes += 1
    assert changes > 3


def attacks() -> set[tuple[str, str]]:
    """Every attack with the radius that it is run at."""
    found = {(plot.attack, plot.eps) for figure in FIGURES for plot in figure.plots if plot.attack}
    for panel in (panel for table in TABLES for panel in table.panels):
        measured = (column for column in panel.columns if not column.timed)
        found |= {(column.of, panel.eps) for column in measured if " " not in column.of}
    return {(of, eps) for of, eps in found if of not in ("clean", "gamma", "close", STATED)}


@pytest.mark.parametrize(("spec", "eps"), sorted(attacks()))
def test_every_attack_exists_and_keeps_to_its_radius(spec: str, eps: str) -> None:
    assert parse_attack(spec, Threat("linf", Fraction(eps))).eps == Fraction(eps)


# ---- A file that says something else is refused, with the place.

PAPER = """
paper: P
citation: A paper
exhibits:
  p-table1:
    source: Table 1
    title: A table
    headline: {row: Ours, column: Clean}
    panels:
    - data: mnist
      net: a net
      eps: "0.3"
      unit: Ours
      columns: {Clean: clean, Hours: train hours, AT: stated}
      rows:
        Ours: {published: 99.10 2.0 1+1, run: pap-mnist}
        Theirs: {published: 98.00 - 2, run: pgd-mnist, against: Ours}
"""


def test_a_paper_s_file_keeps_the_digits_that_are_printed(tmp_path: Path) -> None:
    (tmp_path / "p.yaml").write_text(PAPER)
    name, (whole,) = read_paper(tmp_path / "p.yaml")
    assert name == "P" and isinstance(whole, Table) and (whole.source, whole.headline) == ("Table 1", ("Ours", "Clean"))
    (panel,) = whole.panels
    clean, hours, steps = panel.columns
    assert [panel.printed(panel.row("Ours"), each) for each in panel.columns] == ["99.10", "2.0", "1+1"]
    assert panel.published(panel.row("Ours"), clean) == 99.1 and panel.published(panel.row("Ours"), steps) is None
    assert panel.published(panel.row("Theirs"), hours) is None and panel.row("Theirs").against == "Ours"


@pytest.mark.parametrize(
    ("there", "instead", "said"),
    [
        ("99.10 2.0 1+1", "99.10 2.0", "p-table1: panels 1: rows, Ours: 2 published figures for 3 columns"),
        ("99.10 2.0 1+1", "99.1o 2.0 1+1", "rows, Ours: '99.1o' under Clean is not a number"),
        ("{published: 98.00 - 2, run", "{published: 98.00, run", "published is 98.0: .*needs quotes"),
        ("run: pgd-mnist, ", "", "Theirs: missing: run"),
        ("against: Ours", "beside: Ours", "Theirs: unknown: beside; there are name, run, published"),
        ("against: Ours", "against: Nobody", "there is no row 'Nobody'"),
        ("unit: Ours", "unit: Mine", "unit must be the row whose times are 1, not 'Mine'"),
        ("      unit: Ours\n", "", "unit must be the row"),
        ("column: Clean", "column: Dirty", "headline: no panel has a row 'Ours' and a column 'Dirty'"),
        ("    source: Table 1\n", "", "p-table1: source is missing"),
        ("Theirs:", "Ours:", "sets 'Ours' twice"),
        ('eps: "0.3"', "eps: 0.3", "eps is 0.3: not of its type"),
        ("citation:", "cite:", "must have paper, citation and exhibits"),
    ],
)
def test_a_paper_s_file_that_says_something_else_is_refused(
    there: str, instead: str, said: str, tmp_path: Path
) -> None:
    assert there in PAPER
    (tmp_path / "p.yaml").write_text(PAPER.replace(there, instead, 1))
    with pytest.raises(ValueError, match="p.yaml.*" + said):
        read_paper(tmp_path / "p.yaml")
