"""Numbers that are not to be believed, or are not whole, are never shown as if they were."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from commands import refused, toughen
from run_files import PNG, epoch, evaluation, write_run
from test_report import PASSED, Page, change, report

from toughen.evaluation.verdict import MODEL_CHECKS
from toughen.report.words import LABELS_FIT, UNFIT

MASKED = "The verdict on its robust accuracy is masked. Do not believe the number"


def masked(folder: Path, robust: float = 0.85) -> Path:
    """A run whose figure its checks call masked."""
    run = write_run(folder, robust=robust)
    change(run / "evaluation.json", verdict="masked")
    return run


def cost(page: Page) -> tuple[dict[str, Any], str]:
    """The figure of cost: what is drawn, and its text."""
    name, found = next((name, each["data"]) for name, each in page.figures.items() if each["kind"] == "points")
    return found, str(next(each["aria-label"] for each in page.all("div") if each.get("id") == name))


def test_a_masked_figure_is_said_where_runs_are_compared(tmp_path: Path) -> None:
    runs = [write_run(tmp_path / "honest"), masked(tmp_path / "blind")]
    page = report(*runs, out=tmp_path / "report.html")
    data, alt = cost(page)
    assert f"blind. {MASKED}" in page.text and f"honest. {MASKED}" not in page.text
    assert [point["mark"] for point in data["points"]] == ["", "masked"] and "hollow points: masked" in page.text
    assert alt.endswith("The most robust is honest.")
    assert page.all("main")[0]["data-first"] == "run-1"  # the honest one, though the other's number is higher
    ended = toughen("compare", *runs)
    assert re.search(r"blind .* 85\.0 % +masked", ended.out) and re.search(r"honest .* 50\.0 % +doubtful", ended.out)
    assert f"blind: {MASKED}" in " ".join(ended.out.split()) and f"honest: {MASKED}" not in ended.out


def test_a_net_that_has_learnt_nothing_is_not_said_to_mislead_attacks(tmp_path: Path) -> None:
    run = masked(tmp_path / "constant", robust=0.1)
    checks = [{**PASSED[0], "name": name, "passed": False} for name in (LABELS_FIT, "gradient size")]
    change(run / "evaluation.json", checks=checks)
    page = report(run, out=tmp_path / "report.html")
    assert UNFIT in page.text and "Do not believe" not in page.text and LABELS_FIT in MODEL_CHECKS


def test_no_run_is_called_the_most_robust_where_threats_differ(tmp_path: Path) -> None:
    runs = [write_run(tmp_path / name) for name in "ab"]
    change(runs[1] / "evaluation.json", **evaluation(0.8, threat={"norm": "linf", "eps": 0.01}))
    assert "most robust" not in cost(report(*runs, out=tmp_path / "report.html"))[1]


def test_nor_where_all_are_masked(tmp_path: Path) -> None:
    runs = [masked(tmp_path / name) for name in "ab"]
    assert "most robust" not in cost(report(*runs, out=tmp_path / "report.html"))[1]


def test_masked_and_outdated_runs_take_no_sound_one_s_place(tmp_path: Path) -> None:
    """Of fourteen runs twelve are shown in full: not the two highest figures, which are masked and outdated."""
    runs = [write_run(tmp_path / f"run-{n:02d}", robust=0.1 + n / 100, pictures=False) for n in range(12)]
    runs += [masked(tmp_path / "blind"), write_run(tmp_path / "old", robust=0.8)]
    change(runs[-1] / "evaluation.json", epoch=0, weights="live")
    page = report(*runs, out=tmp_path / "report.html")
    shown = [each["id"] for each in page.all("section") if each.get("class") == "run"]
    linked = re.findall(r'<a href="#run-\d+">([^<]*)</a>', page.source)
    assert len(shown) == 12 and linked == [f"run-{n:02d}" for n in range(12)]


def test_a_cost_that_is_not_whole_is_said_beside_it(tmp_path: Path) -> None:
    """Also where a run is one of more than are shown in full."""
    runs = [write_run(tmp_path / f"run-{n:02d}", robust=0.5 + n / 100, pictures=False) for n in range(14)]
    lines = (runs[0] / "metrics.jsonl").read_text().splitlines()
    (runs[0] / "metrics.jsonl").write_text("\n".join([lines[0], lines[1][:30], lines[2]]))
    (runs[1] / "metrics.jsonl").write_text(lines[0] + "\n")
    page = report(*runs, out=tmp_path / "report.html")
    assert re.search(r"run-00 90\.0 % .{,60} 60 at least: metrics\.jsonl is damaged 8\.0", page.text)
    assert re.search(r"run-01 90\.0 % .{,60} 30 training is not finished 8\.0", page.text)
    assert re.search(r"run-02 90\.0 % .{,60} 90 8\.0", page.text)
    assert "Left out of the cost figure because metrics.jsonl is damaged: run-00." in page.text
    marks = {point["name"]: point["mark"] for point in cost(page)[0]["points"]}
    assert "run-00" not in marks and marks["run-01"] == "training is not finished" and marks["run-02"] == ""


def test_the_card_says_that_a_cost_is_not_whole(tmp_path: Path) -> None:
    run = write_run(tmp_path / "run")
    (run / "metrics.jsonl").write_text("".join(json.dumps(epoch(n, seconds=None)) + "\n" for n in (0, 1)))
    with (run / "metrics.jsonl").open("a") as file:
        file.write(json.dumps(epoch(2)) + "\n")
    assert "Cost of training at least 30 s" in report(run, out=tmp_path / "report.html").text


@pytest.mark.parametrize("change", [{"epoch": 0}, {"events": "damaged"}, {"epoch": -1}])
def test_a_line_that_no_trainer_writes_is_left_out(change: dict[str, Any], tmp_path: Path) -> None:
    run = write_run(tmp_path / "run")
    lines = [epoch(0), epoch(1) | change, epoch(2)]
    (run / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    text = report(run, out=tmp_path / "report.html").text
    assert "Line 2 of metrics.jsonl cannot be read" in text and "The watch found no collapse" not in text
    assert "Cost of training at least 60 s" in text


def test_an_epoch_that_is_not_there_is_said(tmp_path: Path) -> None:
    run = write_run(tmp_path / "run")
    lines = (run / "metrics.jsonl").read_text().splitlines()
    (run / "metrics.jsonl").write_text(f"{lines[0]}\n{lines[2]}\n")
    text = report(run, out=tmp_path / "report.html").text
    assert "lacks 1 line of epochs before the last one" in text and "epochs are done" not in text
    assert "Cost of training at least 60 s" in text and "The watch found no collapse" not in text
    refused(toughen("compare", run), "metrics.jsonl is damaged")


def test_without_held_out_images_nothing_was_watched(tmp_path: Path) -> None:
    for folder, found in (("seen", {"clean": 0.8, "fgsm": 0.6, "pgd": 0.4}), ("blind", {}), ("plain", {"clean": 0.8})):
        run = write_run(tmp_path / folder)
        (run / "metrics.jsonl").write_text("".join(json.dumps(epoch(n, validation=found)) + "\n" for n in range(3)))
        text = report(run, out=tmp_path / f"{folder}.html").text
        assert ("The watch found no collapse." in text) is (folder == "seen")


def test_a_doubtful_run_s_curve_says_so(tmp_path: Path) -> None:
    runs = [write_run(tmp_path / "good"), masked(tmp_path / "blind"), write_run(tmp_path / "old")]
    change(runs[2] / "evaluation.json", epoch=0, weights="live")
    page = report(*runs, out=tmp_path / "report.html")
    overlays = [each["data"] for each in page.figures.values() if each.get("overlay")]
    assert len(overlays) == 2
    for each in overlays:
        assert {line["name"]: (line["label"], line["dashed"]) for line in each["lines"]} == {
            "good": ("good", False), "blind": ("blind (masked)", True), "old": ("old (outdated)", True),
        }  # fmt: skip
    assert page.text.count("blind (masked)") >= 3  # in both tables, and in that of cost


def test_equals_are_both_the_most_robust(tmp_path: Path) -> None:
    runs = [write_run(tmp_path / name, robust=share) for name, share in (("a", 0.5), ("b", 0.5), ("c", 0.4))]
    assert "The most robust are a, b." in report(*runs, out=tmp_path / "report.html").source
    assert "The most robust is b." in report(*runs[1:], out=tmp_path / "two.html").source


def test_compare_says_that_a_run_is_not_at_its_end(tmp_path: Path) -> None:
    ended = toughen("compare", write_run(tmp_path / "whole"), write_run(tmp_path / "short", epochs=2))
    said = " ".join(ended.out.split())
    assert ended.status == 0 and "short: 2 of 3 epochs are done: training is still running" in said
    assert "whole: " not in said
    refused(toughen("compare", tmp_path / "whole", tmp_path / "whole"), "named more than once")


def test_a_sound_number_and_what_its_checks_can_tell_agree(tmp_path: Path) -> None:
    """A note that the checks would miss some points stands beside no promise that they would not, nor as a warning."""
    run = write_run(tmp_path / "run")
    checks = [{"name": "more steps change little", "passed": True, "sentence": "PGD-200 breaks no more."}]
    told = (
        "To cost no longer than 20 s, checks were cut; they would not notice a number that is up to 7 points too high."
    )
    (run / "evaluation.json").write_text(json.dumps(evaluation(verdict="sound", checks=checks, price={"note": told})))
    text = report(run, out=tmp_path / "report.html").text
    assert told in text and "But the checks were shortened" in text and "can be believed: no check" not in text
    assert f'<p class="note">{told}' in (tmp_path / "report.html").read_text()


def test_a_gallery_of_another_kind_is_said(tmp_path: Path) -> None:
    run = write_run(tmp_path / "run")
    pq.write_table(pa.table({"image": [b"x"], "label": [3]}), run / "gallery.parquet")
    text = report(run, out=tmp_path / "report.html").text
    assert "gallery.parquet is not what toughen writes there" in text and "no images under attack" not in text


@pytest.mark.parametrize(
    "found",
    [
        {"verdict": "sound"},  # with a check that failed
        {"verdict": "sound", "checks": []},
        {"threat": {"norm": "l1", "eps": 12}},
        {"threat": {"eps": 0.3}},
        {"threat": {"norm": "linf", "eps": -0.3}},
        {"clean_accuracy": 0.2, "robust_accuracy": 0.9},
        {"attacks": {"fgsm": {"robust_accuracy": 0.6}, "pgd-20": {"robust_accuracy": 0.1}}},  # of 50.0 % that stand
    ],
)
def test_what_contradicts_itself_is_not_shown(found: dict[str, Any], tmp_path: Path) -> None:
    run = write_run(tmp_path / "run")
    (run / "evaluation.json").write_text(json.dumps(evaluation() | found))
    text = report(run, out=tmp_path / "report.html").text
    assert "evaluation.json is not what toughen writes there, so it is left out." in text
    assert "Sound" not in text and "can be believed: no check" not in text
    refused(toughen("compare", run), "evaluation.json is damaged")


def test_sound_is_shown_where_checks_passed(tmp_path: Path) -> None:
    run = write_run(tmp_path / "run")
    change(run / "evaluation.json", verdict="sound", checks=PASSED)
    assert "✓ Sound 1 check passed, 0 failed" in report(run, out=tmp_path / "report.html").text


def test_pictures_that_are_too_large_are_said(tmp_path: Path) -> None:
    """One of over a MiB; and of 30 with 300 KiB each no more than 8 MiB in all."""
    run = write_run(tmp_path / "run")
    row = pq.read_table(run / "gallery.parquet").to_pylist()[0] | {"attacked": PNG, "difference": PNG}
    rows = [row | {"image": PNG + bytes(2**20)}, *[row | {"image": PNG + bytes(300 * 2**10)}] * 30]
    pq.write_table(pa.Table.from_pylist(rows), run / "gallery.parquet")
    page = report(run, out=tmp_path / "report.html")
    shown = sum("clean" == each.get("title") for each in page.all("img"))
    assert 25 <= shown <= 27  # 8 MiB / 300 KiB = 27.3
    assert f"Of gallery.parquet, {31 - shown} images cannot be shown: too large for a report." in page.text
    assert "There are no images under attack" not in page.text


def test_advice_is_given_where_it_can_be_followed(tmp_path: Path) -> None:
    """`toughen evaluate` takes a run; what came out of an evaluation alone is none."""
    runs = [write_run(tmp_path / name, pictures=False) for name in ("run", "result")]
    for run in runs:
        change(run / "evaluation.json", verdict=None, checks=[])
    (runs[1] / "model.json").unlink()
    texts = [report(run, out=tmp_path / f"{run.name}.html").text for run in runs]
    for text in texts:
        assert "There are no images under attack" in text and "No checks were made" in text
    assert texts[0].count("toughen evaluate") == 2 and "toughen evaluate" not in texts[1]


def test_bars_are_named_where_they_are_drawn(tmp_path: Path) -> None:
    runs = [write_run(tmp_path / f"run-{n:02d}", robust=0.01 * n, pictures=False) for n in range(61)]
    few, many = (report(*runs[:n], out=tmp_path / f"{n}.html") for n in (60, 61))
    assert "bars: the 95 % interval" in few.text and cost(few)[0]["bars"] is True
    assert "bars: the 95 % interval" not in many.text and cost(many)[0]["bars"] is False


def test_a_link_to_itself_is_no_run(tmp_path: Path) -> None:
    (tmp_path / "loop").symlink_to("loop")
    refused(toughen("report", tmp_path / "loop"), "there is no run directory")


@pytest.mark.parametrize("columns", [40, 80])
def test_a_narrow_terminal_cuts_no_number(columns: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", str(columns))
    ended = toughen("compare", masked(tmp_path / "a-run"), write_run(tmp_path / "another-run", robust=0.305))
    for said in ("robust", "verdict", "passes a step", "90.0 %", "85.0 %", "30.5 %", "masked", "doubtful", "8.0"):
        assert said in ended.out, said
    assert "…" not in ended.out
