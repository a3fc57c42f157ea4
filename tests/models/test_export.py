"""Exported nets against the runs that they come from, under ONNX Runtime and PyTorch's own loader."""

from __future__ import annotations

import json
import resource
import sys
import zipfile
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from commands import refused, small, toughen
from timm_nets import NETS as TIMM
from timm_nets import needs_timm
from torch import nn

from toughen import models, runs
from toughen.attacks import PGD
from toughen.cli.export import checked, classes_differ
from toughen.core.types import Images, Labels, Logits
from toughen.models.export import difference, export, load_exported

QUICK = ("m-lenet", "small-cnn")  # whose export takes a few seconds
NETS = {"resnet18": {"width": 8}, "wrn-16-4": {}, "m-lenet": {}, "vgg11": {}, "small-cnn": {}}


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("runs") / "run"
    assert toughen(*small("--method", "FGSMAT", "--eps", 0.1, "--watch", "off", "--out", folder)).status == 0
    return folder


def images(net: str, digits: tuple[Images, Labels], count: int) -> Images:
    """Real images of the shape that a net takes."""
    grey = digits[0][:count]
    return (
        grey if net in ("m-lenet", "small-cnn") else torch.nn.functional.pad(grey, (2, 2, 2, 2)).expand(-1, 3, -1, -1)
    )


@pytest.mark.parametrize("form", ["onnx", "torch-export"])
@pytest.mark.parametrize(
    "net", [name if name in QUICK else pytest.param(name, marks=pytest.mark.slow) for name in NETS]
)
def test_a_net_says_the_same_after_export(net: str, form: str, mnist: tuple[Images, Labels], tmp_path: Path) -> None:
    x = images(net, mnist, 70)
    torch.manual_seed(0)
    shape = (x.shape[1], x.shape[2], x.shape[3])
    model = models.create(net, 10, shape, (0.5,) * shape[0], (0.25,) * shape[0], **NETS[net]).eval()
    path = tmp_path / "net.pt2"
    export(model, shape, path, form, {"classes": "[]"})
    furthest, other, *_ = difference(model, load_exported(path, form), x, batch_size=33)  # also a last batch of four
    assert other == 0 and furthest < 1e-4


@needs_timm
@pytest.mark.parametrize("form", ["onnx", "torch-export"])
@pytest.mark.parametrize("name", TIMM)
def test_a_net_of_timms_says_the_same_after_export(
    name: str, form: str, mnist: tuple[Images, Labels], tmp_path: Path
) -> None:
    x, y = mnist[0][:40], mnist[1][:40]
    torch.manual_seed(0)
    model = models.create(name, 10, (1, 28, 28), (0.5,), (0.25,), **TIMM[name]).eval()
    path = tmp_path / "net"
    export(model, (1, 28, 28), path, form, {"classes": "[]"})
    exported = load_exported(path, form)
    for images in (x, PGD(eps=0.1, steps=3)(model, x, y)):
        furthest, other, *_ = difference(model, exported, images, batch_size=33)
        assert other == 0 and furthest < 1e-3


class More(nn.Module):
    """A net that returns an object with logits and more, as those of the package transformers do."""

    def __init__(self) -> None:
        super().__init__()
        self.last = nn.Linear(784, 10)

    def forward(self, x: Images) -> SimpleNamespace:
        features = x.flatten(1)
        return SimpleNamespace(logits=self.last(features), features=features)


@pytest.mark.parametrize("form", ["onnx", "torch-export"])
def test_a_net_that_returns_more_than_logits(form: str, mnist: tuple[Images, Labels], tmp_path: Path) -> None:
    model, path = More(), tmp_path / "net.pt2"
    export(model, (1, 28, 28), path, form, {"classes": "[]"})
    exported = load_exported(path, form)
    with torch.no_grad():
        torch.testing.assert_close(exported(mnist[0]), model(mnist[0]).logits)
    assert difference(model, exported, mnist[0]).logit < 1e-3


def test_a_difference_is_seen(mnist: tuple[Images, Labels]) -> None:
    """By hand: logits are the means of the image's halves; the other net's first logit is higher by 1."""

    def halves(x: Images) -> Logits:
        return torch.stack([x[:, :, :14].mean((1, 2, 3)), x[:, :, 14:].mean((1, 2, 3))], 1)

    class Halves(nn.Module):
        def forward(self, x: Images) -> Logits:
            return halves(x)

    x = mnist[0][:40]
    lower = int((halves(x).argmax(1) == 1).sum())
    furthest, other, *_ = difference(Halves(), lambda x: halves(x) + torch.tensor([1.0, 0.0]), x, batch_size=7)
    assert furthest == pytest.approx(1, abs=1e-6) and 0 < lower == other


@pytest.mark.parametrize(
    ("size", "apart", "right"),
    [
        (5000.0, 0.4, True), (5000.0, 0.6, False), (10.0, 9e-4, True), (10.0, 1.1e-3, False),
        (0.1, 9e-4, True), (0.1, 1.1e-3, False), (1.0, float("nan"), False),
    ],
)  # fmt: skip
def test_large_logits_are_compared_by_their_size(size: float, apart: float, right: bool) -> None:
    """By hand: float32 has 7 digits, so that sums in another order may move a logit of 5,000 by 0.4."""

    class Fixed(nn.Module):
        def forward(self, x: Images) -> Logits:
            return torch.tensor([[0.0, size]]).expand(len(x), -1)

    net = Fixed()
    found = difference(net, lambda x: net(x) + torch.tensor([apart, 0.0]), torch.rand(3, 1, 2, 2))
    if right:
        assert checked(found).logit == pytest.approx(apart)
    else:
        with pytest.raises(RuntimeError, match="differs from the run's"):
            checked(found)


def test_a_class_may_change_where_two_logits_are_nearly_equal() -> None:
    def net(x: Images) -> Logits:
        return torch.tensor([[1.0, 1.0 + 1e-6]]).expand(len(x), -1)

    class Tied(nn.Module):
        def forward(self, x: Images) -> Logits:
            return net(x)

    found = checked(difference(Tied(), lambda x: net(x).flip(1), torch.rand(3, 1, 2, 2)))
    assert classes_differ(found) == "3 of 3 predictions between nearly equal logits differ"
    assert classes_differ(found._replace(classes=0)) == "the same classes"


def test_the_command_writes_a_net_that_onnx_runtime_runs_alike(run: Path, mnist: tuple[Images, Labels]) -> None:
    ended = toughen("export", run)
    assert ended.status == 0 and "the same classes" in ended.out, ended.err
    session = onnxruntime.InferenceSession(str(run / "model.onnx"), providers=["CPUExecutionProvider"])
    x = mnist[0][:200]
    ours = runs.load(run)(x).argmax(1)
    theirs = session.run(None, {"images": x.numpy()})[0].argmax(1)
    assert np.array_equal(ours.numpy(), theirs)
    about = {each.key: each.value for each in onnx.load(run / "model.onnx").metadata_props}
    assert json.loads(about["classes"]) == [str(digit) for digit in range(10)] and about["threat"] == "linf 0.1"
    again = toughen("export", run)
    assert again.status == 2 and "exists already" in again.err


def test_an_attack_through_the_exported_program_finds_what_it_finds_on_the_run(
    run: Path, mnist: tuple[Images, Labels], tmp_path: Path
) -> None:
    assert toughen("export", run, "--format", "torch-export", "--out", tmp_path / "net.pt2").status == 0
    exported = torch.export.load(tmp_path / "net.pt2").module()
    x, y = mnist[0][:100], mnist[1][:100]
    attack = PGD(eps=0.1, steps=5)
    broken = [(net(attack(net, x, y)).argmax(1) != y) for net in (runs.load(run), exported)]
    assert torch.equal(*broken) and 0 < int(broken[0].sum())


def test_a_program_under_a_name_that_its_loader_does_not_expect_is_refused(run: Path, tmp_path: Path) -> None:
    """``torch.export.load`` reports that it is unable to load such a file, although it loads it."""
    ended = toughen("export", run, "--format", "torch-export", "--out", tmp_path / "net.torch")
    assert ended.status == 2 and "must end in .pt2: torch.export.load expects it" in ended.err
    assert list(tmp_path.iterdir()) == []


def test_an_exported_program_holds_no_pickle(tmp_path: Path) -> None:
    model, path = models.create("m-lenet", 10, (1, 28, 28)), tmp_path / "net.pt2"
    export(model, (1, 28, 28), path, "torch-export", {"classes": "[]"})
    with zipfile.ZipFile(path) as file:
        contents = {name: file.read(name) for name in file.namelist()}
    pickled = [name for name, content in contents.items() if content[:1] == b"\x80" or content[:2] == b"PK"]
    assert not [name for name in pickled if "/weights/weight_" not in name]


@pytest.mark.parametrize("form", ["onnx", "torch-export"])
def test_an_exported_file_holds_no_paths_of_this_machine(form: str, tmp_path: Path) -> None:
    """The exporters write from which line of which file each operation came, and the line itself."""
    net = models.create("m-lenet", 10, (1, 28, 28), (0.5,), (0.25,))
    export(net, (1, 28, 28), tmp_path / "net.pt2", form, {"classes": "[]"})
    content = (tmp_path / "net.pt2").read_bytes()
    assert [each for each in (torch, models) if str(Path(each.__file__ or "").parent).encode() in content] == []
    assert b"forward(" not in content


@pytest.mark.parametrize(
    ("form", "name"), [("onnx", "a.onnx"), ("torch-export", "a.pt2"), ("safetensors", "a.safetensors")]
)
def test_a_full_disk_is_not_taken_for_a_fault_of_the_net(form: str, name: str, run: Path, tmp_path: Path) -> None:
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (200_000, before[1]))  # the net takes 670,000
    try:
        ended = toughen("export", run, "--format", form, "--out", tmp_path / name)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert ended.status == 2 and ended.err.startswith("toughen: cannot write the output (File too large)"), ended
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("words", "name", "advice"),
    [
        ((), "net.safetensors", "give --format safetensors, or another --out"),
        ((), "net.pt2", "give --format torch-export"),
        (("--format", "safetensors"), "net.onnx", "give --format onnx"),
    ],
)
def test_a_name_that_belongs_to_another_format_is_refused(
    words: tuple[str, ...], name: str, advice: str, run: Path, tmp_path: Path
) -> None:
    ended = toughen("export", run, *words, "--out", tmp_path / name)
    assert ended.status == 2 and advice in ended.err, ended
    assert list(tmp_path.iterdir()) == []


def test_what_differs_is_not_written(run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("toughen.cli.export.load_exported", lambda path, form: lambda x: torch.zeros(len(x), 10))
    ended = toughen("export", run, "--out", tmp_path / "net.onnx")
    assert ended.status == 1 and "differs from the run's" in ended.err
    assert list(tmp_path.iterdir()) == []


def test_a_missing_package_is_named(run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "onnxscript", None)
    ended = toughen("export", run, "--out", tmp_path / "net.onnx")
    assert ended.status == 2 and "pip install 'toughen[onnx]'" in ended.err
    assert list(tmp_path.iterdir()) == []


class Branches(nn.Module):
    """A net in which Python takes one way or another by the images, which no export can follow."""

    def forward(self, x: Images) -> Logits:
        return x.flatten(1)[:, :10] * (1.0 if x.mean() > 0.5 else 2.0)


class Singular(nn.Module):
    """A net with an operator that ONNX has not."""

    def forward(self, x: Images) -> Logits:
        found: Logits = torch.linalg.svdvals(x.mean(1))
        return found


def test_an_operator_that_onnx_has_not_is_named(tmp_path: Path) -> None:
    said = r"as onnx: No ONNX function found .*_linalg_svd.*\. Change the net, or use --format torch-export$"
    with pytest.raises(ValueError, match=said):
        export(Singular(), (1, 10, 10), tmp_path / "net.onnx", "onnx", {})
    assert list(tmp_path.iterdir()) == []
    export(Singular(), (1, 10, 10), tmp_path / "net.pt2", "torch-export", {})  # as the message advises


def test_a_net_that_cannot_be_exported_says_so(tmp_path: Path) -> None:
    said = r"the net cannot be exported as onnx: .*[^.]\. Change the net, or use --format safetensors$"
    with pytest.raises(ValueError, match=said):
        export(Branches(), (1, 28, 28), tmp_path / "net.onnx", "onnx", {})
    assert list(tmp_path.iterdir()) == []


def test_bad_words_are_refused(run: Path, tmp_path: Path) -> None:
    for words, said in (
        (("export", tmp_path / "none"), "there is no run directory"),
        (("export", run, "--format", "tflite"), "format"),
        (("export", run, "--out", tmp_path / "no" / "x.onnx", "--data", tmp_path / "gone"), "gone"),
    ):
        ended = toughen(*words)
        assert ended.status == 2 and said in ended.err and "Traceback" not in ended.err, ended.err


def test_of_two_exports_to_one_file_the_first_that_ends_stays(
    run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """They wrote to one temporary file, and the second failed for lack of it or replaced what was there."""
    out = tmp_path / "net.safetensors"
    words = ("export", run, "--format", "safetensors", "--limit", 20, "--out", out)

    def meanwhile(*given: Any) -> Any:
        monkeypatch.undo()
        assert toughen(*words).status == 0
        written.append(out.stat())
        return difference(*given)

    written: list[object] = []
    monkeypatch.setattr("toughen.cli.export.difference", meanwhile)
    refused(toughen(*words), "net.safetensors exists already: choose another --out, or remove it")
    assert written == [out.stat()] and [*tmp_path.iterdir()] == [out]
