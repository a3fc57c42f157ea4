"""Diagnosing runs: what is written where, what stays, and what is refused."""

from __future__ import annotations

import io
import json
import os
import re
import shutil
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from commands import digits, files
from rich.console import Console

from toughen import data, models, runs
from toughen.attacks.fab import FAB
from toughen.evaluation.diagnostics import NAMES, common, diagnose_runs, names

SHAPE = (1, 28, 28)


@pytest.fixture(autouse=True)
def small_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    """Blocks of ten images, since the tests look at no more, or at twice that."""
    monkeypatch.setattr(common, "block_size", lambda device, n: 10)


def make_run(folder: Path, seed: int = 0, **fields: Any) -> Path:
    """A run directory whose net was never trained; in the directory of an earlier one, the weights change."""
    folder.mkdir(parents=True, exist_ok=True)
    about = models.describe("fbf-mnist-cnn", 10, SHAPE, None, None, {})
    record: dict[str, Any] = {
        "model": about, "classes": [str(label) for label in range(10)], "shape": list(SHAPE), "norm": "linf",
        "eps": 0.3, "method": "FBF", "data": str(digits()), "weights": "live", "epoch": 0, "validation": {},
    }  # fmt: skip
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        net = models.create("fbf-mnist-cnn", 10, SHAPE)
    runs.write_model(folder, runs.Record(**(record | fields)), net)
    return folder


def read(folder: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((folder / "diagnostics.json").read_text(), parse_constant=pytest.fail)
    return found


def test_each_run_gets_its_own_and_the_rest_goes_out(tmp_path: Path) -> None:
    first, second, out = make_run(tmp_path / "a"), make_run(tmp_path / "b", 1), tmp_path / "out" / "deep"
    which = ["surface", "confusion", "transfer"]
    found = diagnose_runs(
        [first, second], which=which, transfer_attacks=["fgsm", "pgd-2"], limit=20, seed=3, device="cpu", out=out
    )
    assert read(first) == found["runs"]["a"] and read(second) == found["runs"]["b"] and read(out) == found["shared"]
    assert read(first).keys() == {"surface", "confusion"} and read(out).keys() == {"surfaces", "transfer"}
    surfaces = read(out)["surfaces"]["runs"]
    assert surfaces["a"]["along"] == surfaces["b"]["along"] and "images" not in surfaces["a"]
    assert surfaces["a"]["mean"] == read(first)["surface"]["mean"] != surfaces["b"]["mean"]
    matrices = read(out)["transfer"]["attacks"]
    assert list(matrices) == ["fgsm", "pgd-2"] and matrices["pgd-2"]["models"] == ["a", "b"]
    about = read(first)["confusion"]["about"]
    assert about["threat"] == {"norm": "linf", "eps": 0.3} and about["seed"] == 3 and about["images"] == 20
    assert about["passes"] > 0 and about["provenance"]["torch"].startswith("2.")
    assert sum(map(sum, read(first)["confusion"]["clean"]["matrix"])) == 20


def test_what_is_not_diagnosed_again_stays(tmp_path: Path) -> None:
    run = make_run(tmp_path / "a")
    diagnose_runs([run], which=["confusion"], limit=10, device="cpu")
    before = read(run)
    (run / "diagnostics.json").write_text(json.dumps(before | {"of-mine": {"kept": 1}}))
    diagnose_runs([run], which=["logit-distance"], limit=20, device="cpu")
    assert read(run).keys() == {"confusion", "of-mine", "logit-distance"}
    assert read(run)["confusion"] == before["confusion"]
    diagnose_runs([run], which=["confusion"], limit=20, device="cpu")
    assert read(run)["confusion"]["about"]["images"] == 20


def test_without_out_transfer_is_in_every_run(tmp_path: Path) -> None:
    first, second = make_run(tmp_path / "x" / "run"), make_run(tmp_path / "y" / "run", 1, eps=None)
    diagnose_runs([first, second], which=["transfer"], transfer_attacks=["fgsm"], limit=10, device="cpu")
    assert read(first) == read(second)
    assert read(first)["transfer"]["attacks"]["fgsm"]["models"] == [str(first), str(second)]


@pytest.mark.parametrize("name", [name for name in NAMES if name != "transfer"])
def test_every_diagnostic_runs_and_is_json(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(names, "SURFACE_IMAGES", 2)
    monkeypatch.setattr(names, "FAB", partial(FAB, steps=2, targets=2))
    run = make_run(tmp_path / "a", eps=0.02)
    found = diagnose_runs([run], which=[name], limit=10, device="cpu")["runs"]["a"]
    assert read(run) == json.loads(json.dumps(found)) and read(run)[name]["about"]["threat"]["eps"] == 0.02


def test_another_threat_or_data_stands_beside_a_runs_own(tmp_path: Path) -> None:
    run, other, out = make_run(tmp_path / "a"), make_run(tmp_path / "b", 1, eps=0.1), tmp_path / "out"
    diagnose_runs([run], which=["confusion"], limit=10, device="cpu")
    before = read(run)
    copied = tmp_path / "same-images"
    shutil.copytree(digits(), copied)
    for settings in ({"eps": 0.1}, {"norm": "l2", "eps": 2.0}, {"data": str(copied)}):
        with pytest.raises(ValueError, match="was trained .* give --out"):
            diagnose_runs([run], which=["confusion"], limit=20, device="cpu", **settings)
        diagnose_runs([run], which=["confusion"], limit=20, device="cpu", out=out, **settings)
        assert read(run) == before
        assert read(out / "a")["confusion"]["about"]["images"] == 20
    diagnose_runs([run, other], which=["confusion"], eps=0.1, limit=10, device="cpu", out=out)
    assert read(run) == before and read(out / "a")["confusion"]["about"]["threat"]["eps"] == 0.1
    assert read(other)["confusion"]["about"]["threat"]["eps"] == 0.1 and not (out / "b").exists()


def test_a_kill_loses_only_what_was_under_way(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run = make_run(tmp_path / "a")

    def killed(case: Any) -> dict[str, Any]:
        raise KeyboardInterrupt

    monkeypatch.setitem(names.OF_A_RUN, "nuclear", killed)
    with pytest.raises(KeyboardInterrupt):
        diagnose_runs([run], which=["confusion", "nuclear"], limit=10, device="cpu")
    assert read(run).keys() == {"confusion"}


def test_what_cannot_be_is_refused_before_anything_is_written(tmp_path: Path) -> None:
    run, other = make_run(tmp_path / "a"), make_run(tmp_path / "b", eps=0.1)
    clean, small = make_run(tmp_path / "c", eps=None), make_run(tmp_path / "d", subset=True, classes=["7", "1"])
    seen = make_run(tmp_path / "e")
    test = data.load(str(digits()))
    runs.write_seen(seen, {"hashes": test.hashes(test.test)})
    (tmp_path / "file").write_text("")
    before = {name: files(tmp_path / name) for name in "abcde"}
    cases: list[tuple[list[Path], dict[str, Any], str]] = [
        ([], {}, "one run or more"),
        ([run, run], {"which": ["eps"]}, "each of them once"),
        ([tmp_path / "nowhere"], {}, "no run directory"),
        ([run], {"which": ["epz"]}, "'epz' is unknown: choose out of eps"),
        ([run], {"which": []}, "no diagnostic was named"),
        ([run], {"which": ["transfer"]}, "name two or more"),
        ([run, other], {}, "different threats"),
        ([clean], {}, "none of the runs was trained against a threat"),
        ([run], {"norm": "l2"}, "was trained against linf eps .*: give --eps for l2, too"),
        ([run], {"eps": 0.0}, "eps 0"),
        ([run], {"eps": 8.0}, "did you mean 8/255"),
        ([run], {"eps": 99.0, "norm": "l2"}, "exceeds 28"),
        ([seen], {}, "was trained on 100 %"),
        ([run, clean], {"transfer_attacks": ["nonsense"]}, "nonsense"),
        ([run], {"out": tmp_path / "file"}, "is a file"),
        ([run], {"limit": 0}, "at least 1"),
    ]
    for named, settings, said in cases:
        with pytest.raises(ValueError, match=said):
            diagnose_runs(named, device="cpu", **settings)
    with pytest.raises(ValueError, match=r"do not belong together|does not fit|different images"):
        diagnose_runs([run, small], which=["transfer"], device="cpu")
    (run / "diagnostics.json").write_text("[1]")
    with pytest.raises(ValueError, match=r"diagnostics.json is damaged"):
        diagnose_runs([run], which=["eps"], device="cpu")
    (run / "diagnostics.json").unlink()
    assert {name: files(tmp_path / name) for name in "abcde"} == before


def test_runs_with_other_test_images_cannot_be_compared(tmp_path: Path) -> None:
    run = make_run(tmp_path / "a")
    turned = make_run(tmp_path / "b", classes=[str(label) for label in range(9, -1, -1)])
    with pytest.raises(ValueError, match="different images or number the classes differently"):
        diagnose_runs([run, turned], which=["transfer"], device="cpu")


def test_without_a_terminal_a_line_follows_each_diagnostic(tmp_path: Path) -> None:
    first, second, out = make_run(tmp_path / "a"), make_run(tmp_path / "b", 1), io.StringIO()
    console = Console(file=out, force_terminal=False)
    which = ["steps", "transfer"]
    diagnose_runs([first, second], which=which, transfer_attacks=["fgsm"], limit=10, device="cpu", console=console)
    titles = [re.sub(r", \d+ s$", "", line) for line in out.getvalue().splitlines()]
    assert titles == ["a: steps", "b: steps", "transfer: fgsm"]


def test_figures_of_older_weights_are_moved_away(tmp_path: Path) -> None:
    """The run was trained on in between: its eps curve is of other weights than the confusion to come."""
    run, console = make_run(tmp_path / "a"), Console(file=io.StringIO(), width=200)
    diagnose_runs([run], which=["eps"], limit=10, device="cpu")
    before = (run / "diagnostics.json").read_bytes()
    make_run(run, seed=1)
    os.utime(run / "model.safetensors", (1, 1))  # the time of a file says nothing
    with pytest.raises(ValueError, match="nonsense"):
        diagnose_runs([run, make_run(tmp_path / "b")], transfer_attacks=["nonsense"], limit=10, device="cpu")
    assert not (run / "diagnostics.1.json").exists()
    diagnose_runs([run], which=["confusion", "logit-distance"], limit=10, device="cpu", console=console)
    assert read(run).keys() == {"confusion", "logit-distance"}
    assert (run / "diagnostics.1.json").read_bytes() == before and not (run / "diagnostics.2.json").exists()
    assert "diagnostics.1.json" in console.file.getvalue()  # type: ignore[attr-defined]


def test_figures_of_older_weights_are_moved_away_at_another_eps_too(tmp_path: Path) -> None:
    run, out = make_run(tmp_path / "a"), tmp_path / "out"
    diagnose_runs([run], which=["eps"], eps=0.1, limit=10, device="cpu", out=out)
    make_run(run, seed=1)
    diagnose_runs([run], which=["confusion"], eps=0.1, limit=10, device="cpu", out=out)
    assert read(out / "a").keys() == {"confusion"} and (out / "a/diagnostics.1.json").is_file()


def test_figures_stay_with_a_run_that_was_copied(tmp_path: Path) -> None:
    """A copy's files have times in any order."""
    run = make_run(tmp_path / "a")
    diagnose_runs([run, make_run(tmp_path / "b", 1)], which=["eps", "transfer"], transfer_attacks=["fgsm"], limit=10)
    shutil.copytree(run, tmp_path / "copy")
    os.utime(tmp_path / "copy/diagnostics.json", (1, 1))
    diagnose_runs([tmp_path / "copy"], which=["confusion"], limit=10, device="cpu")
    assert read(tmp_path / "copy").keys() == {"eps", "transfer", "confusion"}


def test_folders_that_are_no_place_for_comparisons(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Not another run's, not a data set's, and not one that leads to a run's own figures at another eps."""
    monkeypatch.chdir(tmp_path)
    flat = Path(shutil.copytree(digits() / "test", tmp_path / "flat"))
    run, other, third = (
        make_run(tmp_path / "x/a"),
        make_run(tmp_path / "x/b", 1),
        make_run(tmp_path / "x/c", data="flat"),
    )
    before = files(tmp_path)
    both = ["logit-distance", "transfer"]
    cases: list[tuple[list[Path], dict[str, Any], str]] = [
        ([run], {"out": ""}, "out is empty"),
        ([run, other], {"out": third, "which": both}, "is a run's directory"),
        ([run, other], {"out": third / "more", "which": both}, "lies in a run's directory"),
        ([run], {"out": flat, "eps": 0.1}, "holds a data set"),
        ([third], {"out": flat / "figures", "eps": 0.1}, "lies in the data set flat"),
        ([run], {"out": tmp_path / "x", "eps": 0.1}, "x/a is a run's directory"),
    ]
    for named, settings, said in cases:
        with pytest.raises(ValueError, match=said):
            diagnose_runs(named, **{"which": ["logit-distance"], "limit": 10, "device": "cpu", **settings})
        assert files(tmp_path) == before, said
    for out in (other, run / "with-b"):  # of the runs themselves
        diagnose_runs([run, other], which=["transfer"], transfer_attacks=["fgsm"], limit=10, device="cpu", out=out)
        assert read(out).keys() == {"transfer"}


def test_out_may_name_the_home_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    run = make_run(tmp_path / "a")
    found = diagnose_runs([run], which=["logit-distance"], eps=0.1, limit=10, device="cpu", out="~/figures")
    assert found["folders"] == [str(tmp_path / "home/figures/a")] and not Path("~").exists()


@pytest.mark.parametrize("name", [".", ".."])
def test_a_run_has_its_own_name_from_within(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """At another eps, figures of ".." would else be written to OUT/.., which may be the run directory itself."""
    run = make_run(tmp_path / "a")
    (run / "kept").mkdir()
    monkeypatch.chdir(run if name == "." else run / "kept")
    before = files(run)
    found = diagnose_runs([name], which=["logit-distance"], eps=0.1, limit=10, device="cpu", out=Path(name, "weaker"))
    assert list(found["runs"]) == ["a"] and read(run / "weaker/a").keys() == {"logit-distance"}
    assert files(run) == before | {"weaker/a/diagnostics.json": (run / "weaker/a/diagnostics.json").read_bytes()}


@pytest.mark.parametrize("content", ["", '{"eps": {', "[1]", '{"eps": 1}'])
def test_damaged_figures_are_no_reason_to_train_again(content: str, tmp_path: Path) -> None:
    run = make_run(tmp_path / "a")
    (run / "diagnostics.json").write_text(content)
    with pytest.raises(ValueError, match=r"diagnostics.json is damaged.*: move it elsewhere and diagnose again$"):
        diagnose_runs([run], which=["eps"], device="cpu")
    assert (run / "diagnostics.json").read_text() == content
