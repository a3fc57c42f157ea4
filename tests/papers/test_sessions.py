"""What a run says of when and where it was trained, if it was trained in more than one go."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Any

import pytest
from commands import killed_at, small, toughen

from toughen.engine import device
from toughen.papers import markdown
from toughen.papers.published import EXHIBITS
from toughen.papers.published.exhibits import Table
from toughen.papers.run_spec import run_spec
from toughen.papers.scales import SCALES
from toughen.papers.store import Quantity, Store
from toughen.papers.values import View
from toughen.training.collapse import CollapseDetector


def begun(folder: Path) -> tuple[list[object], dict[str, Any]]:
    """A run that was killed after seven of its ten steps: its words, and what it says of where it was trained."""
    words = small("--method", "FBF", "--eps", 0.1, "--checkpoint_seconds", 0, "--out", folder)
    assert killed_at(7, *words).returncode == -9
    return [*words, "--resume"], json.loads((folder / "provenance.json").read_text())


def test_every_session_is_kept(tmp_path: Path) -> None:
    words, before = begun(tmp_path / "run")
    earlier = before | {"commit": "0123456789ab", "processor": "another processor"}
    path = tmp_path / "run/provenance.json"
    path.write_text(json.dumps(earlier))
    assert toughen(*words).status == 0
    found = json.loads(path.read_text())
    (first, second) = found.pop("sessions")
    assert first == {"from_step": 0, **earlier} and second == {"from_step": second["from_step"], **found}
    assert 1 <= second["from_step"] <= 7 and found["commit"] == device.commit()


@pytest.mark.slow
def test_one_machine_and_commit_is_one_session(tmp_path: Path) -> None:
    words, before = begun(tmp_path / "run")
    before["processor"] = device.processor(device.pick_device("cpu"))  # the other process's may have other threads
    (tmp_path / "run/provenance.json").write_text(json.dumps(before))
    assert toughen(*words).status == 0
    assert json.loads((tmp_path / "run/provenance.json").read_text()) == before


def test_a_damaged_record_stops_no_run_and_hides_nothing(tmp_path: Path) -> None:
    words, _ = begun(tmp_path / "run")
    path = tmp_path / "run/provenance.json"
    path.write_text('{"commit": "01')
    assert toughen(*words).status == 0
    first, second = json.loads(path.read_text())["sessions"]
    assert first == {"from_step": 0} and second["from_step"] > 0


def test_no_ratio_is_shown_of_a_time_on_two_processors(tmp_path: Path) -> None:
    table = EXHIBITS["rmgm-table7"]
    assert isinstance(table, Table)
    panel = table.panels[0]
    store, (column,) = Store(tmp_path), panel.columns
    one, two = ({"from_step": step, "processor": name, "commit": name} for step, name in ((0, "one"), (9, "two")))
    for row, provenance in (("Normal", one), ("FGSM", {**one, "sessions": [two, one]}), ("PGD", one)):
        model = run_spec(panel.row(row).run, "mnist", 0, SCALES["full"])
        store.write(model, Quantity("epoch seconds"), 2.0, images=None, seconds=1.0, provenance=provenance)
    values = [View(Store(tmp_path), SCALES["full"]).value(panel, panel.row(row), column) for row in ("FGSM", "PGD")]
    assert values[0] is None and values[1] is not None and values[1].mean == 1.0


def test_a_page_names_all_commits_of_a_training(tmp_path: Path) -> None:
    sessions = [{"from_step": 0, "commit": "aaa", "processor": "one", "precision": "bf16"}]
    sessions.append({"from_step": 9, "commit": "bbb", "processor": "two", "precision": "fp32"})
    training = {"provenance": {**sessions[1], "sessions": sessions}}
    cell = {"scale": "full", "seed": 0, "date": "2026-11-22", "images": 10, "drawn": "first", "training": training}
    said = markdown.origin([cell | {"provenance": {"commit": "ccc", "processor": "two"}}])
    assert "one, two; trained in bf16, fp32 at commit aaa, bbb; measured at commit ccc" in said


@pytest.mark.slow
def test_what_the_watch_takes_is_not_training(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Ten steps of a small net take far less than ten looks of 0.3 s each."""
    signal = CollapseDetector.signal

    def slow(*given: Any) -> float:
        time.sleep(0.3)
        return signal(*given)

    monkeypatch.setattr(CollapseDetector, "signal", slow)
    words = ("--method", "FBF", "--eps", 0.1, "--watch", "warn", "--log_every", 1, "--out", tmp_path / "run")
    assert toughen(*small(*words)).status == 0
    lines = [json.loads(line) for line in (tmp_path / "run/metrics.jsonl").read_text().splitlines()]
    watched = sum(line["watch_seconds"] for line in lines)
    assert 3.0 <= watched < 30 and sum(line["seconds"] for line in lines) < watched
