"""A command that is killed at any operation on a file, or whose disk is full from there on, comes to the same end."""

from __future__ import annotations

import json
import os
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from commands import TIMES, digits, small, state_of, timeless, toughen
from faulty import KINDS, Try, Walk, walk

from toughen import runs
from toughen.runs.files import read_tensors

TRAIN = small("--method", "FBF", "--eps", 0.2, "--averaging", 0.5, "--batch_size", 40, "--checkpoint_seconds", 0)
MOMENTS = 5  # for each method: 50 in all
EVERY = bool(os.environ.get("TOUGHEN_EVERY_OPERATION"))
MOMENTS_OF_A_COMMAND = 50 if EVERY else 25  # of evaluate, and of reproduce
SECONDS = 7200 if EVERY else 100  # for a command and a kind of fault; what has not begun by then is left out
LEAST = 5  # commands that are disturbed, even on a slow machine
Compared = Callable[[Path], Any]


def words(*given: object) -> list[str]:
    return [str(word) for word in given]


def trained(folder: Path) -> dict[str, Any]:
    """What a run came to: all its bytes but those that a clock wrote."""
    found: dict[str, Any] = {name: (folder / name).read_bytes() for name in (runs.RECORD, runs.WEIGHTS, "config.yaml")}
    found |= {name: (str(tensor.dtype), tensor.numpy().tobytes()) for name, tensor in state_of(folder).items()}
    found["metrics"] = timeless(folder)
    return found


def without_times(value: Any) -> Any:
    """JSON without what a clock said."""
    if isinstance(value, dict):
        return {name: without_times(each) for name, each in value.items() if name not in (*TIMES, "date", "spent")}
    return [without_times(each) for each in value] if isinstance(value, list) else value


def evaluated(folder: Path) -> dict[str, Any]:
    """What an evaluation came to.

    Killed after its last file it is done again, and the first results are kept beside as evaluation.1.json and so on.
    """
    found: dict[str, Any] = {}
    for path in sorted(folder.iterdir()):
        if path.suffix == ".json":
            found[path.name] = without_times(json.loads(path.read_text().replace(str(folder), "OUT")))
        elif path.suffix == ".parquet" or path.name in (runs.WEIGHTS, runs.SEEN, "metrics.jsonl"):
            found[path.name] = path.read_bytes()
    for name in [name for name in found if ".1." in name]:
        assert found[name.replace(".1.", ".")] == found.pop(name), name
    return found


def reproduced(folder: Path) -> dict[str, Any]:
    """What a table came to: every model and every figure, without the folder's own name, in which its images lie."""
    found: dict[str, Any] = {}
    for run in sorted(folder.glob("smoke/*/run")):
        files = trained(run)
        weights, _ = read_tensors(run / runs.WEIGHTS)  # the file holds the record, and with it the folder's name
        files[runs.WEIGHTS] = {name: each.numpy().tobytes() for name, each in weights.items()}
        for name in (runs.RECORD, "config.yaml"):
            files[name] = files[name].replace(str(folder).encode(), b"OUT")
        found[str(run.relative_to(folder))] = files
    for path in sorted(folder.glob("smoke/*/cells/*.json")):
        cell = without_times(json.loads(path.read_text()))
        if cell["quantity"] not in ("gamma", "epoch seconds", "train seconds", "train hours"):
            found[str(path.relative_to(folder))] = cell
    return found


def judge(tries: list[Try], compared: Compared, kind: str, what: str, capsys: pytest.CaptureFixture[str]) -> int:
    """See that every disturbed command said so in one line, and came to the undisturbed one's end; count them."""
    whole, *others = tries
    assert whole.first.status == 0, whole.first.err
    expected, disturbed = compared(Path(whole.out)), 0
    for each in others:
        about = f"{kind} {Path(each.out).name}, {each.first.last}: {each.first.err}\n{each.again.err}"
        if kind == "full":
            assert each.first.status in (0, 1, 2) and "Traceback" not in each.first.err, about
            assert each.first.status == 0 or each.first.err.strip().splitlines()[-1].startswith("toughen: "), about
            disturbed += each.first.status != 0
        else:
            assert each.first.status in (0, -signal.SIGKILL), about
            disturbed += each.first.status != 0
        assert each.again.status == 0, about
        found = compared(Path(each.out))
        assert found.keys() == expected.keys(), about
        assert [name for name in expected if found[name] != expected[name]] == [], about
        assert not [path for path in Path(each.out).rglob(".*") if path.is_file()], about
    with capsys.disabled():
        print(f"\n{what}: {disturbed} of {len(others)} disturbed ({kind}), {len(others)} came to the same end")
    return disturbed


METHODS = {  # those with a state of their own, and what keeps one beside a method
    "Free": "--method Free --eps 0.2 --method.replays 2",
    "PAP": "--method PAP --method.steps 4 --eps 0.2 --model small-cnn",
    "PGI": "--method PGI --eps 0.2",
    "EFGSM": "--method EFGSM --eps 0.2",
    "Reconstruct": "--method Reconstruct --method.inner EFGSM --eps 0.2",
    "Hybrid": "--method Hybrid --method.cheap NuAT --method.strong PGDAT --method.strong.steps 2 --eps 0.2",
    "Delayed": "--method Delayed --method.after PGDAT --method.after.steps 2 --method.switch_epoch 1 --eps 0.2",
    "AWP": "--method AWP --method.inner PGDAT --method.inner.steps 2 --eps 0.2",
    "averaging": "--method NuAT --eps 0.2 --averaging 0.9 --schedule.cycle_momentum true",
    "callbacks": "--method FBF --eps 0.2 --watch rescue --keep_at [2] --optimizer AdamW",
}


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A whole run."""
    folder = tmp_path_factory.mktemp("trained") / "run"
    assert toughen(*small("--method", "FBF", "--eps", 0.2, "--out", folder)).status == 0
    return folder


TABLE = ["reproduce", "pap-table7", "--scale", "smoke", "--data", digits(), "--rows", "FGSM-AT", "--limit", "20"]


def plan(command: str, folder: Path, run: Path, **more: Any) -> tuple[Walk, Compared]:
    """How a command is disturbed, and what is compared of it."""
    if command == "train":
        given = words(*TRAIN, "--device", "cpu", "--out", "{out}")
        return Walk(words=given, again=[*given, "--resume"], folder=str(folder), **more), trained
    if command == "evaluate":
        given = words("evaluate", "{out}", "--attacks", "fgsm", "pgd-3", "--limit", 20, "--device", "cpu")
        return Walk(words=given, again=given, folder=str(folder), start=str(run), **more), evaluated
    given = words(*TABLE, "--device", "cpu", "--out", "{out}")
    return Walk(words=given, again=given, folder=str(folder), **more), reproduced


COMMANDS = {  # each how many operations one is disturbed, by what goes wrong: every try is two runs of the command
    "train": {"kill": 1, "full": 3},
    "evaluate": {"kill": 2, "full": 4},
    "reproduce": {"kill": 3, "full": 6},
}


@pytest.mark.parametrize("kind", [pytest.param(each, marks=[pytest.mark.slow] * (each == "full")) for each in KINDS])
def test_a_sample_of_operations(kind: str, run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Of training alone, since every try is two runs."""
    made, compared = plan("train", tmp_path / "w", run, kind=kind, first=5, stride=17)
    assert judge(walk(made), compared, kind, "train", capsys) > 2


@pytest.mark.slow
@pytest.mark.timeout(SECONDS + 500)
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("command", COMMANDS)
def test_operations_of_every_command(
    command: str, kind: str, run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """TOUGHEN_EVERY_OPERATION=1 leaves none out; that takes some 20 minutes for each command and kind."""
    stride = 1 if EVERY else COMMANDS[command][kind]
    made, compared = plan(command, tmp_path / "w", run, kind=kind, stride=stride, seconds=SECONDS)
    least = 41 if EVERY else LEAST
    assert judge(walk(made, timeout=SECONDS + 400), compared, kind, command, capsys) >= least


@pytest.mark.slow
@pytest.mark.timeout(600)
@pytest.mark.parametrize("name", METHODS)
def test_random_moments_of_training(name: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    given = words(*small(*METHODS[name].split(), "--checkpoint_seconds", 0, "--device", "cpu"), "--out", "{out}")
    made = Walk(words=given, again=[*given, "--resume"], folder=str(tmp_path / "w"), kind="moment", tries=MOMENTS)
    assert judge(walk(made, timeout=550), trained, "moment", name, capsys) > MOMENTS // 2


@pytest.mark.slow
@pytest.mark.timeout(SECONDS + 500)
@pytest.mark.parametrize("command", ["evaluate", "reproduce"])
def test_random_moments_of_other_commands(
    command: str, run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    made, compared = plan(command, tmp_path / "w", run, kind="moment", tries=MOMENTS_OF_A_COMMAND, seconds=SECONDS)
    tries = walk(made, timeout=SECONDS + 400)
    least = MOMENTS_OF_A_COMMAND // 2 + 1 if EVERY else LEAST
    assert judge(tries, compared, "moment", command, capsys) >= least
