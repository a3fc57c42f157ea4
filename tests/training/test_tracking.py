"""A run's figures in trackers of experiments."""

from __future__ import annotations

import json
import os
import signal
import sys
import time
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest
import torch
from commands import refused, small, timeless, toughen

from toughen.core.types import Step
from toughen.runs.files import read_tensors
from toughen.training import Callback, TrainingState
from toughen.training.callbacks.mlflow_logger import MLflow
from toughen.training.run import train
from toughen.training.tracking import Tracker, first_line
from toughen.utils.signals import Stopped

WORDS = small("--method", "FBF", "--eps", 0.2, "--device", "cpu")


class Noting(Tracker):
    """Keeps what it is sent."""

    package = "json"
    sent: list[tuple[str, Any, Any]] = []

    def begin(self, name: str, settings: dict[str, str]) -> str:
        self.sent.append(("begin", name, settings.get("method.class_path")))
        return self.run_id or "a"

    def log(self, figures: dict[str, float], step: int) -> None:
        self.sent.append(("log", step, figures["validation/pgd"]))

    def end(self) -> None:
        self.sent.append(("end", self.run_id, self.failed))


class Stop(Callback):
    """Stops the run at a step."""

    def on_step_end(self, state: TrainingState, step: Step) -> None:
        if state.step == 7:
            raise Stopped(15)


def test_a_tracker_gets_each_epoch_once_and_one_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from toughen.config.train import parse_train

    monkeypatch.setattr(Noting, "sent", [])
    recipe, _, _ = parse_train([str(word) for word in WORDS[1:]])
    with pytest.raises(Stopped):
        train(recipe, tmp_path / "run", callbacks=[Noting(), Stop()])
    folder = train(recipe, tmp_path / "run", callbacks=[Noting()], resume=True)
    pgd = [epoch["validation"]["pgd"] for epoch in timeless(folder)]
    assert Noting.sent == [
        ("begin", "run", "toughen.methods.FBF"),
        ("log", 5, pgd[0]),
        ("end", "a", False),
        ("begin", "run", "toughen.methods.FBF"),
        ("log", 10, pgd[1]),
        ("end", "a", False),
    ]


@pytest.mark.parametrize(("name", "package"), [("WandB", "wandb"), ("MLflow", "mlflow")])
def test_a_tracker_that_is_not_installed_says_how_to_get_it(
    name: str, package: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, package, None)
    refused(toughen(*WORDS, "--callbacks", name, "--out", tmp_path / "run"), f"pip install 'toughen[{package}]'")
    assert not (tmp_path / "run").exists()


def test_mlflow_keeps_the_figures(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    mlflow = pytest.importorskip("mlflow")
    monkeypatch.setenv("MLFLOW_TRACKING_URI", (tmp_path / "store").as_uri())
    monkeypatch.setenv("MLFLOW_ALLOW_FILE_STORE", "true")  # a database needs more than the client
    assert toughen(*WORDS, "--callbacks", "MLflow", "--out", tmp_path / "run").status == 0
    client = mlflow.MlflowClient()
    (experiment,) = [each for each in client.search_experiments() if each.name == "toughen"]
    (run,) = client.search_runs([experiment.experiment_id])
    found = client.get_metric_history(run.info.run_id, "validation/pgd")
    lines = timeless(tmp_path / "run")
    assert [(each.step, each.value) for each in found] == [(line["step"], line["validation"]["pgd"]) for line in lines]
    assert run.info.status == "FINISHED" and run.data.params["method.class_path"] == "toughen.methods.FBF"


def test_mlflow_without_a_destination_says_how_to_give_one(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "mlflow", ModuleType("mlflow"))
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    assert "set it to the address of a tracking server, or use `pip install mlflow`" in MLflow().advice()
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://127.0.0.1:9")
    assert MLflow().advice() == ""


def test_a_tracker_that_cannot_begin_gives_its_advice(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def begin(self: Noting, name: str, settings: dict[str, str]) -> str:
        raise ConnectionError(" no destination\nand more")

    monkeypatch.setattr(Noting, "begin", begin)
    monkeypatch.setattr(Noting, "advice", lambda self: "set one")
    ended = toughen(*WORDS, "--callbacks", f"{__name__}.Noting", "--out", tmp_path / "run")
    assert ended.status == 2 and ended.err.endswith("toughen: Noting cannot start the run: no destination\nset one\n")


def test_weights_and_biases_keeps_the_figures(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("wandb")
    monkeypatch.setenv("WANDB_MODE", "offline")
    monkeypatch.setenv("WANDB_DIR", str(tmp_path))
    assert toughen(*WORDS, "--callbacks", "WandB", "--out", tmp_path / "run").status == 0
    (kept,) = tmp_path.glob("wandb/offline-run-*/run-*.wandb")
    found = kept.read_bytes()
    assert found.count(b"validation/pgd") >= 2 and b"toughen.methods.FBF" in found
    for line in timeless(tmp_path / "run"):
        assert json.dumps(line["loss"]).encode() in found


@pytest.mark.parametrize(
    ("error", "status"), [(None, "FINISHED"), (Stopped(15), "KILLED"), (ValueError("no"), "FAILED")], ids=str
)
def test_mlflow_is_told_how_a_session_ended(
    error: BaseException | None, status: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "mlflow", ModuleType("mlflow"))
    tracker, told = MLflow(), []
    tracker.client = SimpleNamespace(set_terminated=lambda run_id, status: told.append(status))
    if error is not None:
        tracker.on_exception(object.__new__(TrainingState), error)
    tracker.end()
    assert told == [status]


def test_of_a_wrong_setting_all_is_said() -> None:
    """As pydantic says it of WANDB_MODE=off; its first line alone would not help."""
    told = "1 validation error for Settings\nmode\n  Input should be 'online' or 'offline'\n    For further information"
    assert first_line(ValueError(told)).endswith("error for Settings: mode: Input should be 'online' or 'offline'")
    assert first_line(ValueError("no route\nand more")) == "no route" and first_line(OSError()) == "OSError"


def test_a_tracker_that_fails_ends_no_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def log(self: Noting, figures: dict[str, float], step: int) -> None:
        raise ConnectionError("no route to host\nand more")

    monkeypatch.setattr(Noting, "log", log)
    monkeypatch.setattr(Noting, "sent", [])
    assert toughen(*WORDS, "--out", tmp_path / "alone").status == 0
    ended = toughen(*WORDS, "--callbacks", f"{__name__}.Noting", "--out", tmp_path / "run")
    assert ended.status == 0 and "Noting did not accept the figures" in ended.err and "and more" not in ended.err
    one, other = (read_tensors(tmp_path / name / "model.safetensors")[0] for name in ("alone", "run"))
    assert all(torch.equal(one[name], other[name]) for name in one)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_ends_the_wait_for_a_tracker(
    number: signal.Signals, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One that does not answer is tried for minutes."""

    def begin(self: Noting, name: str, settings: dict[str, str]) -> str:
        os.kill(os.getpid(), number)
        time.sleep(20)
        raise AssertionError("still waiting")

    words = [*WORDS, "--callbacks", f"{__name__}.Noting", "--out", tmp_path / "run"]
    before = signal.getsignal(number)
    with monkeypatch.context() as patched:
        patched.setattr(Noting, "begin", begin)
        ended = toughen(*words)
    assert ended.status == 128 + number and "--resume" in ended.err and signal.getsignal(number) == before
    monkeypatch.setattr(Noting, "sent", [])
    assert toughen(*words, "--resume").status == 0 and Noting.sent[0][0] == "begin"


def test_a_tracker_that_cannot_be_reached_says_so_before_training(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def begin(self: Noting, name: str, settings: dict[str, str]) -> str:
        raise ConnectionError("no route to host")

    monkeypatch.setattr(Noting, "begin", begin)
    words = [*WORDS, "--callbacks", f"{__name__}.Noting", "--out", tmp_path / "run"]
    ended = toughen(*words)
    assert ended.status == 2 and "Traceback" not in ended.err
    assert ended.err.strip().splitlines()[-1] == "toughen: Noting cannot start the run: no route to host"
