"""The weights of trained rows are kept and listed, and serve every table and figure that needs the same row."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

import pytest
from commands import digits, refused, toughen

from toughen.papers.published import find
from toughen.papers.published.exhibits import Figure, Table
from toughen.papers.run_spec import figure_run_spec, moments, run_spec
from toughen.papers.scales import SCALES
from toughen.papers.store import Store
from toughen.training.trainer import Trainer

FGSM = ("--rows", "FGSM-AT")


@pytest.fixture
def trained(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The method of each epoch that is trained."""
    seen: list[str] = []
    whole = Trainer.run_epoch

    def noted(self: Trainer, *more: Any) -> None:
        seen.append(type(self.method).__name__)
        whole(self, *more)

    monkeypatch.setattr(Trainer, "run_epoch", noted)
    return seen


def reproduce(out: Path, name: str, *more: object) -> Any:
    return toughen("reproduce", name, "--scale", "smoke", "--data", digits(), "--out", out, *more)


def folder_of(out: Path, recipe: str = "fgsm-mnist") -> Path:
    (found,) = (out / "smoke").glob(f"{recipe}-*")
    return found


def manifest(out: Path) -> dict[str, Any]:
    found = json.loads((out / "weights.json").read_text())["runs"]
    assert isinstance(found, dict)
    return found


def test_a_row_that_two_tables_share_is_trained_once(tmp_path: Path, trained: list[str]) -> None:
    assert reproduce(tmp_path, "pap-table3", *FGSM).status == 0
    assert trained == ["FGSMAT", "FGSMAT"]  # two epochs
    weights = folder_of(tmp_path) / "run" / "model.safetensors"
    written = weights.stat().st_mtime_ns
    ended = reproduce(tmp_path, "pap-table5", *FGSM)
    assert ended.status == 0, ended.err
    assert trained == ["FGSMAT", "FGSMAT", "Standard", "Standard"]  # the black-box attack's source alone is new
    assert weights.stat().st_mtime_ns == written


def test_the_list_says_which_weights_lie_where(tmp_path: Path) -> None:
    assert reproduce(tmp_path, "pap-table7", *FGSM).status == 0
    folder = folder_of(tmp_path)
    (name, entry), = manifest(tmp_path).items()  # fmt: skip
    weights = folder / "run" / "model.safetensors"
    assert name == f"smoke/{folder.name}" and tmp_path / entry["weights"] == weights
    assert entry["sha256"] == hashlib.sha256(weights.read_bytes()).hexdigest()
    record = json.loads((folder / "trained.json").read_text())
    assert (entry["recipe"], entry["seed"], entry["epochs"], entry["data"]) == ("fgsm-mnist", 0, 2, "mnist")
    assert entry["recipe_hash"] == folder.name.rpartition("-")[2] and entry["provenance"] == record["provenance"]
    assert entry["hashed"] == "when trained" and len(entry["date"]) == 10
    listed = toughen("reproduce", "--list", "--out", tmp_path)
    assert "weights.json lists the weights of 1 trained model" in listed.out


def test_changed_weights_are_refused_until_they_are_back_or_trained_anew(tmp_path: Path, trained: list[str]) -> None:
    assert reproduce(tmp_path, "pap-table7", *FGSM).status == 0
    folder = folder_of(tmp_path)
    weights = folder / "run" / "model.safetensors"
    whole = weights.read_bytes()
    weights.write_bytes(whole[:-1] + bytes([whole[-1] ^ 1]))
    now = hashlib.sha256(weights.read_bytes()).hexdigest()
    refused(
        reproduce(tmp_path, "pap-table3", *FGSM),
        "model.safetensors has changed", now[:12], hashlib.sha256(whole).hexdigest()[:12],
        f"remove {folder}, and the model is trained again",
    )  # fmt: skip
    assert len(trained) == 2 and len(list((folder / "cells").iterdir())) == 1  # nothing was measured of them
    weights.write_bytes(whole)
    assert reproduce(tmp_path, "pap-table3", *FGSM).status == 0 and len(trained) == 2


def test_a_run_of_before_there_was_a_list_is_put_on_it(tmp_path: Path, trained: list[str]) -> None:
    assert reproduce(tmp_path, "pap-table7", *FGSM).status == 0
    before = manifest(tmp_path)
    (tmp_path / "weights.json").unlink()
    assert reproduce(tmp_path, "pap-table3", *FGSM).status == 0 and len(trained) == 2
    (name,) = before
    assert manifest(tmp_path) == {name: before[name] | {"hashed": "when found"}}


@pytest.mark.parametrize("harm", ["", "[]", '{"runs": {"a": {}}}', '{"runs": [1]}'])
def test_a_damaged_list_is_named(harm: str, tmp_path: Path) -> None:
    assert reproduce(tmp_path, "pap-table7", *FGSM).status == 0
    (tmp_path / "weights.json").write_text(harm)
    refused(reproduce(tmp_path, "pap-table3", *FGSM), "weights.json is damaged")


@pytest.mark.slow
def test_a_table_s_row_keeps_what_a_figure_needs_of_it(tmp_path: Path, trained: list[str]) -> None:
    """R-MGM's table 3 has PGD, whose weights after some steps its figure 2 looks at."""
    assert reproduce(tmp_path, "rmgm-table3", "--rows", "PGD").status == 0
    kept = sorted(path.name for path in (folder_of(tmp_path, "rmgm-mnist") / "run" / "kept").iterdir())
    assert kept == ["step-1.safetensors", "step-3.safetensors"]  # by hand: at smoke a plot's moments are 1, 3, ...
    before = trained.count("PGDAT")
    ended = reproduce(tmp_path, "rmgm-figure2", "--rows", "PGD")
    assert ended.status == 0, ended.err
    assert trained.count("PGDAT") == before > 0 and "fgsm, step 3" in ended.out
    (first, second) = [
        each for name in manifest(tmp_path) for each in manifest(tmp_path)[name]["also"] if "kept" in each
    ]
    assert first.endswith("step-1.safetensors") and second.endswith("step-3.safetensors")


def test_rows_of_all_figures_are_served_by_the_same_rows_of_tables(tmp_path: Path) -> None:
    """Where words, data and settings are one, a training for either keeps what both need."""
    served = 0
    for table in ("rmgm-table3", "dat-table1"):
        for panel in find(table).panels:  # type: ignore[union-attr]
            for row in panel.rows:
                model = run_spec(row.run, panel.data, 0, SCALES["full"])
                for name in ("rmgm-figure1", "rmgm-figure2", "dat-figure-attacks", "dat-figure-generalization"):
                    figure = find(name)
                    assert isinstance(figure, Figure)
                    for plot in figure.plots:
                        for line in plot.lines:
                            if (line.run, plot.data) == (row.run, panel.data):
                                drawn = figure_run_spec(plot, line, SCALES["full"])
                                assert set(drawn.settings["keep_at"]) <= set(moments(model))
                                Store(tmp_path).folder(model).mkdir(parents=True, exist_ok=True)
                                Store(tmp_path).note(model, moments(model))
                                assert Store(tmp_path).folder(drawn) == tmp_path / "full" / model.key
                                served += 1
    assert served == 5
    assert isinstance(find("dat-table1"), Table)


def test_another_seed_keeps_nothing_for_figures() -> None:
    words = "rmgm-mnist --method FGSMAT --weights last --log_every 50"
    full = SCALES["full"]
    assert moments(run_spec(words, "mnist", 0, full)) == [1000, 5000]  # the steps of R-MGM's figure 1
    assert moments(run_spec(words, "mnist", 1, full)) == []
