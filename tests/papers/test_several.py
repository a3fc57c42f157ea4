"""Models whose times are compared are trained in turns: in which order, what becomes of them, what is said of it."""

from __future__ import annotations

import json
import os
import signal
from pathlib import Path
from typing import Any

import pytest
from commands import digits, diverges, toughen
from rich.console import Console

from toughen.papers.arguments import at_hand
from toughen.papers.datasets import SETS
from toughen.papers.progress_board import ProgressBoard
from toughen.papers.published import EXHIBITS, find
from toughen.papers.published.exhibits import Settings, Table
from toughen.papers.run_spec import run_spec
from toughen.papers.scales import SCALES
from toughen.papers.store import Quantity, Store
from toughen.papers.tasks import Task, make_tasks, run_tasks
from toughen.papers.training import RunContext, train_in_turns
from toughen.papers.values import View, our
from toughen.runs.files import read_tensors
from toughen.training.trainer import Trainer

SMOKE = SCALES["smoke"]
PANEL = next(part for part in find("rmgm-table7").panels if part.data == "mnist")  # type: ignore[union-attr]
(COLUMN,) = PANEL.columns
NORMAL, PGD = PANEL.row("Normal"), PANEL.row("PGD")


def reproduce(out: Path, rows: str, name: str = "rmgm-table7") -> Any:
    return toughen("reproduce", name, "--rows", rows, "--scale", "smoke", "--data", digits(), "--out", out)


def folder_of(out: Path, row: str) -> Path:
    return Store(out).folder(run_spec(PANEL.row(row).run, "mnist", 0, SMOKE))


def partners(out: Path, row: str) -> list[str]:
    found = json.loads((folder_of(out, row) / "trained.json").read_text())["in_turns_with"]
    assert isinstance(found, list)
    return found


@pytest.fixture
def epochs(monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, int]]:
    """Method and number of each epoch in the order in which they were trained."""
    seen: list[tuple[str, int]] = []
    whole = Trainer.run_epoch

    def noted(self: Trainer, *more: Any) -> None:
        seen.append((type(self.method).__name__, self.state.epoch))
        whole(self, *more)

    monkeypatch.setattr(Trainer, "run_epoch", noted)
    return seen


@pytest.mark.slow
def test_rows_whose_times_are_compared_take_turns_and_become_what_they_are_alone(
    tmp_path: Path, epochs: list[tuple[str, int]]
) -> None:
    ended = reproduce(tmp_path / "turns", "Normal,PGD")
    assert ended.status == 0, ended.err
    assert epochs == [("Standard", 0), ("PGDAT", 0), ("Standard", 1), ("PGDAT", 1)]
    for row in ("Normal", "PGD"):
        assert reproduce(tmp_path / "alone", row).status == 0
        for name in ("model.safetensors", "checkpoint.safetensors"):
            one, other = (read_tensors(folder_of(tmp_path / out, row) / "run" / name)[0] for out in ("turns", "alone"))
            assert one.keys() == other.keys() and all(one[key].equal(other[key]) for key in one)
    assert partners(tmp_path / "turns", "PGD") == [folder_of(tmp_path / "turns", "Normal").name]
    assert partners(tmp_path / "alone", "PGD") == []


@pytest.mark.slow
def test_a_ratio_of_times_that_took_no_turns_is_marked(tmp_path: Path) -> None:
    both = reproduce(tmp_path / "turns", "Normal,PGD")
    assert both.status == 0 and both.out.count("≈") == 1  # in the words that explain it
    reproduce(tmp_path / "alone", "PGD")
    apart = reproduce(tmp_path / "alone", "Normal,PGD")
    for out, about in (("turns", ""), ("alone", "≈")):
        value = View(Store(tmp_path / out), SMOKE).value(PANEL, PGD, COLUMN)
        seconds = [
            sum(json.loads(line)["seconds"] for line in text.splitlines())
            for text in (
                (folder_of(tmp_path / out, row) / "run" / "metrics.jsonl").read_text() for row in ("PGD", "Normal")
            )
        ]
        assert our(value, COLUMN) == f"{about}{seconds[0] / seconds[1]:.3g} x"
    assert our(View(Store(tmp_path / "alone"), SMOKE).value(PANEL, NORMAL, COLUMN), COLUMN) == "1 x"
    assert apart.out.count("≈") == 2
    record = folder_of(tmp_path / "turns", "PGD") / "trained.json"
    record.write_text(json.dumps(json.loads(record.read_text()) | {"in_turns_with": 5}))
    damaged = View(Store(tmp_path / "turns"), SMOKE).value(PANEL, PGD, COLUMN)
    assert damaged is not None and damaged.approximate


@pytest.mark.slow
def test_turns_that_were_stopped_go_on_in_turns(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, epochs: list[tuple[str, int]]
) -> None:
    noted = Trainer.run_epoch

    def stopping(self: Trainer, *more: Any) -> None:
        noted(self, *more)
        if len(epochs) == 3:
            os.kill(os.getpid(), signal.SIGTERM)

    with monkeypatch.context() as patched:
        patched.setattr(Trainer, "run_epoch", stopping)
        ended = reproduce(tmp_path, "Normal,PGD")
    assert ended.status == 128 + signal.SIGTERM and "the same command continues it" in ended.err
    assert reproduce(tmp_path, "Normal,PGD").status == 0
    assert epochs == [("Standard", 0), ("PGDAT", 0), ("Standard", 1), ("PGDAT", 1)]
    assert partners(tmp_path, "Normal") == [folder_of(tmp_path, "PGD").name]
    value = View(Store(tmp_path), SMOKE).value(PANEL, PGD, COLUMN)
    assert value is not None and not value.approximate


@pytest.mark.slow
def test_one_that_went_on_alone_no_longer_counts_as_in_turns(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, epochs: list[tuple[str, int]]
) -> None:
    noted = Trainer.run_epoch

    def stopping(self: Trainer, *more: Any) -> None:
        if len(epochs) == 2:
            raise KeyboardInterrupt
        noted(self, *more)

    with monkeypatch.context() as patched:
        patched.setattr(Trainer, "run_epoch", stopping)
        assert reproduce(tmp_path, "Normal,PGD").status == 130
    assert reproduce(tmp_path, "PGD").status == 0
    assert reproduce(tmp_path, "Normal,PGD").status == 0
    value = View(Store(tmp_path), SMOKE).value(PANEL, PGD, COLUMN)
    assert value is not None and value.approximate


def test_one_that_diverges_holds_up_no_other(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    diverges(monkeypatch, lambda trainer: type(trainer.method).__name__ == "PGDAT")
    ended = reproduce(tmp_path, "Normal,PGD")
    assert ended.status == 1 and ended.out.count("could not be trained: the loss became nan") == 1
    assert (folder_of(tmp_path, "Normal") / "trained.json").is_file()
    assert not (folder_of(tmp_path, "PGD") / "trained.json").exists()


def test_one_that_diverges_holds_up_none_of_the_same_title_in_another_table(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    diverges(monkeypatch, lambda trainer: type(trainer.method).__name__ == "PGDAT")
    places = at_hand(find("rmgm-table7"), ["Normal"], str(digits()), SMOKE, tmp_path)  # type: ignore[arg-type]
    context = RunContext(Store(tmp_path), places, "cpu", ProgressBoard(Console(quiet=True), {}))
    for words in (PGD.run, NORMAL.run):
        run_tasks([Task("the same", run_spec(words, "mnist", 0, SMOKE), (Quantity("gamma"),))], context)
    assert context.failed == {"the same": "the loss became nan"}
    assert (folder_of(tmp_path, "Normal") / "trained.json").is_file()


@pytest.mark.parametrize("name", [name for name, each in EXHIBITS.items() if not isinstance(each, Settings)])
def test_models_of_a_table_or_figure_differ_in_their_titles(name: str) -> None:
    tasks = make_tasks(EXHIBITS[name], list(SETS), [], 1, SCALES["full"], None)  # type: ignore[arg-type]
    assert len({task.title for task in tasks}) == len(tasks)


def test_a_signal_after_the_last_step_ends_the_command_and_nothing_is_trained_twice(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, epochs: list[tuple[str, int]]
) -> None:
    noted = Trainer.run_epoch

    def stopping(self: Trainer, *more: Any) -> None:
        noted(self, *more)
        if self.state.finished:
            os.kill(os.getpid(), signal.SIGINT)

    with monkeypatch.context() as patched:
        patched.setattr(Trainer, "run_epoch", stopping)
        ended = reproduce(tmp_path, "FGSM-AT", "pap-table7")
    assert ended.status == 128 + signal.SIGINT and not list(tmp_path.rglob("cells"))
    assert reproduce(tmp_path, "FGSM-AT", "pap-table7").status == 0 and len(epochs) == 2


def test_rows_of_a_table_without_times_are_trained_one_after_another(
    tmp_path: Path, epochs: list[tuple[str, int]]
) -> None:
    assert reproduce(tmp_path, "FGSM-AT,PAP (ours)", "pap-table7").status == 0
    assert epochs == [("FGSMAT", 0), ("FGSMAT", 1), ("PAP", 0), ("PAP", 1)]


def test_a_row_that_another_learns_from_is_trained_before_it_and_once(
    tmp_path: Path, epochs: list[tuple[str, int]]
) -> None:
    places = at_hand(find("rmgm-table7"), ["Normal"], str(digits()), SMOKE, tmp_path)  # type: ignore[arg-type]
    context = RunContext(Store(tmp_path), places, "cpu", ProgressBoard(Console(quiet=True), {}))
    eat = run_spec(PANEL.row("EAT").run, "mnist", 0, SMOKE, (NORMAL.run,))
    assert train_in_turns({"Normal": run_spec(NORMAL.run, "mnist", 0, SMOKE), "EAT": eat}, context) == {}
    assert epochs == [("Standard", 0), ("Standard", 1), ("Ensemble", 0), ("Ensemble", 1)]


def test_all_tables_that_compare_times_have_rows_to_take_turns_with() -> None:
    timed = [
        panel
        for exhibit in EXHIBITS.values()
        if isinstance(exhibit, Table)
        for panel in exhibit.panels
        if any(column.timed for column in panel.columns)
    ]
    assert len(timed) > 5
    for panel in timed:
        assert panel.unit and len([row for row in panel.rows if not row.cannot]) > 1
