"""Every method from the command line, with no setting but what names it."""

from __future__ import annotations

import inspect
import json
from pathlib import Path
from typing import Any

import pytest
from commands import small, toughen

from toughen.methods import REGISTRY
from toughen.methods.base import Method


def needs_more(method: type[Method]) -> bool:
    """Whether it wraps a method or takes pretrained nets, which nobody can guess."""
    parameters = inspect.signature(method).parameters
    given = [each for each in parameters.values() if each.kind is each.KEYWORD_ONLY]
    return "sources" in parameters or any(each.default is each.empty for each in given)


ALONE = [name for name, method in REGISTRY.items() if not needs_more(method)]
TREES = {  # wrappers, with what they are for
    "AT-AWP": "--method AWP --method.inner PGDAT --method.inner.steps 2",
    "TRADES-AWP": "--method AWP --method.inner TRADES --method.inner.steps 2 --method.gamma 5e-3",
    "NuAT-H": "--method Hybrid --method.cheap NuAT",
    "DAT": "--method Delayed --method.after PGDAT --method.after.steps 2",
    "eFGSM with re-constructor": "--method Reconstruct --method.inner EFGSM",
    "RS-ConvergeSmooth": "--method ConvergeSmooth --method.inner NFGSM --method.inner.start_size 0.2",
    "eFGSM + TRADES": "--method TRADES --method.crafter EFGSM",
    "delayed hybrid with AWP": "--method Delayed --method.after AWP --method.after.inner Hybrid"
    " --method.after.inner.cheap NuAT",
}


def lines(run: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]


def test_the_methods_that_need_more_are_the_wrappers_and_ensemble() -> None:
    assert set(REGISTRY) - set(ALONE) == {
        "AWP", "ConvergeSmooth", "Delayed", "Ensemble", "Hybrid", "Reconstruct",
    }  # fmt: skip


@pytest.mark.parametrize("name", ALONE)
def test_it_trains_by_its_name_alone(name: str, tmp_path: Path) -> None:
    eps = [] if name == "Standard" else ["--eps", 0.2]
    ended = toughen(*small("--method", name, *eps, "--epochs", 1, "--watch", "warn", "--out", tmp_path / "run"))
    assert ended.status == 0, ended.err
    (line,) = lines(tmp_path / "run")
    assert line["method"] == name and line["loss"] > 0 and line["passes"] >= 3
    assert (name == "Standard") == (line["gamma"] == 0)


@pytest.mark.parametrize("name", TREES)
def test_wrappers_train_what_they_hold(name: str, tmp_path: Path) -> None:
    run = tmp_path / "run"
    ended = toughen(*small(*TREES[name].split(), "--eps", 0.2, "--watch", "rescue", "--out", run))
    assert ended.status == 0, ended.err
    assert len(lines(run)) == 2
    words = small(*TREES[name].split(), "--eps", 0.2, "--watch", "rescue", "--out", run, "--resume")
    assert "is finished already" in toughen(*words).err


@pytest.mark.slow
@pytest.mark.parametrize("name", ALONE)
def test_it_trains_small_cnn_on_the_embedded_images(name: str, tmp_path: Path) -> None:
    words = f"train --method {name} --model small-cnn --data mnist-5k --epochs 1 --out {tmp_path / 'run'}".split()
    ended = toughen(*words, *([] if name == "Standard" else ["--eps", 0.2]))
    assert ended.status == 0, ended.err
    assert (tmp_path / "run" / "model.safetensors").is_file()
