"""Adversarial images as a data set: `datasets` opens it, and a model sees in it what the file says it does."""

from __future__ import annotations

import csv
import importlib
import json
import math
import re
from pathlib import Path
from typing import Any

import datasets
import numpy as np
import pyarrow.parquet as pq
import pytest
import torch
from commands import Ended, digits, refused, toughen
from paths import NETS
from PIL import Image
from torch import nn

from toughen import data, runs
from toughen.attacks.pgd import PGD
from toughen.core.threat import Threat
from toughen.core.types import Images
from toughen.evaluation import adversarial, attack_images
from toughen.evaluation.adversarial import eight_bit
from toughen.runs.files import replace_file
from toughen.utils import progress

RUN = NETS / "standard"


def write(out: Path, *more: object, attack: str = "pgd-3", eps: object = 0.15) -> Ended:
    return toughen("attack", RUN, "--data", digits(), "--attack", attack, "--eps", eps, "--out", out, *more)


def opened(path: Path, cache: Path) -> datasets.Dataset:
    found = datasets.load_dataset("parquet", data_files=str(path), cache_dir=str(cache), split="train")
    assert isinstance(found, datasets.Dataset)
    return found


def images(found: datasets.Dataset) -> Images:
    array = found.with_format("numpy")[:]["image"]
    assert isinstance(array, np.ndarray) and array.dtype == np.float32
    return torch.from_numpy(array)


@pytest.mark.parametrize(("norm", "eps"), [("linf", 0.15), ("l2", 2.0)])
def test_datasets_opens_it_and_the_model_agrees(
    norm: str, eps: float, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(datasets.config, "HF_HUB_OFFLINE", True)
    ended = write(tmp_path / "deep" / "adv.parquet", "--norm", norm, eps=eps)
    assert ended.status == 0 and not ended.err, ended
    found = opened(tmp_path / "deep" / "adv.parquet", tmp_path / "cache")
    test, net = data.load(str(digits())).test, runs.load(RUN)
    assert found.column_names == ["index", "label", "prediction", "adversarial_prediction", "distance", "image"]
    names = [str(label) for label in range(10)]
    assert all(found.features[name].names == names for name in ("label", "prediction", "adversarial_prediction"))
    assert found.features["image"].dtype == "float32"
    assert found["index"][:] == list(range(40)) and found["label"][:] == test.labels.tolist()
    x_adv, x = images(found), test.images.float() / 255
    assert x_adv.shape == x.shape and 0 <= float(x_adv.min()) and float(x_adv.max()) <= 1
    moved = (x_adv - x).flatten(1)
    distance = moved.abs().amax(1) if norm == "linf" else moved.norm(dim=1)
    assert torch.allclose(distance, torch.tensor(found["distance"][:]), atol=1e-6)
    assert 0.5 * eps < float(distance.max()) <= eps * (1 + 1e-5)
    with torch.no_grad():
        clean, after = net(x).argmax(1).tolist(), net(x_adv).argmax(1).tolist()
    assert found["prediction"][:] == clean and found["adversarial_prediction"][:] == after
    wrong = sum(label != y for label, y in zip(after, test.labels.tolist(), strict=True))
    assert sum(p != y for p, y in zip(clean, test.labels.tolist(), strict=True)) < wrong < 40
    assert ended.out == f"{tmp_path / 'deep' / 'adv.parquet'}: 40 images under pgd-3, {wrong} of them misclassified\n"


# ---- PNG files.


@pytest.mark.parametrize(("norm", "eps"), [("linf", 0.155), ("linf", 8 / 255), ("l2", 2.0)])
def test_png_files_are_in_the_threat_and_the_model_agrees(norm: str, eps: float, tmp_path: Path) -> None:
    ended = write(tmp_path / "deep" / "adv", "--norm", norm, eps=eps)
    assert ended.status == 0 and not ended.err, ended
    with (tmp_path / "deep" / "adv" / "images.csv").open(encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    test, net = data.load(str(digits())).test, runs.load(RUN)
    assert len(rows) == 40 and sorted((tmp_path / "deep").iterdir()) == [tmp_path / "deep" / "adv"]
    wrong = before = 0
    for row in rows:
        file_name, (label, number) = row["file"], re.findall(r"\d+", row["file"])
        assert file_name == f"test/{label}/{number}.png" and row["label"] == label == str(int(test.labels[int(number)]))
        with Image.open(tmp_path / "deep" / "adv" / file_name) as picture:
            assert (picture.mode, picture.size) == ("L", (28, 28))
            levels = torch.tensor(np.array(picture), dtype=torch.float64)
        moved = (levels - test.images[int(number), 0].double()) / 255
        distance = float(moved.abs().max() if norm == "linf" else moved.norm())
        assert distance <= eps + 1e-6 and float(row["distance"]) == pytest.approx(distance, abs=1e-6)
        with torch.no_grad():
            after = int(net(levels.float().view(1, 1, 28, 28) / 255).argmax())
        assert row["adversarial_prediction"] == str(after)
        wrong, before = wrong + (after != int(label)), before + (row["unrounded_prediction"] != label)
    assert f"{wrong} of them misclassified, {before} before they were rounded to 8 bits\n" in ended.out
    assert 0 < wrong <= before < 40
    found = data.load_test(str(tmp_path / "deep" / "adv"))  # a data set of its own
    assert len(found.test) == 40 and found.classes == tuple("0123456789")


def test_rounding_to_8_bits_by_hand() -> None:
    x = torch.tensor([100, 100, 100, 100, 100, 0]).view(1, 1, 1, 6) / 255
    moved = torch.tensor([108.0, 107.6, 107.4, 92.0, 176.5, 76.5]).view(1, 1, 1, 6) / 255

    def levels(threat: Threat) -> list[float]:
        return (255 * eight_bit(moved, x, threat)).flatten().tolist()

    assert levels(Threat("linf", 0.3)) == pytest.approx([108, 108, 107, 92, 176, 76])  # 0.3 is 76.5 levels
    assert levels(Threat("linf", 8 / 255))[:4] == pytest.approx([108, 108, 107, 92])
    # L2: all to the nearest while that is inside, else all towards x
    square = sum(value**2 for value in (8, 8, 7, 8, 77, 77))
    wide, narrow = (math.sqrt(square) + 0.01) / 255, (math.sqrt(square) - 0.01) / 255
    odd = moved + torch.tensor([0, 0, 0, 0, 0.1, 0.1]) / 255  # 176.6 and 76.6 have one nearest level
    assert (255 * eight_bit(odd, x, Threat("l2", wide))).flatten().tolist() == pytest.approx(
        [108, 108, 107, 92, 177, 77]
    )
    assert (255 * eight_bit(odd, x, Threat("l2", narrow))).flatten().tolist() == pytest.approx(
        [108, 107, 107, 92, 176, 76]
    )


@pytest.mark.parametrize("name", ["cat/dog", "..", "", ".hidden", "a\\b", "a\0b"])
def test_classes_have_numbers_if_a_name_is_no_folder_s(name: str, tmp_path: Path) -> None:
    columns: dict[str, list[Any]] = {
        "index": [7, 9], "label": [0, 1], "prediction": [0, -1], "unrounded_prediction": [1, 2],
        "adversarial_prediction": [1, 1], "distance": [0.5, 0.25],
        "image": [np.full((3, 2, 4), 0.2, np.float32), np.ones((3, 2, 4), np.float32)],
    }  # fmt: skip
    adversarial._write_pictures(tmp_path / "adv", columns, (name, "0, b"))
    with (tmp_path / "adv" / "images.csv").open(encoding="utf-8") as file:
        rows = [list(row.values()) for row in csv.DictReader(file)]
    assert rows[0] == ["test/0/7.png", name, name, "0, b", "0, b", "0.5"]
    assert rows[1] == ["test/1/9.png", "0, b", "none", "2", "0, b", "0.25"]
    assert [path.name for path in tmp_path.iterdir()] == ["adv"]
    with Image.open(tmp_path / "adv" / "test" / "0" / "7.png") as picture:
        assert (picture.mode, picture.size, picture.getpixel((3, 1))) == ("RGB", (4, 2), (51, 51, 51))


def test_a_disk_that_fills_up_leaves_no_half_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(path: Path, content: bytes) -> None:
        if path.name == "5.png":
            raise OSError(28, "No space left on device", str(path))

    monkeypatch.setattr(Path, "write_bytes", full)
    ended = write(tmp_path / "adv")
    assert ended.status == 2 and "No space left" in ended.err and not list(tmp_path.iterdir())


def test_an_attack_breaks_the_images_that_it_breaks_in_an_evaluation(tmp_path: Path) -> None:
    assert write(tmp_path / "adv.parquet", "--limit", 20, "--seed", 3).status == 0
    words = ("--data", digits(), "--attacks", "pgd-3", "--eps", 0.15, "--limit", 20, "--seed", 3, "--verdict", "false")
    assert toughen("evaluate", RUN, *words, "--out", tmp_path / "out").status == 0
    ledger = pq.read_table(tmp_path / "out/examples.parquet").to_pylist()
    written = pq.read_table(tmp_path / "adv.parquet", columns=["index", "label", "adversarial_prediction"]).to_pylist()
    assert [row["index"] for row in written] == [row["index"] for row in ledger] != list(range(20))
    stands = [row["adversarial_prediction"] == row["label"] for row in written]
    assert stands == [row["stands_pgd-3"] for row in ledger] and 0 < sum(stands) < 20


@pytest.mark.parametrize("words", ["--precision fp64", "--precision bf16", "--batch_size 7"])
def test_how_the_model_is_asked_changes_nothing_that_is_written(words: str, tmp_path: Path) -> None:
    """Float32 images, labelled by what the model says of them and not of what they were before rounding."""
    assert write(tmp_path / "adv.parquet", "--limit", 10, *words.split()).status == 0
    found = opened(tmp_path / "adv.parquet", tmp_path / "cache")
    net, x_adv = runs.load(RUN), images(found)
    net = net.double() if "fp64" in words else net
    with torch.no_grad():
        assert found["adversarial_prediction"][:] == net(x_adv.to(next(net.parameters()).dtype)).argmax(1).tolist()
    assert max(found["distance"][:]) <= 0.15 * (1 + 1e-5)


def test_what_is_predicted_of_is_what_is_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A pixel that float32 rounds over the boundary is on its other side in the file, and so in the prediction."""
    edge = 0.5 + 1e-12  # of class 1, and in float32 of class 0

    class Brightness(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.at = nn.Parameter(torch.tensor(0.5))

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            pixel = x[:, 0, 0, 0]
            return torch.stack([self.at - pixel, pixel - self.at], 1)

    class Nearly(PGD):
        def __call__(self, model: Any, x: Images, target: Any, noise: Any = None) -> Images:
            return torch.full_like(x, edge)

    from toughen.evaluation.evaluate import from_function

    x = torch.full((1, 1, 1, 1), 102, dtype=torch.uint8)
    made = from_function(Brightness(), (x, torch.tensor([0])), eps=0.2, norm="linf", limit=None, seed=0)
    monkeypatch.setattr(adversarial, "find_target", lambda spec, **which: made)
    monkeypatch.setattr(adversarial, "parse_attack", lambda name, threat: Nearly(eps=0.2))
    attack_images("any", attack="nearly", out=tmp_path / "adv.parquet", precision="fp64")
    row = pq.read_table(tmp_path / "adv.parquet").to_pylist()[0]
    assert row["image"] == [[[0.5]]] and row["prediction"] == 0
    assert row["adversarial_prediction"] == 0


def test_logits_that_are_no_numbers_are_no_prediction(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """NaN once an image has many pixels at eps, as FGSM leaves them where it was black."""
    code = (
        "from torch import nn\nfrom toughen import runs\n"
        "class Broken(nn.Module):\n"
        "    def __init__(self):\n        super().__init__()\n        self.net = runs.load(RUN)\n"
        "    def forward(self, x):\n"
        "        bad = ((x - 0.125).abs() < 1e-6).flatten(1).float().mean(1) > 0.1\n"
        "        return self.net(x).masked_fill(bad[:, None], float('nan'))\n"
        "def net():\n    return Broken()\n"
    )
    (tmp_path / "broken_nets.py").write_text(f"RUN = {str(RUN)!r}\n{code}")
    monkeypatch.syspath_prepend(str(tmp_path))
    how = ("--data", digits(), "--eps", 0.125, "--limit", 10, "--attack", "fgsm", "--out", tmp_path / "nan.parquet")
    ended = toughen("attack", "broken_nets:net", *how)
    assert ended.status == 0, ended
    found = pq.read_table(tmp_path / "nan.parquet")
    net = importlib.import_module("broken_nets").net().eval()
    x = torch.tensor(np.array(found["image"].to_pylist()), dtype=torch.float32)
    finite = net(x).isfinite().all(1)
    assert not finite.all()
    assert [label == -1 for label in found["adversarial_prediction"].to_pylist()] == (~finite).tolist()
    wrong = sum(
        p != y for p, y in zip(*(found[n].to_pylist() for n in ("adversarial_prediction", "label")), strict=True)
    )
    assert f"10 images under fgsm, {wrong} of them misclassified" in ended.out and wrong >= int((~finite).sum())


def test_a_model_from_elsewhere_is_attacked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    code = (
        "from toughen import models\ndef net(num_classes, shape):\n    return models.create('fbf-mnist-cnn', 10, shape)"
    )
    (tmp_path / "attacked_nets.py").write_text(code)
    monkeypatch.syspath_prepend(str(tmp_path))
    how = ("--data", digits(), "--eps", 0.15, "--limit", 10, "--attack", "pgd-3", "--out")
    weights = ("--weights", RUN / runs.WEIGHTS)
    assert toughen("attack", "attacked_nets:net", *weights, *how, tmp_path / "own.parquet").status == 0
    assert toughen("attack", RUN, *how, tmp_path / "run.parquet").status == 0
    own, run = (pq.read_table(tmp_path / f"{name}.parquet") for name in ("own", "run"))
    assert own.equals(run) and own.num_rows == 10


def test_without_a_terminal_lines_say_how_much_is_done(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(progress, "EVERY", 0.0)
    monkeypatch.setattr(adversarial, "chunk_size", lambda images, size: 4)
    ended = write(tmp_path / "adv.parquet")
    lines = [line for line in ended.err.splitlines() if "left" in line]
    assert [line.split(",")[0] for line in lines] == [f"pgd-3: {done} of 40 images" for done in range(4, 40, 4)], (
        ended.err
    )


def test_what_is_there_stays(tmp_path: Path) -> None:
    (tmp_path / "adv.parquet").write_text("mine")
    refused(write(tmp_path / "adv.parquet"), "is there already", "another --out")
    refused(write(tmp_path / "adv.parquet" / "more.parquet"), "is a file", "another --out")
    refused(write(tmp_path / "adv.csv"), "must end in .parquet, or be a folder")
    refused(write(tmp_path), "is there already")
    assert [path.name for path in tmp_path.iterdir()] == ["adv.parquet"]
    assert (tmp_path / "adv.parquet").read_text() == "mine"


REFUSED = [
    ("--attack nonsense", "'nonsense' is unknown"),
    ("--attack fgsm-3", "no steps"),
    ("--eps 0", "eps 0"),
    ("--eps 8", "8/255"),
    ("--eps 29 --norm l2", "exceeds 28"),
    ("--limit 0", "limit is 0"),
    ("--batch_size 0", "batch_size is 0"),
    ("--batch_size -3", "batch_size is -3"),
    ("--precision fp8", "--precision"),
    ("--processes 2", "no option --processes"),
    ("--device cuda:99", "'cuda:99'"),
    ("--weights w.safetensors", "is a run"),
    ("--data nowhere", "'nowhere'"),
]


@pytest.mark.parametrize(("words", "said"), REFUSED, ids=[each[0] for each in REFUSED])
def test_what_cannot_be_attacked(words: str, said: str, tmp_path: Path) -> None:
    refused(write(tmp_path / "new" / "adv.parquet", *words.split()), said)
    assert not (tmp_path / "new").exists()


def test_an_attack_at_fault_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class Cheat(PGD):
        def __call__(self, model: Any, x: Images, target: Any, noise: Any = None) -> Images:
            return (x + 0.3).clamp(0, 1)

    with monkeypatch.context() as patched:
        patched.setattr(adversarial, "parse_attack", lambda name, threat: Cheat(eps=0.15))
        ended = write(tmp_path / "adv.parquet")
    assert ended.status == 1 and "beyond eps" in ended.err
    with monkeypatch.context() as patched:

        def failing(path: Path, fill: Any) -> None:
            def half(temporary: Path) -> None:
                fill(temporary)
                raise OSError(28, "No space left on device", str(temporary))

            replace_file(path, half)

        patched.setattr(adversarial, "replace_file", failing)
        ended = write(tmp_path / "adv.parquet", "--limit", 10)
    assert ended.status == 2 and "No space left" in ended.err
    assert list(tmp_path.iterdir()) == []


def test_many_chunks_are_put_together_in_order(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert write(tmp_path / "one.parquet").status == 0
    monkeypatch.setattr(adversarial, "chunk_size", lambda images, block: 7)
    assert write(tmp_path / "many.parquet").status == 0
    one, many = (pq.read_table(tmp_path / f"{name}.parquet") for name in ("one", "many"))
    assert one.equals(many) and json.loads(one.schema.metadata[b"huggingface"])["info"]["features"].keys() >= {"image"}
