"""A classifier in one safetensors file, loaded by toughen, and by others who do not have it."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from commands import process, refused, small, toughen
from PIL import Image
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from timm_nets import NETS, needs_timm

import toughen as package
from toughen import models, runs
from toughen.core.types import Images, Labels
from toughen.runs.directory import Record
from toughen.runs.files import DIGEST
from toughen.runs.single_file import load_single, write_single

OWN = """
from torch import nn

def net(num_classes, shape):
    return nn.Sequential(nn.Conv2d(shape[0], 4, 5, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.Flatten(),
                         nn.Linear(4 * 8 * 8, num_classes))
"""
ELSEWHERE = """
import json, sys
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file

path, images, answer = sys.argv[1:]
with safe_open(path, "pt") as file:
    about = file.metadata()
name, settings = json.loads(about["model"])["name"], json.loads(about["model"])["settings"]
x, classes = load_file(images)["x"], len(json.loads(about["classes"]))
if name.startswith("timm:"):
    import timm
    net = timm.create_model(name[5:], num_classes=classes, in_chans=x.shape[1], **settings)
else:
    from mine import net as make
    net = make(classes, tuple(x.shape[1:]))
net.load_state_dict(load_file(path))
mean, std = (torch.tensor(json.loads(about[key])).view(-1, 1, 1) for key in ("mean", "std"))
with torch.no_grad():
    save_file({"logits": net.eval()((x - mean) / std)}, answer)
assert "toughen" not in sys.modules
"""


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("runs") / "run"
    assert toughen(*small("--method", "FGSMAT", "--eps", 0.1, "--watch", "off", "--out", folder)).status == 0
    return folder


def record_of(name: str, settings: dict[str, object], shape: tuple[int, int, int]) -> Record:
    statistics = ([0.5] * shape[0], [0.25] * shape[0])
    about = models.describe(name, 10, shape, *statistics, settings)
    more = {"method": "FGSMAT", "data": "mnist-5k", "weights": "live", "epoch": 0, "validation": {}}
    return Record(model=about, classes=[str(n) for n in range(10)], shape=list(shape), norm="linf", eps=0.1, **more)  # type: ignore[arg-type]


def elsewhere(path: Path, x: Images) -> torch.Tensor:
    """What a program without toughen makes of a file."""
    (path.parent / "elsewhere.py").write_text(ELSEWHERE)
    save_file({"x": x.contiguous()}, path.parent / "x.safetensors")
    answer = path.parent / "logits.safetensors"
    ended = process(path.parent / "elsewhere.py", path, path.parent / "x.safetensors", answer)
    assert ended.returncode == 0, ended.stderr
    return load_file(answer)["logits"]


def test_the_file_gives_what_the_run_gives(run: Path, tmp_path: Path, mnist: tuple[Images, Labels]) -> None:
    path = tmp_path / "net.safetensors"
    ended = toughen("export", run, "--format", "safetensors", "--out", path)
    assert ended.status == 0 and "the same classes, identical logits" in ended.out, ended
    logits = package.load(run)(mnist[0])
    assert torch.equal(package.load(path)(mnist[0]), logits)
    with safe_open(path, "pt") as file:
        about, names = file.metadata(), set(file.keys())
    plain = models.create("fbf-mnist-cnn", 10, (1, 28, 28))
    assert names == set(plain.state_dict())  # those of the net itself
    plain.load_state_dict(load_file(path))
    mean, std = torch.tensor(json.loads(about["mean"])), torch.tensor(json.loads(about["std"]))
    assert torch.equal(plain.eval()((mnist[0] - mean) / std), logits)
    assert about["threat"] == "linf 0.1" and json.loads(about["classes"]) == [str(n) for n in range(10)]


def test_a_net_of_ones_own_is_loaded_without_toughen(
    tmp_path: Path, mnist: tuple[Images, Labels], monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "mine.py").write_text(OWN)
    monkeypatch.syspath_prepend(tmp_path)
    folder, path = tmp_path / "run", tmp_path / "net.safetensors"
    assert toughen(*small("--model", "mine:net", "--out", folder)).status == 0
    assert toughen("export", folder, "--format", "safetensors", "--model", "mine:net", "--out", path).status == 0
    own = models.create("mine:net", 10, (1, 28, 28), [0.0], [1.0])
    assert torch.equal(elsewhere(path, mnist[0]), runs.load(folder, own)(mnist[0]))
    with pytest.raises(ValueError, match="from a file toughen makes only its own nets"):
        package.load(path)
    for given in ([0.0], [1.0]), ([0.3], [0.2]):  # the file's normalisation counts, as a run's does
        loaded = package.load(path, models.create("mine:net", 10, (1, 28, 28), *given))
        assert torch.equal(loaded(mnist[0]), runs.load(folder, own)(mnist[0]))
    bare = models.create("mine:net", 10, (1, 28, 28))
    with pytest.raises(ValueError, match="have different normalisation"):
        package.load(path, bare)


@needs_timm
@pytest.mark.parametrize("name", NETS)
def test_a_net_of_timms_is_loaded_without_toughen(name: str, tmp_path: Path, mnist: tuple[Images, Labels]) -> None:
    record, path = record_of(name, NETS[name], (1, 28, 28)), tmp_path / "net.safetensors"
    model = models.from_description(record.model).eval()
    model(mnist[0])
    write_single(path, record, model, {"classes": json.dumps(record.classes)})
    with torch.no_grad():
        logits = model(mnist[0])
        assert torch.equal(load_single(path)(mnist[0]), logits)
    assert torch.allclose(elsewhere(path, mnist[0]), logits, atol=1e-5)


def test_what_is_no_such_file_is_refused(run: Path, tmp_path: Path) -> None:
    foreign, damaged = tmp_path / "foreign.safetensors", tmp_path / "damaged.safetensors"
    save_file({"w": torch.zeros(1)}, foreign)
    damaged.write_bytes(b"no tensors")
    for path, said in ((foreign, "does not name its net"), (damaged, "is damaged")):
        with pytest.raises(ValueError, match=said):
            package.load(path)
    with pytest.raises(ValueError, match="there is no file"):
        load_single(tmp_path / "gone.safetensors")


def test_a_picture_is_not_called_a_damaged_run(tmp_path: Path) -> None:
    """It told to restore the picture from a copy, or to train again."""
    Image.new("L", (8, 8)).save(picture := tmp_path / "x.png")
    with pytest.raises(ValueError, match=r"x.png is a file, not a run directory: name the folder that `toughen train`"):
        package.load(picture)
    (tmp_path / "model.json").write_text("{}")
    with pytest.raises(ValueError, match=r"model.json is a file of a run: name its folder"):
        package.load(tmp_path / "model.json")


def test_what_is_of_another_type_is_refused() -> None:
    """In a process of its own, because types are checked while tests run."""
    for words, said in (
        ("None", "run is None: give a run directory, a file, or hf://user/name"),
        ("'.', 'resnet18'", "model is 'resnet18': give a net, an nn.Module"),
    ):
        assert process("-c", f"import toughen; toughen.load({words})").stderr.splitlines()[-1] == f"ValueError: {said}"


@pytest.mark.parametrize("name", ["os:system", "timm:hf-hub:them/net", "timm:local-dir:/tmp/net"])
def test_a_file_runs_no_code(run: Path, tmp_path: Path, name: str) -> None:
    path = tmp_path / "net.safetensors"
    assert toughen("export", run, "--format", "safetensors", "--out", path).status == 0
    with safe_open(path, "pt") as file:
        about = json.loads(file.metadata()["about"])
    del about[DIGEST]
    about["model"]["name"] = name
    save_file(load_file(path), path, {"about": json.dumps(about)})
    with pytest.raises(ValueError, match="from a file toughen makes only its own nets"):
        package.load(path)


def test_a_changed_byte_is_noticed(run: Path, tmp_path: Path) -> None:
    path = tmp_path / "net.safetensors"
    assert toughen("export", run, "--format", "safetensors", "--out", path).status == 0
    content = bytearray(path.read_bytes())
    content[-2] ^= 1  # in the last weight
    path.write_bytes(content)
    with pytest.raises(ValueError, match="its checksum is wrong"):
        package.load(path)


def test_weights_of_another_kind_are_refused(run: Path, tmp_path: Path) -> None:
    path = tmp_path / "net.safetensors"
    assert toughen("export", run, "--format", "safetensors", "--out", path).status == 0
    with safe_open(path, "pt") as file:
        about = json.loads(file.metadata()["about"])
    del about[DIGEST]
    save_file({name: tensor.long() for name, tensor in load_file(path).items()}, path, {"about": json.dumps(about)})
    with pytest.raises(ValueError, match=r"is of type torch.int64, and the net's of torch.float32"):
        package.load(path)


def test_weights_that_are_not_finite_are_refused(run: Path, tmp_path: Path) -> None:
    path = tmp_path / "net.safetensors"
    model, record = runs.load(run), runs.read_record(run)
    with torch.no_grad():
        next(model.parameters()).view(-1)[0] = float("nan")
    write_single(path, record, model, {})
    with pytest.raises(ValueError, match="holds NaN or infinity in"):
        package.load(path)


def test_adversarial_images_are_compared_too(run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    words = ("export", run, "--format", "safetensors", "--attack", "pgd-3")
    ended = toughen(*words, "--out", tmp_path / "net.safetensors")
    assert ended.status == 0 and "adversarial images by pgd-3 within linf 0.1 the same classes" in ended.out, ended
    model = runs.load(run)

    def rounds(path: Path, own: object) -> object:  # differs between the steps of bytes alone
        return lambda x: model(x) + (x * 255 - (x * 255).round()).abs().amax((1, 2, 3)).gt(0.01).float()[:, None]

    monkeypatch.setattr("toughen.cli.export.load_single", rounds)
    refused(toughen(*words, "--out", tmp_path / "other.safetensors"), "logits differ by up to 1", status=1)
    assert not (tmp_path / "other.safetensors").exists()


def test_an_attack_that_has_no_threat_or_name_is_refused(run: Path, tmp_path: Path) -> None:
    plain = tmp_path / "plain"
    assert toughen(*small("--out", plain)).status == 0
    refused(toughen("export", plain, "--attack", "pgd-3"), "was trained without an attack", "leave --attack out")
    refused(toughen("export", run, "--attack", "pdg-3", "--out", tmp_path / "x.onnx"), "pdg")
