"""The benchmarks' own arithmetic: released steps make the passes they are said to make, tables show what was found."""

from __future__ import annotations

import argparse
import copy
import inspect
import itertools
import json
import os
import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from statistics import median
from types import ModuleType
from typing import Any

import optuna
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
import yaml
from paths import ROOT
from torch import nn

import toughen
from toughen import data, models
from toughen.config.train import parse_train
from toughen.core.cost import flops
from toughen.methods.base import Method
from toughen.runs.files import read_json, write_json
from toughen.training.recipe_yaml import recipe_yaml

BENCHMARKS = ROOT / "benchmarks"
SCRIPTS = sorted(path.stem for path in BENCHMARKS.glob("*.py"))
COMMANDS = [name for name in SCRIPTS if "__main__" in (BENCHMARKS / f"{name}.py").read_text(encoding="utf-8")]


@pytest.fixture
def scripts(monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """Imports a script of benchmarks/ by its name, as the scripts import each other."""
    monkeypatch.syspath_prepend(BENCHMARKS)
    before = set(sys.modules)

    def load(name: str) -> ModuleType:
        return __import__(name)

    yield load
    for name in set(sys.modules) - before:
        if name in SCRIPTS:
            del sys.modules[name]


def net_and_images() -> tuple[nn.Module, torch.Tensor, torch.Tensor]:
    """A net without dropout whose first layer is little of it, and 20 images: PAP sets a tenth of them aside."""
    torch.manual_seed(0)
    some = data.load("mnist-5k").train.take(torch.arange(0, 2000, 100))
    net = models.create("resnet18", 10, (1, 28, 28), None, None, width=8)
    return net.train(), some.images.float() / 255, some.labels


RELEASED = ["Standard", "FGSMAT", "FBF", "NFGSM", "GradAlign", "PGI", "Free", "GAT", "NuAT", "NuAT2", "RMGM", "PAP"]
RELEASED += ["PGDAT", "TRADES", "AWP", "TRADES-AWP"]


@pytest.mark.slow
@pytest.mark.parametrize("method", RELEASED)
def test_a_released_step_makes_the_passes_it_is_said_to(method: str, scripts: Any) -> None:
    """Counted as operations; a net's first layer has no gradient towards images in the weights' own steps."""
    official, arithmetic = scripts("official"), scripts("arithmetic")
    net, x, y = net_and_images()
    before = copy.deepcopy(net.state_dict())
    optimizer = torch.optim.SGD(net.parameters(), lr=0.01)
    step, number = official.step(method), -1

    def run() -> None:
        nonlocal number
        number += 1
        step(net, optimizer, x, y, number)

    steps = 14 if method == "PAP" else 2
    found = arithmetic.counted(run, steps) / (flops(net, x[:1]) * len(x))
    assert found == pytest.approx(official.PASSES[method], abs=0.15)
    assert net.training and all(torch.isfinite(value).all() for value in net.state_dict().values())
    assert any(not torch.equal(value, before[name]) for name, value in net.state_dict().items())


def test_every_released_step_is_counted(scripts: Any) -> None:
    official = scripts("official")
    assert {"Standard", *official.STEPS} == set(official.PASSES) == set(RELEASED)
    assert set(official.STEPS) <= set(scripts("step").METHODS)


def test_implementations_take_turns(scripts: Any) -> None:
    """Each as often as the others, none always after the same one; what warms up is not counted."""
    turns, calls = scripts("turns"), list[str]()
    runs = {name: (lambda name=name: calls.append(name)) for name in "abc"}
    seconds = turns.take_turns(runs, "cpu", rounds=4, steps=2)
    assert "".join(calls) == "aabbcc" + "bbccaa" + "ccaabb" + "aabbcc" + "bbccaa" + "ccaabb"
    assert {name: len(taken) for name, taken in seconds.items()} == {"a": 4, "b": 4, "c": 4}
    found = turns.figures([4.0, 1.0, 2.0], [1.0, 1.0, 4.0])
    assert (found["seconds"], found["fastest"], found["slowest"]) == (2.0, 1.0, 4.0)
    assert (found["units"], found["units_lowest"], found["units_highest"]) == (1.0, 0.5, 4.0)
    assert turns.ratio([4.0, 1.0, 2.0], [1.0, 1.0, 4.0]) == [1.0, 0.5, 4.0]


def test_all_who_evaluate_make_the_same_images(scripts: Any) -> None:
    """So that nobody is fast by doing something else; whoever goes too far is refused."""
    evaluate = scripts("evaluate")
    net, eps = toughen.load(ROOT / "tests" / "nets" / "pgd-at"), 0.3
    split = data.load("mnist-5k").test.take(torch.arange(0, 1000, 100))
    found = evaluate.implementations(net, split, eps, eps / 4, 5, True)
    for implementation in found.values():
        implementation()
    images = found["plain loop"].found
    for name in ("torchattacks", "foolbox", "toughen fp32"):
        assert torch.allclose(found[name].found, images, atol=1e-6), name
    same = ((found["toughen bf16"].found - images).abs() < 1e-3).float().mean()
    assert same > 0.7  # a gradient near zero may point the other way, at each step
    measured = {name: evaluate.measured(net, each.found, split, eps) for name, each in found.items()}
    assert len({each["robust_accuracy"] for each in measured.values()}) == 1 and len(measured) == 7
    assert measured["plain loop"]["distance"] == pytest.approx(eps, abs=1e-6)
    with pytest.raises(RuntimeError, match="this implementation is wrong"):
        evaluate.measured(net, images, split, 0.29)


def test_made_up_images_are_of_the_size_that_was_asked_for(scripts: Any) -> None:
    """An endless row of full batches, wherever the trainer stands."""
    trainers = scripts("trainers")
    words = "--method NuAT --eps 0.1 --model fbf-mnist-cnn --batch_size 8 --validation 0 --data x --watch off".split()
    trainer = trainers.ready(words, trainers.made_up(20, 16, 5))
    batches = trainers.endless(trainer)
    for _ in range(7):  # two full batches an epoch, and a short one that is left out
        x, y, batch = next(batches)
        assert x.shape == (8, 3, 16, 16) and int(y.max()) < 5
        trainer.step(x, y, batch)
        trainer.state.step += 1


def test_scripts_that_run_out_of_time_are_asked_to_stop(scripts: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    time_limit = scripts("time_limit")
    monkeypatch.setattr(time_limit, "LEAST", 0)
    sleeps = "import time\ntry: time.sleep(60)\nexcept KeyboardInterrupt: raise SystemExit(130)"
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)  # as in the background of a shell
    try:
        with pytest.raises(time_limit.OutOfTime):
            time_limit.TimeLimit(1 / 60).python("-c", sleeps)
    finally:
        signal.signal(signal.SIGINT, before)
    with pytest.raises(time_limit.OutOfTime):
        time_limit.TimeLimit(0).python("-c", "")
    with pytest.raises(subprocess.CalledProcessError):
        time_limit.TimeLimit(None).python("-c", "raise SystemExit(3)")
    time_limit.TimeLimit(1).python("-c", "")


def test_time_to_robustness_is_of_all_seeds(scripts: Any) -> None:
    train = scripts("train")

    def run(*pgd: float) -> dict[str, Any]:
        curve = [{"seconds": 10.0 * (number + 1), "pgd": value} for number, value in enumerate(pgd)]
        return {"clean": 0.8, "robust": pgd[-1], "seconds": 10.0 * len(pgd), "curve": curve}

    found = train.summary({"0": run(0.1, 0.3, 0.5), "1": run(0.2, 0.2, 0.3), "2": run(0.3, 0.3, 0.4)}, [0.2, 0.3, 0.5])
    assert found["robust"] == [0.4, 0.3, 0.5] and found["seconds"] == [30.0, 30.0, 30.0]
    assert found["seconds_to"] == {"0.2": [10.0, 10.0, 20.0], "0.3": [20.0, 10.0, 30.0], "0.5": None}


def some_state(out: Path) -> None:
    """A call's state: one run that is judged, one under way, the long run trained and not yet attacked."""
    for run, files in {
        "fbf-0": ["evaluation.json", "model.safetensors", "checkpoint.safetensors"],
        "gat-0": ["metrics.jsonl", "model.safetensors", "checkpoint.safetensors"],
        "nuat-wa": ["config.yaml", "model.safetensors", "checkpoint.safetensors"],
    }.items():
        (out / "runs" / run).mkdir(parents=True)
        for name in files:
            (out / "runs" / run / name).write_text(f"{run} {name} " * 1000, encoding="utf-8")
    write_json(out / "gpu.json", {"pieces": {"training": {"done": True}}, "calls": []})


@pytest.mark.parametrize("part", [10_000, 10_000_000])
def test_a_gpu_state_goes_from_machine_to_machine(
    part: int, tmp_path: Path, scripts: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What the next call needs arrives as it was, and nothing else, such as the weights of a judged run."""
    gpu, state_archive = scripts("gpu"), scripts("state_archive")
    monkeypatch.setattr(state_archive, "PART", part)
    some_state(tmp_path / "out")
    gpu.pack(tmp_path / "out", tmp_path / "pack", 10**9)
    sizes = [path.stat().st_size for path in (tmp_path / "pack").glob("state.*")]
    assert max(sizes) <= part and (len(sizes) > 3) == (part == 10_000)
    (tmp_path / "new").mkdir()
    state_archive.unpack(tmp_path / "pack", tmp_path / "new")
    arrived = {str(path.relative_to(tmp_path / "new")) for path in (tmp_path / "new").rglob("*") if path.is_file()}
    assert arrived == {
        "gpu.json",
        "runs/fbf-0/evaluation.json",
        "runs/gat-0/metrics.jsonl",
        "runs/gat-0/model.safetensors",
        "runs/gat-0/checkpoint.safetensors",
        "runs/nuat-wa/config.yaml",
        "runs/nuat-wa/model.safetensors",
    }
    for name in arrived:
        assert (tmp_path / "new" / name).read_bytes() == (tmp_path / "out" / name).read_bytes()
    assert read_json(tmp_path / "pack" / "gpu.json")["left_out_of_pack"] == []


def test_what_is_too_large_to_travel_is_named(tmp_path: Path, scripts: Any) -> None:
    gpu = scripts("gpu")
    some_state(tmp_path / "out")
    gpu.pack(tmp_path / "out", tmp_path / "pack", 100_000)
    left_out = read_json(tmp_path / "pack" / "gpu.json")["left_out_of_pack"]
    assert left_out == ["runs/gat-0/model.safetensors", "runs/gat-0/checkpoint.safetensors"]


ABOUT = {"processor": "Abacus", "torch": "9.9", "commit": "abc", "rounds": 7, "batch_size": 64}
ABOUT |= {"images": 64, "data": "cifar10", "eps": 0.03125, "torchattacks": "3.5", "foolbox": "3.3"}


def timed(seconds: float, units: float, **more: Any) -> dict[str, Any]:
    """A line of a result file: all of its spread a tenth either way."""
    line = {"seconds": seconds, "fastest": 0.9 * seconds, "slowest": 1.1 * seconds, "units": units}
    return {**line, "units_lowest": 0.9 * units, "units_highest": 1.1 * units, **more}


def step_rows() -> dict[str, Any]:
    ours = {"over_limit": 1.25, "data_share": 0.012, "work": 8.0, "share_of_arithmetic": 0.31}
    times = {
        "unit": timed(0.6, 1.0),
        "released": timed(2.4, 4.0, work=11.0, share_of_arithmetic=0.2),
        "toughen bf16": timed(0.8, 1.3, **ours, times_as_fast_as_released=[3.0, 2.5, 3.5]),
    }
    return {"NuAT": {"times": times, "peak_bytes": {"bf16": 123e6, "released": 456e6}, "about": ABOUT}}


def trained() -> dict[str, Any]:
    run = {"passes": 5.0, "attacks": {"fgsm": 0.5, "apgd-t": 0.4}, "images": 1000, "provenance": ABOUT}
    found: dict[str, Any] = {"clean": [0.8, 0.79, 0.82], "robust": [0.4, 0.35, 0.41], "seconds": [100.0, 99.0, 102.0]}
    found |= {"seconds_to": {"0.3": [40.0, 30.0, 50.0], "0.45": None}}
    about = {"base": "--model resnet18", "eps": "8/255", "data": "cifar10", "epochs": 30, "time_budget": None}
    rows = {"FBF": {"summary": found, "seeds": {"0": run, "1": run}}}
    return {"about": {**about, "targets": [0.3, 0.45]}, "methods": rows}


def measured_on_a_gpu() -> dict[str, Any]:
    spread = {"median": 4.0, "least": 3.0, "most": 6.0}
    first = {"recipe": "nuat-wa-cifar10", "steps": 50, "step": timed(0.02, 1.0), "seconds_per_epoch": 15.3}
    first |= {"images_per_second": 3200.0, "passes_per_image": 8.0, "operations_per_second": 30e12, "done": True}
    first |= {"best_operations_per_second": {"best product bf16": 600e12}, "share_of_arithmetic": 0.05}
    first |= {"peak_bytes": 2.5e9, "precision": "bf16"}
    run = dict.fromkeys(("seconds_per_epoch", "seconds_per_step", "images_per_second", "share_of_arithmetic"), spread)
    run |= {"epochs": 20, "epochs_done": 17, "seconds": 300.0, "why": "so", "curve": [{"clean": 0.8, "pgd": 0.5}]}  # type: ignore[dict-item]
    aa = {"robust_accuracy": 0.4567, "seconds": 222.2, "share_of_arithmetic": 0.4}
    attacked = {"done": True, "images": 10_000, "clean_accuracy": 0.8, "robust_accuracy": 0.4567}
    made = {"default": {"step": timed(0.012, 1.0), "first_steps_seconds": 61.0}}
    pieces = {
        "first steps": first,
        "compiled steps": {**made, "done": True},
        "training": run,
        "autoattack": {**attacked, "attacks": {"autoattack": aa}},
    }
    return {"about": ABOUT, "calls": [{}, {}], "pieces": {**pieces, "steps": {"nets": {"r": step_rows()}}}}


def test_operations_are_told_apart(scripts: Any) -> None:
    breakdown = scripts("breakdown")
    images, maps, logits, weights = [64, 3, 32, 32], [64, 64, 32, 32], [64, 10], [64, 3, 3, 3]
    for name, shapes, kind in (
        ("aten::mkldnn_convolution", [images, weights], "convolutions, forward"),
        ("aten::convolution_backward", [maps, images, weights], "convolutions, backward"),
        ("aten::native_batch_norm_backward", [maps, maps], "batch norm"),
        ("aten::threshold_backward", [maps, maps], "ReLU, pooling"),
        ("aten::max_pool2d_with_indices", [maps], "ReLU, pooling"),
        ("aten::_log_softmax", [logits], "loss"),
        ("aten::sub", [logits, logits], "loss"),
        ("aten::addmm", [[10], [64, 512], [512, 10]], "matrix products"),
        ("aten::sign", [images], "making images"),
        ("aten::add_", [images, images], "making images"),
        ("aten::add_", [maps, maps], "sums, copies, casts"),
        ("aten::copy_", [weights, weights], "sums, copies, casts"),
        ("aten::_fused_sgd_", [[], []], "optimizer, averaging"),
        ("Optimizer.step#SGD.step", [], "optimizer, averaging"),
        ("aten::_foreach_lerp_", [], "optimizer, averaging"),
    ):
        assert breakdown.kind_of(name, shapes, images[1:], 10) == kind, name


@pytest.mark.slow
def test_the_shares_of_a_step_are_those_of_its_whole_time(tmp_path: Path) -> None:
    out = tmp_path / "found.json"
    words = ["--data", "mnist-5k", "--model", "small-cnn", "--methods", "NuAT", "--batch-size", "16", "--out", str(out)]
    subprocess.run([sys.executable, str(BENCHMARKS / "breakdown.py"), *words], check=True, capture_output=True)
    shares = read_json(out)["small-cnn, bf16"]["NuAT"]["shares"]
    assert sum(shares.values()) == pytest.approx(1, abs=0.01) and min(shares.values()) >= 0
    convolutions = shares["convolutions, forward"] + shares["convolutions, backward"]
    assert convolutions > 0.2 and shares["batch norm"] == 0 and shares["making images"] > 0


def test_tables_show_what_was_found(tmp_path: Path, scripts: Any) -> None:
    performance = scripts("performance")
    raced = {"times_as_fast_as_plain_loop": [0.5, 0.4, 0.6], "robust_accuracy": 0.453125}
    pgd = {"times": {"foolbox": timed(12.0, 20.0, work=61.0, **raced)}, "about": ABOUT}
    scaled = {"32": {**timed(0.2, 1.0), "times_first": [2.0, 1.9, 2.1], "seconds_per_image": 0.00625}}
    files: dict[str, Any] = {
        "step": {"resnet18": step_rows()},
        "evaluate": {"resnet18, PGD-20": pgd},
        "breakdown": {
            "small-cnn, bf16": {
                "NuAT": {
                    "seconds": 0.05,
                    "fastest": 0.04,
                    "slowest": 0.07,
                    "shares": {"batch norm": 0.0612, "between operations": 0.3},
                    "about": {**ABOUT, "batch_size": 64, "data": "mnist"},
                }
            }
        },
        "scaling": {"resnet18: batch": {"what": "images in a batch", "points": scaled, "about": ABOUT}},
        "train": trained(),
        "streaming": {
            "shards": "2GB",
            "limit": "512MB",
            "steps": 9,
            "killed_at_step": 4,
            "same_weights_after_the_kill": True,
            "memory_mb": {"fifths": [1, 2, 3, 4, 5], "most": 6},
            "command": "train",
            "commit": "abc",
            "memory_mb_resumed": {"fifths": [5, 4, 3, 2, 1], "most": 7},
        },
        "gpu": measured_on_a_gpu(),
    }
    for name, found in files.items():
        write_json(tmp_path / f"{name}.json", found)
    whole = performance.page(tmp_path)
    for line in (
        "| NuAT | 4.00 [3.60, 4.40] | 11.0 | 20 % | 456 | 3.77 |",
        "| NuAT | 1.30 [1.17, 1.43] | 8.0 | 1.25 | 31 % | 123 | 3.00 [2.50, 3.50] |",
        "| foolbox | 20.00 [18.00, 22.00] | 12 | 61 | 0.50 [0.40, 0.60] | 45.3 % |",
        "| method | ms | batch norm | between operations |",
        "| NuAT | 50 [40, 70] | 6.1 | 30.0 |",
        "| 32 | 200.0 [180.0, 220.0] | 2.00 [1.90, 2.10] | 6250 |",
        "| FBF | 2 | 100 [99, 102] | 5.0 | 80.0 [79.0, 82.0] | 40.0 [35.0, 41.0] | 40 [30, 50] | - |",
        "| killed at step 4, resumed | 5 | 4 | 3 | 2 | 1 | 7 |",
        "| ms a step | 20.0 [18.0, 22.0] |",
        "| TFLOP/s | 30 |",
        "| default | 12.0 [10.8, 13.2] | 61 |",
        "| peak memory in tensors, MB | 2500 |",
        "|  | the whole run, 17 of 20 epochs |",
        "| seconds an epoch | 4.00 [3.00, 6.00] |",
        "| autoattack | 45.67 % | 222.2 | 40 % |",
    ):
        assert f"\n{line}\n" in whole, line
    # the GPU's rows of steps too, though that piece is not done: each row is whole
    assert " ".join(whole.split()).count("Abacus, torch 9.9, commit abc, rounds: 7") == 6


def test_rows_that_were_run_elsewhere_stay(tmp_path: Path, scripts: Any) -> None:
    methods, about = scripts("methods"), {"base": "--epochs 5", "attacks": ["fgsm"]}
    table, path = {"FBF": "--method FBF", "GAT": "--method GAT"}, tmp_path / "rows.json"
    rows = {name: {"clean": 0.9, "settings": words} for name, words in table.items()}
    assert methods.kept(tmp_path / "none.json", about, table, []) == {}
    write_json(path, about | {"rows": rows})
    assert methods.kept(path, about, table, ["FBF"]) == rows
    with pytest.raises(ValueError, match="another base"):
        methods.kept(path, about | {"base": "--epochs 6"}, table, [])
    changed = table | {"GAT": "--method GAT --method.lam 5"}
    with pytest.raises(ValueError, match="other settings than the table for GAT: add"):
        methods.kept(path, about, changed, ["FBF"])
    assert methods.kept(path, about, changed, ["GAT"]) == {"FBF": rows["FBF"]}
    assert methods.kept(path, about | {"seed": 0}, table, []) == rows  # files that name no seed are of seed 0
    with pytest.raises(ValueError, match="another seed"):
        methods.kept(path, about | {"seed": 1}, table, [])
    write_json(path, about | {"seed": 1, "rows": rows})
    assert methods.kept(path, about | {"seed": 1}, table, []) == rows


def test_a_table_s_runs_have_its_seed_and_its_file_says_it(
    tmp_path: Path, scripts: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two rows of a run each: what toughen was told, and what the file holds of it."""
    methods, told, out = scripts("methods"), list[str](), tmp_path / "runs"
    before = read_json(BENCHMARKS / "results" / "methods-mnist.json")["rows"]["EAT"]

    def ran(words: str) -> None:
        told.append(words)
        folder = out / "eat"
        if " --method Ensemble " in words:
            folder.mkdir(parents=True)
            made = parse_train(words.replace("--resume", "").split("train ")[1].split())
            (folder / "config.yaml").write_text(recipe_yaml(made[0]), encoding="utf-8")
            found = {"clean_accuracy": 0.9, "images": 500, "attacks": {}}
            found["attacks"] = {name: {"robust_accuracy": 0.5} for name in ("fgsm", "pgd-100")}
            write_json(folder / "evaluation.json", found)
            write_json(folder / "model.json", {"epoch": 0})
            write_json(folder / "provenance.json", {})
            epoch = {"seconds": 1, "gamma": 1, "passes": 18, "validation": before["validation"][0], "events": []}
            (folder / "metrics.jsonl").write_text(json.dumps(epoch) + "\n", encoding="utf-8")

    monkeypatch.setattr(methods, "toughen", ran)
    words = ["methods.py", "--data", "mnist-5k", "--seed", "3", "--rows", "EAT", "--out", str(out)]
    monkeypatch.setattr(sys, "argv", [*words, "--write", str(tmp_path / "rows.json")])
    methods.main()
    assert [" --seed 3 " in each for each in told] == [False, False, True]  # its sources are the same for all seeds
    found = read_json(tmp_path / "rows.json")
    row = found["rows"]["EAT"]
    assert (found["seed"], row["seed"], row["images"], row["clean"]) == (3, 3, 500, 0.9)
    assert row["config"]["optimizer"]["init_args"]["lr"] == 5e-3 and row["config"]["method"]["init_args"]["eps"] == 0.3
    assert str(tmp_path) not in json.dumps(found) and "data" not in row["config"]


# ten steps for all; a mode without a meaning, as the net has no dropout; "auto" is the recipe's; five epochs for all
OWN_IN_THE_TABLE = {
    "PGD-AT": {"steps", "step_size", "mode"},
    "TRADES": {"steps", "step_size"},
    "DAT": {"after.steps", "after.step_size"},
    "eFGSM + REC": {"reconstructor", "method.stop_drop"},
}
RECIPES = {
    "Standard": "standard-mnist",
    "FGSM-AT": "fgsm-mnist",
    "FBF": "fbf-mnist",
    "Free": "free-mnist",
    "PAP-FGSM": "pap-mnist",
    "PAP-TRADES": "pap-trades-mnist",
    "R-MGM": "rmgm-mnist",
    "GAT": "gat-mnist",
    "NuAT": "nuat-mnist",
    "eFGSM + REC": "efgsm-mnist",
    "TRADES": "trades-mnist",
    "PGD-AT": "pgd-mnist",
    "DAT": "dat-mnist",
}


def settings_of(method: Method, prefix: str = "") -> dict[str, Any]:
    """What a method's settings and those of the methods in it came to, after defaults were filled in."""
    attack, names = getattr(method, "attack", None), inspect.signature(type(method)).parameters
    found = {prefix + name: getattr(attack, name, vars(method).get(name)) for name in names}
    for name, child in method.named_children():
        found |= settings_of(child, f"{prefix}{name}.") if isinstance(child, Method) else {}
    return {f"{prefix}kind": type(method).__name__, **found}


@pytest.mark.parametrize("row", RECIPES)
def test_a_method_has_the_settings_of_its_mnist_recipe_in_the_table(row: str, scripts: Any) -> None:
    methods = scripts("methods")
    eps = [] if row in methods.NATURAL else ["--eps", methods.EPS]
    row_s = [*methods.BASE.split(), *methods.ROWS[row].split(), *eps]
    there, here = (settings_of(parse_train(words)[0].method) for words in ([RECIPES[row]], row_s))
    assert there.keys() == here.keys()
    assert {name for name in here if here[name] != there[name]} <= OWN_IN_THE_TABLE.get(row, set())


def test_the_page_of_defaults_has_the_figures_of_the_runs(scripts: Any) -> None:
    folders, found = scripts("folders"), read_json(BENCHMARKS / "results" / "folders.json")
    page = (ROOT / "docs" / "explanation" / "defaults.md").read_text(encoding="utf-8")
    assert folders.table(found) in page and folders.margins(found) in page
    assert f" {len(found)} rows" in page


def test_rows_of_folders_are_summed_up(scripts: Any) -> None:
    kinds = [("default", 0.5, 0.4), ("pgd-at", 0.3, 0.25)]
    found = {
        f"two 4/255 seed-{seed} native {trained}": dict.fromkeys(("clean", "fgsm", "pgd-50x2"), clean + seed / 100)
        | {"apgd-t": apgd + 0.2 * seed}
        for trained, clean, apgd in kinds
        for seed in (0, 1, 2)
    }
    del found["two 4/255 seed-2 native pgd-at"]
    folders = scripts("folders")
    spread = "51.0 (50.0 to 52.0)"
    assert folders.table(found).splitlines()[2:] == [
        f"| two | 4/255 | default | 3 | {spread} | {spread} | {spread} | 60.0 (40.0 to 80.0) |",
        "| two | 4/255 | pgd-at | 2 |" + " 30.5 (30.0 to 31.0) |" * 3 + " 35.0 (25.0 to 45.0) |",
    ]
    pair = "| two | 4/255 | 2 | +20.0 (+20.0 to +20.0) | +15.0 (+15.0 to +15.0) |"
    assert folders.margins(found).splitlines()[2:] == [pair]


@pytest.mark.slow
def test_the_commands_of_a_grid(tmp_path: Path, scripts: Any) -> None:
    grid = scripts("grid")
    for row in grid.ROWS:
        assert len({run.folder(tmp_path) for run in grid.grid(row)}) == 4
        if row != "EAT":  # whose sources must be there
            words = [run.words("mnist-5k", tmp_path).replace(" --resume", "").split() for run in grid.grid(row)]
            there = [parse_train(some)[0] for some in words]
            assert {each.optimizer.lr for each in there} == {5e-3, 2e-3}  # the last word counts
            assert len({json.dumps(settings_of(each.method), default=str) for each in there}) in (1, 2)


def test_the_run_of_a_grid_that_is_chosen(tmp_path: Path, scripts: Any) -> None:
    grid = scripts("grid")
    assert len(list(itertools.islice(grid.steps("FBF", "mnist-5k", tmp_path), 4))) == 4
    for run, held in zip(grid.grid("FBF"), ((0.2, 0.8), (0.9, 0.3), (0.4, 0.5), (0.1, 0.1)), strict=True):
        folder = run.folder(tmp_path)
        folder.mkdir()
        (folder / "model.json").write_text("{}")
        lines = [json.dumps({"epoch": n, "validation": {"clean": 1.0, "pgd": each}}) for n, each in enumerate(held)]
        (folder / "metrics.jsonl").write_text("\n".join(lines))
        (folder / "config.yaml").write_text("epochs: 3\n")
    assert [words[0] for words in itertools.islice(grid.steps("FBF", "mnist-5k", tmp_path), 4)] == ["train"] * 4
    for run in grid.grid("FBF"):  # two epochs are all of them
        (run.folder(tmp_path) / "config.yaml").write_text("epochs: 2\n")
    assert grid.chosen("FBF", tmp_path) == grid.grid("FBF")[1]  # 0.9, in its first epoch
    left = [words[0] for words in grid.steps("FBF", "mnist-5k", tmp_path)]
    assert left == ["evaluate", "train", "evaluate", "train", "evaluate"]
    assert grid.figures("FBF", tmp_path) is None


def test_a_row_of_a_grid_that_another_process_completed_is_written(
    tmp_path: Path, scripts: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    grid, file = scripts("grid"), tmp_path / "grid.json"
    row = read_json(BENCHMARKS / "results" / "grid-mnist.json")["rows"]["FBF"]
    monkeypatch.setattr(grid, "figures", lambda name, out: row if name == "FBF" else None)
    monkeypatch.setattr(sys, "argv", f"grid.py --data x --rows FBF --out {tmp_path} --write {file}".split())
    grid.main()
    assert read_json(file)["rows"] == {"FBF": row}


def test_the_page_of_defaults_has_the_figures_of_the_rows(scripts: Any) -> None:
    folders, page = scripts("folders"), (ROOT / "docs" / "explanation" / "defaults.md").read_text(encoding="utf-8")
    found = read_json(BENCHMARKS / "results" / "folders.json")
    assert set(found) == {str(row) for row in folders.rows()}
    assert folders.table(found) in page and folders.margins(found) in page


def test_the_page_has_the_seconds_of_the_first_steps(scripts: Any) -> None:
    seconds = read_json(BENCHMARKS / "results" / "first-steps.json")["seconds"]
    assert list(seconds) == list(scripts("first_steps").steps())
    page = (ROOT / "docs" / "README.md").read_text(encoding="utf-8")
    steps = ("install", "train a robust net", "evaluate it", "train in a plain PyTorch loop")
    assert re.findall(r"\| (\d+) \|$", page, re.MULTILINE) == [f"{seconds[step]:.0f}" for step in steps]


def test_the_page_of_methods_has_the_figures_of_the_grid(scripts: Any) -> None:
    rows = read_json(BENCHMARKS / "results" / "grid-mnist.json")["rows"]
    page = (ROOT / "docs" / "results" / "methods.md").read_text(encoding="utf-8")
    assert rows and scripts("grid").table(rows) in page


def test_the_page_of_mnist_has_the_figures_of_the_full_runs(scripts: Any) -> None:
    page = (ROOT / "docs" / "results" / "mnist.md").read_text(encoding="utf-8")
    assert scripts("full_mnist").table(read_json(BENCHMARKS / "results" / "full-mnist.json")) in page


def test_the_page_of_methods_has_the_figures_of_the_runs(scripts: Any) -> None:
    rows = read_json(BENCHMARKS / "results" / "methods-mnist.json")["rows"]
    assert list(rows) == list(scripts("methods").ROWS)
    lines = (ROOT / "docs" / "results" / "methods.md").read_text(encoding="utf-8").splitlines()
    start = next(number for number, line in enumerate(lines) if line.startswith("| method | clean |"))
    table = [[cell.strip() for cell in line.split("|")[1:-1]] for line in lines[start + 2 : start + 2 + len(rows)]]
    said = {name: (clean, fgsm, pgd, gamma, passes, ill) for name, clean, fgsm, pgd, gamma, passes, _, _, ill in table}
    assert said == {
        name: (
            *(f"{100 * row[of]:.1f}" for of in ("clean", "fgsm", "pgd_100")),
            *(f"{row[of]:.1f}" for of in ("gamma", "passes")),
            scripts("methods").word(row),
        )
        for name, row in rows.items()
    }


@pytest.mark.parametrize(
    ("table", "seed"), [("free", 0), ("nuat2", 0), ("nuat2", 1), ("nuat2", 2), ("pap", 0), ("warmup", 0), ("efgsm", 0)]
)
def test_the_page_has_the_figures_of_a_method_s_settings(table: str, seed: int, scripts: Any) -> None:
    settings = scripts("methods").TABLES[table][1]
    seeded = f"-seed-{seed}" if seed else ""
    data = "mnist-5k" if table == "efgsm" else "mnist"
    found = read_json(BENCHMARKS / "results" / f"{table}-{data}{seeded}.json")
    assert seed > 0 or list(found["rows"]) == list(settings)
    page = (ROOT / "docs" / "results" / "methods.md").read_text(encoding="utf-8")
    for name, row in found["rows"].items():
        assert (row["settings"], found["seed"], row["seed"], row["images"]) == (settings[name], seed, seed, 1000)
        line = " | ".join([name, *(f"{100 * row[of]:.1f}" for of in ("clean", "fgsm", "pgd_100"))])
        assert (f"\n| {seed} | {line} |" if table == "nuat2" else f"\n| {line} |") in page


def test_the_page_has_the_figures_of_exported_nets_which_say_the_same() -> None:
    rows = read_json(BENCHMARKS / "results" / "onnx-nets.json")
    page = (ROOT / "docs" / "how-to" / "export-a-model.md").read_text(encoding="utf-8")
    assert len(rows) == 5
    for name, row in rows.items():
        found, furthest = row["broken"].values(), row["largest difference of a logit"]
        otherwise, alone = row["classified otherwise"], sum(each["on one alone"] for each in found)
        both = " | ".join(f"{each['original']}, {each['exported']}" for each in found)
        right = f"{100 * row['clean accuracy']['original']:.1f} %"
        line = f"`{name}` | {row['data']} | {right} | {otherwise['clean']} | {furthest['clean']:.0e} | {both} | {alone}"
        assert f"\n| {line} |\n" in page
        assert alone == sum(otherwise.values()) == 0 and max(furthest.values()) < 1e-3 and row["images"] == 1000
        assert row["classes predicted"] > 1 and row["provenance"]["commit"]
        assert row["broken"]["pgd"]["original"] > 0  # else nothing is compared


def test_the_page_has_the_figures_of_the_watch_and_no_rescue_did_harm() -> None:
    rows = read_json(BENCHMARKS / "results" / "watch.json").values()
    page = (ROOT / "docs" / "results" / "methods.md").read_text(encoding="utf-8")
    for row in rows:
        off, rescued = row["modes"]["off"], row["modes"]["rescue"]
        shares = " | ".join(f"{100 * run[key]:.1f}" for run in (off, rescued) for key in ("clean", "robust"))
        rescues = sum("rescue" in event for event in rescued["events"])
        assert f"\n| {row['setting']} | {shares} | {rescues} |\n" in page
        assert rescued["robust"] >= off["robust"]


@pytest.mark.slow
def test_a_search_goes_on_with_the_trial_that_was_stopped(
    tmp_path: Path, scripts: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    search, time_limit = scripts("search"), scripts("time_limit")
    task, file, tried = search.TASKS["mnist"], tmp_path / "log.json", list[dict[str, Any]]()

    def measure(task: Any, settings: dict[str, Any], data: Path, folder: Path, time_limit: Any, seed: int = 0) -> Any:
        tried.append(settings)
        if len(tried) == 3:
            raise scripts("time_limit").OutOfTime
        given = search.words(task, settings)
        recipe = parse_train([*given, "--data", "mnist-5k"])[0]  # a command line that can be run
        assert recipe.eps == 0.3 and recipe.eps_factor == settings["eps_factor"]
        return {"settings": settings, "words": " ".join(given), "seed": seed, "robust": -settings["lr"]}

    monkeypatch.setattr(search, "measure", measure)
    given = len(task.first)
    for _ in range(2):  # a process each
        search.search(task, tmp_path, tmp_path, file, given + 1, time_limit.TimeLimit(None))
    assert len(tried) == given + 2 and tried[2] == tried[3]
    log = read_json(file)["trials"]
    assert sorted(line["trial"] for line in log) == list(range(given + 1))
    assert [*tried[:2], *tried[3:-1]] == list(task.first)
    assert [line["settings"]["lr"] for line in log] == sorted(each["lr"] for each in [*tried[:2], *tried[3:]])
    search.ablate(task, tmp_path, tmp_path, file, time_limit.TimeLimit(None))
    done, best = read_json(file)["ablation"], log[0]["settings"]
    assert {line["seed"] for line in done["all parts"]} == {0, 1, 2} and len(done) > 1
    for name, lines in list(done.items())[1:]:
        without = search.PARTS[name.removeprefix("without ")]
        assert [line["settings"] for line in lines] == [best | without] * 3 and best != best | without
    count = len(tried)
    search.ablate(task, tmp_path, tmp_path, file, time_limit.TimeLimit(None))
    assert len(tried) == count  # nothing is done again


def test_a_search_whose_runs_are_lost_goes_on_from_its_log(
    tmp_path: Path, scripts: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    search, time_limit = scripts("search"), scripts("time_limit")
    task, file, tried = search.TASKS["mnist"], tmp_path / "log.json", list[dict[str, Any]]()

    def measure(task: Any, settings: dict[str, Any], data: Path, folder: Path, time_limit: Any, seed: int = 0) -> Any:
        tried.append(settings)
        return {"settings": settings, "words": "", "seed": seed, "robust": len(tried) / 100}

    monkeypatch.setattr(search, "measure", measure)
    for place, trials in ((tmp_path / "a", 3), (tmp_path / "b", len(task.first) + 2)):
        place.mkdir()
        search.search(task, tmp_path, place, file, trials, time_limit.TimeLimit(None))
    assert len(tried) == len(task.first) + 2 and tried[: len(task.first)] == list(task.first)
    log = read_json(file)["trials"]
    assert [(line["trial"], line["settings"]) for line in log] == list(enumerate(tried))[::-1]  # best first
    assert [line["robust"] for line in log] == [place / 100 for place in range(len(tried), 0, -1)]


def test_a_trial_that_fails_is_logged_and_not_tried_again(
    tmp_path: Path, scripts: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    search, time_limit = scripts("search"), scripts("time_limit")
    task, file, tried = search.TASKS["mnist"], tmp_path / "log.json", list[dict[str, Any]]()
    failing = {1, 5, 6, 7}

    def measure(task: Any, settings: dict[str, Any], data: Path, folder: Path, time_limit: Any, seed: int = 0) -> Any:
        tried.append(settings)
        if len(tried) - 1 in failing:
            raise subprocess.CalledProcessError(1, [])
        return {"settings": settings, "words": "", "seed": seed, "robust": 0.5}

    monkeypatch.setattr(search, "measure", measure)
    for place, trials in ((tmp_path / "a", 2), (tmp_path / "b", 4)):  # the second has the log alone
        place.mkdir()
        search.search(task, tmp_path, place, file, trials, time_limit.TimeLimit(None))
    assert tried == list(task.first[:5])
    log = read_json(file)
    assert len(log["trials"]) == 4
    assert log["failed"] == [{"trial": 1, "settings": task.first[1], "status": 1}]
    with pytest.raises(SystemExit, match="3 trials in a row failed"):
        search.search(task, tmp_path, place, file, 9, time_limit.TimeLimit(None))
    assert len(tried) == 8 and len(read_json(file)["failed"]) == 4


EPOCHS = {  # 160, 64, 80 and 72 passes, by the passes of a step without AWP and, in half of the run, with it
    ("mnist", 1.0): {"NuAT": 20, "GAT": 20, "PGI": 23, "EFGSM": 32, "NFGSM": 32, "LIET": 23},
    ("mnist", 0.5): {"NuAT": 14, "GAT": 14, "PGI": 15, "EFGSM": 25, "NFGSM": 25, "LIET": 15},
    ("mnist-8-epochs", 1.0): {"NuAT": 8, "GAT": 8, "PGI": 9, "EFGSM": 13, "NFGSM": 13, "LIET": 9},
    ("mnist-8-epochs", 0.5): {"NuAT": 6, "GAT": 6, "PGI": 6, "EFGSM": 10, "NFGSM": 10, "LIET": 6},
    ("mnist-strided", 1.0): {"NuAT": 10, "GAT": 10, "PGI": 11, "EFGSM": 16, "NFGSM": 16, "LIET": 11},
    ("mnist-strided", 0.5): {"NuAT": 7, "GAT": 7, "PGI": 8, "EFGSM": 12, "NFGSM": 12, "LIET": 8},
    ("cifar10", 1.0): {"NuAT": 9, "GAT": 9, "PGI": 10, "EFGSM": 14, "NFGSM": 14, "LIET": 10},
    ("cifar10", 0.5): {"NuAT": 6, "GAT": 6, "PGI": 7, "EFGSM": 11, "NFGSM": 11, "LIET": 7},
}


@pytest.mark.parametrize("method", ["NuAT", "GAT", "PGI", "EFGSM", "NFGSM", "LIET"])
@pytest.mark.parametrize(("name", "awp_from"), EPOCHS)
def test_every_method_of_a_search_has_a_command_line(name: str, awp_from: float, method: str, scripts: Any) -> None:
    search = scripts("search")
    task, few = search.TASKS[name], {"start": 1.0, "alternate": True, "step_size": 1.25, "sigma": 0.25, "noise": 2.0}
    lam, eps = {f"lam of {each}": 4.0 for each in search.PASSES}, 1.1 * search.radius(task)
    optimizer, rates = list(task.rates.items())[-1]
    trial = optuna.trial.FixedTrial({
        "method": method, "remember": "gradient", "optimizer": optimizer, f"lr of {optimizer}": rates[0],
        "batch_size": 64, "schedule": "OneCycle",
        "averaging": "0.998", "label_smoothing": 0.2, "eps_warmup": 0.3, "eps_factor": 1.1, "awp_from": awp_from,
        "stretch": task.stretches[-1], "width": task.widths[-1], "activation": task.activations[-1],
        "crop": task.crops[-1], **few, **lam,
    })  # fmt: skip
    recipe = parse_train([*search.words(task, search.suggest(trial, task)), "--data", "mnist-5k"])[0]
    assert recipe.model_settings.get("stretch", 0) == {"mnist": 0.3, "mnist-8-epochs": 0.45}.get(name, 0)
    assert recipe.model_settings.get("width") == {"mnist-8-epochs": 64, "cifar10": 16}.get(name)
    assert recipe.model_settings.get("activation", "relu") == {"cifar10": "silu"}.get(name, "relu")
    assert recipe.crop == {"cifar10": 4}.get(name, 2)
    trained: Any = recipe.method
    if awp_from < 1:
        assert (trained.gamma, trained.begin_at) == (0.005, 0.5)
        trained = trained.method
    threat = recipe.method.threat
    assert type(trained).__name__ == method and threat is not None and float(threat.eps) == pytest.approx(eps)
    assert recipe.epochs == EPOCHS[name, awp_from][method] and recipe.optimizer.lr == rates[0]
    assert type(recipe.optimizer).__name__ == ("Muon" if name in ("cifar10", "mnist-8-epochs") else "Adam")
    given = {"NuAT": (4, eps, 0.2), "GAT": (4, eps, 0.2), "PGI": (4, 1.25 * eps, 0.2), "EFGSM": (eps / 4, 1, 0.2)}
    given |= {"NFGSM": (2 * eps, eps, 0.2), "LIET": (4, eps, 0.2)}
    names: dict[str, tuple[str, ...]] = {
        "PGI": ("lam", "step_size", "smoothing"),
        "EFGSM": ("sigma", "classes", "smoothing"),
        "NFGSM": ("start_size", "step_size"),
    }
    found = [getattr(trained, each) for each in names.get(method, ("lam", "start_size"))]
    found += [] if method in ("PGI", "EFGSM") else [recipe.label_smoothing]
    assert found == pytest.approx(given[method])


def test_a_search_takes_its_images_out_of_the_training_images(tmp_path: Path, scripts: Any) -> None:
    search, some = scripts("search"), data.load("mnist-5k").train
    names = [f"{place}.png" for place in range(2000)]
    images = pa.array([{"bytes": name.encode(), "path": name} for name in names])
    labels = pa.array(
        some.labels[torch.randperm(len(some), generator=torch.Generator().manual_seed(0))[:2000]].tolist()
    )
    pq.write_table(pa.table({"image": images, "label": labels}), tmp_path / "train-0.parquet")
    task = replace(search.TASKS["mnist"], train=300, held_out=100)
    folder = search.make_data(task, tmp_path, tmp_path / "out")
    train, held_out = (pq.read_table(folder / f"{part}-0.parquet") for part in ("train", "test"))
    assert (len(train), len(held_out)) == (300, 100)
    assert not {str(image) for image in train["image"]} & {str(image) for image in held_out["image"]}
    assert set(held_out["label"].to_pylist()) == set(range(10))


def test_pairs_of_runs_stand_beside_each_other(tmp_path: Path, scripts: Any) -> None:
    performance = scripts("performance")
    for name, clean, robust in (("bf16", 0.81, 0.402), ("fp32", 0.8, 0.415)):
        found = trained()
        found["methods"]["FBF"]["seeds"]["1"] |= {"clean": clean, "robust": robust}
        del found["methods"]["FBF"]["seeds"]["0"]
        write_json(tmp_path / f"precision-{name}.json", found)
    line = "| FBF | 1 | 81.0 % | 80.0 % | 40.2 % | 41.5 % | -1.3 |"
    assert f"\n{line}\n" in performance.page(tmp_path)


def test_a_table_without_its_file_is_left_out(tmp_path: Path, scripts: Any) -> None:
    performance = scripts("performance")
    assert performance.page(tmp_path) == performance.HEAD
    write_json(tmp_path / "train.json", trained())
    page = performance.page(tmp_path)
    assert page.count("\n## ") == 1 and "## Time to robustness" in page and "not measured" not in page


def test_the_page_is_what_the_results_say(scripts: Any) -> None:
    performance = scripts("performance")
    if performance.PAGE.exists():
        assert performance.PAGE.read_text(encoding="utf-8") == performance.page(performance.RESULTS)


@pytest.mark.slow
def test_the_gpu_command_goes_on_where_it_stopped(tmp_path: Path) -> None:
    """Three calls: none has time for all of it, the last one finds the state of the others packed."""
    words = ["--data", "mnist-5k", "--device", "cpu", "--smoke", "--pack", str(tmp_path / "pack")]
    command = [sys.executable, str(BENCHMARKS / "gpu.py"), *words]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    for place, more in (("a", []), ("b", ["--previous", str(tmp_path / "pack")])):
        minutes = ["--minutes", "0.4" if place == "a" else "8"]
        ended = subprocess.run(
            [*command, "--out", str(tmp_path / place), *minutes, *more], env=environment, capture_output=True, text=True
        )
        assert ended.returncode == 0, ended.stderr
    found = read_json(tmp_path / "pack" / "gpu.json")
    assert "done" in ended.stdout and [call["done"] for call in found["calls"]] == [False, True]
    assert all(piece["done"] for piece in found["pieces"].values()) and len(found["pieces"]) == 6
    assert "step" in found["pieces"]["compiled steps"]["default"]
    assert found["pieces"]["training"]["epochs_done"] == found["pieces"]["training"]["epochs"] == 2


@pytest.mark.parametrize("name", COMMANDS)
def test_a_script_explains_itself(
    name: str, scripts: Any, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "argv", [f"{name}.py", "--help"])
    with pytest.raises(SystemExit) as ended:
        scripts(name).main()
    told = capsys.readouterr().out
    assert not ended.value.code and told.startswith(f"usage: {name}.py") and len(told.splitlines()) > 5


def test_the_page_has_the_figures_of_the_search_s_trials() -> None:
    log = read_json(BENCHMARKS / "results" / "search-mnist.json")
    page = (ROOT / "docs" / "results" / "mnist.md").read_text(encoding="utf-8")
    section = page.partition("## eFGSM with parts of a recipe of our own")[2].partition("\n## ")[0]
    assert [trial["settings"]["method"] for trial in log["trials"]] == ["NuAT", *["EFGSM"] * 4]
    for trial in log["trials"][1:]:
        assert f"| {100 * trial['clean']:.1f} | {100 * trial['robust']:.1f} |\n" in section
    own = page.partition("## A recipe of our own: toughen-mnist")[2].partition("\n## ")[0]
    assert len(log["ablation"]) == 6
    for lines in log["ablation"].values():  # of the first trial, without each of its parts
        seeds = ", ".join(str(line["seed"]) for line in lines)
        clean, robust = (", ".join(f"{100 * line[name]:.1f}" for line in lines) for name in ("clean", "robust"))
        assert f"| {seeds} | {clean} | {robust} |\n" in own
    found = log["full run"]["evaluation"]
    low, high = (100 * share for share in found["interval"]["robust_accuracy"])
    text = " ".join(section.split())
    assert f"{100 * found['clean_accuracy']:.1f} % clean, " in text
    assert f"{100 * found['robust_accuracy']:.1f} % under AutoAttack (95 % interval {low:.1f} to {high:.1f})" in text


def test_the_page_has_the_figures_of_the_search_with_eight_epochs(scripts: Any) -> None:
    search, page = scripts("search"), (ROOT / "docs" / "results" / "mnist.md").read_text(encoding="utf-8")
    task, log = search.TASKS["mnist-8-epochs"], read_json(BENCHMARKS / "results" / "search-mnist-8-epochs.json")
    trials = sorted(log["trials"], key=lambda trial: trial["trial"])
    assert [search.whole(task, trial["settings"]) for trial in trials] == list(task.first)
    names = {"lam": "lam ", "stretch": "stretch ", "eps_factor": "trained at "}
    rows = page.partition("### Eight epochs")[2].partition("\n### ")[0].split("\n| ")[2:]
    assert len(rows) == len(trials)
    for row, trial in zip(rows, trials, strict=True):
        setting, clean, robust = (cell.strip() for cell in row.partition("\n")[0].strip("| ").split("|"))
        assert [clean, robust] == [f"{100 * trial[name]:.1f}" for name in ("clean", "robust")]
        assert setting.startswith(trial["settings"]["optimizer"])
        for name, text in names.items():  # what the row says is what was set
            assert text not in setting or setting.partition(text)[2].startswith(f"{trial['settings'][name]:g}")
        assert ("twice the width" in setting) == (trial["settings"]["width"] == 64)
        assert ("no shifts" in setting) == (trial["settings"]["crop"] == 0)


def test_signs_of_a_collapse_are_found_where_they_are(scripts: Any) -> None:
    """Nineteen measurements of a sound run, then one after another: distance, alignment, PGD accuracy."""
    signals = scripts("collapse_signals")
    row = {"clean": 1.0, "fgsm": 0.9, "pgd": 0.8, "distance": 1.0, "alignment": 0.8}
    rows = [{"step": 40.0 * number, **row} for number in range(1, 61)]
    assert set(signals.signs(rows).values()) == {None}
    for later in rows[19:]:
        later["alignment"] = 0.59  # below three quarters; a median of five has it at the third
    assert signals.signs(rows) == {"fall": None, "jump": None, "alignment": 880.0, "alignment and distance": None}
    for later in rows[29:]:
        later["distance"] = 1.2
    for later in rows[39:]:
        later["distance"] = 3.7  # more than three times the median of the last 20, 1.1
    for later in rows[49:]:
        later["pgd"] = 0.39
    found = {"fall": 2000.0, "jump": 1600.0, "alignment": 880.0, "alignment and distance": 1280.0}
    assert signals.signs(rows) == found
    rows[2]["alignment"] = 9.0  # during the warm-up of eps, which is not looked at
    assert signals.signs(rows) == found


def test_equal_times_give_the_epochs_and_the_average(scripts: Any) -> None:
    """NuAT-WA keeps 0.9998 in 100 epochs: 5,000 of 78,200 steps. In 20 epochs the same share is 1,000 steps."""
    equal = scripts("equal_time")
    assert equal.length("nuat-wa-cifar10", "cifar10", 3600.0, 171.5) == {"epochs": 20, "averaging": 0.999}
    assert equal.length("pgd-cifar10", "cifar10", 100.0, 171.5) == {"epochs": 1}  # which has no average


def test_runs_of_equal_time_are_collected(tmp_path: Path, scripts: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    equal = scripts("equal_time")
    found = {"nuat-wa-cifar10-0": 0.4, "nuat-wa-cifar10-2": 0.39, "nuat-wa-cifar10-11": 0.42, "liet-cifar10-0": None}
    for name in found:
        (tmp_path / name).mkdir()
    robust = {name: None if share is None else {"robust": share} for name, share in found.items()}
    monkeypatch.setattr(equal, "figures", lambda folder, limit: robust[folder.name])
    asked = {"hours": 1.0, "width": 16, "limit": 1000}
    known = argparse.Namespace(**asked, out=tmp_path, data="cifar10", write=tmp_path / "log.json")
    time = {"seconds_per_epoch": 360.0, "spread": [359.0, 366.0]}
    times = {"rounds": 5, "steps": 4, "provenance": {}, "rows": {"nuat-wa-cifar10": time, "liet-cifar10": time}}
    rows = equal.collect(known, times)["rows"]
    assert rows["nuat-wa-cifar10"]["robust"] == [0.4, 0.39, 0.42] and rows["nuat-wa-cifar10"]["epochs"] == 10
    assert list(rows["nuat-wa-cifar10"]["seeds"]) == ["0", "11", "2"]
    assert rows["liet-cifar10"]["seeds"] == {} and "robust" not in rows["liet-cifar10"]

    write_json(known.write, equal.collect(known, times))
    known.out = tmp_path / "gone"  # another machine, with the log alone
    known.out.mkdir()
    log = equal.logged(known)
    assert equal.step_times(known, log) == times and equal.collect(known, times) == log
    known.hours = 2.0
    with pytest.raises(ValueError, match="has other hours"):
        equal.logged(known)


def test_the_page_has_the_figures_of_equal_time() -> None:
    log = read_json(BENCHMARKS / "results" / "equal-time-cifar10.json")
    page = (ROOT / "docs" / "results" / "cifar10.md").read_text(encoding="utf-8")
    section = page.partition("## A recipe of our own: toughen-cifar10")[2].partition("\n## ")[0]
    done = {name: row for name, row in log["rows"].items() if row["seeds"]}
    assert done.keys() >= {"toughen-cifar10", "nuat-wa-cifar10"}
    for name, row in done.items():
        low, high = row["spread"]
        assert f"| `{name}` | {row['epochs']} | {row['seconds_per_epoch']} ({low} to {high}) |" in section
        line = section.partition(f"| `{name}` |")[2].partition("\n")[0]
        found = [cell.split()[0] for cell in line.split(" | ")[2:4]]
        middle = [median(100 * each[figure] for each in row["seeds"].values()) for figure in ("clean", "robust")]
        assert found == [f"{each:.1f}" for each in middle], name


def test_toughen_cifar10_is_the_run_of_an_hour() -> None:
    """But for the number of the average, which the stretching to the hour gave more digits."""
    ran = read_json(ROOT / "results" / "toughen-cifar10-1-hour.json")["config"]
    recipe = yaml.safe_load(recipe_yaml(parse_train(["toughen-cifar10"])[0]))
    assert round(ran.pop("averaging"), 4) == recipe.pop("averaging")
    assert {**ran, "data": "cifar10"} == recipe


def test_the_page_has_the_figures_of_muon_on_folders() -> None:
    page = (ROOT / "docs" / "explanation" / "defaults.md").read_text(encoding="utf-8")
    section = page.partition("### Muon instead of SGD")[2].partition("\n### ")[0]
    rows = {
        name: row for name, row in read_json(BENCHMARKS / "results" / "folders-muon.json").items() if name != "notes"
    }
    for name, row in rows.items():
        place, eps, *_, rate = name.split()
        line = section.partition(f"| {place} | {eps} |")[2].partition("\n")[0].split("|")
        column = ["0.01", "0.02", "0.04"].index(rate) + 1
        assert line[column].strip() == f"{100 * row['clean']:.1f}", name
        assert line[column + 4].strip() == f"{100 * row['apgd-t']:.1f}", name
