"""A run that was killed anywhere goes on as if it had not been, bit for bit."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from commands import digits, files, killed_at, small, state_of, toughen
from kills import Killed, kill_at_step, same_end
from safetensors.torch import save
from torch import Tensor

from toughen import runs
from toughen.runs.files import read_tensors, write_tensors
from toughen.training import checkpoint
from toughen.training.collapse import CollapseCriterion
from toughen.training.trainer import Trainer

RUNS = {  # together: dropout, crops, averaging, momentum cycling, alternation, each kind of optimizer
    "nuat": "--method NuAT --eps 0.2 --model small-cnn --crop 2 --averaging 0.9 --schedule.cycle_momentum true",
    "adamw": "--method TRADES --method.steps 2 --eps 0.2 --flip true --optimizer AdamW",
    "pap": "--method PAP --method.steps 4 --eps 0.2 --model small-cnn",  # which shares its dropout's masks
    "muon": "--method NFGSM --eps 0.2 --optimizer Muon --schedule OneCycle --channels_last true",
    "cyclic-step": "--method FBF --eps 0.2 --schedule CyclicStep --schedule.cycle_momentum true --optimizer Adam",
}


@pytest.mark.parametrize("seconds", [0, 1000])
def test_half_written_weights_of_a_moment_are_removed(
    seconds: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Their process was killed, after a checkpoint or before the first one, where the run begins anew."""
    words = [*small("--keep-at", "[2]", "--checkpoint_seconds", seconds), "--out", tmp_path]
    with monkeypatch.context() as patched, pytest.raises(Killed):
        kill_at_step(patched, 4)
        toughen(*words)
    assert (tmp_path / checkpoint.NAME).exists() is (seconds == 0)
    ended = subprocess.Popen(["true"])
    ended.wait()
    half = tmp_path / "kept" / f".step-2.safetensors.{ended.pid}"
    half.write_text("half")
    assert toughen(*words, "--resume").status == 0
    assert [path.name for path in half.parent.iterdir()] == ["step-2.safetensors"]


@pytest.mark.parametrize("name", RUNS)
def test_a_killed_run_goes_on_bit_for_bit(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    words = small(*RUNS[name].split(), "--checkpoint_seconds", 0)
    assert toughen(*words, "--out", tmp_path / "whole").status == 0
    assert state_of(tmp_path / "whole").keys() & {"optimizer.0.momentum_buffer", "optimizer.0.exp_avg"}
    for step in (4, 9):  # after an odd number of an epoch's batches, which alternation must remember
        with monkeypatch.context() as patched, pytest.raises(Killed):
            kill_at_step(patched, step)
            toughen(*words, "--out", tmp_path / "cut", "--resume")
        assert read_tensors(tmp_path / "cut" / checkpoint.NAME)[1]["step"] == step - 1
    ended = toughen(*words, "--out", tmp_path / "cut", "--resume")
    assert ended.status == 0 and "continues after step 8 of 10" in ended.err
    same_end(tmp_path / "whole", tmp_path / "cut")


def test_kill_9_in_mid_epoch(tmp_path: Path) -> None:
    words = small(*RUNS["nuat"].split(), "--checkpoint_seconds", 0)
    assert toughen(*words, "--out", tmp_path / "whole").status == 0
    killed = killed_at(7, *words, "--out", tmp_path / "cut")
    assert killed.returncode == -signal.SIGKILL
    assert read_tensors(tmp_path / "cut" / checkpoint.NAME)[1]["step"] == 7
    assert toughen(*words, "--out", tmp_path / "cut", "--resume").status == 0
    same_end(tmp_path / "whole", tmp_path / "cut")


class DiesAt:
    """Counts renames and links, and dies in place of the one with this number."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, number: int) -> None:
        self.left, self.monkeypatch = number, monkeypatch
        for name in ("replace", "link"):
            monkeypatch.setattr(os, name, self.counting(getattr(os, name)))

    def counting(self, real: Any) -> Any:
        def counted(*arguments: Any, **settings: Any) -> None:
            self.left -= 1
            if self.left == 0:
                raise Killed
            real(*arguments, **settings)

        return counted


@pytest.mark.slow
def test_a_kill_between_any_two_writes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    words = small("--method", "FBF", "--eps", 0.2, "--averaging", 0.5, "--batch_size", 40, "--checkpoint_seconds", 0)
    assert toughen(*words, "--out", tmp_path / "whole").status == 0
    kills = 0
    while True:
        cut = tmp_path / f"cut{kills}"
        try:
            with monkeypatch.context() as patched:
                DiesAt(patched, kills + 1)
                assert toughen(*words, "--out", cut).status == 0
            break
        except Killed:
            kills += 1
        if (cut / runs.RECORD).exists():
            load_or_say_why(cut)
        again = [*words, "--out", cut, "--resume"]
        assert toughen(*again).status == 0
        same_end(tmp_path / "whole", cut)
        assert not [path for path in cut.iterdir() if path.name.startswith(".")]
    assert kills > 15  # three files at the start; checkpoints, weights and figures of two epochs of two steps


def load_or_say_why(run: Path) -> None:
    """Weights and record belong together, or loading says that they do not."""
    try:
        runs.load(run)
    except ValueError as error:
        assert "do not belong together" in str(error)


@pytest.mark.parametrize(("killed", "before"), [(8, 6), (7, 5)])  # 5: a healthy epoch's end, which has a third name
def test_a_torn_checkpoint_falls_back_on_the_one_before(
    killed: int, before: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(CollapseCriterion, "is_restorable", lambda *_: True)  # a net of two epochs does not stand yet
    words = small("--method", "FBF", "--eps", 0.2, "--checkpoint_seconds", 0)
    assert toughen(*words, "--out", tmp_path / "whole").status == 0
    with monkeypatch.context() as patched, pytest.raises(Killed):
        kill_at_step(patched, killed)
        toughen(*words, "--out", tmp_path / "cut")
    last = tmp_path / "cut" / checkpoint.NAME
    torn = last.read_bytes()[: last.stat().st_size // 2]
    last.write_bytes(torn)
    ended = toughen(*words, "--out", tmp_path / "cut", "--resume")
    assert ended.status == 0 and f"continues after step {before} of 10" in ended.err
    assert (tmp_path / "cut" / checkpoint.DAMAGED).read_bytes() == torn
    same_end(tmp_path / "whole", tmp_path / "cut")


def test_two_torn_checkpoints_are_said(tmp_path: Path) -> None:
    words = [*small("--method", "FBF", "--eps", 0.2), "--out", tmp_path / "run"]
    assert toughen(*words).status == 0
    for name in (checkpoint.NAME, checkpoint.PREVIOUS):
        (tmp_path / "run" / name).write_bytes(b"torn")
    before = files(tmp_path / "run")
    ended = toughen(*words, "--resume")
    assert ended.status == 2 and "is damaged" in ended.err and "Traceback" not in ended.err
    assert files(tmp_path / "run") == before


def test_a_checkpoint_of_something_else_is_refused(tmp_path: Path) -> None:
    words = [*small("--method", "FBF", "--eps", 0.2), "--out", tmp_path / "run"]
    assert toughen(*words).status == 0
    tensors, about = read_tensors(tmp_path / "run" / checkpoint.NAME)
    del tensors["model.net.0.weight"]
    write_tensors(tmp_path / "run" / checkpoint.NAME, tensors, about)
    ended = toughen(*words, "--resume")
    assert ended.status == 2 and "does not fit this recipe" in ended.err


def set_field(name: str, value: Any) -> Callable[[dict[str, Tensor], dict[str, Any]], None]:
    return lambda tensors, about: about.__setitem__(name, value)


def set_callback(callback: str, name: str, value: Any) -> Callable[[dict[str, Tensor], dict[str, Any]], None]:
    path = f"toughen.training.callbacks.{callback}"
    return lambda tensors, about: about["callbacks"][path].update({name: value})


def set_tensor(name: str, value: float, *shape: int) -> Callable[[dict[str, Tensor], dict[str, Any]], None]:
    return lambda tensors, about: tensors.__setitem__(name, torch.full(shape, value))


DAMAGE = {
    "step": set_field("step", "x"),
    "before the first step": set_field("step", -1),
    "true": set_callback("collapse.CollapseWatch", "collapses", True),
    "best": set_callback("validation.BestWeights", "best", [0.5]),
    "history": set_field("history", [1]),
    "seconds": set_field("spent", "1"),
    "no totals": set_field("totals", []),
    "totals": set_field("totals", [{"sums": [1], "counts": {}, "passes": 0, "crafted": 0, "images": 0}]),
    "unknown": set_field("evil", 1),
    "missing": lambda tensors, about: about.pop("events"),
    "callbacks": set_field("callbacks", {"one": 1}),
    "extra": set_field("extra", [1]),
    "weight": set_tensor("model.net.0.bias", torch.nan, 16),
    "moment's shape": set_tensor("optimizer.0.momentum_buffer", 0.0, 3),
    "moment of nothing": set_tensor("optimizer.99.momentum_buffer", 0.0, 3),
}


@pytest.fixture(scope="module")
def stopped(tmp_path_factory: pytest.TempPathFactory) -> tuple[list[Any], Path]:
    """The words of a run, and what it is killed after seven steps of ten."""
    words = small("--method", "NuAT", "--eps", 0.2, "--checkpoint_seconds", 0)
    run = tmp_path_factory.mktemp("stopped") / "run"
    with pytest.MonkeyPatch.context() as patched, pytest.raises(Killed):
        kill_at_step(patched, 8)
        toughen(*words, "--out", run)
    return words, run


@pytest.mark.parametrize("damage", DAMAGE)
def test_checkpoints_of_other_kinds_are_refused(damage: str, stopped: tuple[list[Any], Path], tmp_path: Path) -> None:
    words, run = stopped
    shutil.copytree(run, tmp_path / "run")
    (tmp_path / "run" / checkpoint.PREVIOUS).unlink()
    tensors, about = read_tensors(run / checkpoint.NAME)
    assert tensors["model.net.0.bias"].shape == (16,) and "optimizer.0.momentum_buffer" in tensors
    DAMAGE[damage](tensors, about)
    write_tensors(tmp_path / "run" / checkpoint.NAME, tensors, about)
    before = files(tmp_path / "run")
    ended = toughen(*words, "--out", tmp_path / "run", "--resume")
    assert ended.status == 2 and f"{tmp_path / 'run' / checkpoint.NAME} " in ended.err
    assert ("does not fit this recipe" if "moment" in damage else "is damaged") in ended.err
    assert len(ended.err.strip().splitlines()) == 1
    assert files(tmp_path / "run") == before


@pytest.mark.parametrize("about", ["[1]", "[" * 100_000, "{"])
def test_what_a_checkpoint_says_of_itself_may_be_anything(
    about: str, stopped: tuple[list[Any], Path], tmp_path: Path
) -> None:
    words, run = stopped
    shutil.copytree(run, tmp_path / "run")
    tensors, _ = read_tensors(run / checkpoint.NAME)
    (tmp_path / "run" / checkpoint.NAME).write_bytes(save(tensors, {"about": about}))
    ended = toughen(*words, "--out", tmp_path / "run", "--resume")
    assert ended.status == 0 and "continues after step 6 of 10" in ended.err  # from the one before


def test_settings_and_provenance_of_other_kinds(stopped: tuple[list[Any], Path], tmp_path: Path) -> None:
    words, run = stopped
    shutil.copytree(run, tmp_path / "run")
    (tmp_path / "run/config.yaml").write_bytes(b"\xff\xfe\x00")
    ended = toughen(*words, "--out", tmp_path / "run", "--resume")
    assert ended.status == 2 and "config.yaml is damaged" in ended.err and len(ended.err.splitlines()) == 1
    shutil.copy(run / "config.yaml", tmp_path / "run")
    (tmp_path / "run/provenance.json").write_text('{"sessions": 5}')
    assert toughen(*words, "--out", tmp_path / "run", "--resume").status == 0


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
@pytest.mark.parametrize("step", [3, 5])  # within an epoch, and at its end, whose validation must not be lost
def test_signals_save_and_say_how_to_go_on(
    number: signal.Signals, step: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    words = [*small(*RUNS["cyclic-step"].split()), "--out"]
    assert toughen(*words, tmp_path / "whole").status == 0
    add_up = Trainer.add_up

    def signalled(self: Trainer, *arguments: Any) -> None:
        add_up(self, *arguments)
        if self.state.step == step:
            os.kill(os.getpid(), number)

    with monkeypatch.context() as patched:
        patched.setattr(Trainer, "add_up", signalled)
        ended = toughen(*words, tmp_path / "cut")
    assert ended.status == 128 + number
    said = ended.err.strip().splitlines()[-1].split()
    assert said[0] == "toughen" and said[-1] == "--resume"
    assert toughen(*said[1:]).status == 0
    same_end(tmp_path / "whole", tmp_path / "cut")


def test_resuming_a_finished_run_changes_nothing(tmp_path: Path) -> None:
    words = [*small("--method", "FBF", "--eps", 0.2), "--out", tmp_path / "run"]
    assert toughen(*words).status == 0
    before = files(tmp_path / "run")
    ended = toughen(*words, "--resume")
    assert ended.status == 0 and "is finished already" in ended.err
    assert files(tmp_path / "run") == before


def test_a_finished_run_without_its_last_line_gets_it(tmp_path: Path) -> None:
    words = [*small("--method", "FBF", "--eps", 0.2), "--out", tmp_path / "run"]
    assert toughen(*words).status == 0
    path = tmp_path / "run" / "metrics.jsonl"
    whole = path.read_text()
    path.write_text(whole.splitlines(keepends=True)[0])
    assert toughen(*words, "--resume").status == 0 and path.read_text() == whole


@pytest.mark.parametrize(
    "change", ["--optimizer.lr 0.2", "--method.step_size 0.1", "--seed 1", "--epochs 3", "--method TRADES"]
)
def test_other_settings_are_refused_by_name(change: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    words = [*small("--method", "FBF", "--eps", 0.2), "--out", tmp_path / "run"]
    with monkeypatch.context() as patched, pytest.raises(Killed):
        kill_at_step(patched, 1)
        toughen(*words)
    before = files(tmp_path / "run")
    ended = toughen(*words, *change.split(), "--resume")
    assert ended.status == 2 and change.split()[0][2:] in ended.err and "--out" in ended.err
    assert files(tmp_path / "run") == before


def test_changed_images_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    shutil.copytree(digits(), tmp_path / "data")
    words = [*small("--method", "FBF", "--eps", 0.2, "--data", tmp_path / "data"), "--out", tmp_path / "run"]
    with monkeypatch.context() as patched, pytest.raises(Killed):
        kill_at_step(patched, 7)
        toughen(*words)
    next((tmp_path / "data/train/3").iterdir()).unlink()
    ended = toughen(*words, "--resume")
    assert ended.status == 2 and "have changed" in ended.err


@pytest.mark.parametrize("change", ["an image of another class", "classes in another order"])
def test_changed_classes_are_refused(change: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The images and their order stay as they are."""
    shutil.copytree(digits(), tmp_path / "data")
    kept = tmp_path / "kept.txt"
    kept.write_text("\n".join("0123456789"))
    words = [*small("--method", "FBF", "--eps", 0.2, "--data", tmp_path / "data", "--classes", kept)]
    words += ["--out", tmp_path / "run"]
    with monkeypatch.context() as patched, pytest.raises(Killed):
        kill_at_step(patched, 7)
        toughen(*words)
    if change == "classes in another order":
        kept.write_text("\n".join("1023456789"))
    else:
        last = max((tmp_path / "data/train/3").iterdir())
        last.rename(tmp_path / "data/train/4" / f"0-{last.name}")
    ended = toughen(*words, "--resume")
    assert ended.status == 2 and "have changed" in ended.err


def test_a_run_without_a_checkpoint_begins_anew(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    words = small("--method", "FBF", "--eps", 0.2)
    assert toughen(*words, "--out", tmp_path / "whole").status == 0
    with monkeypatch.context() as patched, pytest.raises(Killed):
        kill_at_step(patched, 2)
        toughen(*words, "--out", tmp_path / "cut")
    assert not (tmp_path / "cut" / checkpoint.NAME).exists()
    ended = toughen(*words, "--out", tmp_path / "cut", "--resume")
    assert ended.status == 0 and "continues after" not in ended.err
    same_end(tmp_path / "whole", tmp_path / "cut")
    assert toughen(*words, "--out", tmp_path / "new", "--resume").status == 0  # nor does a missing directory matter
