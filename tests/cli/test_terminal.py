"""What the terminal says of results: a model that is blind to single steps must not pass for a robust one."""

from __future__ import annotations

import io
import json
import math
import shutil
from pathlib import Path
from typing import Any

import pytest
from commands import digits, refused, toughen
from paths import NETS
from rich.console import Console

from toughen.cli.compare import print_comparison
from toughen.cli.evaluate import print_evaluation
from toughen.cli.list import method_facts, print_methods, recipe_summary
from toughen.evaluation.suite import SUITES, names
from toughen.methods import REGISTRY


def result(fgsm: float, pgd: float, **others: Any) -> dict[str, Any]:
    """What evaluation.json holds, with these accuracies."""
    attacks = {
        "fgsm": {"robust_accuracy": fgsm, "seconds": 0.5, "passes": 300},
        "pgd-20": {"robust_accuracy": pgd, "seconds": 10.0, "passes": 4000},
    }
    return {
        "clean_accuracy": 0.99,
        "robust_accuracy": min(fgsm, pgd),
        "attacks": attacks,
        "images": 100,
        "threat": {"norm": "linf", "eps": 0.3},
        "data": "mnist-5k",
        **others,
    }


def printed(show: Any, *arguments: Any) -> str:
    """What is written to a terminal of 80 columns."""
    console = Console(file=io.StringIO(), width=80)
    show(console, *arguments)
    file = console.file
    assert isinstance(file, io.StringIO)
    return file.getvalue()


@pytest.mark.parametrize(("fgsm", "pgd", "warned"), [(0.98, 0.02, True), (0.92, 0.73, False), (0.50, 0.29, True)])
def test_a_gap_between_fgsm_and_pgd_is_said(fgsm: float, pgd: float, warned: bool) -> None:
    text = printed(print_evaluation, Path("run"), result(fgsm, pgd))
    assert f"{100 * fgsm:.1f} %" in text and f"{100 * pgd:.1f} %" in text
    said = " ".join(text.split())
    assert ("FGSM is too weak for this model" in said) is warned
    assert ("The model is not robust" in said) is (pgd < fgsm / 2)
    assert max(map(len, text.splitlines())) <= 80


def run_with(folder: Path, found: dict[str, Any]) -> Path:
    """A run directory with this evaluation, two epochs of 3 + 5 seconds and 8 passes."""
    folder.mkdir(parents=True)
    (folder / "evaluation.json").write_text(json.dumps(found))
    lines = [{"epoch": epoch, "seconds": seconds, "passes": 8.0} for epoch, seconds in enumerate((3.0, 5.0))]
    (folder / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    return folder


def test_runs_side_by_side(tmp_path: Path) -> None:
    robust, blind = run_with(tmp_path / "a", result(0.92, 0.86)), run_with(tmp_path / "b", result(0.98, 0.0))
    text = printed(print_comparison, [robust, blind])
    assert "92.0 %" in text and "86.0 %" in text and "0.0 %" in text
    assert " 8 " in text and "8.0" in text  # 3 + 5 seconds, 8 passes
    assert "too weak for this model. The model is not robust" in " ".join(text.split())
    assert "The evaluations differ" not in text


def test_runs_that_were_not_measured_alike_are_marked(tmp_path: Path) -> None:
    one = run_with(tmp_path / "a", result(0.9, 0.8))
    other = run_with(tmp_path / "b", result(0.9, 0.8, threat={"norm": "linf", "eps": 0.1}))
    text = printed(print_comparison, [one, other]).replace("\n", " ")
    assert "The evaluations differ in threat: their numbers are not" in text


def test_runs_of_other_classes_are_marked(tmp_path: Path) -> None:
    """Of two classes half are right by chance, of three a third."""
    runs = [
        run_with(tmp_path / f"of {count}", result(0.9, 0.8, classes=["cat", "dog", "elk"][:count])) for count in (2, 3)
    ]
    assert "The evaluations differ in classes: their numbers are not" in " ".join(
        printed(print_comparison, runs).split()
    )
    assert "The evaluations differ" not in printed(print_comparison, runs[:1])


def test_runs_that_were_attacked_otherwise_are_marked(tmp_path: Path) -> None:
    one, found = run_with(tmp_path / "a", result(0.9, 0.8)), result(0.9, 0.9)
    del found["attacks"]["pgd-20"]
    text = " ".join(printed(print_comparison, [one, run_with(tmp_path / "b", found)]).split())
    assert "its own attacks: a: fgsm, pgd-20; b: fgsm" in text and "differ in attacks:" in text


@pytest.mark.parametrize(("eps", "said"), [(8 / 255, "linf eps 8/255"), (0.3, "linf eps 0.3"), (0.03, "linf eps 0.03")])
def test_a_radius_stands_as_it_was_given(eps: float, said: str, tmp_path: Path) -> None:
    found = result(0.9, 0.8, threat={"norm": "linf", "eps": eps})
    assert f"{said}\n" in printed(print_evaluation, Path("run"), found)
    assert said.replace("eps ", "") in printed(print_comparison, [run_with(tmp_path / "a", found)])


def test_an_evaluation_of_former_weights_is_marked(tmp_path: Path) -> None:
    run = run_with(tmp_path / "a", result(0.9, 0.8, epoch=0, weights="live"))
    (run / "model.json").write_text(json.dumps({"epoch": 0, "weights": "live"}))
    assert "again" not in printed(print_comparison, [run])
    (run / "model.json").write_text(json.dumps({"epoch": 3, "weights": "live"}))
    text = " ".join(printed(print_comparison, [run]).split())
    assert "used the weights after epoch 1, but the run now has those after epoch 4" in text


@pytest.mark.parametrize("name", ["m/[/b]/r", "[red]x", "a\x1b[31mb", "two\nlines", "x" * 120, "\udcff"])
def test_a_run_s_name_is_shown_as_it_is_and_steers_nothing(name: str, tmp_path: Path) -> None:
    text = printed(print_comparison, [run_with(tmp_path / name, result(0.98, 0.0))])
    shown = Path(name).name.replace("\x1b", "\ufffd").replace("\n", "\ufffd").replace("\udcff", "\ufffd")
    assert text.replace("\n", "").count(shown) >= 1 and "\x1b" not in text and "two\n" not in text
    assert max(map(len, text.splitlines())) <= 80


def test_long_paths_can_be_told_apart(tmp_path: Path) -> None:
    folders = [run_with(tmp_path / f"of-the-first-of-{n}" / "nuat", result(0.9, 0.8)) for n in range(2)]
    text = printed(print_comparison, folders).replace("\n", "").replace(" ", "")
    assert "of-the-first-of-0/nuat" in text and "of-the-first-of-1/nuat" in text


def test_names_of_runs_stay_whole_and_lose_what_they_share(tmp_path: Path) -> None:
    """In 80 columns: a folder's name is not broken, nor one of the paths of two runs of one name."""
    parts = ("runs/nuat-mnist-l2-seed-0", "mine/first/nuat-mnist", "mine/second/nuat-mnist")
    folders = [run_with(tmp_path / part, result(0.9, 0.8, threat={"norm": "linf", "eps": 8 / 255})) for part in parts]
    lines = printed(print_comparison, folders).splitlines()
    for name in ("nuat-mnist-l2-seed-0", "first/nuat-mnist", "second/nuat-mnist"):
        (line,) = (line for line in lines if line.startswith(f"{name} "))
        assert "90.0 %" in line and "80.0 %" in line
    long = run_with(tmp_path / ("a" * 60), result(0.9, 0.8))
    lines = printed(print_comparison, [long, folders[0]]).splitlines()
    assert f"[1] {'a' * 60}" in lines and any(line.startswith("[1] ") and "90.0 %" in line for line in lines)
    assert max(map(len, lines)) <= 80


VALUES: dict[str, tuple[Any, ...]] = {
    "clean_accuracy": (None, [], {}, 10**400, math.nan, math.inf, 1e308, "x", True),
    "robust_accuracy": (None, -0.1, 7.5),
    "attacks": (None, [], "", {"fgsm": None}, {"fgsm": {}}),
    "threat": (None, {}, {"norm": "linf", "eps": None}, {"norm": "linf", "eps": "x"}),
    "images": (None, [], 0, "x"),
}
HARMS = [{name: value} for name, values in VALUES.items() for value in values]


@pytest.mark.parametrize("harm", HARMS, ids=lambda harm: str(harm)[:30])
def test_an_evaluation_that_was_tampered_with_is_refused(harm: dict[str, Any], tmp_path: Path) -> None:
    refused(toughen("compare", run_with(tmp_path / "a", result(0.9, 0.8) | harm)), "evaluation.json is damaged")


@pytest.mark.parametrize("harm", ["[" * 100_000, "", "\x00"])
def test_what_is_no_evaluation_is_refused(harm: str, tmp_path: Path) -> None:
    run = run_with(tmp_path / "a", result(0.9, 0.8))
    (run / "evaluation.json").write_text(harm)
    refused(toughen("compare", run), "evaluation.json is damaged")


@pytest.mark.parametrize("number", ["1e999", "NaN", "1" + "0" * 400, '"x"', "null"])
def test_costs_that_are_no_numbers_are_refused(number: str, tmp_path: Path) -> None:
    run = run_with(tmp_path / "a", result(0.9, 0.8))
    (run / "metrics.jsonl").write_text(f'{{"epoch": 0, "seconds": {number}, "passes": 8.0}}\n')
    refused(toughen("compare", run), "metrics.jsonl is damaged")


def test_every_recipe_says_what_it_is() -> None:
    from toughen.config.settings import recipes

    summaries = {name: recipe_summary(path) for name, path in recipes().items()}
    assert len(summaries) >= 10
    assert all(summary.endswith(".") and len(summary) > 40 for summary in summaries.values()), summaries


@pytest.mark.slow
def test_a_collapsed_model_does_not_pass_for_a_robust_one(tmp_path: Path) -> None:
    words = "demo --method FGSMAT --eps 0.1 --epochs 10 --optimizer Adam --optimizer.lr 0.002 --crop 0 --averaging null"
    assert toughen("train", *words.split(), "--out", tmp_path / "run").status == 0
    found = toughen(
        "evaluate", tmp_path / "run", "--eps", 0.2, "--verdict", "false", "--out", tmp_path / "run"
    )  # beyond what it was trained for, FGSM alone is blind
    attacks = json.loads((tmp_path / "run/evaluation.json").read_text())["attacks"]
    assert attacks["fgsm"]["robust_accuracy"] - attacks["pgd-20"]["robust_accuracy"] > 0.2
    assert "not robust" in found.out


# ---- Attacks, verdicts and diagnostics.


def test_attacks_are_listed_in_80_columns(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    ended = toughen("list", "attacks")
    lines = ended.out.splitlines()
    assert ended.status == 0 and max(map(len, lines)) <= 80
    assert [line.split()[0] for line in lines if not line.startswith(" ")] == list(names())
    assert {
        "fgsm",
        "pgd",
        "autoattack",
        "apgd-t",
        "fab-t",
        "square",
        "gama-pgd",
        "deepfool",
        "random",
    } <= names().keys()
    assert all(len(about) > 20 and about.endswith(".") for _, about in names().values())
    assert {*(each for suite in SUITES.values() for each in suite)} & names().keys() >= {"fgsm", "gama-pgd"}


def check(name: str, passed: bool | None) -> dict[str, Any]:
    return {"name": name, "passed": passed, "figure": 0.5, "threshold": 0.1, "sentence": f"So is {name}. " * 9}


def test_the_verdict_comes_with_what_speaks_against_the_number() -> None:
    checks = [check("good", True), check("bad", False), check("absent", None), check("fine", True)]
    found = result(0.9, 0.8, verdict="masked", checks=checks, interval={"robust_accuracy": [0.711, 0.867]})
    text = printed(print_evaluation, Path("run"), found)
    words = " ".join(text.split())
    assert "verdict on the number: masked (2 checks passed, 1 failed, 1 not made)" in words
    assert "bad: So is bad." in words and "good" not in words and "absent" not in words
    assert "robust accuracy: 95 % interval 71.1 % to 86.7 %" in words
    assert max(map(len, text.splitlines())) <= 80
    assert "verdict" not in printed(print_evaluation, Path("run"), result(0.9, 0.8, verdict=None))


def test_how_breaks_of_a_model_that_draws_are_counted_is_said() -> None:
    found = result(0.9, 0.8, verdict="masked", checks=[], draws={"total": 20, "wrong": 16})
    words = " ".join(printed(print_evaluation, Path("run"), found).split())
    assert "predictions are random: an image is broken if at least 16 of 20 repeated predictions are wrong" in words
    assert "are random" not in printed(print_evaluation, Path("run"), result(0.9, 0.8, verdict="masked", checks=[]))


def test_parts_of_an_attack_are_shown_below_it() -> None:
    found = result(0.9, 0.8)
    part = {"robust_accuracy": 0.753, "seconds": 1.0, "passes": 100}
    found["attacks"]["autoattack"] = {**part, "parts": {"apgd-ce": part, "square": {**part, "robust_accuracy": 0.741}}}
    lines = printed(print_evaluation, Path("run"), found).splitlines()
    shown = [line.split()[:3] for line in lines if "then" in line]
    assert shown == [["then", "apgd-ce", "75.3"], ["then", "square", "74.1"]]


@pytest.mark.parametrize("precision", [(), ("--precision", "fp64")], ids=["fp32", "fp64"])
def test_a_diagnosis(precision: tuple[str, ...], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    run = tmp_path / "a-run-directory-with-quite-a-long-name-as-some-have"
    shutil.copytree(NETS / "pgd-at", run)
    words = ("diagnose", run, "--which", "confusion", "--data", digits(), "--limit", 20, *precision)
    refused(toughen(*words), "was trained on mnist", "--out", "other-data")
    ended = toughen(*words, "--out", tmp_path / "out")
    assert ended.status == 0, ended.err
    assert "confusion" in ended.out and "diagnostics.json in" in ended.out
    assert max(map(len, ended.out.splitlines())) <= 80
    found = json.loads((tmp_path / "out" / run.name / "diagnostics.json").read_text())["confusion"]
    assert sum(map(sum, found["clean"]["matrix"])) == 20
    assert found["about"]["precision"] == (precision or ("", "fp32"))[1]


# ---- The list of methods.


class Cited:
    """Lowers f(x) (in a way) on KL(a || b) (Doe & Roe, arXiv:0000.00000; Poe, Eq. 2), and more.

    Passes: 6.2, an attack (2.2) and the weights' gradient (4).
    """

    def __init__(self, *, eps: float | None = None, start: str = "none", size: float | None = None, given: int) -> None:
        pass


class Around:
    """Goes around another.

    Passes: +3, one more loss.
    """


def test_what_a_docstring_and_a_signature_say_of_a_method() -> None:
    assert method_facts(Cited) == {
        "about": "Lowers f(x) (in a way) on KL(a || b), and more.",
        "paper": "Doe & Roe, arXiv:0000.00000; Poe, Eq. 2",
        "passes": "6.2",
        "settings": "eps, start=none, size=None, given",
    }
    assert method_facts(Around) == {
        "about": "Goes around another.",
        "paper": "",
        "passes": "+3",
        "settings": "",
    }


def test_methods_are_listed_with_paper_cost_and_settings_in_80_columns() -> None:
    text = printed(print_methods, {"Cited": Cited, "Around": Around})
    assert max(map(len, text.splitlines())) <= 80
    words = " ".join(text.split())
    assert "Cited Lowers f(x) (in a way) on KL(a || b), and more. Doe & Roe, arXiv:0000.00000; Poe, Eq. 2;" in words
    assert "; 6.2 passes per step eps, start=none, size=None, given Around" in words
    assert "+3 passes per step in addition to the wrapped method" in words


def test_every_method_names_its_paper_its_cost_and_its_settings() -> None:
    text = printed(print_methods, REGISTRY)
    assert max(map(len, text.splitlines())) <= 80
    for name, kind in REGISTRY.items():
        facts = method_facts(kind)
        assert f"\n{name} " in "\n" + text and facts["passes"], name
        assert (facts["paper"] != "") is (name != "Standard"), name
        assert "(" not in facts["paper"] and facts["about"].endswith("."), name
    known = {
        "Free": "eps, norm=linf, replays=8, step_size=None, clamp=delta",
        "TRADES": "eps, norm=linf, steps=10, step_size=None",
    }
    assert all(method_facts(REGISTRY[name])["settings"].startswith(start) for name, start in known.items())
    papers = {"Free": "Shafahi et al., arXiv:1904.12843", "TRADES": "Zhang et al., arXiv:1901.08573"}
    assert all(method_facts(REGISTRY[name])["paper"] == paper for name, paper in papers.items())
    assert [method_facts(REGISTRY[name])["passes"] for name in ("Free", "TRADES", "AWP")] == ["3", "27", "+3"]
