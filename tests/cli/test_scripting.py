"""What scripts want: silence and JSON."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from commands import digits, refused, small, toughen

from toughen.cli.main import COMMANDS

ATTACKED = ("--attacks", "fgsm", "--limit", 20, "--device", "cpu")


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run that was trained and evaluated in silence."""
    folder = tmp_path_factory.mktemp("scripts") / "run"
    trained = toughen(*small("--method", "FBF", "--eps", 0.2, "--out", folder, "--quiet", "--json"))
    assert (trained.status, trained.err) == (0, "")
    said = json.loads(trained.out)
    assert said["run"] == str(folder) and Path(said["weights"]).is_file()
    assert said["evaluate"] == f"toughen evaluate {folder}"
    assert said["validation"] == json.loads((folder / "model.json").read_text())["validation"]
    found = toughen("evaluate", folder, *ATTACKED, "--quiet", "--json")
    assert (found.status, found.err) == (0, "")
    assert json.loads(found.out) == {"folder": str(folder), **json.loads((folder / "evaluation.json").read_text())}
    return folder


def test_compare(run: Path) -> None:
    evaluation = json.loads((run / "evaluation.json").read_text())
    (row,) = json.loads(toughen("compare", run, "--json").out)
    assert row["run"] == str(run) and (row["norm"], row["eps"], row["images"]) == ("linf", 0.2, 20)
    assert row["clean"] == evaluation["clean_accuracy"] and row["robust"] == evaluation["robust_accuracy"]
    assert row["attacks"] == {"fgsm": evaluation["attacks"]["fgsm"]["robust_accuracy"]}
    assert row["verdict"] == evaluation["verdict"] and row["passes_per_step"] == 5


def test_what_writes_files_is_silent(run: Path, tmp_path: Path) -> None:
    made = toughen("attack", run, "--attack", "fgsm", "--limit", 10, "--out", tmp_path / "a.parquet", "--quiet")
    assert (made.status, made.err) == (0, "") and (tmp_path / "a.parquet").is_file()
    looked = toughen("diagnose", run, "--which", "entropy", "--limit", 10, "--quiet", "--json")
    assert (looked.status, looked.err) == (0, "")
    assert list(json.loads(looked.out)["runs"]) == ["run"]


def test_a_table_is_run_in_silence(tmp_path: Path) -> None:
    words = ["reproduce", "pap-table7", "--scale", "smoke", "--data", digits(), "--rows", "FGSM-AT", "--out", tmp_path]
    done = toughen(*words, "--device", "cpu", "--quiet")
    assert (done.status, done.err) == (0, "") and "gamma" in done.out


def test_errors_are_said_all_the_same(tmp_path: Path) -> None:
    refused(toughen("train", "--data", tmp_path / "nowhere", "--eps", 0.1, "--quiet"), "nowhere")


def test_a_net_that_has_learnt_nothing_is_not_passed_over(tmp_path: Path) -> None:
    words = ("--validation", 40, "--optimizer.lr", 1e-9, "--epochs", 1, "--out", tmp_path / "run")
    trained = toughen(*small(*words, "--quiet", "--json"))
    assert trained.status == 0 and "learnt almost nothing" in " ".join(trained.err.split())
    assert json.loads(trained.out)["validation"]["clean"] < 0.4 and "epoch 1/1" not in trained.err


def test_the_settings_of_a_run_know_nothing_of_it(run: Path) -> None:
    assert "quiet" not in (run / "config.yaml").read_text() and "json" not in (run / "config.yaml").read_text()


def test_a_script_s_words_are_no_settings_of_a_run(run: Path) -> None:
    done = toughen(*small("--method", "FBF", "--eps", 0.2, "--out", run, "--resume"))
    assert done.status == 0 and "finished already" in done.err


def test_every_command_has_help(capsys: pytest.CaptureFixture[str]) -> None:
    for command in COMMANDS:
        assert toughen(command, "--help").status == 0
