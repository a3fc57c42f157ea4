"""`toughen reproduce`: what it trains, measures, keeps, prints and refuses, on a few real images."""

from __future__ import annotations

import io
import json
import math
import random
import re
import shutil
import sys
from collections.abc import Iterable
from datetime import date
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
import yaml
from commands import digits, diverges, refused, reproduce, toughen
from paths import ROOT
from PIL import Image
from rich.console import Console
from torch import nn

from toughen import runs
from toughen.attacks.autoattack import AutoAttack
from toughen.attacks.pgd import PGD
from toughen.core.threat import Threat
from toughen.data import load_test
from toughen.engine.fixed_batch import FixedBatchModel
from toughen.papers import curves, datasets, markdown, measure, samples
from toughen.papers.arguments import at_hand, exhibits_of, places_of
from toughen.papers.costs import costs, training_cost
from toughen.papers.overview import list_lines, short
from toughen.papers.progress_board import ProgressBoard, Training, logit_distances
from toughen.papers.published import EXHIBITS, find
from toughen.papers.published.exhibits import Column, Panel, Row, Table
from toughen.papers.run_spec import run_spec
from toughen.papers.scales import SCALES
from toughen.papers.settings_match import agree
from toughen.papers.store import Quantity, Store
from toughen.papers.tasks import make_tasks, table_run_spec
from toughen.papers.terminal import curve_lines, panel_lines
from toughen.papers.values import View, lacking, published, written

PAGE, RESULTS = ROOT / "docs" / "results" / "reproduction.md", ROOT / "results" / "reproduction"


def table(name: str) -> Table:
    found = find(name)
    assert isinstance(found, Table)
    return found


# ---- Running.


def width(lines: Iterable[str]) -> int:
    """Of the longest line, but for where the results lie, which is as long as the user made it."""
    return max(len(line) for line in lines if not line.startswith("results: "))


def test_a_table_is_run_kept_and_shown_beside_the_published_one(tmp_path: Path) -> None:
    ended = reproduce(tmp_path, "pap-table3", "--rows", "fgsm-at")
    assert ended.status == 0, ended.err
    lines = ended.out.splitlines()
    assert "its results have no meaning" in ended.out.replace("\n", " ") and width(lines) <= 80
    (paper,) = (line for line in lines if line.startswith("FGSM-AT"))
    assert paper.split() == ["FGSM-AT", "paper", "99.29", "98.61", "29.90", "28.14", "22.05", "12.41"]
    (ours,) = (line.split() for line in lines if line.split()[:1] == ["ours"])
    (difference,) = (line.split() for line in lines if line.split()[:1] == ["diff"])
    for place, figure in enumerate(paper.split()[2:]):
        assert float(difference[place + 1]) == pytest.approx(float(ours[place + 1]) - float(figure), abs=0.011)
    (folder,) = (path for path in (tmp_path / "smoke").iterdir() if path.name.startswith("fgsm-mnist-"))
    assert float(ours[1]) == pytest.approx(100 * clean_accuracy(folder / "run", tmp_path))
    cells = [json.loads(path.read_text()) for path in (folder / "cells").glob("*.json")]
    assert len(cells) == 6
    for cell in cells:
        assert (cell["recipe"], cell["scale"], cell["seed"], cell["images"]) == ("fgsm-mnist", "smoke", 0, 40)
        assert cell["seconds"] >= 0 and {"torch", "processor", "commit"} <= cell["provenance"].keys()
    again = reproduce(tmp_path, "pap-table3", "--rows", "fgsm-at", "--limit", 20)
    assert "ours on a stratified sample of 20 test images" in again.out.replace("\n", " ")


def clean_accuracy(run: Path, out: Path) -> float:
    """By the run's net alone, on the images that lie in the sample's folder."""
    model, right, count = runs.load(run), 0, 0
    for row in pq.read_table(out / "smoke" / "images" / "mnist" / "test.parquet").to_pylist():
        picture = Image.open(io.BytesIO(row["image"]["bytes"]))
        x = torch.tensor(list(picture.get_flattened_data())).view(1, 1, 28, 28) / 255
        right, count = right + int(model(x).argmax() == row["label"]), count + 1
    assert count == 40
    return right / count


def test_what_is_there_is_neither_trained_nor_measured_again(tmp_path: Path) -> None:
    first = reproduce(tmp_path, "pap-table7", "--rows", "FGSM-AT")
    files = {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*") if path.is_file()}
    second = reproduce(tmp_path, "pap-table7", "--rows", "FGSM-AT")
    assert first.status == second.status == 0 and first.out == second.out and second.err == ""
    assert files == {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*") if path.is_file()}
    assert [line.split() for line in first.out.splitlines() if line.split()[:1] == ["ours"]] == [
        ["ours", "1"],
        ["ours", "-"],
    ]


def test_a_command_that_was_stopped_goes_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    words = ("pap-table6", "--rows", "PAP FGSM")
    measured: list[str] = []
    whole = measure.accuracy

    def stopped(subject: Any, of: str, *more: Any) -> float:
        if measured:
            raise KeyboardInterrupt
        measured.append(of)
        return whole(subject, of, *more)

    def going_on(subject: Any, of: str, *more: Any) -> float:
        measured.append(of)
        return whole(subject, of, *more)

    monkeypatch.setattr(measure, "accuracy", stopped)
    ended = reproduce(tmp_path, *words)
    assert ended.status == 130 and ended.err.splitlines()[-1].endswith("the same command continues it")
    monkeypatch.setattr(measure, "accuracy", going_on)
    assert reproduce(tmp_path, *words).status == 0
    assert measured == ["pgd-100@0.01", "pgd-r-100@0.01", "pgd-ll-100@0.01"]


def test_a_row_that_diverges_is_said_and_the_others_are_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    diverges(monkeypatch, lambda trainer: type(trainer.method).__name__ == "FGSMAT")
    ended = reproduce(tmp_path, "pap-table7", "--rows", "FGSM-AT,PAP (ours)")
    assert ended.status == 1
    assert "FGSM-AT on mnist, SmallCNN: could not be trained: the loss became nan" in ended.out
    figures = [line.split()[1] for line in ended.out.splitlines() if line.split()[:1] == ["ours"]]
    assert figures[0] == "-" and 1 < float(figures[1]) < 1.3


def test_a_source_that_diverges_costs_only_the_rows_that_learn_from_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    diverges(monkeypatch, lambda trainer: trainer.recipe.model == "B")
    ended = reproduce(tmp_path, "rmgm-table7", "--rows", "Normal,EAT")
    assert ended.status == 1
    said = "EAT: A: could not be trained: its source eat-mnist --method Standard --eps null --model B"
    assert said in " ".join(ended.out.split())
    figures = [line.split()[1] for line in ended.out.splitlines() if line.split()[:1] == ["ours"]]
    assert figures[:2] == ["1", "-"]


def test_a_source_that_diverges_costs_only_what_it_is_shown_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The model itself is trained, and the column that needs no source is measured."""
    diverges(monkeypatch, lambda trainer: type(trainer.method).__name__ == "Standard")
    ended = reproduce(tmp_path, "pap-table5", "--rows", "FGSM-AT")
    assert ended.status == 1
    said = " ".join(ended.out.split())
    assert "the black-box source for FGSM-AT on mnist, SmallCNN: could not be trained: the loss became nan" in said
    figures = [line.split()[1:] for line in ended.out.splitlines() if line.split()[:1] == ["ours"]]
    assert 0 <= float(figures[0][0]) <= 100 and figures[0][1] == "-"


@pytest.mark.slow
def test_a_black_box_column_shows_another_net_s_images(tmp_path: Path) -> None:
    ended = reproduce(tmp_path, "rmgm-table5", "--rows", "Proposed")
    assert ended.status == 0, ended.err
    names = {path.name.rsplit("-", 1)[0] for path in (tmp_path / "smoke").iterdir() if path.name != "images"}
    assert names == {"rmgm-mnist", "eat-mnist"}
    assert len(list((tmp_path / "smoke").glob("eat-mnist-*"))) == 2  # models A and B
    (folder,) = (tmp_path / "smoke").glob("rmgm-mnist-*")
    sources = {json.loads(path.read_text())["source"] for path in (folder / "cells").glob("fgsm-*.json")}
    assert len(sources) == 2 and all("--method Standard" in words for words in sources)


@pytest.mark.parametrize("name", ["pap-figure2", "pap-figure3", pytest.param("rmgm-figure4", marks=pytest.mark.slow)])
def test_a_figure_is_drawn_as_numbers(tmp_path: Path, name: str) -> None:
    rows = () if name.startswith("rmgm") else ("--rows", "PAP FGSM")
    ended = reproduce(tmp_path, name, *rows)
    assert ended.status == 0, ended.err
    assert width(ended.out.splitlines()) <= 80
    why = f"not run: its images are not available: {digits()} holds mnist"
    assert "CIFAR-10" in ended.out and why in " ".join(ended.out.split())
    assert {"pap-figure2": "\n0.3 * ", "pap-figure3": "random starts", "rmgm-figure4": "r-fgsm"}[name] in ended.out


def test_a_long_curve_is_printed_in_part_and_says_so() -> None:
    steps = list(range(50, 50 * 1059, 50))
    lines = curve_lines({"x": "step", "at": steps, "series": {"distance": [step // 50 for step in steps]}}, "0.3")
    printed = [[int(word) for word in line.split()] for line in lines[1:-1]]
    assert all(step == 50 * value for step, value in printed)
    places = [value for _, value in printed]
    assert places[:8] == [1, 2, 3, 4, 5, 6, 7, 8] and places[-1] == 1058 and len(places) <= 60
    gaps = [after - before for before, after in zip(places[:-1], places[1:], strict=True)]
    assert max(gaps) == gaps[-1] < 1058 / 8, "no stretch without a place, and none missing at the end"
    assert lines[-1] == f"{len(places)} of 1,058 points, denser at the start"
    whole = curve_lines({"x": "epoch", "at": list(range(60)), "series": {"loss": [0.5] * 60}}, "0.3")
    assert len(whole) == 61 and whole[-1].split() == ["59", "0.5"]


KINDS = {
    "nuat-figure1": ("", "orthogonal"),
    "nuat-figure2": ("", "frobenius"),
    "nuat-figure3a": ("", "broken"),
    "nuat-entropy": ("", "ours"),
    "nuat-seeds": ("NuAT", "ours"),
    "efgsm-early-stop": ("", "ours"),
    "dat-figure-attacks": ("", "epoch"),
    "dat-figure-steps": ("DAT", "steps"),
    "dat-figure-generalization": ("", "epoch"),
    "rmgm-table7": ("Normal,EAT", " x"),
}


@pytest.mark.slow
@pytest.mark.parametrize("name", KINDS)
def test_each_kind_of_table_and_figure_is_run(tmp_path: Path, name: str) -> None:
    rows, said = KINDS[name]
    (tmp_path / "sets").mkdir()
    (tmp_path / "sets" / "mnist").symlink_to(digits(), target_is_directory=True)
    words = ("reproduce", name, "--scale", "smoke", "--data", tmp_path / "sets", "--out", tmp_path / "out")
    ended = toughen(*words, *(("--rows", rows) if rows else ()))
    assert ended.status == 0, ended.err
    assert said in ended.out and "not run" not in ended.out and width(ended.out.splitlines()) <= 80, ended.out
    for line in ended.out.splitlines():
        if line.split()[:1] == ["ours"]:
            assert "-" not in line.split(), ended.out


@pytest.mark.slow
def test_what_is_seen_and_kept_within_training_is_drawn(tmp_path: Path) -> None:
    ended = reproduce(tmp_path, "rmgm-figure1")
    assert ended.status == 0, ended.err
    assert "logit distance" in ended.out and "fgsm, step 1" in ended.out and "fgsm, step 3" in ended.out
    assert "losses on 8 validation images" in ended.out and "on 40 images" not in ended.out
    assert ": train: " in ended.err
    (run,) = (tmp_path / "smoke").glob("rmgm-mnist-*")
    again = reproduce(tmp_path, "rmgm-table3", "--rows", "FGSM")
    assert again.status == 0 and ": clean: done" in again.err and ": train: " not in again.err
    assert list((tmp_path / "smoke").glob("rmgm-mnist-*")) == [run]
    next((run / "cells").glob("watched-*")).unlink()
    (run / "run" / "kept" / "step-3.safetensors").unlink()
    ended = reproduce(tmp_path, "rmgm-figure1")
    refused(ended, "step-3.safetensors is missing", f"remove {run}, and the model is trained again")


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("pap-table33",), ("pap-table33", "did you mean pap-table3")),
        (("pap-table3",), ("--scale smoke",)),
        (("pap-table3", "--scale", "smoke", "--rows", "NuAT"), ("no row 'NuAT'", "PAP FGSM")),
        (("pap-table3", "--scale", "smoke", "--seeds", "0"), ("seeds is 0",)),
        (("nuat-imagenet", "--scale", "smoke"), ("needs imagenet", "holds mnist")),
        (("dat-table1", "--scale", "smoke", "--rows", "DAT early stop"), ("needs cifar10", "holds mnist")),
        (("pap-table3", "--scale", "full"), ("60,000 training and 10,000 test images", "80 and 40")),
        (("--scale", "smoke"), ("no table or figure is named",)),
        (("NUAT-TABLE1A", "--scale", "smoke"), ("did you mean nuat-table1a",)),
        (("pap-table3", "--scale", "smoke", "--rows", ","), ("no row ''", "PAP FGSM")),
        (("pap-table3", "--scale", "smoke", "--rows", ""), ("no row ''", "PAP FGSM")),
        (("pap-table3", "--scale", "smoke", "--seeds", "100000000"), ("seeds is 100000000", "at most 10")),
        (("pap-table3", "--scale", "smoke", "--limit", "1e3"), ("limit must be", "whole number", "not 1000.0")),
        (("pap-figure2", "--scale", "smoke", "--seeds", "3"), ("is a figure", "leave --seeds out")),
        (("pap-table1", "--limit", "0"), ("only states settings", "leave --limit out")),
        (("pap-table1", "--time-limit", "1h"), ("only states settings", "leave --time-limit out")),
        (("all", "--scale", "smoke", "--seeds", "0"), ("seeds is 0",)),
        (("all", "--scale", "smoke", "--limit", "-5"), ("limit is -5",)),
        (("pap-table1", "--list"), ("leave pap-table1 out",)),
        (("dat-table1", "--scale", "smoke", "--net", "vgg"), ("dat-table1 has no net 'vgg'", "WRN-28-10, ResNet-18")),
        (("all", "--scale", "smoke", "--net", "vgg"), ("no table or figure has a net 'vgg'", "M-LeNet")),
        (("dat-table1", "--scale", "smoke", "--net", "resnet-50", "--rows", "RAT early stop"), ("no row", "RAT, DAT")),
        (("pap-table1", "--net", "SmallCNN"), ("only states settings", "leave --net out")),
    ],
)
def test_what_cannot_be_run_is_refused(words: tuple[str, ...], said: tuple[str, ...], tmp_path: Path) -> None:
    refused(toughen("reproduce", *words, "--data", digits(), "--out", tmp_path / "out"), *said)
    assert not (tmp_path / "out").exists()


def test_one_net_s_rows_are_run_alone(tmp_path: Path) -> None:
    assert reproduce(tmp_path, "dat-table1", "--net", "Two-layer CNN", "--rows", "DAT").status == 0
    ended = reproduce(tmp_path, "dat-table1", "--net", "ResNet-18")
    refused(ended, "needs cifar10")  # the only net's only data set; without --net, MNIST's panel would be run
    (run,) = (path for path in (tmp_path / "smoke").iterdir() if path.name.startswith("dat-"))
    assert run.name.startswith("dat-mnist-")


def test_a_net_is_taken_out_of_every_table_and_figure_that_has_it() -> None:
    found = {each.name: each for each in exhibits_of(["all"], None, "resnet-18", None, None)}
    assert {"dat-table1", "dat-figure-steps", "dat-figure-eps", "pap-table7"} <= found.keys()
    assert not {"dat-hours", "nuat-figure3b", "rmgm-table3"} & found.keys()  # only other nets
    assert {part.net for each in found.values() for part in each.parts} == {"ResNet-18"}
    (whole,) = exhibits_of(["dat-table1"], None, None, None, None)
    assert [part.net for part in whole.parts] == ["WRN-28-10", "ResNet-18", "ResNet-50", "two-layer CNN"]
    (one,) = exhibits_of(["dat-table1"], ["DAT"], "ResNet-18", None, None)
    assert one.parts == whole.parts[1:2]


def test_one_reason_is_said_once_for_all_data_sets(tmp_path: Path) -> None:
    words = ("reproduce", "nuat-table2", "--scale", "smoke", "--data", tmp_path)
    ended = toughen(*words, "--out", tmp_path / "out")
    refused(ended, "needs cifar10 or imagenet100 or mnist: ", "is an empty folder", lines=1)
    assert ended.err.count("is an empty folder") == 1


def test_a_sample_of_other_images_is_not_used(tmp_path: Path) -> None:
    """Images are known by what is in them, not by where they lie."""
    first = Path(shutil.copytree(digits(), tmp_path / "first"))
    place = samples.at_scale("mnist", str(first), SCALES["smoke"], tmp_path / "out")
    first = first.rename(tmp_path / "moved")
    assert samples.at_scale("mnist", str(first), SCALES["smoke"], tmp_path / "out") == place
    picture = sorted(first.rglob("*.png"))[0]
    Image.fromarray(255 - np.asarray(Image.open(picture))).save(picture)
    with pytest.raises(ValueError, match=r"sample of other images.*--out"):
        samples.at_scale("mnist", str(first), SCALES["smoke"], tmp_path / "out")


@pytest.mark.parametrize("harm", ["half written", "one more", "one less", "another image", "binary"])
def test_a_sample_that_is_not_as_it_was_written_is_not_used(harm: str, tmp_path: Path) -> None:
    place = samples.at_scale("mnist", str(digits()), SCALES["smoke"], tmp_path)
    assert samples.at_scale("mnist", str(digits()), SCALES["smoke"], tmp_path) == place
    first = sorted(Path(place).rglob("*.parquet"))[0]
    if harm == "half written":
        (Path(place) / "origin.json").unlink()
    elif harm == "one more":
        first.with_name("train-another.parquet").write_bytes(first.read_bytes())
    elif harm == "one less":
        first.unlink()
    elif harm == "another image":
        rows = pq.read_table(first)
        pq.write_table(rows.take([1, *range(1, len(rows))]), first)
    else:
        (Path(place) / "origin.json").write_bytes(bytes(range(256)))
    with pytest.raises(ValueError, match=r"mnist.* remove it"):
        samples.at_scale("mnist", str(digits()), SCALES["smoke"], tmp_path)


def test_at_smoke_drawn_images_stand_in_for_what_a_folder_of_sets_lacks(tmp_path: Path) -> None:
    sets = tmp_path / "sets"
    (sets / "cifar10").mkdir(parents=True)
    (sets / "cifar10" / "classes.txt").write_text("no images yet")
    (sets / "mnist").symlink_to(digits(), target_is_directory=True)
    words = ("reproduce", "pap-table7", "--rows", "FGSM-AT", "--data", sets, "--out", tmp_path / "out")
    ended = toughen(*words, "--scale", "smoke")
    assert ended.status == 0, ended.err
    said = " ".join(ended.out.split())
    assert "CIFAR-10 is not available: noise images" in said and "MNIST is not available" not in said
    places = at_hand(table("dat-table1"), [], str(sets), SCALES["smoke"], tmp_path / "out")
    assert {name: samples.is_generated(place) for name, place in places.items()} == {
        "cifar10": True,
        "cifar100": True,
        "mnist": False,
    }
    drawn = load_test(places["cifar100"])
    assert drawn.shape == (3, 32, 32) and drawn.test.labels.bincount().tolist() == [2] * 100
    places = at_hand(table("nuat-table2"), ["Normal"], str(sets), SCALES["smoke"], tmp_path / "out")
    asked = load_test(places["imagenet100"], classes="imagenet100")  # as its recipes do
    assert asked.classes[0] == "n01484850" and asked.test.labels.bincount().tolist() == [2] * 100
    with pytest.raises(ValueError, match=r"needs cifar10: .*sets has no folder of that name with images"):
        at_hand(table("nuat-table1a"), [], str(sets), SCALES["cpu"], tmp_path / "out")


def test_a_data_set_is_read_once_for_all_tables(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """With 40 tables, reading each set for each of them took half a minute before anything was printed."""
    asked: list[str] = []
    place = datasets.place

    def counted(name: str, given: str | None) -> str | None:
        asked.append(name)
        return place(name, given)

    monkeypatch.setattr(datasets, "place", counted)
    (tmp_path / "sets").mkdir()
    (tmp_path / "sets" / "mnist").symlink_to(digits(), target_is_directory=True)
    tables = [table(name) for name in ("pap-table3", "pap-table7", "rmgm-table7", "dat-table1")]
    places, lacking, absent = places_of(tables, True, [], str(tmp_path / "sets"), SCALES["smoke"], tmp_path / "out")
    assert sorted(asked) == sorted(places) == ["cifar10", "cifar100", "mnist"] and lacking == absent == {}
    asked.clear()
    with pytest.raises(ValueError, match="needs cifar10"):
        places_of([table("nuat-table1a")], True, [], str(tmp_path / "sets"), SCALES["cpu"], tmp_path / "out")
    assert asked == ["cifar10"]


def test_of_a_sample_that_was_not_written_to_the_end_nothing_is_left(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(path: Path, value: Any) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(samples, "write_json", full)
        with pytest.raises(OSError):
            samples.at_scale("mnist", str(digits()), SCALES["smoke"], tmp_path)
    assert list((tmp_path / "smoke" / "images").iterdir()) == []
    samples.at_scale("mnist", str(digits()), SCALES["smoke"], tmp_path)


# ---- What lies in the folder, damaged or moved.

CELL_HARMS: list[dict[str, Any] | str | bytes] = [
    {"value": None}, {"value": []}, {"value": "x"}, {"value": True}, {"value": 10**400}, {"value": math.nan},
    {"value": 7.5}, {"value": -0.1}, {"images": "x"}, {"drawn": "odd"}, {"provenance": None}, {"quantity": "fgsm"},
    {"seed": 3}, {"data": "cifar10"}, {"date": 7}, "[" * 100_000, "", b"\xff\xfe",
]  # fmt: skip


@pytest.mark.parametrize("harm", CELL_HARMS, ids=lambda harm: str(harm)[:20])
def test_a_damaged_figure_is_named_and_the_others_are_listed(
    harm: dict[str, Any] | str | bytes, tmp_path: Path
) -> None:
    panel, store = table("pap-table3").panels[0], Store(tmp_path)
    model, quantity = run_spec(panel.row("Normal").run, "mnist", 0, SCALES["full"]), Quantity("clean", "0.3")
    store.write(model, quantity, 0.5, images=10000, seconds=1.0, provenance={})
    path = store.folder(model) / "cells" / quantity.file
    assert Store(tmp_path).read(model, quantity) == {**json.loads(path.read_text()), "training": {}}
    if isinstance(harm, dict):
        path.write_text(json.dumps({**json.loads(path.read_text()), **harm}))
    else:
        path.write_bytes(harm.encode() if isinstance(harm, str) else harm)
    of_another = harm in ({"quantity": "fgsm"}, {"seed": 3}, {"data": "cifar10"})
    fault = "has another quantity, seed or data set" if of_another else "is damaged"
    said = re.escape(f"{path} {fault}: remove it, and the figure is measured again")
    with pytest.raises(ValueError, match=f"^{said}$"):
        Store(tmp_path).read(model, quantity)
    if not of_another:  # where it is another's, it is not counted
        listed = toughen("reproduce", "--list", "--out", tmp_path)
        assert listed.status == 0 and f"{path} is damaged" in listed.out and "dat-figure-loss" in listed.out


@pytest.mark.parametrize("harm", ["[1, {}]", "null", "{}", "3", '{"words": null}', "[" * 100_000, ""])
def test_a_folder_that_does_not_say_what_it_is_about_is_named_and_mended(harm: str, tmp_path: Path) -> None:
    panel, store = table("pap-table3").panels[0], Store(tmp_path)
    model = run_spec(panel.row("Normal").run, "mnist", 0, SCALES["full"])
    store.write(model, Quantity("clean", "0.3"), 0.5, images=10000, seconds=1.0, provenance={})
    path = store.folder(model) / "about.json"
    whole = path.read_text()
    path.write_text(harm)
    listed = toughen("reproduce", "--list", "--out", tmp_path)
    assert listed.status == 0 and f"{path} is damaged" in listed.out and "0/48" in listed.out
    Store(tmp_path).note(model)
    assert path.read_text() == whole


def test_figures_of_a_run_that_was_taken_away_are_set_aside(tmp_path: Path) -> None:
    words = ("pap-table3", "--rows", "fgsm-at")
    first = reproduce(tmp_path, *words)
    (folder,) = (tmp_path / "smoke").glob("fgsm-mnist-*")
    count = len(list((folder / "cells").iterdir()))
    next((folder / "cells").glob("clean-*")).unlink()
    (folder / "trained.json").unlink()
    shutil.rmtree(folder / "run")
    again = reproduce(tmp_path, *words)
    assert again.status == 0 and again.out == first.out
    assert len(list((folder / "cells").iterdir())) == count
    assert len(list((folder / "former-cells-1").iterdir())) == count - 1
    begun = (folder / "run" / "config.yaml").stat().st_mtime_ns
    assert all(path.stat().st_mtime_ns > begun for path in (folder / "cells").iterdir())


def test_a_run_that_was_taken_away_is_asked_for(tmp_path: Path) -> None:
    words = ("pap-table3", "--rows", "fgsm-at")
    assert reproduce(tmp_path, *words).status == 0
    (folder,) = (tmp_path / "smoke").glob("fgsm-mnist-*")
    next((folder / "cells").glob("clean-*")).unlink()
    (folder / "run" / "model.json").unlink()
    refused(reproduce(tmp_path, *words), "lacks model.json", f"remove {folder}, and the model is trained again")


def test_a_folder_may_be_moved_before_its_runs_are_finished(tmp_path: Path) -> None:
    words = ("pap-table7", "--rows", "FGSM-AT")
    first = reproduce(tmp_path / "here", *words)
    (tmp_path / "here").rename(tmp_path / "there")
    origin = tmp_path / "there" / "smoke" / "images" / "mnist" / "origin.json"
    (folder,) = (tmp_path / "there" / "smoke").glob("fgsm-mnist-*")
    (folder / "trained.json").unlink()
    shutil.rmtree(folder / "cells")
    assert origin.is_file()
    again = reproduce(tmp_path / "there", *words)
    assert again.status == 0, again.err
    assert again.out.replace("/there", "/here") == first.out
    config = folder / "run" / "config.yaml"
    config.write_text(config.read_text().replace("epochs: ", "epochs: 1"))
    (folder / "trained.json").unlink()
    shutil.rmtree(folder / "cells")
    refused(reproduce(tmp_path / "there", *words), "started with other settings", "epochs")


def test_a_torn_line_is_passed_over_and_spoils_no_other(tmp_path: Path) -> None:
    seen = Training(ProgressBoard(Console(quiet=True), {}), tmp_path, 10)
    seen.signal(1, 0.5)
    with (tmp_path / "logit-distances.jsonl").open("a") as file:
        file.write('\n{"step": 2, "dis')
    seen.signal(2, 0.25)
    seen.signal(3, 0.125)
    assert logit_distances(tmp_path) == {1: 0.5, 2: 0.25, 3: 0.125}


def test_a_limit_means_the_first_images_of_a_mixed_set(tmp_path: Path) -> None:
    mixed = sorted((digits() / "test").rglob("*.png"))
    random.Random(0).shuffle(mixed)
    column = [{"bytes": file.read_bytes()} for file in mixed]
    labels = [int(file.parent.name) for file in mixed]
    for split in ("train", "test"):
        pq.write_table(pa.table({"image": column, "label": labels}), tmp_path / f"{split}.parquet")
    subject = measure.MeasuredRun(ROOT / "tests" / "nets" / "pgd-at", str(tmp_path), "0.3", 15, SCALES["full"], "cpu")
    assert (subject.drawn, subject.target.index.tolist()) == ("first", list(range(15)))
    assert subject.y.tolist() == labels[:15] != sorted(labels[:15])
    shown = (subject.x[:, 0] * 255).round().byte().numpy()
    assert all(np.array_equal(image, np.asarray(Image.open(file))) for image, file in zip(shown, mixed, strict=False))


def test_a_limit_takes_all_classes_of_a_set_that_lies_sorted() -> None:
    labels = torch.arange(10).repeat_interleave(100)
    chosen, drawn = datasets.some(labels, 20)
    assert drawn == "stratified"
    assert labels[chosen].bincount().tolist() == [2] * 10
    for count in (None, 1000, 2000):
        assert (datasets.some(labels, count)[0].tolist(), datasets.some(labels, count)[1]) == (list(range(1000)), "all")


def test_a_surface_is_of_all_classes_of_a_set_that_lies_sorted(monkeypatch: pytest.MonkeyPatch) -> None:
    """mnist-5k has its 1,000 test images in the order of their classes."""
    subject = measure.MeasuredRun(ROOT / "tests" / "nets" / "pgd-at", "mnist-5k", "0.3", 200, SCALES["full"], "cpu")
    plot = next(plot for plot in find("nuat-figure1").plots if plot.curve == "surface")  # type: ignore[union-attr]
    seen: list[torch.Tensor] = []

    def recorded(model: nn.Module, x: torch.Tensor, y: torch.Tensor, *more: Any, **settings: Any) -> dict[str, Any]:
        seen.append(y)
        return {"mean": [[0.0] * 9] * 9}

    monkeypatch.setattr(curves, "loss_surface", recorded)
    curves.curve(subject, plot, ProgressBoard(Console(quiet=True), {}))
    assert [sorted(torch.bincount(y, minlength=10).tolist()) for y in seen] == [[6] * 6 + [7] * 4]


def test_a_heading_says_which_images_were_taken() -> None:
    cells: list[dict[str, Any]] = [{"images": 10000}, {"images": 1000, "drawn": "first"}, {"images": None}]
    assert datasets.describe_images(cells) == "the first 1,000 test images and 10,000 test images"
    assert (
        datasets.describe_images([{"images": 1000, "drawn": "stratified"}])
        == "a stratified sample of 1,000 test images"
    )


def test_settings_are_those_of_the_recipes() -> None:
    ended = toughen("reproduce", "pap-table2")
    assert ended.status == 0
    pairs = [line.split()[-1] for line in ended.out.splitlines() if line.strip().startswith(("paper", "toughen"))]
    assert pairs[::2] == pairs[1::2] and len(pairs) == 16


def test_the_list_names_everything_within_80_columns(tmp_path: Path) -> None:
    ended = toughen("reproduce", "--list", "--out", tmp_path)
    assert ended.status == 0
    assert [name for name in EXHIBITS if f"\n{name} " not in ended.out] == []
    assert width(ended.out.splitlines()) <= 80
    assert reproduce(tmp_path, "pap-table7", "--rows", "FGSM-AT").status == 0
    line = list_lines(find("pap-table7"), Store(tmp_path))[0].split()
    assert line[:5] == ["pap-table7", "1.2", "-", "1/8", "smoke"]


# ---- Scales.


def test_a_smaller_scale_keeps_each_epoch_s_place_in_the_run() -> None:
    words = "dat-cifar10 --stop_epoch 116"
    whole, small = (run_spec(words, "cifar10", 0, SCALES[name]).settings for name in ("full", "cpu"))
    assert (whole["epochs"], whole["stop_epoch"], whole["method"]["init_args"]["switch_epoch"]) == (155, 116, 86)
    assert small["epochs"] == math.ceil(0.15 * 155) == 24
    assert small["stop_epoch"] == round(116 * 24 / 155)
    assert small["method"]["init_args"]["switch_epoch"] == round(86 * 24 / 155)
    assert small["model_settings"] == {"depth": 16, "width": 2} and whole["model_settings"] == {}


def test_a_short_recipe_is_not_cut_below_what_the_other_rows_of_its_table_have() -> None:
    rows = ("fbf-cifar10 --model resnet18", "gat-cifar10", "pgd-cifar10 --epochs 10")
    assert [run_spec(row, "cifar10", 0, SCALES["cpu"]).settings["epochs"] for row in rows] == [15, 15, 10]


def test_averaging_looks_back_over_the_same_share_of_a_shorter_run() -> None:
    whole, small = (run_spec("nuat-wa-cifar10", "cifar10", 0, SCALES[name]).settings for name in ("full", "cpu"))
    assert (whole["epochs"], small["epochs"], whole["averaging"]) == (100, 15, 0.9998)
    assert 1 / (1 - small["averaging"]) == pytest.approx(5000 * 15 / 100, rel=1e-3)  # steps that it looks back over


def test_a_scale_seed_or_setting_makes_another_run() -> None:
    made = [
        run_spec(words, "mnist", seed, SCALES[scale]).key
        for words in ("pap-mnist", "pap-mnist --method.lam 1")
        for seed in (0, 1)
        for scale in ("full", "cpu", "smoke")
    ]
    assert len(set(made)) == len(made)
    assert made[0] == run_spec("pap-mnist", "mnist", 0, SCALES["full"]).key


def test_smoke_shortens_attacks_and_full_leaves_them_as_they_are() -> None:
    attack = PGD(eps=0.3, steps=100, restarts=5)
    assert SCALES["full"].shorten(attack) is attack and SCALES["cpu"].shorten(attack) is attack
    short = SCALES["smoke"].shorten(attack)
    assert isinstance(short, PGD) and (short.steps, short.restarts, short.eps) == (2, 2, 0.3)
    parts = SCALES["smoke"].shorten(AutoAttack(eps=0.3, version="v1"))
    assert isinstance(parts, AutoAttack)
    for part in parts.parts().values():
        assert all(getattr(part, name, 0) <= 2 for name in ("steps", "restarts", "queries"))


# ---- What comes out.


def keep(store: Store, words: str, of: str, value: float, processor: str = "one", seed: int = 0) -> None:
    model = run_spec(words, "mnist", seed, SCALES["full"])
    quantity = Quantity(of) if of in measure.OF_TRAINING else Quantity(of, "0.3", None)
    store.write(model, quantity, value, images=10000, seconds=1.0, provenance={"processor": processor, "commit": "c"})


def test_times_are_compared_as_ratios_and_on_one_machine_only(tmp_path: Path) -> None:
    panel = table("rmgm-table7").panels[0]
    (column,) = panel.columns
    assert published(panel, panel.row("PGD"), column) == pytest.approx(53.0 / 2.7)
    keep(Store(tmp_path), panel.row("Normal").run, "epoch seconds", 2.0)
    keep(Store(tmp_path), panel.row("PGD").run, "epoch seconds", 30.0)
    keep(Store(tmp_path), panel.row("Proposed").run, "epoch seconds", 9.0, processor="another")
    view = View(Store(tmp_path), SCALES["full"])
    found = view.value(panel, panel.row("PGD"), column)
    assert found is not None and found.mean == 15.0 and written(found.mean, column) == "15 x"
    assert view.value(panel, panel.row("Proposed"), column) is None
    assert View(Store(tmp_path), SCALES["cpu"]).value(panel, panel.row("PGD"), column) is None
    lines = markdown.panel_part(panel, view).splitlines()
    assert "| PGD | 53.0 (19.6 x) / ≈15 x |" in lines and "| EAT | 5.5 (2.04 x) / not run |" in lines
    assert any(line.startswith("| Proposed | 8.8 (3.26 x) / measured, but not together") for line in lines)
    proposed = panel.row("Proposed")
    assert [line.split()[-2:] for line in panel_lines(panel, view, [proposed])[1:3]] == [["3.26", "x"], ["ours", "n/a"]]
    assert lacking(panel, proposed, column, view).startswith("measured, but not together")


def test_times_of_trainings_are_brought_to_all_epochs(tmp_path: Path) -> None:
    """At cpu WRN-34-10's 200 epochs become 30 and 80 become 15: as long for 30 as for 15 is 200 / 30 : 80 / 15."""
    panel = table("nuat-figure3b").panels[0]
    time, scale, store = panel.columns[1], SCALES["cpu"], Store(tmp_path)
    for name in ("AWP 200", "NuAT2-WA 80", "FBF 30"):
        model = run_spec(panel.row(name).run, "cifar10", 0, scale)
        store.write(model, Quantity(time.of), 3.0, images=None, seconds=1.0, provenance={"processor": "one"})
    view = View(Store(tmp_path), scale)
    found = [view.value(panel, panel.row(name), time) for name in ("AWP 200", "NuAT2-WA 80", "FBF 30")]
    assert [each and each.mean for each in found] == pytest.approx([1.25, 1.0, 0.375])
    assert "scaled up to all of them" in markdown.panel_part(panel, view)


def test_no_time_is_missed_that_a_row_saves_against_none(tmp_path: Path) -> None:
    panel = next(each for each in table("dat-table1").panels if each.data == "mnist")
    saved = next(column for column in panel.columns if column.of == "hours saved")
    for row, hours in (("RAT", 2.0), ("DAT", 1.5)):
        keep(Store(tmp_path), panel.row(row).run, "train hours", hours)
    view = View(Store(tmp_path), SCALES["full"])
    assert lacking(panel, panel.row("RAT"), saved, view) == ""
    found = [panel_lines(panel, view, [panel.row(row)])[2].split()[3] for row in ("RAT", "DAT")]
    assert found == ["-", "≈25.00"]
    assert [markdown.cells(panel, panel.row(row), view)[1] for row in ("RAT", "DAT")] == ["-", "13.6 / ≈25.00"]


def test_wide_nets_keep_their_order_and_the_reconstructor_stays_the_smaller_one() -> None:
    made = {
        words: run_spec(words, "cifar10", 0, SCALES["cpu"]).settings
        for words in ("efgsm-cifar10", "trades-cifar10 --model wrn-34-10", "dat-cifar10")
    }
    assert [each["model_settings"]["width"] for each in made.values()] == [1, 2, 2]
    assert made["efgsm-cifar10"]["method"]["init_args"]["reconstructor"] == "wrn-10-1"
    full = run_spec("efgsm-cifar10", "cifar10", 0, SCALES["full"]).settings
    assert full["method"]["init_args"]["reconstructor"] == "wrn-22-3" and full["model_settings"] == {}


def test_rows_whose_times_are_compared_look_within_epochs_equally_often() -> None:
    for panel in table("rmgm-table7").panels:
        made = [run_spec(row.run, panel.data, 0, SCALES["full"], row.sources).settings for row in panel.rows]
        assert len({each["log_every"] for each in made}) == 1


def test_a_row_that_toughen_cannot_run_says_why(tmp_path: Path) -> None:
    row = Row("Theirs", "pap-mnist", "99.1", cannot="its net is not published")
    panel = Panel(data="mnist", net="a net", eps="0.3", columns=(Column("Clean", "clean"),), rows=(row,))
    view = View(Store(tmp_path), SCALES["full"])
    assert [line.split() for line in panel_lines(panel, view, [row])[1:]] == [
        ["Theirs", "paper", "99.10"],
        ["ours", "-"],
        ["diff"],
        "cannot run: its net is not published".split(),
    ]
    whole = Table(name="own", title="A table of one's own", panels=(panel,))
    assert make_tasks(whole, ["mnist"], [], 1, SCALES["smoke"], None) == []


def test_all_tables_fit_into_80_columns(tmp_path: Path) -> None:
    view = View(Store(tmp_path), SCALES["cpu"])
    panels = [panel for each in EXHIBITS.values() if isinstance(each, Table) for panel in each.panels]
    assert len(panels) > 20
    for panel in panels:
        assert max(map(len, panel_lines(panel, view, panel.rows))) <= 80, panel


def test_a_spread_is_the_standard_deviation_over_seeds_in_points(tmp_path: Path) -> None:
    panel = table("nuat-seeds").panels[0]
    clean, row = panel.columns[0], panel.rows[0]
    store = Store(tmp_path)
    for seed, value in enumerate((0.80, 0.81, 0.83)):
        model = run_spec(row.run, panel.data, seed, SCALES["full"])
        store.write(model, Quantity("clean", panel.eps), value, images=10000, seconds=1.0, provenance={})
    found = View(Store(tmp_path), SCALES["full"]).value(panel, row, clean)
    assert found is not None and found.mean == pytest.approx(1.5275252)  # of 80, 81, 83, by hand
    one = View(Store(tmp_path), SCALES["full"], seeds=1)
    assert one.value(panel, row, clean) is None and lacking(panel, row, clean, one) == "measured with one seed"


def test_seeds_are_averaged_over_the_same_images(tmp_path: Path) -> None:
    panel = table("pap-table3").panels[0]
    row, clean = panel.row("Normal"), panel.columns[0]
    for seed, count, value in ((0, 10000, 0.9), (1, 1000, 0.8), (2, 10000, 0.94)):
        model = run_spec(row.run, panel.data, seed, SCALES["full"])
        Store(tmp_path).write(model, Quantity("clean", panel.eps), value, images=count, seconds=1.0, provenance={})
    found = View(Store(tmp_path), SCALES["full"]).value(panel, row, clean)
    assert found is not None and found.mean == pytest.approx(92)
    assert [cell["images"] for cell in found.cells] == [10000, 10000]


def test_a_run_is_found_again_after_toughen_got_another_setting(tmp_path: Path) -> None:
    row = table("pap-table3").panels[0].row("PAP FGSM")
    keep(Store(tmp_path), row.run, "clean", 0.99)
    (about,) = tmp_path.rglob("about.json")
    older = json.loads(about.read_text())
    del older["settings"]["sync_batch_norm"]
    about.write_text(json.dumps(older))
    about.parent.rename(about.parent.with_name("pap-mnist-000000000000"))
    model = run_spec(row.run, "mnist", 0, SCALES["full"])
    found = Store(tmp_path).read(model, Quantity("clean", "0.3"))
    assert found is not None and found["value"] == 0.99
    assert (
        Store(tmp_path).read(run_spec("pap-mnist --method.lam 1", "mnist", 0, SCALES["full"]), Quantity("clean", "0.3"))
        is None
    )


@pytest.mark.parametrize(
    "words",
    [
        "pap-mnist --model_settings {}",
        "pap-mnist --model_settings '{dropout: 0.2}'",
        "pap-mnist --averaging 0.99",
        "pap-mnist --optimizer.nesterov true",
        "pap-mnist --method.inner NFGSM --method AWP",
    ],
)
def test_another_run_is_not_taken_for_it(words: str) -> None:
    """As when a recipe has changed under its name."""
    first, second = (run_spec(each, "mnist", 0, SCALES["full"]).settings for each in ("pap-mnist", words))
    assert not agree(first, second) and not agree(second, first)


def test_a_recipe_s_figures_are_not_those_of_its_former_self(tmp_path: Path) -> None:
    """The same words, once with dropout and once without."""
    model = run_spec("pap-mnist", "mnist", 0, SCALES["full"])
    keep(Store(tmp_path), "pap-mnist", "clean", 0.99)
    (about,) = tmp_path.rglob("about.json")
    former = json.loads(about.read_text())
    assert former["settings"]["model_settings"] == {"dropout": 0.5}
    former["settings"]["model_settings"] = {}
    about.write_text(json.dumps(former))
    about.parent.rename(about.parent.with_name("pap-mnist-000000000000"))
    assert Store(tmp_path).read(model, Quantity("clean", "0.3")) is None


def test_a_run_that_kept_more_moments_serves_and_one_that_kept_fewer_does_not(tmp_path: Path) -> None:
    moments: dict[str, list[Any]] = {"few": [1, "epoch 0"], "more": ["epoch 0", 1, 7], "none": []}
    made = {
        name: run_spec("fgsm-mnist", "mnist", 0, SCALES["full"], more={"keep_at": kept} if kept else {})
        for name, kept in moments.items()
    }
    store = Store(tmp_path)
    store.write(made["few"], Quantity("clean", "0.3"), 0.5, images=10000, seconds=0.0, provenance={})
    found = Store(tmp_path)
    assert found.folder(made["none"]) == found.folder(made["few"]) == tmp_path / "full" / made["few"].key
    assert found.folder(made["more"]) == tmp_path / "full" / made["more"].key
    found.write(made["none"], Quantity("fgsm", "0.3"), 0.25, images=10000, seconds=0.0, provenance={})
    about = json.loads((tmp_path / "full" / made["few"].key / "about.json").read_text())
    assert about["settings"]["keep_at"] == [1, "epoch 0"]  # as it was trained
    other = run_spec("fgsm-mnist --epochs 3", "mnist", 0, SCALES["full"])
    assert Store(tmp_path).folder(other) == tmp_path / "full" / other.key


def test_words_that_lead_to_one_run_share_its_figures(tmp_path: Path) -> None:
    store, made = (
        Store(tmp_path),
        [run_spec(words, "mnist", 0, SCALES["smoke"]) for words in ("pap-mnist", "pap-mnist --epochs 9")],
    )
    assert made[0].key == made[1].key  # two epochs either way
    for model, of in zip(made, ("clean", "fgsm"), strict=True):
        store.write(model, Quantity(of, "0.3"), 0.5, images=40, seconds=0.0, provenance={})
    assert all(Store(tmp_path).knows(model) for model in made)
    third = run_spec("pap-mnist --epochs 8", "mnist", 0, SCALES["smoke"])
    assert not Store(tmp_path).knows(third)
    Store(tmp_path).note(third)
    assert all(Store(tmp_path).knows(model) for model in (*made, third))


def test_images_near_a_linear_boundary_are_counted_by_their_exact_distance() -> None:
    net = nn.Sequential(nn.Flatten(), nn.Linear(4, 2, bias=False)).double()
    weight = net[1].weight
    assert isinstance(weight, torch.Tensor)
    weight.data = torch.tensor([[1.0, 0.0, 0.0, 0.0], [0.0, 1.0, 0.0, 0.0]], dtype=torch.float64)
    x = torch.tensor([[0.8, 0.6, 0, 0], [0.9, 0.2, 0, 0], [0.4, 0.6, 0, 0]], dtype=torch.float64).view(3, 1, 2, 2)
    y = torch.tensor([0, 0, 0])  # margins 0.2, 0.7 and wrong; the gradient's dual norm is 2, so distances 0.1 and 0.35
    blocks = FixedBatchModel(net, 3, "fp64")
    assert measure.close(blocks, x, y, Threat("linf", 0.3)) == pytest.approx(2 / 3)
    assert measure.close(blocks, x, y, Threat("linf", 0.05)) == pytest.approx(1 / 3)
    assert measure.close(blocks, x, y, Threat("linf", 0.4)) == 1.0


def test_images_near_a_boundary_from_where_efgsm_starts() -> None:
    # The logits are two pixels, so FGSM's direction is (-, +) with label 0, and the other two pixels decide nothing. At
    # eps 0.06 the start of (0.8, 0.6) is (0.74, 0.66), 0.04 from the boundary, where the image itself is 0.1 away; that
    # of (0.9, 0.2) is 0.29 away; (0.4, 0.6) is wrong. At 0.2 (0.9, 0.2) starts at (0.7, 0.4), 0.15 away, the first one
    # is wrong there, and (1, 0) starts at (0.8, 0.2), 0.3 away.
    net = nn.Sequential(nn.Flatten(), nn.Linear(4, 2, bias=False)).double()
    net[1].weight.data = torch.eye(4, dtype=torch.float64)[:2]
    x = torch.zeros(4, 1, 2, 2, dtype=torch.float64)
    x[:, 0, 0] = torch.tensor([[0.8, 0.6], [0.9, 0.2], [0.4, 0.6], [1.0, 0.0]], dtype=torch.float64)
    y, blocks, index = torch.zeros(4, dtype=torch.int64), FixedBatchModel(net, 4, "fp64"), [3, 5, 6, 9]
    for eps, at_x, at_start in ((0.06, 1 / 4, 2 / 4), (0.2, 2 / 4, 3 / 4)):
        threat = Threat("linf", eps)
        start = measure.efgsm_start(blocks, x, y, threat, 0, index)
        expected = (x[:, 0, 0] + torch.tensor([-eps, eps], dtype=torch.float64)).clamp(0, 1)
        assert torch.allclose(start[:, 0, 0], expected, rtol=0, atol=1e-12)
        assert measure.close(blocks, x, y, threat) == at_x and measure.close(blocks, start, y, threat) == at_start
    noisy = measure.efgsm_start(blocks, x, y, threat, 0.1, index)
    inside = (noisy - start)[:, 0, 0] * torch.tensor([1.0, -1.0])  # the ball cuts what leads out of it
    assert inside.min() >= 0 and 0 < inside.max() < 0.4 and ((noisy - x).abs() <= 0.2 + 1e-12).all()
    some = measure.efgsm_start(blocks, x[2:], y[2:], threat, 0.1, index[2:])
    assert torch.equal(some, noisy[2:])  # an image's noise is its own


# ---- The page.


@pytest.fixture
def command(monkeypatch: pytest.MonkeyPatch) -> Any:
    """The command that makes it."""
    monkeypatch.syspath_prepend(ROOT / "benchmarks")
    return __import__("reproduction")


def test_the_page_is_what_its_command_makes_of_the_results(
    command: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(sys, "argv", ["reproduction.py", "--page", str(tmp_path / "page.md")])
    command.main()
    assert (tmp_path / "page.md").read_text(encoding="utf-8") == PAGE.read_text(encoding="utf-8")
    assert (command.RESULTS, command.PAGE) == (RESULTS, PAGE)


def test_the_page_has_what_was_run_and_says_what_was_not(tmp_path: Path) -> None:
    keep(Store(tmp_path), "pap-mnist", "pgd-100@0.01", 0.9317)
    (line,) = (
        line for line in markdown.section(find("pap-table3"), Store(tmp_path)).splitlines() if "| PAP FGSM |" in line
    )
    assert line.split(" | ")[1:] == [
        *(f"{figure} / not run" for figure in ("99.29", "96.69", "95.58", "95.56", "95.05")),
        "94.04 / 93.17 |",
    ]


def keep_at(store: Store, scale: str, data: str, of: str, value: float) -> None:
    """A figure of NuAT in its second table."""
    (panel,) = (each for each in table("nuat-table2").panels if each.data == data)
    model = table_run_spec(panel, panel.row("NuAT"), 0, SCALES[scale])
    store.write(
        model, Quantity(of, panel.eps, 1000), value, images=1000, seconds=1.0,
        provenance={"processor": "AMD", "commit": "c"},
    )  # fmt: skip


def test_what_was_run_of_one_data_set_at_a_scale_stays_when_more_of_another_is_run_at_another(tmp_path: Path) -> None:
    keep_at(Store(tmp_path), "full", "mnist", "autoattack-v1", 0.929)
    for of in ("clean", "gama-pgd", "pgd-500@2/255"):
        keep_at(Store(tmp_path), "cpu", "cifar10", of, 0.4)
    text = markdown.section(find("nuat-table2"), Store(tmp_path))
    rows = [line.split(" | ")[1:] for line in text.splitlines() if line.startswith("| NuAT |")]
    assert rows == [
        ["81.01 / 40.00", "52.97 / 40.00", "49.46 / 40.00", "49.24 / not run |"],
        ["69.00 / not run", "37.60 / not run", "32.38 / not run", "31.96 / not run |"],
        ["99.37 / not run", "96.24 / not run", "94.65 / not run", "93.11 / 92.90 |"],
    ]
    keep_at(Store(tmp_path), "full", "cifar10", "clean", 0.8)  # beside, never in one table with another scale's
    text = markdown.section(find("nuat-table2"), Store(tmp_path))
    assert [line for line in text.splitlines() if line.startswith("CIFAR-10, ResNet-18")] == [
        f"CIFAR-10, ResNet-18, eps 8/255: paper / ours (scale {scale}; 1,000 test images; seed 0; AMD; at commit c; "
        f"{date.today().isoformat()})"
        for scale in ("full", "cpu")
    ]
    full, small, title = list_lines(find("nuat-table2"), Store(tmp_path))
    assert full.split()[:6] == ["nuat-table2", "93.11", "92.90", "2/132", "full", "AMD"]
    assert small.split()[:5] == ["49.24", "-", "3/132", "cpu", "AMD"]
    assert title.endswith("(NuAT, AA (v1), MNIST and CIFAR-10)") and max(map(len, (full, small, title))) <= 80


@pytest.mark.parametrize(
    ("processor", "name"),
    [
        ("AMD EPYC, 1 of 2 cores", "AMD EPYC"),
        ("AMD EPYC 7763 64-Core Processor, 8 of 64 cores", "AMD EPYC"),
        ("Intel(R) Xeon(R) Processor, 1 of 2 cores", "Intel Xeon"),
        ("Intel(R) Core(TM) i7-9700K CPU @ 3.60GHz, 8 of 8 cores", "Intel Core"),
        ("NVIDIA H200", "H200"),
        ("NVIDIA H100 80GB HBM3", "H100 80GB"),
        ("NVIDIA GeForce RTX 4090", "RTX 4090"),
        ("x86_64, 2 of 2 cores", "x86_64"),
        ("", "-"),
    ],
)
def test_a_processor_s_name_fits_its_column(processor: str, name: str) -> None:
    assert short(processor) == name


def test_a_figure_says_how_its_model_was_trained(tmp_path: Path) -> None:
    assert reproduce(tmp_path, "pap-table7", "--rows", "FGSM-AT").status == 0
    (folder,) = (tmp_path / "smoke").glob("fgsm-mnist-*")
    record = json.loads((folder / "trained.json").read_text())
    lines = [json.loads(line) for line in (folder / "run" / "metrics.jsonl").read_text().splitlines()]
    assert record["epochs"] == len(lines) == 2
    assert record["seconds"] == pytest.approx(sum(line["seconds"] for line in lines), abs=0.1)
    assert record["provenance"] == json.loads((folder / "run" / "provenance.json").read_text())
    model = run_spec("fgsm-mnist", "mnist", 0, SCALES["smoke"])
    found = Store(tmp_path).best(model, Quantity("gamma"))
    assert found is not None and found["training"] == record
    commit, precision = record["provenance"]["commit"], record["provenance"]["precision"]
    assert f"trained in {precision} at commit {commit}; measured at commit {commit}" in markdown.origin([found])


def test_the_page_says_which_figures_are_from_which_images(tmp_path: Path) -> None:
    panel, store = table("pap-table3").panels[0], Store(tmp_path)
    view = View(store, SCALES["full"])
    for row, of, count, drawn in (
        ("Normal", "clean", 10000, "all"),
        ("Normal", "fgsm", 10000, "all"),
        ("FGSM-AT", "clean", 10000, "all"),
        ("FGSM-AT", "fgsm", 1000, "first"),
    ):
        if row == "FGSM-AT" and of == "clean":
            assert markdown.image_notes(panel, view) == []
        model = run_spec(panel.row(row).run, "mnist", 0, SCALES["full"])
        quantity = Quantity(of, "0.3", None if drawn == "all" else count)
        store.write(model, quantity, 0.5, images=count, drawn=drawn, seconds=1.0, provenance={})
        view = View(Store(tmp_path), SCALES["full"])
    assert markdown.image_notes(panel, view) == [
        "Normal: 10,000 test images.\n",
        "FGSM-AT: Clean on 10,000 test images; FGSM on the first 1,000 test images.\n",
    ]


def test_figures_are_taken_over_without_runs_and_without_smoke(command: Any, tmp_path: Path) -> None:
    keep(Store(tmp_path / "from"), "pap-mnist", "clean", 0.99)
    (folder,) = (tmp_path / "from" / "full").iterdir()
    (folder / "trained.json").write_text(json.dumps({"provenance": {"processor": "one"}}))
    (tmp_path / "from" / "smoke").mkdir()
    assert command.add(tmp_path / "from", tmp_path / "to") == 1
    assert sorted(path.name for path in (tmp_path / "to").rglob("*.json"))[::2] == ["about.json", "trained.json"]
    assert len(list((tmp_path / "to").rglob("*.json"))) == 3


def test_a_folder_without_figures_loses_no_page_and_no_result(
    command: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    page, results = tmp_path / "page.md", tmp_path / "results"
    page.write_text("figures")
    for name, value in (("results", 0.9), ("damaged", 0.1)):
        keep(Store(tmp_path / name), "pap-mnist", "clean", value)
    (kept,) = results.glob("full/*/cells/*.json")
    for words, said in (
        (["--results", tmp_path / "nowhere"], "holds no figures, so the page would have none"),
        (["--results", results, "--add", tmp_path / "nowhere"], "holds no figures that `toughen reproduce` wrote"),
        (["--results", results, "--add", tmp_path / "damaged"], "trained.json is missing or damaged"),
    ):
        monkeypatch.setattr("sys.argv", ["reproduction.py", "--page", str(page), *map(str, words)])
        with pytest.raises(SystemExit) as ended:
            command.main()
        assert ended.value.code == 2 and said in capsys.readouterr().err
    assert page.read_text() == "figures" and json.loads(kept.read_text())["value"] == 0.9


def test_figures_of_a_model_that_was_trained_anew_replace_those_of_the_former_one(command: Any, tmp_path: Path) -> None:
    results, model = Store(tmp_path / "results"), run_spec("pap-mnist", "mnist", 0, SCALES["full"])
    for name, seconds, quantities, there in (
        ("first", 10.0, ("clean", "fgsm"), ["clean", "fgsm"]),
        ("more", 10.0, ("i-fgsm-40",), ["clean", "fgsm", "i-fgsm-40"]),
        ("anew", 11.0, ("clean",), ["clean"]),
    ):
        store = Store(tmp_path / name)
        for of in quantities:
            keep(store, "pap-mnist", of, 0.5)
        record = {"epochs": 50, "seconds": seconds, "provenance": {"processor": "one"}}
        (store.folder(model) / "trained.json").write_text(json.dumps(record))
        assert command.add(tmp_path / name, results.root) == len(quantities)
        cells = (results.folder(model) / "cells").iterdir()
        assert sorted(path.name.rsplit("-", 1)[0] for path in cells) == there
        assert json.loads((results.folder(model) / "trained.json").read_text()) == record


def test_each_source_of_a_row_has_a_cost_of_its_own(tmp_path: Path) -> None:
    """So that the end of one is not taken for the end of all: nets A, B and C take very different times."""
    found = make_tasks(table("rmgm-table3"), ["mnist"], ["EAT A"], 1, SCALES["full"], None)
    parts = {title: cost for title, cost in costs(found, Store(tmp_path)).items() if ": source" in title}
    assert sorted(title.rsplit(": ", 2)[1] for title in parts) == ["source A", "source B", "source C"]
    assert len(set(parts.values())) == 3


def test_every_part_of_the_work_has_a_cost(tmp_path: Path) -> None:
    found = make_tasks(table("pap-table5"), ["mnist"], [], 1, SCALES["full"], None)
    parts = costs(found, Store(tmp_path))
    assert all(cost > 0 for cost in parts.values())
    assert len([title for title in parts if title.endswith("train")]) == 6  # five rows and the source
    assert parts["PGD-AT on mnist, SmallCNN: train"] > 5 * parts["FGSM-AT on mnist, SmallCNN: train"]


def test_the_cost_of_a_sample_is_that_of_its_images(tmp_path: Path) -> None:
    """At smoke 16 images are held out of 160; ImageNet's sample has 2,000 of 64 x 64 pixels instead of 224 x 224."""

    def parts(name: str, data: str, scale: str = "smoke") -> dict[str, float]:
        return costs(make_tasks(find(name), [data], [], 1, SCALES[scale], 40), Store(tmp_path))  # type: ignore[arg-type]

    for name in ("rmgm-figure1", "dat-figure-loss"):
        found = parts(name, "mnist" if name.startswith("rmgm") else "cifar10")
        train = sum(cost for title, cost in found.items() if title.endswith(": train"))
        assert sum(found.values()) < 20 * train, name
    whole, small = (
        parts("nuat-imagenet", "imagenet", scale)["NuAT-WA on imagenet, ResNet-50: train"]
        for scale in ("full", "smoke")
    )
    images = (1_280_000 * 7 + 1_000 * 19) / (2_000 * 7 + 200 * 9)  # 7 passes of each, and validation's
    ratio = images * (90 / 2) * (224 / 64) ** 2 * (64 / 8) ** 2  # epochs, pixels, channels
    assert whole / small == pytest.approx(ratio, rel=0.2)


@pytest.mark.parametrize(
    ("words", "passes", "within"),
    [
        ("efgsm-mnist --method Free --method.replays 15", 15 * 3, 1.0),  # a forward, and the weights' gradient counts 2
        ("fbf-mnist", 3 + 2, 1.5),
        ("trades-mnist", 3 + 3 + 40 * 2, 1.5),
        ("efgsm-mnist --method EFGSM", 1 + 9 + 3, 1.0),  # a gradient for each rival class
        ("efgsm-mnist --method EFGSM --method.classes 1", 1 + 1 + 3, 1.0),
        ("efgsm-mnist --method TRADES --method.crafter EFGSM", 1 + 9 + 6, 1.0),
    ],
)
def test_the_cost_of_training_goes_by_the_passes_of_a_step(words: str, passes: int, within: float) -> None:
    """Against normal training, whose step makes three; some methods only roughly."""

    def cost(words: str) -> float:
        same = "--model small-cnn --epochs 10 --validation 0"
        return training_cost(run_spec(f"{words} {same}", "mnist", 0, SCALES["full"]), Store(Path("none")), set())

    ratio = cost(words) / cost("standard-mnist")
    assert passes / 3 / within <= ratio <= passes / 3 * within


def test_the_cost_of_training_has_that_of_validation() -> None:
    """1,000 of MNIST's images are held out: FGSM with 3 passes, PGD with 2 a step and 1, a plain one."""

    def cost(words: str) -> float:
        standard = f"standard-mnist --model small-cnn --epochs 10 {words}"
        return training_cost(run_spec(standard, "mnist", 0, SCALES["full"]), Store(Path("none")), set())

    plain = cost("")  # 60,000 images, 3 passes each, and a plain one of those held out
    pass_of_an_image = plain / (10 * (60_000 * 3 + 1_000))
    assert cost("--validation 0") == pytest.approx(10 * 60_000 * 3 * pass_of_an_image)
    under_attack = cost("--method FBF --eps 0.3 --validation_steps 40") - cost("--method FBF --eps 0.3 --validation 0")
    assert under_attack == pytest.approx(10 * 1_000 * (1 + 3 + 40 * 2 + 1) * pass_of_an_image)


def test_a_recipe_that_is_kept_names_its_data_by_place_and_its_results_by_name(tmp_path: Path) -> None:
    assert reproduce(tmp_path, "pap-table7", "--rows", "FGSM-AT").status == 0
    (folder,) = (tmp_path / "smoke").glob("fgsm-mnist-*")
    assert json.loads((folder / "about.json").read_text())["settings"]["data"] == "mnist"
    assert Path(yaml.safe_load((folder / "recipe.yaml").read_text())["data"]).is_dir()
    results = "".join(path.read_text() for path in [folder / "about.json", *(folder / "cells").glob("*.json")])
    assert str(tmp_path) not in results and str(ROOT) not in results
