"""The ways into an evaluation: a run, a net from elsewhere, any callable; each model is judged alike by all of them."""

from __future__ import annotations

import argparse
import json
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pyarrow.parquet as pq
import pytest
import torch
from commands import digits, files, refused, small, toughen
from paths import NETS
from PIL import Image
from torch import Tensor, nn

import toughen as package
from toughen import data, models, runs
from toughen.attacks import FAB, Adaptive, Square
from toughen.attacks.pgd import PGD
from toughen.core.modules import mode
from toughen.core.threat import Threat
from toughen.core.types import Norm
from toughen.data import Data, Split
from toughen.evaluation import evaluate_run, parse_attack
from toughen.evaluation import suite as suites
from toughen.evaluation.target import find_target
from toughen.runs.files import read_tensors, write_tensors
from toughen.utils.statistics import warning

OWN = """
from toughen import models

def net(num_classes, shape):
    return models.create("fbf-mnist-cnn", num_classes, shape)

def other(num_classes, shape):
    return models.create("small-cnn", num_classes, shape)
"""
TIMES = ("seconds", "provenance", "model")


def figures(found: Any, without: tuple[str, ...] = TIMES) -> Any:
    """A result without what a clock, or the way in, said."""
    if not isinstance(found, dict):
        return found
    return {name: figures(value, without) for name, value in found.items() if name not in without}


def some(n: int = 40, each: int = 4) -> Split:
    """Real digits of all classes."""
    test = data.load(str(digits())).test
    return test.take(torch.arange(0, 40, 40 // n)[:n])


@pytest.fixture
def own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A user's module `own_nets`, on the path."""
    folder = tmp_path / "modules"
    folder.mkdir()
    (folder / "own_nets.py").write_text(OWN)
    monkeypatch.syspath_prepend(str(folder))
    monkeypatch.delitem(sys.modules, "own_nets", raising=False)


def changed_run(name: str, folder: Path, **fields: Any) -> Path:
    """A copy of one of the committed runs whose record says something else."""
    shutil.copytree(NETS / name, folder)
    record = {**json.loads((folder / runs.RECORD).read_text()), **fields}
    (folder / runs.RECORD).write_text(json.dumps(record))
    write_tensors(folder / runs.WEIGHTS, read_tensors(folder / runs.WEIGHTS)[0], record)
    return folder


# ---- package.module:function and timm:NAME on the command line.


@pytest.mark.slow
def test_weights_are_judged_alike_in_a_run_and_elsewhere(own: None, tmp_path: Path) -> None:
    how = f"--attacks fgsm pgd-3x2 --data {digits()} --eps 0.15 --limit 30 --verdict false --out".split()
    weights = NETS / "standard" / runs.WEIGHTS
    assert toughen("evaluate", NETS / "standard", *how, tmp_path / "run").status == 0
    for spec, out in (("own_nets:net", "own"), ("fbf-mnist-cnn", "named")):
        ended = toughen("evaluate", spec, "--weights", weights, *how, tmp_path / out)
        assert ended.status == 0, ended.err
    folders = ("run", "own", "named")
    run, *elsewhere = (json.loads((tmp_path / name / "evaluation.json").read_text()) for name in folders)
    ways = (*TIMES, "weights", "epoch", "method")
    assert 0 < run["robust_accuracy"] < run["clean_accuracy"]
    for each in elsewhere:
        assert figures(run, ways) == figures(each, ways)
        assert each["weights"] == str(weights) and "method" not in each
    ledgers = [pq.read_table(tmp_path / name / "examples.parquet").to_pylist() for name in folders]
    assert ledgers[0] == ledgers[1] == ledgers[2] and len(ledgers[0]) == 30


@pytest.mark.slow
def test_an_exported_file_is_judged_like_its_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where only the file is at hand: with its own threat and classes, beside no list of the training images."""
    file = tmp_path / "given.away.safetensors"
    where = ("--data", digits(), "--attack", "none", "--out", file)
    assert toughen("export", NETS / "pgd-at", "--format", "safetensors", *where).status == 0
    how = f"--attacks fgsm pgd-3 --data {digits()} --limit 30 --verdict false".split()
    assert toughen("evaluate", NETS / "pgd-at", *how, "--out", tmp_path / "run").status == 0
    monkeypatch.chdir(tmp_path)
    ended = toughen("evaluate", file, *how)
    assert ended.status == 0, ended.err
    alone = tmp_path / "runs" / "given.away"  # not beside the file
    run, other = (json.loads((place / "evaluation.json").read_text()) for place in (tmp_path / "run", alone))
    assert figures(run, (*TIMES, "seen_images")) == figures(other, (*TIMES, "seen_images"))
    assert other["threat"] == {"norm": "linf", "eps": 0.3}
    assert "seen_images" not in run and "no list of its training images" in other["seen_images"]
    assert "no list of its training images" in " ".join(ended.out.split())
    ledgers = [pq.read_table(place / "examples.parquet").to_pylist() for place in (tmp_path / "run", alone)]
    assert ledgers[0] == ledgers[1] and len(ledgers[0]) == 30
    refused(toughen("evaluate", file, *how, "--weights", file), "is an exported model", "--weights")
    refused(toughen("evaluate", file, *how, "--surrogate", "train"), "no run directory", "--surrogate RUN")
    picture = sorted((digits() / "test").rglob("*.png"))[0]
    ended = toughen("predict", file, picture, "--json")
    assert ended.status == 0 and json.loads(ended.out)["unchanged"] is True, ended.err
    assert json.loads(ended.out)["class"] == picture.parent.name


def test_a_net_from_elsewhere_is_not_taken_for_one_handed_over_in_training_mode(own: None) -> None:
    assert not find_target("own_nets:net", data=str(digits()), eps=0.3).net.training


def test_without_out_a_net_from_elsewhere_gets_a_folder_of_its_own(
    own: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    words = f"own_nets:net --data {digits()} --eps 0.1 --limit 10 --attacks fgsm --verdict false"
    assert toughen("evaluate", *words.split()).status == 0
    assert (tmp_path / "runs/own_nets-net/evaluation.json").is_file()


ELSEWHERE = [
    ("own_nets:net --eps 0.3", "own_nets:net", "--data"),
    ("resnet18 --data DIGITS --eps 0.3", "resnet18 has no weights of its own", "--weights FILE"),
    ("wrn-16-4 --data DIGITS --eps 0.3 --weights WEIGHTS", "model.safetensors does not fit the model"),
    ("own_nets:net --data DIGITS", "own_nets:net", "--eps", "8/255"),
    ("own_nets:net --data DIGITS --eps 0", "eps 0", "above 0"),
    ("own_nets:net --data DIGITS --eps 0.3 --resize 32", "--resize 32", "--image-size"),
    ("own_nets:net --data DIGITS --eps 0.3 --image_size 32 --resize 28", "--resize 28", "--image-size"),
    ("own_nets:net --data DIGITS --eps 0.3 --image_size 0", "image_size 0", "1 pixel"),
    ("RUN --image_size 20", "is a run", "--image-size"),
    ("own_nets:net --data DIGITS --eps 8", "did you mean 8/255?"),
    ("own_nets:net --data DIGITS --eps 29 --norm l2", "eps 29 exceeds 28"),
    ("own_nets:net --data DIGITS --eps 0.3 --weights none.safetensors", "no weights none.safetensors"),
    ("own_nets:net --data DIGITS --eps 0.3 --weights TMP/w.pth", "w.pth is damaged"),
    ("own_nets:net --data DIGITS --eps 0.3 --weights TMP/trap.pth", "trap.pth holds more than weights", "not opened"),
    ("own_nets:net --data DIGITS --eps 0.3 --weights TMP/text.safetensors", "text.safetensors is damaged"),
    ("own_nets:other --data DIGITS --eps 0.3 --weights WEIGHTS", "model.safetensors does not fit the model"),
    ("own_nets:none --data DIGITS --eps 0.3", "own_nets", "no 'none'"),
    ("own_net:net --data DIGITS --eps 0.3", "own_net", "cannot be imported"),
    ("RUN --weights WEIGHTS", "is a run", "--weights"),
    ("RUN --data DIGITS --norm l2", "linf eps 0.3", "--eps for l2"),
    ("RUN --data DIGITS --surrogate CIFAR", "source model of black-box attacks", "[1, 28, 28]"),
    ("RUN --data DIGITS --surrogate nowhere", "no run directory nowhere"),
    ("RUN --data DIGITS --precision fp8", "--precision"),
    ("RUN --data DIGITS --batch_size 0", "batch_size is 0", "at least 1"),
    ("RUN --data DIGITS --processes 0", "processes is 0", "at least 1"),
    ("RUN --data DIGITS --limit 0", "limit is 0", "at least 1"),
]


@pytest.mark.parametrize(("words", "said"), [(words, said) for words, *said in ELSEWHERE])
def test_what_cannot_be_judged(words: str, said: list[str], own: None, tmp_path: Path) -> None:
    (tmp_path / "w.pth").write_bytes(b"")
    torch.save({"state_dict": {}, "args": argparse.Namespace(lr=1)}, tmp_path / "trap.pth")
    (tmp_path / "text.safetensors").write_text("no tensors")
    places = {"DIGITS": digits(), "TMP": tmp_path, "RUN": NETS / "pgd-at", "CIFAR": NETS / "cifar-pgd-at"}
    for name, place in {**places, "WEIGHTS": NETS / "pgd-at" / runs.WEIGHTS}.items():
        words = words.replace(name, str(place))
    refused(toughen("evaluate", *words.split(), "--attacks", "fgsm", "--out", tmp_path / "out"), *said)
    assert not (tmp_path / "out").exists()


def test_a_checkpoint_of_a_training_script_gives_its_weights(own: None, tmp_path: Path) -> None:
    """As DistributedDataParallel saves them, beside an optimizer."""
    tensors = {f"module.{name}": value for name, value in read_tensors(NETS / "pgd-at" / runs.WEIGHTS)[0].items()}
    torch.save({"state_dict": tensors, "optimizer": {"lr": 1}, "epoch": 3}, tmp_path / "net.pth")
    words = f"own_nets:net --data {digits()} --eps 0.1 --limit 10 --attacks fgsm --verdict false".split()
    for name, weights in (("a", NETS / "pgd-at" / runs.WEIGHTS), ("b", tmp_path / "net.pth")):
        assert toughen("evaluate", *words, "--weights", weights, "--out", tmp_path / name).status == 0
    one, other = (json.loads((tmp_path / name / "evaluation.json").read_text()) for name in "ab")
    assert one["attacks"]["fgsm"]["robust_accuracy"] == other["attacks"]["fgsm"]["robust_accuracy"]
    assert one["clean_accuracy"] == other["clean_accuracy"] == 1
    assert other["weights"] == f"{tmp_path / 'net.pth'}, without optimizer, epoch"


TIMM = {"num_classes": 10, "mean": (0.1,), "std": (0.3,)}


def imitate_timm(monkeypatch: pytest.MonkeyPatch, **about: Any) -> list[tuple[str, dict[str, Any]]]:
    """Something that makes nets as timm does, and keeps what it was asked."""
    asked: list[tuple[str, dict[str, Any]]] = []

    def create_model(name: str, *, num_classes: int, in_chans: int, **settings: Any) -> nn.Module:
        asked.append((name, {"num_classes": num_classes, "in_chans": in_chans, **settings}))
        net = models.create("fbf-mnist-cnn", num_classes, (in_chans, 28, 28))
        vars(net)["pretrained_cfg"] = about
        return net

    monkeypatch.setitem(sys.modules, "timm", SimpleNamespace(create_model=create_model))
    return asked


def test_timm_s_nets_come_pretrained_unless_weights_are_given(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked = imitate_timm(monkeypatch, **TIMM)
    how = f"--attacks fgsm --data {digits()} --eps 0.1 --limit 10 --verdict false --out".split()
    assert toughen("evaluate", "timm:tiny", *how, tmp_path / "a").status == 0
    weights = NETS / "pgd-at" / runs.WEIGHTS
    assert toughen("evaluate", "timm:tiny", "--weights", weights, *how, tmp_path / "b").status == 0
    plain = {"num_classes": 10, "in_chans": 1}
    assert asked == [("tiny", {**plain, "pretrained": True}), ("tiny", plain)]
    found = [json.loads((tmp_path / name / "evaluation.json").read_text()) for name in "ab"]
    assert [each["weights"] for each in found] == ["pretrained", str(weights)]
    assert found[1]["clean_accuracy"] == 1 and found[0]["clean_accuracy"] < 0.5


def test_a_run_s_file_names_no_other_weights_to_load(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """timm would unpickle a ``checkpoint_path``; and a setting called as an argument is no traceback."""
    asked = imitate_timm(monkeypatch, **TIMM)
    about = json.loads((NETS / "pgd-at" / runs.RECORD).read_text())["model"]
    settings = {"checkpoint_path": "evil.pth", "pretrained": True, "pretrained_cfg": {"file": "evil.pth"}, "depth": 2}
    run = changed_run("pgd-at", tmp_path / "run", model={**about, "name": "timm:tiny", "settings": settings})
    words = ("--data", digits(), "--limit", 10, "--attacks", "fgsm", "--model", "timm:tiny", "--out", tmp_path / "out")
    assert toughen("evaluate", run, *words, "--verdict", "false").status == 0
    assert asked == [("tiny", {"num_classes": 10, "in_chans": 1, "depth": 2})]
    run = changed_run("pgd-at", tmp_path / "other", model={**about, "name": "timm:tiny", "settings": {"name": "x"}})
    refused(toughen("evaluate", run, *words), "model.json is damaged (settings hold name)")


def test_timm_s_pretrained_nets_get_what_they_were_trained_on(monkeypatch: pytest.MonkeyPatch) -> None:
    """Images less timm's mean over its standard deviation; eps stays in the units of images."""
    imitate_timm(monkeypatch, **TIMM)
    found = find_target("timm:tiny", data=str(digits()), eps=0.1)
    (bare,) = (each for each in found.net.modules() if hasattr(each, "pretrained_cfg"))
    x = found.split.images[:5].float() / 255
    assert torch.allclose(found.net(x), bare((x - 0.1) / 0.3), atol=1e-6)
    assert found.threat.eps == 0.1


@pytest.mark.parametrize(
    ("about", "said"),
    [
        ({**TIMM, "num_classes": 1000}, "1,000 classes and these images have 10"),
        ({**TIMM, "mean": (0.4, 0.5, 0.6), "std": (0.2, 0.2, 0.2)}, "3 numbers, the images 1 channels"),
        ({}, "does not say what the weights"),
    ],
)
def test_timm_s_nets_for_other_images_are_refused(
    about: dict[str, Any], said: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Their last layer would be a new one, with nothing in it."""
    imitate_timm(monkeypatch, **about)
    refused(toughen("evaluate", "timm:tiny", "--data", digits(), "--eps", "0.1"), said)


def test_images_of_a_model_from_elsewhere_are_brought_to_a_size(own: None, tmp_path: Path) -> None:
    """The shorter side to 32 pixels and the centre out of it, as PIL does it."""
    source = data.load(str(digits())).test.images
    for part in ("train", "test"):
        for label in range(2):
            folder = tmp_path / part / f"c{label}"
            folder.mkdir(parents=True)
            for number, size in enumerate([(40, 36), (36, 50)]):
                Image.fromarray(source[label * 2 + number, 0].numpy()).resize(size).save(folder / f"{number}.png")
    how = ["--data", tmp_path, "--eps", "0.1", "--attacks", "fgsm", "--verdict", "false", "--out", tmp_path / "out"]
    refused(toughen("evaluate", "own_nets:net", *how), "--image-size")
    ended = toughen("evaluate", "own_nets:net", *how, "--image_size", 28, "--resize", 32)
    assert ended.status == 0, ended.err
    found = find_target("own_nets:net", data=str(tmp_path), eps=0.1, image_size=28, resize=32).split.images
    shorter = Image.open(tmp_path / "test/c0/0.png").resize((round(40 * 32 / 36), 32), Image.Resampling.BILINEAR)
    left = (shorter.width - 28) // 2
    expected = torch.frombuffer(shorter.crop((left, 2, left + 28, 30)).tobytes(), dtype=torch.uint8).view(28, 28)
    assert any(torch.equal(image[0], expected) for image in found)


def test_no_command_imports_what_a_run_s_files_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "trap.py").write_text("raise SystemExit('sprung')\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    about = json.loads((NETS / "pgd-at" / runs.RECORD).read_text())["model"]
    run = changed_run("pgd-at", tmp_path / "run", model={**about, "name": "trap:net"})
    limits = ("--data", digits(), "--limit", 10)
    refused(toughen("evaluate", run, *limits, "--out", tmp_path / "out"), "trap:net", "--model")
    refused(toughen("attack", run, *limits, "--out", tmp_path / "out.parquet"), "trap:net", "--model")
    ended = toughen("evaluate", NETS / "pgd-at", *limits, "--surrogate", run, "--out", tmp_path / "out")
    refused(ended, "trap:net")
    assert toughen("diagnose", run, *limits, "--which", "confusion").status == 2
    assert "trap" not in sys.modules and not (tmp_path / "out").exists()


def test_runs_of_own_nets_are_diagnosed_by_the_names_that_are_given(own: None, tmp_path: Path) -> None:
    about = json.loads((NETS / "pgd-at" / runs.RECORD).read_text())["model"]
    own_net, here = {**about, "name": "own_nets:net"}, str(digits())
    mine = changed_run("pgd-at", tmp_path / "mine", model=own_net, data=here)
    also = changed_run("fgsm-at", tmp_path / "also", model=own_net, data=here)
    ours = changed_run("pgd-at", tmp_path / "ours", data=here)
    words = ("--limit", 20, "--which", "confusion", "--model")

    def diagnosed(*names: str) -> list[Any]:
        ended = toughen("diagnose", mine, ours, also, *words, *names)
        assert ended.status == 0, ended.err
        found = [json.loads((run / "diagnostics.json").read_text())["confusion"] for run in (mine, ours, also)]
        for each in found:
            del each["about"]
        return found

    first, same, other = diagnosed("own_nets:net")
    assert first == same != other
    assert diagnosed("own_nets:net", "own_nets:net") == [first, same, other]
    refused(toughen("diagnose", mine, also, *words[:-1]), "own_nets:net", "--model")
    refused(toughen("diagnose", mine, *words, "own_nets:net", "own_nets:net"), "--model has 2 names, but 1 of the runs")
    refused(toughen("diagnose", ours, *words, "own_nets:net"), "--model has 1 names, but 0 of the runs")
    refused(toughen("diagnose", mine, *words, "own_nets:other"), "does not fit the net")


# ---- Any callable, in Python.


class Answer:
    """What some libraries' models return."""

    def __init__(self, logits: Tensor) -> None:
        self.logits = logits


@pytest.mark.slow
def test_data_in_any_form_is_judged_alike(tmp_path: Path) -> None:
    whole = data.load(str(digits()))
    x, y = whole.test.images, whole.test.labels
    net = package.load(NETS / "standard")
    forms: dict[str, Any] = {
        "name": str(digits()),
        "data": whole,
        "split": whole.test,
        "bytes": (x, y),
        "floats": (x.float() / 255, y),
        "split of floats": Split(x.float() / 255, y),
        "doubles and small labels": (x.double() / 255, y.to(torch.uint8)),
    }
    found, ledgers = {}, {}
    for name, form in forms.items():
        out = tmp_path / name
        result = package.evaluate(net, form, eps=0.15, attacks=["fgsm", "pgd-2"], verdict=False, limit=30, out=out)
        assert json.loads((out / "evaluation.json").read_text()) == json.loads(json.dumps(result))
        found[name], ledgers[name] = (
            figures(result, (*TIMES, "data", "classes")),
            pq.read_table(out / "examples.parquet"),
        )
    first = found["name"]
    assert 0 < first["robust_accuracy"] < first["clean_accuracy"] and first["images"] == 30
    assert all(each == first for each in found.values())
    assert all(each.equals(ledgers["name"]) for each in ledgers.values())
    assert ledgers["name"]["label"].to_pylist() == sorted([*range(10)] * 3)


def test_a_module_a_function_and_one_that_answers_with_an_object_are_judged_alike() -> None:
    net, split = package.load(NETS / "standard"), some()
    ways: list[nn.Module | Callable[[Tensor], Any]] = [net, lambda x: net(x), lambda x: Answer(net(x))]
    found = [package.evaluate(way, split, eps=0.15, attacks=["fgsm", "pgd-2"], verdict=False) for way in ways]
    assert figures(found[0]) == figures(found[1]) == figures(found[2])
    assert 0 < found[0]["robust_accuracy"] < found[0]["clean_accuracy"]


def test_a_model_without_a_gradient_is_named_even_where_no_verdict_is_asked_for() -> None:
    """Its accuracy under attacks that follow the gradient says nothing: the same net with one falls."""
    net, split = package.load(NETS / "standard"), some()
    settings: dict[str, Any] = {"eps": 0.15, "attacks": ["fgsm", "pgd-10"], "verdict": False}
    plain, detached = (package.evaluate(way, split, **settings) for way in (net, lambda x: net(x).detach()))
    assert "no_gradient" not in plain and detached["no_gradient"] is True
    assert detached["clean_accuracy"] == plain["clean_accuracy"]
    assert detached["robust_accuracy"] > plain["robust_accuracy"] + 0.2
    assert "no gradient with respect to the images" in str(warning(detached))


def test_a_function_without_parameters() -> None:
    """Bright images are of class 1: 0.45 falls by 0.1 and not by 0.04, 0.2 and 0.8 never."""

    def bright(x: Tensor) -> Tensor:
        mean = x.mean((1, 2, 3))
        return torch.stack([0.5 - mean, mean - 0.5], 1)

    images = torch.tensor([0.2, 0.45, 0.8]).view(3, 1, 1, 1).expand(3, 1, 4, 4)
    labels = torch.tensor([0, 0, 1])
    for eps, robust in ((0.1, 2 / 3), (0.04, 1.0)):
        found = package.evaluate(bright, (images, labels), eps=eps, attacks=["fgsm"], verdict=False)
        assert (found["clean_accuracy"], found["robust_accuracy"]) == (1.0, robust)
        assert found["data"] == "3 images"


def test_a_function_on_numpy_arrays(tmp_path: Path) -> None:
    """NumPy takes no image that requires a gradient, so there is none; Square breaks what it breaks of the same net."""
    net, split = linear(), some()
    weight, bias = (each.detach().numpy() for each in net[1].parameters())

    def by_numpy(x: Tensor) -> Tensor:
        return torch.from_numpy(x.numpy().reshape(len(x), -1) @ weight.T + bias)

    split = Split(split.images, net(split.images.float() / 255).argmax(1))
    attacks = {"pgd": PGD(eps=0.1, steps=2), "fab": FAB(eps=0.1, steps=2), "square": Square(eps=0.1, queries=99)}
    settings: dict[str, Any] = {"eps": 0.1, "attacks": attacks}
    found = package.evaluate(by_numpy, split, **settings, out=tmp_path)
    same = package.evaluate(net, split, **settings, verdict=False)
    assert found["no_gradient"] is True and found["verdict"] != "sound"
    assert found["attacks"]["square"]["robust_accuracy"] == same["attacks"]["square"]["robust_accuracy"] < 1


def test_the_model_stays_as_it_was() -> None:
    net = nn.Sequential(nn.Conv2d(1, 2, 5, 4), nn.BatchNorm2d(2), nn.Flatten(), nn.Dropout(0.5), nn.Linear(72, 10))
    net[1].eval()
    net[4].weight.requires_grad_(False)
    net[0].weight.grad = torch.ones(2, 1, 5, 5)
    before = {name: value.clone() for name, value in net.state_dict().items()}
    found = package.evaluate(net, some(10), eps=0.1, attacks=["fgsm", "pgd-2"])
    assert [module.training for module in net.modules()] == [True, True, False, True, True, True]
    assert all(torch.equal(value, before[name]) for name, value in net.state_dict().items())
    assert [each.grad is not None for each in net.parameters()] == [True, False, False, False, False, False]
    assert bool((net[0].weight.grad == 1).all()) and not net[4].weight.requires_grad
    assert any("handed over in training mode" in check["sentence"] for check in found["checks"])


def linear(outputs: int = 10) -> nn.Sequential:
    return nn.Sequential(nn.Flatten(), nn.Linear(784, outputs)).eval()


class Auxiliary(nn.Module):
    """Returns the logits, and in training mode also those of a second head."""

    def __init__(self) -> None:
        super().__init__()
        self.head, self.second = linear(), linear()

    def forward(self, x: Tensor) -> Any:
        return (self.head(x), self.second(x)) if self.training else self.head(x)


@pytest.mark.parametrize(
    ("net", "count"), [(Auxiliary(), 10), (nn.Sequential(linear(8), nn.BatchNorm1d(8), nn.Linear(8, 10)), 1)]
)
def test_a_model_that_gives_no_logits_in_training_mode_is_evaluated_all_the_same(net: nn.Module, count: int) -> None:
    images = some(count).images
    with mode(net.train(), "eval"), torch.no_grad():
        labels = net(images / 255).argmax(1)
    found = package.evaluate(net, (images, labels), eps=0.1, attacks=["fgsm"])
    assert found["clean_accuracy"] == 1 and net.training
    (check,) = (check for check in found["checks"] if check["name"] == "evaluation mode")
    assert check["passed"] and "in training mode the model gives no logits" in check["sentence"]


def undefined(value: float, below: float = 2.0) -> Callable[[Tensor], Tensor]:
    """A model whose logits are undefined for images darker than ``below``."""
    net = linear()
    return lambda x: torch.where(x.mean((1, 2, 3), keepdim=False)[:, None] < below, torch.full((), value), net(x))


def broken() -> nn.Module:
    net = linear()
    net.load_state_dict({"1.weight": torch.zeros(10, 784), "1.bias": torch.full((10,), torch.nan)})
    return net


X, Y = torch.zeros(4, 1, 28, 28, dtype=torch.uint8), torch.arange(4)
REFUSED: list[tuple[str, Any, Any, dict[str, Any], str]] = [
    ("labels above", linear(), (X, Y + 7), {}, "labels go from 7 to 10, but the model has 10 outputs"),
    ("labels below", linear(), (X, Y - 1), {"limit": 2}, "labels go down to -1"),
    ("labels as floats", linear(), (X, torch.eye(4)), {}, "one class number per image"),
    ("too few labels", linear(), (X, Y[:3]), {}, r"shape \[3\] for 4 images"),
    ("above the box", linear(), (X.float() + 255, Y), {}, "from 255 to 255: give bytes, or floats in"),
    ("above the box in a split", linear(), Split(X.float() + 1.01, Y), {}, "floats in"),
    ("below the box", linear(), (X.float() - 0.5, Y), {}, "from -0.5 to -0.5"),
    ("undefined pixels", linear(), (X * float("nan"), Y), {}, "from nan to nan"),
    ("whole numbers", linear(), (X.long(), Y), {}, "torch.int64"),
    ("no images", linear(), (X[:0], Y[:0]), {}, r"shape \[0, 1, 28, 28\]: give some"),
    ("no images in a split", linear(), Split(X[:0], Y[:0]), {}, "give some"),
    ("no test images", linear(), Data("none", Split(X, Y), Split(X[:0], Y[:0]), ("0", "1")), {}, "give some"),
    ("no channels", linear(), (X[:, 0], Y), {}, r"\[n, channels, rows, columns\]"),
    ("other images", models.create("fbf-mnist-cnn", 10, (1, 28, 28)), (X.expand(-1, 3, -1, -1), Y), {}, "cannot take"),
    ("NaN logits", undefined(float("nan")), (X, Y), {}, "NaN or infinite"),
    ("infinite logits", undefined(float("-inf")), (X, Y), {}, "NaN or infinite"),
    ("some NaN logits", undefined(float("nan"), 0.1), (X, Y), {}, "of 4 of 4 images are NaN or infinite"),
    ("NaN weights", broken(), (X, Y), {}, "holds NaN"),
    ("float64 weights", linear().double(), (X, Y), {}, r"float64: evaluate it with precision fp64, or make it \.float"),
    ("in place", nn.Sequential(nn.ReLU(inplace=True), linear()), (X, Y), {}, "its input images in place"),
    ("in place, a function", lambda x: linear()(x.clamp_(0, 1)), (X, Y), {}, "changes its input images in place"),
    ("bfloat16 weights", linear().bfloat16(), "DIGITS", {}, r"not float32, as the images are: make it \.float"),
    ("too few outputs", linear(7), "DIGITS", {}, "7 outputs and the data 10 classes"),
    ("too many outputs", linear(11), "DIGITS", {}, "11 outputs and the data 10 classes"),
    ("too few for the labels", linear(3), (X, Y), {}, "labels go from 0 to 3, but the model has 3 outputs"),
    ("one output", linear(1), (X, Y * 0), {}, "1 output"),
    ("no logits", lambda x: None, (X, Y), {}, "logits of shape"),
    ("one number an image", lambda x: x.mean((1, 2, 3)), (X, Y), {}, "logits of shape"),
    ("two lists of attacks", linear(), (X, Y), {"suite": "quick"}, "give one of them"),
    ("eps 0", linear(), (X, Y), {"eps": 0}, "eps 0"),
    ("eps 8", linear(), (X, Y), {"eps": 8}, "8/255"),
    ("eps beyond", linear(), (X, Y), {"eps": 28.1, "norm": "l2"}, "exceeds 28"),
    ("eps below", linear(), (X, Y), {"eps": -0.1}, "not below 0"),
    ("no such attack", linear(), (X, Y), {"attacks": ["pgdd"]}, "did you mean pgd"),
    ("two lines", linear(), (X, Y), {"attacks": ["fg\nsm"]}, "unknown"),
    ("a text", linear(), (X, Y), {"attacks": "fgsm"}, "a list of names"),
    ("no attack", linear(), (X, Y), {"attacks": []}, "no attack"),
    ("no such suite", linear(), (X, Y), {"attacks": None, "suite": "fast"}, "suite 'fast' is unknown"),
    ("limit", linear(), (X, Y), {"limit": 0}, "limit is 0"),
    ("batch_size", linear(), (X, Y), {"batch_size": 0}, "batch_size is 0"),
    ("processes", linear(), (X, Y), {"processes": 0}, "processes is 0"),
    ("what no process takes", lambda x: linear()(x), (X, Y), {"processes": 2}, "cannot be sent to other processes"),
    ("another surrogate", linear(), (X, Y), {"surrogate": linear(7)}, "source model of black-box attacks does not fit"),
]  # fmt: skip


WRONG_TYPES = """
import sys, torch, toughen
x, y, net = torch.rand(4, 1, 28, 28), torch.arange(4), torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(784, 10))
for data, eps, limit in [
    ((x.numpy(), y.numpy()), 0.1, 4), ([x, y.tolist()], 0.1, 4), ((x, y, y), 0.1, 4), (net, 0.1, 4),
    ((x, y), "0.1", 4), ((x, y), 0.1, 4.0), ((x, y), 0.1, "4"),
]:
    try:
        toughen.evaluate(net, data, eps=eps, limit=limit, attacks=["fgsm"], verdict=False)
    except ValueError as error:
        print(error)
"""


def test_what_is_of_another_type_is_refused_where_no_type_checker_looks() -> None:
    ended = subprocess.run([sys.executable, "-c", WRONG_TYPES], capture_output=True, text=True, check=True)
    assert ended.stdout.splitlines() == [
        "images are ndarray: give tensors, such as torch.as_tensor(images)",
        "labels are list: give tensors, such as torch.as_tensor(labels)",
        "data is a tuple of 3: give (images, labels)",
        "data is Sequential: give (images, labels), a Split, a Data, or a data set's name",
        "eps is '0.1': give a number, such as 8 / 255",
        "limit is 4.0: it must be a whole number, at least 1",
        "limit is '4': it must be a whole number, at least 1",
    ]


WRONG_SETTINGS = """
import sys, torch, toughen
x, y, net = torch.rand(4, 1, 28, 28), torch.arange(4), torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(784, 10))
for model, settings in [(net, {"lmit": 4}), (net, {"time_budget": 60}), (net, {"seed": "a"}), ("runs/mine", {})]:
    try:
        toughen.evaluate(model, (x, y), eps=0.1, **settings)
    except (TypeError, ValueError) as error:
        print(f"{type(error).__name__}: {error}")
"""


def test_unknown_settings_and_settings_of_another_type_are_refused() -> None:
    ended = subprocess.run([sys.executable, "-c", WRONG_SETTINGS], capture_output=True, text=True, check=True)
    assert ended.stdout.splitlines() == [
        "TypeError: evaluate has no setting 'lmit': use suite, attacks, limit, time_budget, seed, precision, "
        "batch_size, processes, verdict, depth, details",
        "ValueError: time_budget is 60: give a text such as '90s', '5m' or '1h30m'",
        "ValueError: seed is 'a': it must be a whole number",
        "ValueError: model is 'runs/mine': give a module or a function, such as toughen.load('runs/mine')",
    ]


def test_a_folder_may_be_given_as_a_path() -> None:
    net, how = linear(), dict[str, Any](eps=0.1, attacks=["fgsm"], verdict=False, limit=4)
    assert figures(package.evaluate(net, digits(), **how)) == figures(package.evaluate(net, str(digits()), **how))


@pytest.mark.parametrize(("model", "given", "how", "said"), [each[1:] for each in REFUSED], ids=[r[0] for r in REFUSED])
def test_what_cannot_be_evaluated(model: Any, given: Any, how: dict[str, Any], said: str, tmp_path: Path) -> None:
    given = str(digits()) if isinstance(given, str) else given
    settings = {"eps": 0.1, "attacks": ["fgsm"], "verdict": False, **how}
    with pytest.raises(ValueError, match=said):
        package.evaluate(model, given, out=tmp_path / "out", **settings)
    assert not (tmp_path / "out").exists()
    (tmp_path / "file").write_text("mine")
    with pytest.raises(ValueError, match="is a file: choose another"):
        package.evaluate(linear(), (X, Y), eps=0.1, attacks=["fgsm"], verdict=False, out=tmp_path / "file")


# ---- Suites.


def test_the_quick_suite_looks_at_a_thousand_images() -> None:
    test = data.load("mnist-5k").train
    small = Split(test.images[:1100, :, ::7, ::7].contiguous(), test.labels[:1100])
    net = nn.Sequential(nn.Flatten(), nn.Linear(16, 10))
    found = package.evaluate(net, small, eps=0.1, verdict=False)
    assert found["images"] == 1000 and list(found["attacks"]) == ["fgsm", "pgd-20", "apgd-dlr"]
    low, high = found["interval"]["robust_accuracy"]
    assert low <= found["robust_accuracy"] <= high and 0 < high - low < 0.07
    named = package.evaluate(net, small, eps=0.1, verdict=False, attacks=["fgsm"])
    assert named["images"] == 1100 and "interval" not in named


NUAT = {"defence": "nuclear", "weight": 4.0, "divisor": 128}


@pytest.mark.slow
def test_the_adaptive_attack_is_in_standard_for_a_run_that_knows_its_own(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(suites.SUITES, "standard", ("fgsm",))
    monkeypatch.setitem(suites.SUITES, "papers", ("fgsm",))
    run = changed_run("nuat", tmp_path / "run", adaptive=NUAT)
    how: dict[str, Any] = {
        "data": str(digits()),
        "limit": 10,
        "batch_size": 10,
        "verdict": False,
        "out": tmp_path / "out",
    }
    for name, wanted in (("standard", ["fgsm", "adaptive"]), ("papers", ["fgsm", "adaptive"])):
        found = evaluate_run(run, suite=name, **how)
        assert list(found["attacks"]) == wanted
        assert found["attacks"]["adaptive"]["gradients"] == 1000  # 100 steps for each of 10 images that stand or fall
    assert list(evaluate_run(NETS / "nuat", suite="standard", **how)["attacks"]) == ["fgsm"]


def test_which_adaptive_attack_a_record_stands_for() -> None:
    threat = Threat("linf", 0.3)
    assert "adaptive" not in suites.suite("standard", threat)
    assert "adaptive" not in suites.suite("quick", threat, adaptive=NUAT)
    for name in ("standard", "papers"):
        made = suites.suite(name, threat, adaptive=NUAT)["adaptive"]
        assert made == Adaptive(eps=0.3, defence="nuclear", weight=4.0, divisor=128)
    assert suites.suite("standard", threat, adaptive={"defence": "kl"})["adaptive"] == Adaptive(eps=0.3, defence="kl")


@pytest.mark.parametrize(
    "adaptive",
    [
        {},
        {"weight": 4.0},
        {"defence": "magic"},
        {"defence": "nuclear", "weight": "much"},
        {"defence": "nuclear", "weight": None},
        {"defence": "nuclear", "weight": -1.0},
        {"defence": "nuclear", "group": 2.5},
        {"defence": "nuclear", "divisor": 0},
        {"defence": "nuclear", "eps": 0.001},
        {"defence": "nuclear", "steps": 1},
        {"defence": ["nuclear"]},
    ],
)
def test_a_damaged_record_of_the_adaptive_attack(adaptive: dict[str, Any], tmp_path: Path) -> None:
    run = changed_run("nuat", tmp_path / "run", adaptive=adaptive)
    ended = toughen("evaluate", run, "--data", digits(), "--suite", "standard", "--out", tmp_path / "out")
    refused(ended, "model.json is damaged (adaptive: ")
    assert not (tmp_path / "out").exists()


def test_the_papers_settings() -> None:
    grey = suites.suite("papers", Threat("linf", 0.3), (1, 28, 28))
    colour = suites.suite("papers", Threat("linf", 8 / 255), (3, 32, 32))
    assert list(grey) == list(colour) == list(suites.SUITES["papers"])
    for steps in (7, 20, 50, 100, 500):
        for made, size in ((grey, 0.01), (colour, 2 / 255)):
            attack = made[f"pgd-{steps}"]
            assert isinstance(attack, PGD) and attack.steps == steps
            assert attack.step_size == pytest.approx(size, rel=1e-9)
    assert all(each.eps == 8 / 255 for each in colour.values())


@pytest.mark.parametrize("threat", [Threat("linf", 8 / 255), Threat("l2", 0.5)], ids=["linf", "l2"])
def test_every_name_makes_an_attack(threat: Threat) -> None:
    norm: Norm = threat.norm
    for name in (*suites.names(), *(each for suite in suites.SUITES.values() for each in suite)):
        attack = parse_attack(name, threat)
        assert (attack.eps, attack.norm) == (threat.eps, norm), name


# ---- The verdict in the result, and the net that black-box attacks are made on.


def test_a_verdict_is_a_word_and_checks_with_their_figures(tmp_path: Path) -> None:
    words = f"--attacks fgsm pgd-20 --data {digits()} --limit 10 --batch_size 10 --surrogate {NETS / 'standard'} --out"
    ended = toughen("evaluate", NETS / "pgd-at", *words.split(), tmp_path)
    assert ended.status == 0, ended.err
    found = json.loads((tmp_path / "evaluation.json").read_text())
    assert (
        found["verdict"] in ("sound", "doubtful", "masked")
        and f"verdict on the number: {found['verdict']}" in ended.out
    )
    assert len(found["checks"]) > 15
    for check in found["checks"]:
        assert {"name", "passed", "figure", "threshold", "sentence"} <= check.keys()
        assert check["name"] and check["sentence"].strip(), check
        assert check["passed"] is None or isinstance(check["figure"], float), check
    assert {check["name"]: check["passed"] for check in found["checks"]}["white-box beats black-box"] is True
    assert all(0 <= low <= high <= 1 for low, high in found["interval"].values())
    assert max(len(line) for line in ended.out.splitlines() if "toughen report" not in line) <= 80


@pytest.mark.slow
def test_a_normal_twin_is_trained_once(tmp_path: Path) -> None:
    run = tmp_path / "run"
    words = ("--method", "FBF", "--eps", 0.1, "--epochs", 15, "--optimizer", "Adam", "--optimizer.lr", 0.004)
    assert toughen(*small(*words, "--validation", 0, "--out", run)).status == 0  # some images stand, at least

    def black_box(*more: object) -> dict[str, Any]:
        ended = toughen(
            "evaluate", run, "--attacks", "fgsm", "--eps", 0.03, "--limit", 10, "--batch_size", 10, "--out", run, *more
        )
        assert ended.status == 0, ended.err
        assert not ended.err or "--quiet" not in more, ended.err
        checks = json.loads((run / "evaluation.json").read_text())["checks"]
        return next(check for check in checks if check["name"] == "white-box beats black-box")

    without = black_box()
    assert without["passed"] is None and "--surrogate RUN" in without["sentence"] and not (run / "source").exists()
    assert black_box("--surrogate", "train", "--quiet")["passed"] is not None
    twin = files(run / "source")
    assert runs.read_record(run / "source").method == "Standard" and runs.read_record(run / "source").eps is None
    assert black_box("--surrogate", "train")["passed"] is not None
    assert black_box("--surrogate", "train", "--device", "cpu")["passed"] is not None  # it was trained with "auto"
    assert files(run / "source") == twin


def test_no_twin_of_what_cannot_be_made_again(tmp_path: Path) -> None:
    words = ("--data", digits(), "--attacks", "fgsm", "--surrogate", "train", "--out", tmp_path / "out")
    run = changed_run("pgd-at", tmp_path / "run", subset=True)
    refused(toughen("evaluate", run, *words), "no standard model", "--surrogate RUN")
    refused(toughen("evaluate", "own_nets:net", *words, "--eps", 0.1), "own_nets:net")
    whole = changed_run("pgd-at", tmp_path / "whole")
    words = ("--data", digits(), "--attacks", "fgsmm", "--surrogate", "train", "--out", tmp_path / "out")
    refused(toughen("evaluate", whole, *words), "attack 'fgsmm' is unknown")  # before anything is trained
    assert not (whole / "source").exists()
    assert not (run / "source").exists() and not (run / "evaluation.json").exists()
