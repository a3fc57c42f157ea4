"""What happens around the steps of a run: the order of the hooks, what checkpoints keep, and a user's own callbacks."""

from __future__ import annotations

import json
import math
import os
import re
import signal
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from commands import files, refused, small, timeless, toughen
from kills import Killed, kill_at_step, same_end
from paths import ROOT
from test_trainer import made, recipe

from toughen.core.types import Step
from toughen.methods.fast import FGSMAT
from toughen.runs.files import read_json, read_tensors, write_tensors
from toughen.training import Callback, TrainingState, callbacks, checkpoint, train
from toughen.training.callbacks import time_budget
from toughen.training.callbacks.checkpointing import Checkpointing, KeepWeights
from toughen.training.callbacks.collapse import CollapseWatch
from toughen.training.callbacks.selection import state_names
from toughen.training.callbacks.stopping import EarlyStop, FiniteCheck
from toughen.training.callbacks.time_budget import StepTimer, replan, steps_that_fit
from toughen.training.callbacks.validation import BestWeights
from toughen.training.display import ShowProgress
from toughen.training.divergence import Diverged
from toughen.utils.signals import Stopped

STEP = Step(torch.tensor(1.0), torch.zeros(1, 10), {})


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """The current folder, out of which a user's modules are imported; what was imported is forgotten."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    before = set(sys.modules)
    yield tmp_path
    for name in set(sys.modules) - before:
        if name in ("loss_log", "mine", "trap"):
            del sys.modules[name]


class Noting(Callback):
    """Notes each hook with the step; counts steps across sessions."""

    def __init__(self, due: Callable[[int], bool] = lambda step: False) -> None:
        self.seen: list[tuple[str, int]] = []
        self.steps, self.asked = 0, due

    def on_fit_start(self, state: TrainingState) -> None:
        self.seen.append(("fit start", state.step))

    def on_epoch_start(self, state: TrainingState) -> None:
        self.seen.append(("epoch start", state.step))

    def on_step_end(self, state: TrainingState, step: Step) -> None:
        self.steps += 1
        self.seen.append(("step", state.step))

    def due(self, state: TrainingState) -> bool:
        return self.asked(state.step)

    def on_due(self, state: TrainingState) -> None:
        self.seen.append(("due", state.step))

    def on_epoch_end(self, state: TrainingState, metrics: dict[str, Any]) -> None:
        metrics["noted"] = self.steps
        self.seen.append(("epoch end", state.step))

    def on_exception(self, state: TrainingState, error: BaseException) -> None:
        self.seen.append((type(error).__name__, state.step))

    def on_fit_end(self, state: TrainingState) -> None:
        self.seen.append(("fit end", state.step))

    def state_dict(self) -> dict[str, Any]:
        return {"steps": self.steps}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.steps = state["steps"]


def metrics_of(run: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]


# ---- Hooks.


def test_hooks_are_called_in_order(tmp_path: Path) -> None:
    """70 images in batches of 16 are five steps; an epoch's last step is never due."""
    one = Noting(due=lambda step: step in (2, 5))
    train(recipe(epochs=2), tmp_path / "run", callbacks=[one])
    first = [("fit start", 0), ("epoch start", 0), ("step", 1), ("step", 2), ("due", 2), ("step", 3), ("step", 4)]
    second = [("epoch start", 5), *[("step", n) for n in range(6, 11)], ("epoch end", 10), ("fit end", 10)]
    assert one.seen == [*first, ("step", 5), ("epoch end", 5), *second]
    assert [line["noted"] for line in metrics_of(tmp_path / "run")] == [5, 10]


class Failing(Noting):
    """Fails in the hooks that it is given."""

    def __init__(self, **errors: Exception) -> None:
        super().__init__()
        self.errors = errors

    def on_epoch_end(self, state: TrainingState, metrics: dict[str, Any]) -> None:
        self.fail("on_epoch_end")

    def on_exception(self, state: TrainingState, error: BaseException) -> None:
        self.fail("on_exception")

    def on_fit_end(self, state: TrainingState) -> None:
        self.fail("on_fit_end")

    def fail(self, hook: str) -> None:
        if hook in self.errors:
            raise self.errors[hook]


class Stopping(Noting):
    def on_step_end(self, state: TrainingState, step: Step) -> None:
        if state.step == 7:
            os.kill(os.getpid(), signal.SIGTERM)


def test_a_callback_that_fails_at_the_end_keeps_no_other_from_it(tmp_path: Path) -> None:
    """A signal after step 7: the state of that step is saved, and the signal is what ends the run."""
    failing, noting = Failing(on_exception=OSError("no route"), on_fit_end=KeyError("it")), Noting()
    with pytest.raises(Stopped) as stopped:
        train(recipe(epochs=2), tmp_path / "run", callbacks=[failing, Stopping(), noting])
    first, second = stopped.value.__notes__
    assert re.fullmatch(r"Failing.on_exception failed, too, at \S+callbacks.py, line \d+: OSError: no route", first)
    assert "Failing.on_fit_end failed, too" in second and noting.seen[-1][0] == "fit end"
    _, about = read_tensors(tmp_path / "run" / "checkpoint.safetensors")
    assert about["step"] == 7
    with pytest.raises(KeyError, match="it"):  # with no other error it is not passed over
        train(recipe(epochs=1), tmp_path / "whole", callbacks=[Failing(on_fit_end=KeyError("it"))])


def test_an_error_of_a_callback_s_connection_is_not_taken_for_one_of_the_disk(tmp_path: Path) -> None:
    failing = Failing(on_epoch_end=ConnectionRefusedError(111, "Connection refused"))
    with pytest.raises(RuntimeError, match=r"ConnectionRefusedError: .*refused \(.*test_callbacks.py, line \d+\). Fix"):
        train(recipe(epochs=1), tmp_path / "run", callbacks=[failing])


@pytest.mark.parametrize(
    ("value", "kept"),
    [(np.float32(1.5), 1.5), (torch.tensor(3), 3), (np.float64(0.5), 0.5), (torch.zeros(2), None), ({1}, None)],
)
def test_numbers_that_are_added_to_the_metrics_become_python_s(value: Any, kept: float | None, tmp_path: Path) -> None:
    class Adding(Callback):
        def on_epoch_end(self, state: TrainingState, metrics: dict[str, Any]) -> None:
            metrics["mine"] = value

    if kept is None:
        with pytest.raises(
            ValueError, match=f"Adding added 'mine' to the metrics, of type {type(value).__name__}: add"
        ):
            train(recipe(epochs=1), tmp_path / "run", callbacks=[Adding()])
    else:
        train(recipe(epochs=1), tmp_path / "run", callbacks=[Adding()])
        (line,) = metrics_of(tmp_path / "run")
        assert line["mine"] == kept and type(line["mine"]) is type(kept)


def test_callbacks_change_no_weights(tmp_path: Path) -> None:
    train(recipe(epochs=2), tmp_path / "without")
    train(recipe(epochs=2), tmp_path / "with", callbacks=[Noting(), Noting()])
    assert files(tmp_path / "without")["model.safetensors"] == files(tmp_path / "with")["model.safetensors"]


def test_a_callback_goes_on_with_its_state(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Killed after the seventh step, whose checkpoint is not written: the steps are counted as in a whole run."""
    settings = recipe(epochs=2, checkpoint_seconds=0)
    train(settings, tmp_path / "whole", callbacks=[Noting()])
    with monkeypatch.context() as patched, pytest.raises(Killed):
        kill_at_step(patched, 7)
        train(settings, tmp_path / "cut", callbacks=[Noting()])
    again = Noting()
    train(settings, tmp_path / "cut", resume=True, callbacks=[again])
    assert again.seen[:2] == [("fit start", 6), ("epoch start", 6)] and again.steps == 10
    assert timeless(tmp_path / "cut") == timeless(tmp_path / "whole")
    same_end(tmp_path / "whole", tmp_path / "cut")


def test_a_callback_that_is_new_begins_anew(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    settings = recipe(epochs=2, checkpoint_seconds=0)
    with monkeypatch.context() as patched, pytest.raises(Killed):
        kill_at_step(patched, 7)
        train(settings, tmp_path / "run")
    one = Noting()
    train(settings, tmp_path / "run", resume=True, callbacks=[one])
    assert one.steps == 4


def test_a_callback_may_end_the_run(tmp_path: Path) -> None:
    class Ends(Callback):
        def on_epoch_end(self, state: TrainingState, metrics: dict[str, Any]) -> None:
            if metrics["epoch"] == 1:
                state.stop("enough")

    train(recipe(epochs=4), tmp_path / "run", callbacks=[Ends()])
    lines = metrics_of(tmp_path / "run")
    assert len(lines) == 2 and not lines[0]["events"]
    assert lines[1]["events"] == [{"event": "stop", "step": 10, "text": "training ends: enough"}]


def test_a_signal_is_an_exception_and_the_state_is_saved(tmp_path: Path) -> None:
    class Signals(Noting):
        def on_step_end(self, state: TrainingState, step: Step) -> None:
            if state.step == 3:
                os.kill(os.getpid(), signal.SIGTERM)

    one = Signals()
    with pytest.raises(Stopped):
        train(recipe(epochs=2), tmp_path / "run", callbacks=[one])
    assert one.seen[-2:] == [("Stopped", 3), ("fit end", 3)]
    assert read_tensors(tmp_path / "run" / checkpoint.NAME)[1]["step"] == 3


def test_state_that_no_checkpoint_can_keep_is_refused(tmp_path: Path) -> None:
    class Keeps(Callback):
        def state_dict(self) -> dict[str, Any]:
            return {"shape": (1, 2)}

    with pytest.raises(ValueError, match=r"Keeps's state cannot be kept in a checkpoint"):
        train(recipe(epochs=1), tmp_path / "run", callbacks=[Keeps()])


def test_two_of_a_kind_have_names_of_their_own() -> None:
    names = list(state_names([Noting(), Noting(), Callback()]))
    assert names == ["test_callbacks.Noting", "test_callbacks.Noting 2", "toughen.training.callbacks.base.Callback"]


class Judging(Callback):
    """Puts the model into evaluation mode, and leaves it there; stops after a step."""

    def __init__(self, stop_after: int | None = None) -> None:
        self.stop_after = stop_after

    def on_step_end(self, state: TrainingState, step: Step) -> None:
        state.model.eval()
        if state.step == self.stop_after:
            os.kill(os.getpid(), signal.SIGINT)


def test_a_callback_that_changes_the_mode_changes_no_training(tmp_path: Path) -> None:
    """Each step is in training mode: batch norm's statistics are the same, also after a stop within an epoch."""
    settings: dict[str, Any] = {"model": "resnet18", "model_settings": {"width": 4}, "epochs": 1}
    for name, given in (("plain", []), ("judging", [Judging()])):
        train(recipe(**settings), tmp_path / name, callbacks=given)
    with pytest.raises(Stopped):
        train(recipe(**settings), tmp_path / "stopped", callbacks=[Judging(stop_after=1)])
    train(recipe(**settings), tmp_path / "stopped", resume=True, callbacks=[Judging()])
    names = ("plain", "judging", "stopped")
    plain, *others = (read_tensors(tmp_path / name / "model.safetensors")[0] for name in names)
    assert all(torch.equal(plain[name], other[name]) for other in others for name in plain)


def test_a_method_that_adds_to_the_metrics_what_no_file_holds_is_named(tmp_path: Path) -> None:
    class Adding(FGSMAT):
        def after_epoch(self, metrics: dict[str, Any]) -> None:
            metrics["norms"] = torch.ones(3)

    with pytest.raises(ValueError, match="Adding added 'norms' to the metrics, of type Tensor"):
        train(recipe(method=Adding(eps=0.1), eps=0.1), tmp_path / "run")


# ---- A user's own.


def test_the_example_in_contributing_works(here: Path) -> None:
    """Both blocks as they stand there: the callback as a file and by its path, and its test."""
    text = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")
    section = text.split("## Add a callback")[1].split("\n## ")[0]
    callback, test = re.findall(r"```python\n(.*?)```", section, re.DOTALL)
    (here / "loss_log.py").write_text(callback)
    ended = toughen(*small("--callbacks", "loss_log.LossLog", "--out", "run"))
    assert ended.status == 0, ended.err
    lines = metrics_of(here / "run")
    assert (here / "run/losses.txt").read_text() == f"1 5 {lines[0]['loss']}\n2 10 {lines[1]['loss']}\n"
    names: dict[str, Any] = {}
    exec(compile(test, "test_loss_log.py", "exec"), names)
    (here / "again").mkdir()
    names["test_a_line_for_each_epoch"](here / "again")
    assert "callbacks: loss_log.LossLog" in (here / "run/config.yaml").read_text()


MINE = """from toughen.training import Callback
class Mine(Callback):
    def on_fit_start(self, state):
        print("begun", type(self).__name__)
class Other(Mine): pass
class Failing(Callback):
    def __init__(self): raise OSError("no disk")
class Asks(Callback):
    def __init__(self, size): pass
class Misspelt(Callback):
    def on_epoch_finish(self, state, metrics): pass
net = 5
"""


def test_a_recipe_names_callbacks(here: Path) -> None:
    (here / "mine.py").write_text(MINE)
    words = small("--out", "run")[1:]
    (here / "mine.yaml").write_text("method: Standard\ncallbacks: [mine.Mine, mine.Other]\n")
    ended = toughen("train", "mine.yaml", *words)
    assert ended.status == 0 and ended.out.splitlines()[:2] == ["begun Mine", "begun Other"]


def test_a_file_among_toughens_callbacks_goes_by_its_class_name(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (here / "more").mkdir()
    (here / "more/bell.py").write_text(MINE.replace("Mine", "Bell"))
    monkeypatch.setattr(callbacks, "__path__", [*callbacks.__path__, str(here / "more")])
    ended = toughen(*small("--callbacks", "Bell", "--out", "run"))
    assert ended.status == 0 and ended.out.splitlines()[0] == "begun Bell"
    refused(toughen(*small("--callbacks", "Bel", "--out", "other")), "'Bel' is unknown: use Bell, Other,")
    sys.modules.pop("toughen.training.callbacks.bell")


@pytest.mark.parametrize(
    ("path", "said"),
    [
        ("nowhere.Mine", "cannot be imported"),
        ("mine.Missing", "mine has no Missing"),
        ("mine.Othr", "did you mean Other?"),
        ("mine.net", "is not a subclass of toughen.training.Callback"),
        ("mine.Failing", "cannot be made"),
        ("mine.Asks", "cannot be made without arguments"),
        ("mine.Misspelt", "has on_epoch_finish, which is never called: did you mean on_epoch_"),
        ("Mine", "write package.module.MyCallback"),
        ("FiniteCheck", "is in every run"),
        ("mine.net.", "is not an import path"),
    ],
)
def test_what_is_no_callback_is_refused(path: str, said: str, here: Path) -> None:
    (here / "mine.py").write_text(MINE)
    refused(toughen(*small("--callbacks", f"[{path}]", "--out", "run")), repr(path), said)
    assert not (here / "run").exists()


def test_a_run_directory_imports_nothing(here: Path) -> None:
    """Neither its config.yaml nor the names in its checkpoint."""
    (here / "trap.py").write_text(f"open({str(here / 'sprung')!r}, 'w')\n")
    words = small("--method", "FBF", "--eps", 0.2, "--out", "run")
    assert toughen(*words).status == 0
    config = (here / "run/config.yaml").read_text()
    (here / "run/config.yaml").write_text(f"{config}callbacks:\n- trap.Mine\n")
    refused(toughen(*words, "--resume"), "was started with other settings (callbacks")
    assert toughen("evaluate", "run", "--attacks", "fgsm", "--verdict", "false").status == 0
    (here / "run/config.yaml").write_text(config)
    tensors, about = read_tensors(here / "run" / checkpoint.NAME)
    about["callbacks"]["trap.Mine"] = {"steps": 1}
    write_tensors(here / "run" / checkpoint.NAME, tensors, about)
    assert toughen(*words, "--resume").status == 0
    assert not (here / "sprung").exists() and "trap" not in sys.modules


# ---- Those of every run, each by itself.


def line(state: TrainingState, epoch: int = 0) -> dict[str, Any]:
    """An epoch's line, as callbacks get it; it is in the history."""
    found: dict[str, Any] = {"epoch": epoch, "step": state.step, "loss": 1.0, "validation": {}, "kept": False}
    found |= {"validation_seconds": 0.0, "events": [], "seconds": 10.0, "watch_seconds": 0.0, "seconds_per_step": 2.0}
    state.history.append(found)
    return found


def test_a_loss_that_is_not_finite_ends_the_run_every_fifty_steps_and_as_epochs_end(tmp_path: Path) -> None:
    state, check = made(tmp_path).state, FiniteCheck()
    state.totals.sums["loss"] = torch.tensor(math.nan)
    state.step = 49
    check.on_step_end(state, STEP)
    state.step = 50
    with pytest.raises(Diverged, match="the loss became nan"):
        check.on_step_end(state, STEP)
    with pytest.raises(Diverged, match="the loss became inf"):
        check.on_epoch_end(state, line(state) | {"loss": math.inf})
    next(state.model.parameters()).data.fill_(math.inf)
    with pytest.raises(Diverged, match="a weight is no longer finite"):
        check.on_epoch_end(state, line(state))


def test_the_best_weights_are_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """PGD decides, then clean accuracy; what was best is remembered."""
    state, kept = made(tmp_path).state, BestWeights()
    monkeypatch.setattr("toughen.training.callbacks.validation.write_model", lambda *_: None)
    decided = []
    for pgd, clean in ((0.2, 0.9), (0.1, 0.99), (0.2, 0.9), (0.2, 0.95)):
        state.validation = lambda *_, found={"clean": clean, "pgd": pgd}: found  # type: ignore[assignment]
        metrics = line(state)
        kept.on_epoch_end(state, metrics)
        decided.append(metrics["kept"])
    assert decided == [True, False, False, True]
    again = BestWeights()
    again.load_state_dict(json.loads(json.dumps(kept.state_dict())))
    assert again.best == (0.2, 0.95)
    with pytest.raises(ValueError, match="is not what toughen writes there"):
        again.load_state_dict({"best": [0.5]})


def test_both_looks_at_an_epochs_end_are_counted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """At the averaged weights, which may be kept, and at the live ones, which may have collapsed: 3 s each."""
    clock = [100.0]
    for name in ("validation", "collapse"):
        now = SimpleNamespace(perf_counter=lambda: clock[0])
        monkeypatch.setattr(f"toughen.training.callbacks.{name}.time", now)
    trainer = made(tmp_path, FGSMAT(eps=0.2), averaging=0.9)
    state, seen = trainer.state, list[object]()

    def validation(model: torch.nn.Module) -> dict[str, float]:
        seen.append(model)
        clock[0] += 3.0
        return {"clean": 0.9, "fgsm": 0.5, "pgd": 0.4}

    state.validation = validation  # type: ignore[assignment]
    monkeypatch.setattr("toughen.training.callbacks.validation.write_model", lambda *_: None)
    metrics = line(state)
    state.adversarial_steps = state.steps_per_epoch  # as after an epoch; before the first one nothing is watched
    for each in trainer.callbacks:
        if isinstance(each, BestWeights | CollapseWatch):
            each.on_epoch_end(state, metrics)
    assert seen == [state.kept_model, state.model]
    assert metrics["validation_seconds"] == 6.0


def test_weights_of_a_moment_are_written(tmp_path: Path) -> None:
    state, keep = made(tmp_path, keep_at=[3, "epoch 1"]).state, KeepWeights()
    name, bias = list(state.model.named_parameters())[-1]
    for step in range(1, 6):
        state.step = step
        bias.data.fill_(step)
        keep.on_step_end(state, STEP)
    for epoch in (0, 1):
        keep.on_epoch_end(state, line(state, epoch))
    kept = {path.stem: float(read_tensors(path)[0][name][0]) for path in (tmp_path / "kept").iterdir()}
    assert kept == {"step-3": 3.0, "epoch-1": 5.0}


def test_a_method_ends_the_run(tmp_path: Path) -> None:
    state, stop = made(tmp_path).state, EarlyStop()
    told: list[dict[str, Any]] = []
    state.main.after_epoch = told.append  # type: ignore[assignment, method-assign]
    metrics = line(state)
    stop.on_epoch_end(state, metrics)
    assert told == [metrics] and state.stop_reason is None and not metrics["events"]
    state.main.stop_reason = "it is good"
    stop.on_epoch_end(state, metrics)
    assert state.finished and metrics["events"][0]["text"] == "training ends: it is good"


def test_a_checkpoint_is_due_by_the_clock_and_after_a_signal(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    clock, saved = [100.0], list[int]()
    now = SimpleNamespace(perf_counter=lambda: clock[0])
    monkeypatch.setattr("toughen.training.callbacks.checkpointing.time", now)
    monkeypatch.setattr("toughen.training.checkpoint.save", lambda state: saved.append(state.step))
    state, one = made(tmp_path).state, Checkpointing(10.0)
    one.on_epoch_start(state)
    clock[0] = 109.0
    assert not one.due(state)
    clock[0], state.step = 110.0, 7
    assert one.due(state)
    one.on_due(state)
    assert saved == [7] and not one.due(state)
    one.on_exception(state, Stopped(signal.SIGTERM))
    assert saved == [7]  # it is there already
    state.step = 8
    one.on_exception(state, Killed())
    one.on_exception(state, KeyboardInterrupt())
    assert saved == [7]
    one.on_exception(state, Stopped(signal.SIGTERM))
    assert saved == [7, 8]


def test_the_rest_of_a_budget_is_planned(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Five steps an epoch: of 97 seconds in all 20 are spent; 77 hold seven epochs of 5 s and 6 s, or 20 s a step."""
    clock = [20.0]
    now = SimpleNamespace(perf_counter=lambda: clock[0])
    monkeypatch.setattr(time_budget, "time", now)
    monkeypatch.setattr("toughen.training.training_state.time", now)
    state = made(tmp_path, time_budget="100s").state
    state.begun, state.planned, state.step = 0.0, 90, 10
    assert steps_that_fit(state, 77.0, 1.0, 6.0) == 7 * 5  # 7 x 11 s
    assert steps_that_fit(state, 80.0, 1.0, 6.0) == 7 * 5  # another look, at least a step after it, does not fit
    replan(state, 100.0, 1.0, 6.0)
    assert (state.planned, state.planned_at) == (10 + 35, 10) and state.planned_progress == pytest.approx(10 / 90)
    assert state.progress(10) == pytest.approx(10 / 90) and state.progress(45) == 1
    timer = StepTimer(10)
    clock[0] = 32.0
    assert timer.passed == 12 and timer.read(13) == 4 and timer.passed == 0


def test_a_rescue_goes_on_after_a_stop(tmp_path: Path) -> None:
    """The method of a rescued run follows from what the callback remembers, and the recipe's takes over after it."""
    trainer = made(tmp_path, FGSMAT(eps=0.2), watch="rescue")
    state = trainer.state
    watch = next(each for each in trainer.callbacks if isinstance(each, CollapseWatch))
    again = CollapseWatch(watch.detector)
    again.load_state_dict({**watch.state_dict(), "rescue_until": 10, "rescuer": 1, "collapses": 2})
    state.healthy, state.step = 0, 7
    again.on_fit_start(state)
    assert state.method is state.rescuers[1]
    state.step = 10
    again.on_epoch_end(state, line(state))
    assert state.method is state.main
    with pytest.raises(ValueError, match="the collapse watch's collapses"):
        again.load_state_dict({**watch.state_dict(), "collapses": True})


def test_a_display_is_told(tmp_path: Path) -> None:
    told: list[tuple[Any, ...]] = []

    class Telling:
        def __init__(self, *given: Any) -> None:
            told.append(("made", *given[2:]))

        def __getattr__(self, name: str) -> Callable[..., None]:
            return lambda *given: told.append((name, *given))

    state, kind = made(tmp_path, epochs=2).state, Telling
    shown: Any = ShowProgress.__new__(ShowProgress)
    shown.console, shown.show, shown.display = None, kind, None
    shown.on_fit_end(state)  # nothing was opened
    shown.on_fit_start(state)
    state.step, state.scalars["logit_distance"] = 5, 0.25
    shown.on_step_end(state, STEP)
    shown.on_fit_end(state)
    assert told == [("made", 2, 10, 0), ("step", 5, 0), ("signal", 5, 0.25), ("close",)]
    told.clear()
    shown.others = SimpleNamespace(advice=lambda: "busy")
    shown.on_epoch_end(state, {})
    shown.on_epoch_end(state, {})
    assert told == [("epoch", {}), ("length", 2, 10), ("note", "busy"), ("epoch", {}), ("length", 2, 10)]


class StopAt(Callback):
    """Ends the run after an epoch."""

    def __init__(self, epoch: int) -> None:
        self.epoch = epoch

    def on_epoch_end(self, state: TrainingState, metrics: dict[str, Any]) -> None:
        if metrics["epoch"] == self.epoch:
            state.stop("enough")


@pytest.mark.parametrize(("epoch", "validated"), [(0, [0]), (2, [0, 2]), (3, [0, 3])])
def test_the_last_epoch_of_a_stopped_run_is_validated(epoch: int, validated: list[int], tmp_path: Path) -> None:
    """Once, also where validation would not have followed this epoch."""
    settings = recipe(epochs=6, validation_every=3, method=FGSMAT(eps=0.1), eps=0.1, weights="last")
    train(settings, tmp_path / "run", callbacks=[StopAt(epoch)])
    lines = [json.loads(line) for line in (tmp_path / "run/metrics.jsonl").read_text().splitlines()]
    assert [line["epoch"] for line in lines if line["validation"]] == validated and len(lines) == epoch + 1
    assert read_json(tmp_path / "run/model.json")["epoch"] == epoch


def test_without_validation_images_the_last_weights_are_kept_after_a_stop(tmp_path: Path) -> None:
    train(recipe(epochs=6, validation=0, validation_every=4), tmp_path / "run", callbacks=[StopAt(2)])
    assert read_json(tmp_path / "run/model.json")["epoch"] == 2
