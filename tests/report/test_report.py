"""`toughen report`: what it says is what the files say, whatever is in them, and nothing of it can become code."""

from __future__ import annotations

import base64
import hashlib
import json
import math
import os
import re
import subprocess
import sys
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from commands import files, processor_seconds, refused, toughen
from paths import ROOT
from run_files import CONFIG, PNG, diagnostics, epoch, evaluation, write_run

from toughen.report import words, write_report
from toughen.report.classes import confusion_figures
from toughen.report.details import details
from toughen.report.evaluations import evaluation as read_evaluation
from toughen.report.page import _environment
from toughen.report.read import read_run
from toughen.report.values import grid, pairs, real, share, whole
from toughen.runs.files import write_tensors
from toughen.training.state import State
from toughen.utils.units import format_radius


class Page(HTMLParser):
    """A page as a browser takes it apart: its elements with their attributes, and its text without scripts."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.scripts: list[str] = []
        self.said: list[str] = []
        self.inside = ""
        self.source = path.read_text(encoding="utf-8")
        self.feed(self.source)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))
        self.inside = tag if tag in ("script", "style") else ""
        if tag == "script":
            self.scripts.append("")

    def handle_endtag(self, tag: str) -> None:
        self.inside = ""

    def handle_data(self, data: str) -> None:
        if self.inside == "script":
            self.scripts[-1] += data
        elif not self.inside:
            self.said.append(data)

    @property
    def text(self) -> str:
        return " ".join(" ".join(self.said).split())

    @property
    def figures(self) -> dict[str, Any]:
        """What the page's figures are drawn from."""
        found: dict[str, Any] = json.loads(self.scripts[0], parse_constant=pytest.fail)  # no browser reads NaN
        return found

    def all(self, tag: str) -> list[dict[str, str | None]]:
        return [attributes for name, attributes in self.elements if name == tag]


def report(*runs: Path, out: Path) -> Page:
    return Page(write_report(runs, out))


def change(path: Path, **others: Any) -> None:
    """Put other values into a JSON file."""
    path.write_text(json.dumps(json.loads(path.read_text()) | others))


# ---- What it says.


def test_a_stranger_s_four_questions(tmp_path: Path) -> None:
    """How accurate, how robust, can I believe it, what did it cost: with the figures of the files."""
    page = report(write_run(tmp_path / "run"), out=tmp_path / "report.html")
    for said in (
        "Accuracy 90.0 % 180 of 200 test images",
        "Robust accuracy 50.0 % 100 of 200, L∞ eps 0.3",
        "95 % interval 43.1 to 56.9 %",  # Wilson's, of 100 in 200, by hand
        "Doubtful 1 check passed, 1 failed, 1 could not be made",
        "Cost of training 90 s 8.0 passes per step (standard training: 3) 3 epochs",
        "The classifier predicts the right class for 180 of 200 test images. Under attack, when every pixel may be "
        "changed by up to 0.3 (pixel values are 0 to 1), it is still right for 100.",
        "failed accuracy falls with eps. It rises from 10.0 % to 20.0 %.",
        "a processor, 2 cores",
        "0123456789ab",
        "class_path: toughen.methods.FBF",
    ):
        assert said in page.text, said
    assert "What is missing" not in page.text


def test_attacks_are_listed_with_what_they_took(tmp_path: Path) -> None:
    page = report(write_run(tmp_path / "run"), out=tmp_path / "report.html")
    assert re.search(
        r"fgsm 60\.0 % 53\.1 to 66\.5 % 0\.5 2\.0 pgd-20 50\.0 % .* 10\.0 40\.0 all attacks 50\.0 %", page.text
    )


def test_figures_hold_the_files_numbers(tmp_path: Path) -> None:
    run = write_run(tmp_path / "run")
    drawn = {each["kind"]: each["data"] for each in report(run, out=tmp_path / "a.html").figures.values()}
    by_name = [each["data"] for each in report(run, out=tmp_path / "b.html").figures.values()]
    eps, steps = by_name[0], by_name[1]
    assert eps["lines"][0]["points"] == [[0.0, 0.9], [0.15, 0.7], [0.3, 0.5]] and eps["marks"][0]["x"] == 0.3
    assert steps["lines"][0]["points"] == [[1.0, 0.6], [10.0, 0.52], [20.0, 0.5]]
    assert drawn["bars"]["names"] == ["cat", "dog", "owl"]
    assert [bar["values"] for bar in drawn["bars"]["bars"]] == [[1.0] * 3, [0.5] * 3]  # the second image of each fell
    losses = next(each for each in by_name if each.get("y") and each["y"].get("label") == "loss")
    assert losses["lines"][0]["points"] == [[1.0, 2.0], [2.0, 1.5], [3.0, 1.0]]


def test_events_are_marked_and_told(tmp_path: Path) -> None:
    run = write_run(tmp_path / "run")
    event = {"event": "collapse", "step": 20, "text": "collapse: accuracy 91.0 % under FGSM, 2.0 % under PGD"}
    lines = [epoch(0), epoch(1, events=[event]), epoch(2)]
    (run / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    page = report(run, out=tmp_path / "report.html")
    assert f"Epoch 2. {event['text']}" in page.text and "found no collapse" not in page.text
    marks = [each["data"]["marks"] for each in page.figures.values() if "marks" in each["data"]]
    assert {"x": 2.0, "text": event["text"]} in [mark for found in marks for mark in found]


def test_a_model_that_is_blind_to_single_steps_is_not_praised(tmp_path: Path) -> None:
    run = write_run(tmp_path / "run")
    attacks = {name: {"robust_accuracy": value} for name, value in (("fgsm", 0.85), ("pgd-20", 0.01))}
    (run / "evaluation.json").write_text(json.dumps(evaluation(0.01, attacks=attacks)))
    page = report(run, out=tmp_path / "report.html")
    assert (
        "FGSM is too weak for this model. The model is not robust" in page.text and "So it is not robust" in page.text
    )


def test_a_model_that_resists_less_than_fgsm_says_is_not_called_not_robust(tmp_path: Path) -> None:
    run = write_run(tmp_path / "run")
    attacks = {name: {"robust_accuracy": value} for name, value in (("fgsm", 0.92), ("pgd-20", 0.7))}
    (run / "evaluation.json").write_text(json.dumps(evaluation(0.7, attacks=attacks)))
    page = report(run, out=tmp_path / "report.html")
    assert "22.0 points higher" in page.text and "Use the lower figure." in page.text
    assert "not robust" not in page.text


def test_another_evaluation_stands_beside_the_run_s_own(tmp_path: Path) -> None:
    run = write_run(tmp_path / "run")
    (run / "wide").mkdir()
    other = evaluation(0.123, threat={"norm": "l2", "eps": 1.5}, data="others")
    (run / "wide/evaluation.json").write_text(json.dumps(other))
    (run / "evaluation.1.json").write_text(json.dumps(evaluation(0.456, verdict=None, checks=[])))
    page = report(run, out=tmp_path / "report.html")
    assert "Robust accuracy 50.0 %" in page.text
    assert re.search(r"wide/evaluation\.json others L2 eps 1\.5 fgsm, pgd-20 200 90\.0 % 12\.3 % doubtful", page.text)
    assert re.search(r"evaluation\.1\.json digits .* 45\.6 % not checked", page.text)


PASSED = [{"name": "logits of a usual size", "passed": True, "sentence": "They are 5."}]
BLIND = {"fgsm": {"robust_accuracy": 0.85}, "pgd-20": {"robust_accuracy": 0.01}}


@pytest.mark.parametrize(
    ("found", "said"),
    [
        ({"epoch": 0, "weights": "live"}, "weights after epoch 1, but the run now has those after epoch 3: run `tou"),
        ({"epoch": 2, "weights": "averaged"}, "epoch 3, averaged, but the run now has those after epoch 3, live: run"),
        ({"epoch": 2, "weights": "live"}, ""),
        ({"weights": "averaged"}, ""),
        ({"epoch": "0", "weights": 1}, ""),
    ],
)
def test_an_evaluation_of_other_weights_is_said_and_not_green(found: Any, said: str, tmp_path: Path) -> None:
    runs = [write_run(tmp_path / name) for name in "ab"]
    for name in ("evaluation.json", "evaluation.1.json"):
        (runs[0] / name).write_text(json.dumps(evaluation(verdict="sound", checks=PASSED) | found))
    outdated = read_run(runs[0], "a").outdated
    assert said in outdated and bool(said) is bool(outdated)
    alone, both = report(runs[0], out=tmp_path / "a.html"), report(*runs, out=tmp_path / "b.html")
    plain = outdated.split("`")[0]  # the command is an element of its own
    assert alone.text.index(plain) < alone.text.index("Robust accuracy")
    assert (f"a. {plain or 'This evaluation'}" in both.text) is bool(said)
    for page in (alone, both):
        green = [each for _, each in page.elements if each.get("class") in ("card sound", "badge sound")]
        assert bool(green) is not bool(said)
    row = re.search(r"a 90\.0 % 50\.0 % 43\.1 to 56\.9 % (outdated|sound) 90", both.text)
    assert row and (row[1] == "sound") is not bool(said)


def test_a_warning_of_any_run_stands_where_runs_are_compared(tmp_path: Path) -> None:
    runs = [write_run(tmp_path / name) for name in "abcd"]
    change(runs[0] / "evaluation.json", robust_accuracy=0.01, attacks=BLIND)
    text = report(*runs, out=tmp_path / "report.html").text
    assert re.search(r"a 90\.0 % 1\.0 % .{,30} doubtful robust to FGSM only 90", text)
    assert text.index("a. Accuracy under FGSM is 84.0 points higher") < text.index("Details of")
    assert text.count("robust to FGSM only") == 1 and "b. FGSM" not in text


def test_a_model_without_a_gradient_is_named_alone_and_beside_others(tmp_path: Path) -> None:
    runs = [write_run(tmp_path / name) for name in "ab"]
    change(runs[0] / "evaluation.json", no_gradient=True)
    alone, both = (report(*those, out=tmp_path / f"{len(those)}.html").text for those in (runs[:1], runs))
    assert all("no gradient with respect to the images" in text for text in (alone, both))
    assert re.search(r"a 90\.0 % 50\.0 % .{,30} doubtful no gradient 90", both)
    assert both.count("doubtful no gradient") == 1


def test_an_evaluation_of_a_model_from_elsewhere(tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    (tmp_path / "out/evaluation.json").write_text(json.dumps(evaluation(classes=["a", "b"])))
    page = report(tmp_path / "out", out=tmp_path / "report.html")
    assert "50.0 %" in page.text and "metrics.jsonl has no epochs" in page.text


def test_several_runs_side_by_side(tmp_path: Path) -> None:
    runs = [write_run(tmp_path / name, robust=robust) for name, robust in (("a", 0.3), ("b", 0.6))]
    runs.append(write_run(tmp_path / "c"))
    (runs[2] / "evaluation.json").unlink()
    page = report(*runs, out=tmp_path / "report.html")
    assert "3 runs side by side" in page.text and "1 of 3 runs have not been evaluated" in page.text
    first = r"a 90\.0 % 30\.0 % \d\d\.\d to \d\d\.\d % doubtful 90 8\.0 FBF L∞ eps 0\.3"
    assert re.search(first + r" b 90\.0 % 60\.0 % .* c not evaluated 90 8\.0 FBF", page.text)
    cost = next(each["data"] for each in page.figures.values() if each["kind"] == "points")
    assert [(point["name"], point["y"], point["seconds"], point["all"]) for point in cost["points"]] == [
        ("a", 0.3, 90.0, 24.0), ("b", 0.6, 90.0, 24.0),
    ]  # fmt: skip
    overlays = [each for each in page.figures.values() if each["overlay"]]
    assert [[line["name"] for line in each["data"]["lines"]] for each in overlays] == [["a", "b", "c"]] * 2


INTERVAL = {"robust_accuracy": [0.43, 0.57]}  # what a random sample of the test images has


@pytest.mark.parametrize(
    ("other", "said"),
    [
        ({}, ""),
        ({"images": 100}, "number of images"),
        ({"seed": 1}, ""),  # of the attacks alone: all images were attacked
        ({"seed": 1, "interval": INTERVAL}, "sample of images"),
        ({"data": "others", "threat": {"norm": "l2", "eps": 0.3}}, "threat, data"),
        ({"attacks": {"fgsm": {"robust_accuracy": 0.5}}}, "attacks"),
    ],
)
def test_runs_that_were_not_measured_alike_are_marked(other: Any, said: str, tmp_path: Path) -> None:
    runs = [write_run(tmp_path / name) for name in "ab"]
    if "interval" in other:
        change(runs[0] / "evaluation.json", seed=0, interval=INTERVAL)
    change(runs[1] / "evaluation.json", **other)
    text = report(*runs, out=tmp_path / "report.html").text
    assert ("The evaluations differ in" in text) is bool(said) and f"differ in {said}:" * bool(said) in text
    named = re.search(r"a 90\.0 .* L∞ eps 0\.3 fgsm, pgd-20 b 90\.0 .* L∞ eps 0\.3 fgsm Copy the table", text)
    assert bool(named) is ("attacks" in other)


def test_runs_of_one_name_are_told_apart(tmp_path: Path) -> None:
    runs = [write_run(tmp_path / folder / "run") for folder in "ab"]
    text = report(*runs, out=tmp_path / "report.html").text
    assert all(str(run) in text for run in runs)


def test_many_classes_are_listed_and_not_drawn() -> None:
    names = [f"class {number}" for number in range(60)]
    found = diagnostics(60)["confusion"]
    found["clean"]["matrix"][4][9] = 77
    clean, _ = confusion_figures(found, names, None)
    assert not clean.data and [cell.text for cell in clean.table.rows[0]] == ["class 4", "class 9", "77"]
    assert "class 4 as class 9 77 times" in clean.alt and "480 of 4096 images" in clean.alt  # 60 * 8; 3539 + 77 + 480


@pytest.mark.parametrize(
    ("eps", "said"), [(8 / 255, "8/255"), (0.3, "0.3"), (4 / 255, "4/255"), (0.5, "0.5"), (1.5, "1.5"), (0.03, "0.03")]
)
def test_a_radius_is_written_as_people_do(eps: float, said: str) -> None:
    assert format_radius(eps) == said


def test_findings_in_words() -> None:
    found = read_evaluation(evaluation(0.0, images=1, clean_accuracy=1.0, threat={"norm": "l2", "eps": 0.5}))
    assert found is not None
    assert words.findings(found) == (
        "The classifier predicts the right class for 1 of 1 test image. Under attack, when every image may be changed "
        "by an L2 distance of up to 0.5 (pixel values are 0 to 1), it is still right for none. So it is not robust."
    )


# ---- What may be missing or damaged.


def test_a_run_that_is_still_training(tmp_path: Path) -> None:
    run = write_run(tmp_path / "run", epochs=2)
    for name in ("evaluation.json", "examples.parquet", "gallery.parquet", "diagnostics.json"):
        (run / name).unlink()
    text = report(run, out=tmp_path / "report.html").text
    assert "2 of 3 epochs are done: training is still running, or it was stopped" in text
    assert "continues it). The report shows what is known so far." in text
    assert f"toughen evaluate {run}" in text and "Under PGD so far 40.0 %" in text and "Accuracy by epoch" in text


def test_a_line_that_was_not_finished_is_no_epoch(tmp_path: Path) -> None:
    run = write_run(tmp_path / "run", epochs=2)
    with (run / "metrics.jsonl").open("a") as file:
        file.write('{"epoch": 2, "lo')
    text = report(run, out=tmp_path / "report.html").text
    assert "2 of 3 epochs are done" in text and "2 epochs" in text


def test_a_run_that_was_to_end_early_has_ended(tmp_path: Path) -> None:
    run = write_run(tmp_path / "run")
    (run / "config.yaml").write_text("epochs: 9\nstop_epoch: 3\n")
    assert "epochs are done" not in report(run, out=tmp_path / "report.html").text


@pytest.mark.parametrize(
    ("state", "epochs", "said"),
    [
        (State(step=30, planned=30), 3, ""),
        (State(step=20, planned=30, stop_reason="enough"), 3, ""),
        (State(step=20, planned=30), 3, "20 of about 30 steps of a run of 5m are done: training is still running"),
        (State(step=20), 3, "a time budget (5m): without its checkpoint it is not known whether training is finished"),
        (None, 3, "a time budget (5m): without its checkpoint it is not known whether training is finished"),
        (None, 0, "No epoch of a run of 5m is done: training is still running"),
    ],
)
def test_a_run_that_ends_by_the_clock(state: State | None, epochs: int, said: str, tmp_path: Path) -> None:
    run = write_run(tmp_path / "run", epochs=epochs)
    (run / "config.yaml").write_text("epochs: 3\ntime_budget: 5m\n")
    (run / "checkpoint.safetensors").write_bytes(b"junk")
    if state is not None:
        about = {name: value for name, value in vars(state).items() if name != "totals"}
        write_tensors(run / "checkpoint.safetensors", {}, about)
    text = report(run, out=tmp_path / "report.html").text
    assert said in text and ("time budget" in text or "of a run of" in text) is bool(said)


def test_what_is_evaluated_next_has_weights(tmp_path: Path) -> None:
    """Not a folder that lacks them; and of a file that holds nothing is said that it is there."""
    run = write_run(tmp_path / "run", pictures=False)
    assert "toughen evaluate" in report(run, out=tmp_path / "report.html").text  # makes the pictures
    (run / "model.safetensors").unlink()
    assert "toughen evaluate" not in report(run, out=tmp_path / "without.html").text
    (tmp_path / "curves").mkdir()
    (run / "metrics.jsonl").rename(tmp_path / "curves/metrics.jsonl")
    text = report(tmp_path / "curves", out=tmp_path / "curves.html").text
    assert "there are no weights here to evaluate" in text and "toughen evaluate" not in text
    run = write_run(tmp_path / "null")
    (run / "evaluation.json").write_text("null")
    assert "evaluation.json is not what toughen writes there" in report(run, out=tmp_path / "null.html").text


def test_a_run_before_its_first_epoch(tmp_path: Path) -> None:
    (tmp_path / "run").mkdir()
    (tmp_path / "run/config.yaml").write_text("epochs: 3\n")
    text = report(tmp_path / "run", out=tmp_path / "report.html").text
    assert "No epoch has ended yet" in text and "no weights yet" in text and "Robust accuracy unknown" in text


@pytest.mark.parametrize("junk", [b'{"epoch": 1, "lo', b"\xff\xfe\x00", b"[1]", b'"text"', b"[" * 100_000], ids=repr)
def test_a_broken_line_is_left_out_and_said(junk: bytes, tmp_path: Path) -> None:
    run = write_run(tmp_path / "run")
    (run / "metrics.jsonl").write_bytes(
        json.dumps(epoch(0)).encode() + b"\n" + junk + b"\n" + json.dumps(epoch(2)).encode()
    )
    page = report(run, out=tmp_path / "report.html")
    assert "Line 2 of metrics.jsonl cannot be read" in page.text
    assert "found no collapse" not in page.text  # what it saw may have stood there
    losses = next(each["data"] for each in page.figures.values() if each["data"].get("y", {}).get("label") == "loss")
    assert [point[0] for point in losses["lines"][0]["points"]] == [1.0, 3.0]


def test_a_run_before_its_first_epoch_says_what_it_is(tmp_path: Path) -> None:
    (tmp_path / "run").mkdir()
    (tmp_path / "run/config.yaml").write_text(f"{CONFIG}eps: 8/255\nnorm: linf\n".replace("digits", "/data/digits"))
    text = report(tmp_path / "run", out=tmp_path / "report.html").text
    assert "FBF · small-cnn · digits · trained against L∞ eps 8/255" in text


@pytest.mark.parametrize("eps", ["1e400", "1e999999999", "1/0", "8/", "a/b", "1/2/3", "[1]", "null", "9" * 400])
def test_no_radius_of_a_recipe_stops_a_report(eps: str, tmp_path: Path) -> None:
    (tmp_path / "run").mkdir()
    (tmp_path / "run/config.yaml").write_text(f"{CONFIG}eps: {eps}\n")
    assert "FBF · small-cnn" in report(tmp_path / "run", out=tmp_path / "report.html").text


@pytest.mark.parametrize("name", ["model.json", "diagnostics.json", "provenance.json"])
@pytest.mark.parametrize("junk", ['"x"', "[1, 2]", "3"])
def test_a_file_of_another_kind_is_said(name: str, junk: str, tmp_path: Path) -> None:
    run = write_run(tmp_path / "run")
    (run / name).write_text(junk)
    text = report(run, out=tmp_path / "report.html").text
    assert f"{name} is not what toughen writes there" in text and "Robust accuracy 50.0 %" in text


def test_weights_of_which_nothing_is_known(tmp_path: Path) -> None:
    run = write_run(tmp_path / "run")
    for name in ("config.yaml", "metrics.jsonl", "model.json"):
        (run / name).unlink()
    text = report(run, out=tmp_path / "report.html").text
    assert "model.json is missing, so" in text and "metrics.jsonl is missing, so there are no curves" in text


@pytest.mark.parametrize("junk", [b"", b"\xff\n\xfe\n\xfd"])
def test_a_run_is_not_called_unfinished_where_nobody_can_see_it(junk: bytes, tmp_path: Path) -> None:
    run = write_run(tmp_path / "run")
    (run / "metrics.jsonl").write_bytes(junk)
    text = report(run, out=tmp_path / "report.html").text
    assert "The number of trained epochs is not known" in text and "training is still running" not in text
    (run / "metrics.jsonl").unlink()
    text = report(run, out=tmp_path / "without.html").text
    assert "The number of trained epochs is not known" in text and "No epoch has ended yet" not in text


def test_a_curve_with_nothing_but_no_steps_is_left_out(tmp_path: Path) -> None:
    run = write_run(tmp_path / "run")
    assert "Accuracy against steps" in report(run, out=tmp_path / "before.html").text
    change(run / "diagnostics.json", steps={"steps": [0], "accuracy": [0.9]})
    text = report(run, out=tmp_path / "report.html").text
    assert "Accuracy against steps" not in text and "Accuracy against eps" in text


def test_curves_of_other_weights_are_left_out(tmp_path: Path) -> None:
    run = write_run(tmp_path / "run")
    found = json.loads((run / "diagnostics.json").read_text())
    for name, weights in (("eps", b"these"), ("steps", b"others")):
        found[name]["about"]["weights"] = [hashlib.sha256(weights).hexdigest()]
    (run / "diagnostics.json").write_text(json.dumps(found))
    (run / "model.safetensors").write_bytes(b"these")
    text = report(run, out=tmp_path / "report.html").text
    assert "Accuracy against eps" in text and "Accuracy against steps" not in text
    assert "diagnostics.json has figures of other weights than the run's, left out here: steps." in text


NAMES = ("evaluation.json", "diagnostics.json", "model.json", "provenance.json", "config.yaml", "examples.parquet",
         "gallery.parquet", "metrics.jsonl")  # fmt: skip
JUNK = {
    "cut": b'{"threat": {"norm',
    "binary": bytes(range(256)),
    "list": b"[1, 2, {}]",
    "deep": b"[" * 100_000,
    "empty": b"",
    "yaml": b"a: [b\n c: {",
}


@pytest.mark.parametrize("junk", JUNK)
@pytest.mark.parametrize("name", NAMES)
def test_a_damaged_file_costs_only_what_it_says(name: str, junk: str, tmp_path: Path) -> None:
    run = write_run(tmp_path / "run")
    (run / name).write_bytes(JUNK[junk])
    page = report(run, out=tmp_path / "report.html")
    assert "Cost of training" in page.text
    assert ("Robust accuracy 50.0 %" in page.text) is (name != "evaluation.json")


WRONG: list[Any] = [None, True, "text", -1, 1e400, float("nan"), [], {}, [[]], {"a": {"a": 1}}, 10**400]


def replaced(value: Any, path: tuple[Any, ...], new: Any) -> Any:
    """The same JSON with something else in one place."""
    if not path:
        return new
    copy = dict(value) if isinstance(value, dict) else list(value)
    copy[path[0]] = replaced(value[path[0]], path[1:], new)
    return copy


def places(value: Any, path: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    """Every place in a JSON, the first of each list."""
    inner = (
        list(value.items())
        if isinstance(value, dict)
        else list(enumerate(value))[:1]
        if isinstance(value, list)
        else []
    )
    return [path, *(found for key, each in inner for found in places(each, (*path, key)))]


@pytest.mark.parametrize("name", ["evaluation.json", "diagnostics.json", "model.json", "metrics.jsonl"])
def test_no_value_of_another_kind_stops_a_report(name: str, tmp_path: Path) -> None:
    run = write_run(tmp_path / "run")
    whole_file = json.loads((run / name).read_text().splitlines()[0])
    for number, place in enumerate(places(whole_file)):
        for wrong in WRONG[number % 3 :: 3]:
            (run / name).write_text(json.dumps(replaced(whole_file, place, wrong)) + "\n")
            details(read_run(run, "run"), "run-1")


@pytest.mark.parametrize("name", ["evaluation.json", "model.json", "metrics.jsonl"])
@pytest.mark.parametrize("number", [1e308, 10**200, 10**99, -1e308, 1e-320], ids="{:.0e}".format)
def test_no_number_is_too_large(number: float, name: str, tmp_path: Path) -> None:
    runs = [write_run(tmp_path / folder) for folder in "ab"]
    whole_file = json.loads((runs[0] / name).read_text().splitlines()[0])
    fields = {"eps": number, "images": number, "threat": {"norm": "linf", "eps": number}, "seconds": number}
    line = json.dumps(whole_file | {name: value for name, value in fields.items() if name in whole_file})
    (runs[0] / name).write_text(f"{line}\n{line}\n" if name == "metrics.jsonl" else line)
    assert report(*runs, out=tmp_path / "report.html").figures


def test_numbers_that_no_browser_reads_make_no_page() -> None:
    with pytest.raises(ValueError, match="JSON"):
        _environment().from_string("{{ figures|tojson }}").render(figures={"y": math.inf})


@pytest.mark.parametrize(
    "written",
    ["x: !!bool foo", "x: !!timestamp foo", "x: !!int foo", "d: 2020-13-45", "? [a]\n: 1", f"? 0x{'f' * 5000}\n: 1"],
    ids=lambda written: written[:20],
)
def test_a_recipe_that_is_none_costs_only_the_recipe(written: str, tmp_path: Path) -> None:
    run = write_run(tmp_path / "run")
    (run / "config.yaml").write_text(f"epochs: 3\n{written}\n")
    text = report(run, out=tmp_path / "report.html").text
    assert "config.yaml cannot be read, so the recipe is left out." in text and "Robust accuracy 50.0 %" in text


@pytest.mark.parametrize(
    "column",
    [pa.array([2**31 - 1], pa.date32()), pa.array([2**62], pa.duration("s")), pa.array([2**62], pa.time64("us"))],
)
def test_columns_that_nobody_needs_cost_nothing(column: pa.Array, tmp_path: Path) -> None:
    run = write_run(tmp_path / "run")
    table = pq.read_table(run / "gallery.parquet")
    pq.write_table(table.append_column("extra", column), run / "gallery.parquet")
    assert "gallery.parquet" not in report(run, out=tmp_path / "a.html").text
    pq.write_table(table.drop(["gain"]).append_column("gain", column), run / "gallery.parquet")
    assert "gallery.parquet cannot be read" in report(run, out=tmp_path / "b.html").text


def test_classes_that_are_no_numbers_are_left_out(tmp_path: Path) -> None:
    run = write_run(tmp_path / "run")
    inf = pa.array([math.inf])
    pq.write_table(pa.table({"label": inf, "prediction": inf, "broken_by": ["x"]}), run / "examples.parquet")
    assert "examples.parquet cannot be read" in report(run, out=tmp_path / "report.html").text


def test_what_is_no_text_is_shown_with_a_replacement_character(tmp_path: Path) -> None:
    names = (os.fsdecode(b"a\xff"), os.fsdecode(b"a\xfe"), "b")
    runs = [write_run(tmp_path / f"run {name!a}").rename(tmp_path / name) for name in names]
    change(runs[0] / "model.json", method="odd\ud800", model={"name": "net\udfff"}, classes=["\ud800"] * 3)
    change(runs[0] / "provenance.json", commit="\ud800c")
    change(runs[0] / "evaluation.json", attacks={"\udc80": {"robust_accuracy": 0.5}}, verdict="\ud800")
    (runs[0] / "metrics.jsonl").write_text(json.dumps(epoch(0, terms={"\ud800": 1.0, "b": 1.0})))
    page = report(*runs, out=tmp_path / "report.html")
    for said in ("odd\ufffd", "net\ufffd", "\ufffdc", "a\ufffd (1)", "a\ufffd (2)"):
        assert said in page.text, said
    assert "\\ud" not in page.scripts[0]
    ended = subprocess.run([sys.executable, "-m", "toughen", "report", runs[0]], check=True, capture_output=True)
    assert "a\ufffd/report.html" in ended.stdout.decode() and (runs[0] / "report.html").is_file()


def test_long_names_are_cut_and_recipes_are_not(tmp_path: Path) -> None:
    run, long = write_run(tmp_path / "run"), "A" * 300_000
    rows = pq.read_table(run / "gallery.parquet").to_pylist()
    names = {name: long for name, value in rows[0].items() if isinstance(value, str) and name != "outcome"}
    pq.write_table(pa.Table.from_pylist([rows[0] | names] * 10), run / "gallery.parquet")
    change(run / "model.json", method=long, data=long, model={"name": long}, classes=[long] * 3)
    change(run / "provenance.json", commit=long, processor={long: long})
    change(run / "evaluation.json", attacks={long: {"robust_accuracy": 0.5}}, data=long, seen_images=long)
    (run / "metrics.jsonl").write_text(json.dumps(epoch(0, method=long, terms={long: 1.0}, validation={long: 0.5})))
    (run / "config.yaml").write_text(f"{CONFIG}# {'B' * 5000}\n")
    page = report(run, out=tmp_path / "report.html")
    assert "A" * 199 + "…" in page.text and "A" * 200 not in page.source and "B" * 5000 in page.text


@pytest.mark.parametrize(
    ("draws", "told"), [(None, False), ({"total": 20, "wrong": 16}, True), ({"total": "20", "wrong": [16]}, False)]
)
def test_how_breaks_of_a_model_that_draws_are_counted(draws: object, told: bool, tmp_path: Path) -> None:
    """It is said; what toughen does not write is left out."""
    run = write_run(tmp_path / "run")
    change(run / "evaluation.json", draws=draws)
    said = "predictions are random: an image counts as broken if at least 16 of 20 repeated predictions are wrong"
    assert (said in report(run, out=tmp_path / "report.html").text) is told


def test_values_of_files() -> None:
    assert [real(each) for each in (1, 2.5, True, "1", None, float("inf"), 10**400)] == [1.0, 2.5, *[None] * 5]
    assert [share(each) for each in (0, 1, 1.01, -0.1)] == [0.0, 1.0, None, None]
    assert [whole(each) for each in (3, 3.0, 3.5, -1)] == [3, 3, None, None]
    assert pairs([1, "a", 3], [4, 5, 6]) == [(1.0, 4.0), (3.0, 6.0)]
    assert grid([[1, 2], [3, 4]], 2, 2) == [[1.0, 2.0], [3.0, 4.0]] and grid([[1, 2], [3]], 2, 2) == []


def test_a_picture_that_is_none_is_left_out(tmp_path: Path) -> None:
    run = write_run(tmp_path / "run")
    table = pq.read_table(run / "gallery.parquet").to_pylist()
    table[0] |= {"image": b"<svg onload=alert(1)>", "attacked": PNG}
    pq.write_table(pa.Table.from_pylist(table), run / "gallery.parquet")
    sources = [image["src"] for image in report(run, out=tmp_path / "report.html").all("img")]
    assert sources == ["data:image/png;base64," + base64.b64encode(PNG).decode()] * 2


# ---- What nobody may slip in.

HOSTILE = (
    "<script>alert(1)</script>",
    "</script><img src=x onerror=alert(2)>",
    "Ärger & \"Öl\" 'ß'",
    "{{ 7 * 7 }}",
    "<!--",
)


def hostile_run(folder: Path) -> Path:
    """A run in which every text is hostile."""
    run = write_run(folder, classes=HOSTILE)
    bad = HOSTILE[0] + HOSTILE[1]
    checks = [{"name": bad, "passed": False, "sentence": bad}]
    attacks = {bad: {"robust_accuracy": 0.5, "seconds": 1.0, "passes": 1, "parts": {bad: {"robust_accuracy": 0.5}}}}
    found = evaluation(0.5, data=bad, model=bad, checks=checks, attacks=attacks, verdict="doubtful", seen_images=bad)
    (run / "evaluation.json").write_text(json.dumps(found | {"provenance": {bad: bad, "processor": bad}}))
    line = epoch(0, method=bad, validation={bad: 0.5}, terms={bad: 1.0, "b": 2.0}, events=[{"event": bad, "text": bad}])
    (run / "metrics.jsonl").write_text(json.dumps(line) + "\n")
    (run / "config.yaml").write_text(f"epochs: 9\ndata: '{bad}'\n")
    (run / "provenance.json").write_text(json.dumps({"commit": bad, "processor": bad}))
    return run


def test_no_name_becomes_an_element(tmp_path: Path) -> None:
    safe = report(write_run(tmp_path / "safe"), out=tmp_path / "safe.html")
    page = report(hostile_run(tmp_path / "<img src=x onerror=alert(4)>"), out=tmp_path / "report.html")
    assert len(page.all("script")) == len(safe.all("script")) == 3
    kinds = {tag for tag, _ in page.elements}
    assert kinds <= {tag for tag, _ in safe.elements} | {"code", "h4", "ol", "ul", "li", "p", "div", "strong"}
    attributes = {name for _, found in page.elements for name in found}
    assert not [name for name in attributes if name.startswith("on")]
    assert all(str(image["src"]).startswith("data:image/png;base64,") for image in page.all("img"))
    for name in HOSTILE:
        assert " ".join(name.split()) in page.text, name
    assert "49" not in page.text.split("{{ 7 * 7 }}")[0][-10:] and "<title>&lt;img src=x" in page.source
    bars = next(each["data"] for each in page.figures.values() if each["kind"] == "bars")
    assert bars["names"] == list(HOSTILE)


def test_the_page_asks_for_nothing_and_runs_only_its_own(tmp_path: Path) -> None:
    page = report(hostile_run(tmp_path / "run"), out=tmp_path / "report.html")
    for tag, found in page.elements:
        for name in ("src", "href", "action", "srcset", "data", "poster"):
            assert str(found.get(name) or "#").startswith(("data:", "#")), (tag, found)
    assert tag and "@import" not in page.source and not re.search(r"url\((?!#)", page.source.split("<script", 1)[0])
    policy = next(str(found["content"]) for found in page.all("meta") if found.get("http-equiv"))
    hashes = [base64.b64encode(hashlib.sha256(script.encode()).digest()).decode() for script in page.scripts[1:]]
    assert policy.startswith("default-src 'none'; img-src data:;")
    assert f"script-src 'sha256-{hashes[0]}' 'sha256-{hashes[1]}';" in policy and "unsafe-eval" not in policy


def test_the_library_is_the_published_one() -> None:
    """As npm's echarts 6.1.0 has it; whoever replaces it writes its hash down."""
    folder = ROOT / "toughen/report/echarts"
    digest = hashlib.sha256((folder / "echarts.min.js").read_bytes()).hexdigest()
    assert digest in (folder / "README.md").read_text() and digest.startswith("b66b25ae")
    assert (
        "Apache License" in (folder / "LICENSE").read_text()
        and "</script" not in (folder / "echarts.min.js").read_text()
    )


# ---- The command.


def test_where_it_goes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    one, two = write_run(tmp_path / "one"), write_run(tmp_path / "two")
    assert toughen("report", one).status == 0 and (one / "report.html").is_file()
    ended = toughen("report", one, two)
    assert ended.status == 0 and "report.html" in ended.out and (tmp_path / "report.html").is_file()
    assert (
        toughen("report", one, "-o", tmp_path / "new/page.html").status == 0 and (tmp_path / "new/page.html").is_file()
    )
    assert not [path for path in tmp_path.rglob(".*")]


def test_nothing_is_replaced_unasked(tmp_path: Path) -> None:
    run, out = write_run(tmp_path / "run"), tmp_path / "report.html"
    out.write_text("")  # as a temporary file's maker leaves it
    assert toughen("report", run, "-o", out, "--overwrite").status == 0 and "12.3 %" not in out.read_text()
    change(run / "evaluation.json", robust_accuracy=0.123)
    refused(toughen("report", run, "-o", out), "exists already", "--overwrite")
    assert "12.3 %" not in out.read_text()
    assert toughen("report", run, "-o", out, "--overwrite").status == 0 and "12.3 %" in out.read_text()


@pytest.mark.parametrize("name", ["model.safetensors", "evaluation.json", "config.yaml", "page.html"])
def test_only_a_report_is_replaced(name: str, tmp_path: Path) -> None:
    run = write_run(tmp_path / "run")
    (run / "model.safetensors").write_bytes(b"weights")
    (run / "page.html").write_text("<!doctype html><p>Mine, not toughen's</p>")
    before = files(tmp_path)
    for more in ([], ["--overwrite"]):
        refused(toughen("report", run, "-o", run / name, *more), name, "is not a report", "choose another --out")
    assert files(tmp_path) == before


def test_bad_input_is_one_message(tmp_path: Path) -> None:
    run = write_run(tmp_path / "run")
    (tmp_path / "empty").mkdir()
    (tmp_path / "file").write_text("")
    before = files(tmp_path)
    refused(toughen("report"), "RUN is missing")
    refused(toughen("report", tmp_path / "none"), "no run directory", "none")
    refused(toughen("report", tmp_path / "file"), "no run directory")
    ended = toughen("report", run, tmp_path / "empty", "-o", tmp_path / "r.html")
    refused(ended, "is not a run directory", "config.yaml")
    refused(toughen("report", run, run), "named more than once")
    refused(toughen("report", run, "-o", tmp_path / "empty"), "is a folder")
    refused(toughen("report", run, "-o", tmp_path / "file/report.html"), "is a file", "--out")
    refused(toughen("report", run, "--outt", "x"), "--outt")
    assert files(tmp_path) == before


def test_a_folder_that_cannot_be_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run = write_run(tmp_path / "run")
    monkeypatch.setattr("os.access", lambda *_: False)
    refused(toughen("report", run, "-o", tmp_path / "report.html"), "cannot write", "--out")
    monkeypatch.undo()

    def fail(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.replace", fail)
    refused(toughen("report", run, "-o", tmp_path / "report.html"), "No space left", "--out")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["run"]


def test_reports_need_no_torch(tmp_path: Path) -> None:
    """Reading results must not wait for it, nor need it."""
    run = write_run(tmp_path / "run")
    script = (
        "import sys; sys.modules['torch'] = None\n"
        "from toughen.report import write_report\n"
        f"write_report([{str(run)!r}], {str(tmp_path / 'report.html')!r})"
    )
    subprocess.run([sys.executable, "-c", script], check=True, cwd=ROOT)
    assert "50.0 %" in (tmp_path / "report.html").read_text()


# ---- Many runs.


@pytest.fixture(scope="module")
def thousand(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """1,200 runs."""
    root = tmp_path_factory.mktemp("thousand")
    return [write_run(root / f"run-{n:04d}", robust=0.9 * n / 1200, pictures=n % 100 == 99) for n in range(1200)]


def test_a_report_of_many_runs_stays_usable(thousand: list[Path], tmp_path: Path) -> None:
    took, _ = processor_seconds("-m", "toughen", "report", *thousand, "-o", tmp_path / "report.html")
    page = Page(tmp_path / "report.html")
    assert took < 10, took  # it is 2 seconds of a processor
    assert "1200 runs side by side" in page.text and "for the 12 most robust" in page.text
    sections = [found for found in page.all("section") if found.get("class") == "run"]
    assert len(sections) == 12 and len(page.source) < 4e6
    cost = next(each["data"] for each in page.figures.values() if each["kind"] == "points")
    assert len(cost["points"]) == 1200
    assert [found["href"] for found in page.all("a") if str(found["href"]).startswith("#run-")][-1] == "#run-12"


def test_many_runs_are_compared_quickly(thousand: list[Path]) -> None:
    took, said = processor_seconds("-m", "toughen", "compare", *thousand)
    assert sum("90.0 %" in line for line in said.splitlines()) == 1200
    assert took < 10, took  # it is 1 second of a processor
