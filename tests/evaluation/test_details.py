"""What an evaluation writes for a report: the gallery's images are those of the evaluation, and nothing is lost."""

from __future__ import annotations

import io
import json
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch
from commands import digits, refused, toughen
from paths import NETS
from PIL import Image
from problems import trained_net, unchanged
from torch import Tensor, nn

import toughen as package
from toughen import data, runs
from toughen.attacks import PGD, Adaptive, Attack, LogitMatrix
from toughen.evaluation.details import to_run
from toughen.evaluation.result import Evaluation
from toughen.evaluation.state import State

NET = NETS / "fbf"
HOW = f"--data {digits()} --eps 0.3 --attacks pgd-1x8@0.4 apgd-ce-10 --limit 40".split()
HOW += "--verdict false --batch_size 8 --out".split()


@pytest.fixture(scope="module")
def evaluated(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An evaluation of a robust net on 40 digits."""
    out = tmp_path_factory.mktemp("details") / "out"
    assert toughen("evaluate", NET, *HOW, out).status == 0
    return out


def pixels(png: bytes) -> Any:
    """A PNG's pixels in [0, 1]."""
    with Image.open(io.BytesIO(png)) as image:
        return np.asarray(image, dtype=np.float64) / 255


def test_the_gallery_shows_what_the_ledger_says(evaluated: Path) -> None:
    shown = pq.read_table(evaluated / "gallery.parquet").to_pylist()
    ledger = {row["index"]: row for row in pq.read_table(evaluated / "examples.parquet").to_pylist()}
    outcomes = [row["outcome"] for row in shown]
    assert "broken" in outcomes and "stands" in outcomes and max(map(outcomes.count, set(outcomes))) <= 8
    for row in shown:
        said = ledger[row["index"]]
        assert (row["label"], row["prediction"]) == (said["label"], said["prediction"])
        if row["outcome"] == "broken":  # the very image that broke it
            assert row["attack"] == said["broken_by"] and row["attacked_prediction"] != row["label"]
            assert row["distance"] == pytest.approx(said["distance"], abs=1e-6)
        elif row["outcome"] == "stands":
            assert said["broken_by"] is None and row["attacked_prediction"] == row["label"] == row["prediction"]
        else:
            assert row["prediction"] != row["label"] and row["attacked"] is None


def test_a_fallen_image_is_shown_as_the_start_that_broke_it_left_it() -> None:
    state = State(None, 2)
    state.of("pgd").broken[0], state.of("pgd").broken_by[0] = True, 2  # the third of three starts broke the first image
    split = data.load("mnist-5k").test.take(torch.arange(2))
    found = Evaluation(split, torch.arange(2), split.labels, {"pgd": ["pgd"] * 3}, state)
    ((piece, rows),) = to_run(found, {"broken": [0], "stands": []}, {"pgd": PGD(eps=0.3, restarts=3)})
    assert (piece.part, piece.number, rows) == ("pgd", 2, [0])


@pytest.mark.parametrize(
    "attack",
    [
        LogitMatrix(eps=0.3),
        pytest.param(Adaptive(eps=0.3, defence="nuclear", weight=4, group=40, steps=5), marks=pytest.mark.slow),
    ],
)
def test_the_gallery_of_an_attack_that_couples_images_shows_what_it_did(attack: Attack, tmp_path: Path) -> None:
    """With others of the batch left out, the same image gets another perturbation, which may not break it."""
    split = data.load("mnist-5k").test.take(torch.arange(0, 1000, 10))
    attacks = {"first": PGD(eps=0.3, steps=1), "coupled": attack, "last": PGD(eps=0.3, steps=2)}
    package.evaluate(package.load(NET), split, eps=0.3, attacks=attacks, verdict=False, out=tmp_path)
    ledger = {row["index"]: row for row in pq.read_table(tmp_path / "examples.parquet").to_pylist()}
    shown = [row for row in pq.read_table(tmp_path / "gallery.parquet").to_pylist() if row["outcome"] == "broken"]
    assert "coupled" in {row["attack"] for row in shown}
    for row in shown:
        assert row["attack"] == ledger[row["index"]]["broken_by"] and row["attacked_prediction"] != row["label"]
        assert row["distance"] == pytest.approx(ledger[row["index"]]["distance"], abs=1e-6)


def test_the_gallery_s_pictures_are_the_images(evaluated: Path) -> None:
    """The clean one is a file of the data set; the twin lies within eps; the difference is the amplified one."""
    originals = {path.read_bytes() for path in (digits() / "test").rglob("*.png")}
    files = [pixels(png) for png in originals]
    for row in pq.read_table(evaluated / "gallery.parquet").to_pylist():
        clean = pixels(row["image"])
        assert any(np.array_equal(clean, file) for file in files)
        if row["attacked"]:
            delta = pixels(row["attacked"]) - clean
            assert 0.05 < np.abs(delta).max() <= 0.3 + 1 / 255
            assert np.abs(pixels(row["difference"]) - (0.5 + row["gain"] * delta)).max() < 0.03


def test_the_default_diagnostics(evaluated: Path) -> None:
    found = json.loads((evaluated / "diagnostics.json").read_text())
    assert found.keys() == {"eps", "steps", "surface", "confusion"}
    result = json.loads((evaluated / "evaluation.json").read_text())
    assert found["eps"]["eps"] == [0.0, 0.075, 0.15, 0.225, 0.3, 0.375, 0.45, 0.6]  # 1.2 is beyond what pixels can be
    assert found["eps"]["accuracy"][0] == found["confusion"]["clean"]["accuracy"] == result["clean_accuracy"]
    assert result["clean_accuracy"] >= found["steps"]["accuracy"][0] > found["steps"]["accuracy"][-1]
    assert sum(map(sum, found["confusion"]["attacked"]["matrix"])) == 40
    assert {name: each["about"]["threat"]["eps"] for name, each in found.items()} == dict.fromkeys(found, 0.3)


def test_nothing_more_is_written_where_it_is_not_wanted(tmp_path: Path) -> None:
    assert toughen("evaluate", NET, *HOW, tmp_path / "out", "--details", "false").status == 0
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == ["evaluation.json", "examples.parquet"]


def test_an_earlier_gallery_is_kept_with_its_evaluation(evaluated: Path, tmp_path: Path) -> None:
    shutil.copytree(evaluated, tmp_path / "out")
    assert toughen("evaluate", NET, *HOW, tmp_path / "out", "--seed", 1).status == 0
    assert (tmp_path / "out/gallery.1.parquet").read_bytes() == (evaluated / "gallery.parquet").read_bytes()
    assert (tmp_path / "out/gallery.parquet").is_file()


@pytest.mark.slow
def test_what_diagnose_found_is_not_replaced(tmp_path: Path) -> None:
    record = replace(runs.read_record(NET), data=str(digits()))
    (tmp_path / "run").mkdir()
    runs.write_model(tmp_path / "run", record, runs.load(NET))
    assert toughen("diagnose", tmp_path / "run", "--which", "steps", "--limit", 20).status == 0
    path = tmp_path / "run/diagnostics.json"
    before = json.loads(path.read_text())["steps"]
    assert toughen("evaluate", tmp_path / "run", *HOW, tmp_path / "run").status == 0
    after = json.loads(path.read_text())
    assert after["steps"] == before and after["eps"]["about"]["by"] == "evaluate"
    net = runs.load(NET)
    with torch.no_grad():
        next(net.parameters()).mul_(1.01)
    runs.write_model(tmp_path / "run", record, net)  # nothing there is of these weights
    assert toughen("evaluate", tmp_path / "run", *HOW, tmp_path / "run", "--details", "false").status == 0
    assert not path.exists() and json.loads((tmp_path / "run/diagnostics.1.json").read_text()) == after


def test_curves_of_an_earlier_evaluation_are_not_shown_as_the_new_one_s(evaluated: Path, tmp_path: Path) -> None:
    shutil.copytree(evaluated, tmp_path / "out")
    before = (evaluated / "diagnostics.json").read_bytes()
    assert toughen("evaluate", NET, *HOW, tmp_path / "out", "--seed", 1, "--details", "false").status == 0
    assert not (tmp_path / "out/diagnostics.json").exists()
    assert (tmp_path / "out/diagnostics.1.json").read_bytes() == before


def test_another_evaluation_goes_beside_the_run_s_own(tmp_path: Path) -> None:
    shutil.copytree(NET, tmp_path / "run")
    words = ["evaluate", tmp_path / "run", "--attacks", "fgsm", "--verdict", "false", "--limit", 10]
    ended = toughen(*words, "--data", digits())
    refused(ended, "another evaluation", "--out")
    refused(toughen(*words, "--data", "mnist-5k", "--eps", 0.1), "linf eps 0.3", "--out")
    assert not list((tmp_path / "run").glob("evaluation*"))
    assert toughen(*words, "--data", digits(), "--out", tmp_path / "run/folder").status == 0
    assert (tmp_path / "run/folder/gallery.parquet").is_file()


def test_a_model_of_one_s_own_has_a_gallery_too(tmp_path: Path) -> None:
    net = package.load(NET)
    test = data.load(str(digits())).test
    how: dict[str, Any] = {"eps": 0.1, "attacks": ["fgsm"], "verdict": False, "limit": 10}
    package.evaluate(net, test, **how, out=tmp_path / "out")
    names = pq.read_table(tmp_path / "out/gallery.parquet")["label_name"].to_pylist()
    assert set(names) <= {str(label) for label in range(10)}


def test_a_model_in_training_mode_is_shown_in_evaluation_mode_and_keeps_its_statistics(tmp_path: Path) -> None:
    net, split = trained_net(), data.load("mnist-5k").test.take(torch.arange(0, 1000, 25))
    how: dict[str, Any] = {"eps": 0.1, "attacks": ["fgsm"], "verdict": False}
    with unchanged(net):
        package.evaluate(net, split, **how, out=tmp_path / "training")
    package.evaluate(net.eval(), split, **how, out=tmp_path / "evaluation")
    first, second = (pq.read_table(tmp_path / name / "gallery.parquet") for name in ("training", "evaluation"))
    assert first.equals(second)


def test_an_image_whose_logits_an_attack_made_undefined_is_shown_without_a_class(tmp_path: Path) -> None:
    def dark(x: Tensor) -> Tensor:
        mean = x.mean((1, 2, 3))
        return torch.stack([torch.where(mean > 0.37, mean, torch.nan), 0 * mean], 1)

    images = torch.full((2, 1, 4, 4), 0.55)
    package.evaluate(
        dark, (images, torch.zeros(2).long()), eps=0.2, attacks=["fgsm"], verdict=False, out=tmp_path / "out"
    )
    shown = pq.read_table(tmp_path / "out/gallery.parquet").to_pylist()
    assert [(row["attacked_prediction"], row["attacked_prediction_name"]) for row in shown] == [(-1, "none")] * 2


def test_of_many_classes_without_names_there_is_no_confusion_matrix(tmp_path: Path) -> None:
    net = nn.Sequential(nn.Flatten(), nn.Linear(16, 101))
    images, labels = torch.rand(4, 1, 4, 4), torch.arange(4)
    package.evaluate(net, (images, labels), eps=0.1, attacks=["fgsm"], verdict=False, out=tmp_path / "out")
    assert "confusion" not in json.loads((tmp_path / "out/diagnostics.json").read_text())
