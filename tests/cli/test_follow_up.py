"""Every command that a command prints is run as it is printed; and what a run's file may not have made."""

from __future__ import annotations

import json
import re
import shlex
import sys
from html import unescape
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from commands import digits, refused, small, toughen
from torch import nn

from toughen import models, runs
from toughen.runs.files import read_tensors, write_tensors

OWN = """
from toughen import models

def net(num_classes, shape):
    return models.create("fbf-mnist-cnn", num_classes, shape)
"""
CHEAP = ("--attacks", "fgsm", "--verdict", "false", "--details", "false")


@pytest.fixture
def own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A user's module `own_followed`, on the path."""
    (tmp_path / "modules").mkdir()
    (tmp_path / "modules" / "own_followed.py").write_text(OWN)
    monkeypatch.syspath_prepend(str(tmp_path / "modules"))
    monkeypatch.delitem(sys.modules, "own_followed", raising=False)


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, dict[str, Any]]]:
    """What is asked of something that makes nets as timm does."""
    found: list[tuple[str, dict[str, Any]]] = []

    def create_model(name: str, *, num_classes: int, in_chans: int, **settings: Any) -> nn.Module:
        found.append((name, settings))
        return models.create("fbf-mnist-cnn", num_classes, (in_chans, 28, 28))

    monkeypatch.setitem(sys.modules, "timm", SimpleNamespace(create_model=create_model))
    return found


def printed(text: str, before: str, after: str = "\n") -> list[str]:
    """The words of a command that stands between two texts, without the program's name."""
    found = re.search(re.escape(before) + "(.*?)" + re.escape(after), text)
    assert found, text
    program, *words = shlex.split(found[1])
    assert program == "toughen"
    return words


def follow(*words: object, run: Path) -> list[str]:
    """Train, and then run what is printed, each as printed; returns what evaluates the run."""
    trained = toughen(*small("--model", *words, "--out", run))
    assert trained.status == 0, trained.err
    evaluate = printed(trained.out, "evaluate them: ")
    unevaluated = toughen("compare", run)
    assert unevaluated.status == 2 and printed(unevaluated.err, "run `", "`") == evaluate
    reported = toughen("report", run)
    assert reported.status == 0 and "compare" not in reported.out  # what was not evaluated has no line there
    assert printed(unescape((run / "report.html").read_text()), "run <code>", "</code>") == evaluate
    for _ in range(2):  # the second time a report is there
        done = toughen(*evaluate, *CHEAP)
        assert done.status == 0, done.err
        look = toughen(*printed(done.out, "view it: "))
        assert look.status == 0, look.err
        compare = toughen(*printed(look.out, "compare runs in the terminal: "))
        assert compare.status == 0 and re.search(r"linf 0\.2|linf 8/255", compare.out), compare.err
    model = evaluate[evaluate.index("--model") :][:2] if "--model" in evaluate else []
    eps = evaluate[evaluate.index("--eps") :][:2] if "--eps" in evaluate else []
    assert toughen("attack", run, "--attack", "fgsm", "--out", run / "fgsm.parquet", *model, *eps).status == 0
    if not eps:
        assert toughen("diagnose", run, "--which", "confusion", "--limit", 10, *model).status == 0
    return evaluate


def test_an_ordinary_net_in_a_folder_with_blanks(tmp_path: Path) -> None:
    run = tmp_path / "my runs" / "it's one"
    assert follow("fbf-mnist-cnn", "--method", "FBF", "--eps", 0.2, run=run) == ["evaluate", str(run)]


def test_a_net_trained_without_a_threat_is_evaluated_at_one(tmp_path: Path) -> None:
    run = tmp_path / "run"
    assert follow("fbf-mnist-cnn", "--method", "Standard", run=run) == ["evaluate", str(run), "--eps", "8/255"]


def test_a_net_of_ones_own_is_named(own: None, tmp_path: Path) -> None:
    run = tmp_path / "run"
    found = follow("own_followed:net", "--method", "FBF", "--eps", 0.2, run=run)
    assert found == ["evaluate", str(run), "--model", "own_followed:net"]


def test_every_command_finds_a_net_of_ones_own_in_the_current_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "own_here.py").write_text(OWN)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [*sys.path])
    assert toughen(*small("--model", "own_here:net", "--method", "FBF", "--eps", 0.2, "--out", "run")).status == 0
    image = next(digits().rglob("test/*/*.png"))
    form = ("--format", "safetensors", "--out", "new/net.safetensors")  # in a folder that is not there yet
    for words in (("predict", "run", image), ("export", "run", *form), ("push", "run", "me/net")):
        monkeypatch.setattr(sys, "path", [each for each in sys.path if each != str(tmp_path)])
        monkeypatch.delitem(sys.modules, "own_here", raising=False)
        ended = toughen(*words, "--model", "own_here:net")
        assert ended.status == 0, ended.err
    assert (tmp_path / "new" / "net.safetensors").is_file()


def test_a_report_of_two_runs_prints_what_compares_both(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    found = []
    for name in ("-one", "two of them"):
        assert toughen(*small("--method", "FBF", "--eps", 0.2), f"--out={name}").status == 0
        found.append(name if name[0] != "-" else f"./{name}")
        assert toughen("evaluate", found[-1], *CHEAP).status == 0
    look = toughen("report", *found, "--out", "both.html")
    command = printed(look.out, "compare runs in the terminal: ")
    assert command == ["compare", *found]
    compare = toughen(*command)
    assert compare.status == 0 and "-one" in compare.out and "two of them" in compare.out, compare.err
    Path("-one", "evaluation.json").unlink()
    assert "compare" not in toughen("report", *found, "--out", "again.html").out


@pytest.mark.parametrize("name", ["tiny", "tiny.a1_in1k"])
def test_a_net_of_timm_s_needs_no_name(name: str, asked: list[tuple[str, dict[str, Any]]], tmp_path: Path) -> None:
    run = tmp_path / "run"
    words = (f"timm:{name}", "--model_settings", "{drop_rate: 0.1, pretrained: true}", "--method", "FBF", "--eps", 0.2)
    assert follow(*words, run=run) == ["evaluate", str(run)]
    assert asked[0] == (name, {"drop_rate": 0.1, "pretrained": True})  # typed by the user
    assert len(asked) > 3 and all(each == (name, {"drop_rate": 0.1}) for each in asked[1:])


def test_a_net_that_timm_takes_from_the_hub_is_named(asked: list[tuple[str, dict[str, Any]]], tmp_path: Path) -> None:
    run = tmp_path / "run"
    found = follow("timm:hf-hub:them/net", "--method", "FBF", "--eps", 0.2, run=run)
    assert found == ["evaluate", str(run), "--model", "timm:hf-hub:them/net"]


@pytest.mark.slow
def test_a_real_net_of_timm_s(tmp_path: Path) -> None:
    pytest.importorskip("timm")
    follow("timm:test_resnet.r160_in1k", "--method", "FBF", "--eps", 0.2, run=tmp_path / "run")


NAMES = [
    "os:system", "own_followed:net", "timm:hf_hub:them/net", "timm:hf-hub:them/net", "timm:local-dir:/tmp/net", "timm:",
    "timm:them/net", "timm:../net", "timm:a.b.c", "timm:Net", "TIMM:net", "timm:net\n", "timm:net@main", "timm:ñet",
    "xtimm:net", " timm:net", f"timm:{'n' * 200}",
]  # fmt: skip
SETTINGS = [
    {"pretrained": "them/net"}, {"pretrained": 1}, {"pretrained_cfg": {"file": "evil.pth"}}, {"pretrained_cfg": "a1"},
    {"pretrained_cfg_overlay": {}}, {"checkpoint_path": "evil.pth"}, {"cache_dir": "evil"}, {"num_classes": 3},
    {"in_chans": 3}, {"name": "x"}, {"features_only": True}, {"act_layer": "os.system"}, {"act_layer": "a/b"},
    {"act_layer": ["relu"]}, {"norm_layer": {"class_path": "os.system"}}, {"drop_rate": None}, {"unheard_of": 1},
]  # fmt: skip


@pytest.mark.parametrize(
    ("name", "settings"), [*((name, {}) for name in NAMES), *(("timm:net", settings) for settings in SETTINGS)]
)
def test_what_a_file_may_not_have_made(
    name: str, settings: dict[str, Any], own: None, asked: list[tuple[str, dict[str, Any]]]
) -> None:
    about = {"name": "timm:net", "num_classes": 10, "shape": [1, 28, 28], "mean": None, "std": None, "settings": {}}
    assert isinstance(models.from_description(about), nn.Module) and asked == [("net", {})]
    with pytest.raises(ValueError, match="from a file toughen makes only its own nets"):
        models.from_description({**about, "name": name, "settings": settings})
    assert asked == [("net", {})] and "own_followed" not in sys.modules


def test_timm_that_is_missing_or_broken_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run = tmp_path / "run"
    assert toughen(*small("--method", "FBF", "--eps", 0.2, "--out", run)).status == 0
    record = json.loads((run / runs.RECORD).read_text())
    record["model"] = {**record["model"], "name": "timm:net", "settings": {}}
    (run / runs.RECORD).write_text(json.dumps(record))
    write_tensors(run / runs.WEIGHTS, read_tensors(run / runs.WEIGHTS)[0], record)
    monkeypatch.setitem(sys.modules, "timm", None)
    refused(toughen("evaluate", run), "timm:net needs the package timm: pip install 'toughen[timm]'")
    monkeypatch.delitem(sys.modules, "timm")
    (tmp_path / "timm.py").write_text("raise RuntimeError('operator torchvision::nms does not exist')\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    refused(toughen("evaluate", run), "timm cannot be imported", "torchvision::nms")
