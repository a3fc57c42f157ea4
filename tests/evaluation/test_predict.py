"""`toughen predict` against nets whose answers are worked out by hand, and against the run itself."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from commands import small, toughen
from PIL import Image
from torch import nn

from toughen import runs
from toughen.attacks import FGSM
from toughen.core.types import Images, Labels, Logits
from toughen.data.files import load_files
from toughen.evaluation.predict import predict


class Brightness(nn.Module):
    """Logits (0, 10 (mean - 1/2)): class 1 for images brighter than 1/2."""

    def forward(self, x: Images) -> Logits:
        mean = x.mean((1, 2, 3))
        return torch.stack([torch.zeros_like(mean), 10 * (mean - 0.5)], 1)


def test_predictions_by_hand() -> None:
    """Within 0.1 an image's mean moves by 0.1, so 0.45 and 0.55 change class and 0.3 and 0.7 do not."""
    x = torch.tensor([0.3, 0.45, 0.55, 0.7]).reshape(4, 1, 1, 1).expand(4, 1, 2, 2)
    found = predict(Brightness(), x, FGSM(eps=0.1), "fgsm", batch_size=3)
    assert [each.label for each in found] == [0, 0, 1, 1]
    assert [each.attacked for each in found] == [0, 1, 0, 1]
    by_hand = [1 / (1 + np.exp(-2)), 1 / (1 + np.exp(-0.5)), 1 / (1 + np.exp(-0.5)), 1 / (1 + np.exp(-2))]
    assert [each.confidence for each in found] == pytest.approx(by_hand, abs=1e-6)
    assert {each.attacked for each in predict(Brightness(), x)} == {None}


class BrightnessObject(nn.Module):
    """The same logits, in an object."""

    def forward(self, x: Images) -> SimpleNamespace:
        return SimpleNamespace(logits=Brightness()(x))


class UndefinedInTheDark(Brightness):
    """NaN where the mean is below 0.4."""

    def forward(self, x: Images) -> Logits:
        return super().forward(x) + 0 * (x.mean((1, 2, 3)) - 0.4).sqrt()[:, None]


def test_logits_may_come_in_an_object() -> None:
    x = torch.tensor([0.3, 0.45]).reshape(2, 1, 1, 1).expand(2, 1, 2, 2)
    attack = FGSM(eps=0.1)
    assert predict(BrightnessObject(), x, attack, "fgsm") == predict(Brightness(), x, attack, "fgsm")


def test_an_image_with_logits_that_are_not_finite_has_no_class() -> None:
    bright, dark = torch.full((1, 1, 2, 2), 0.55), torch.full((1, 1, 2, 2), 0.3)
    (found,) = predict(UndefinedInTheDark(), bright, FGSM(eps=0.2), "fgsm")
    assert (found.label, found.attacked) == (1, -1)
    with pytest.raises(ValueError, match="NaN or infinite, so no class is predicted"):
        predict(UndefinedInTheDark(), torch.cat([bright, dark]))


def test_files_are_brought_to_what_a_net_takes(tmp_path: Path) -> None:
    grey = np.arange(28 * 28, dtype=np.uint32).reshape(28, 28).astype(np.uint8)
    Image.fromarray(grey).save(tmp_path / "same.png")
    Image.fromarray(np.kron(grey, np.ones((2, 2), np.uint8))).save(tmp_path / "twice.png")
    wide = np.concatenate([np.zeros((28, 10), np.uint8), grey, np.zeros((28, 10), np.uint8)], 1)
    Image.fromarray(wide).save(tmp_path / "wide.png")
    same, _, cut = load_files([tmp_path / f"{name}.png" for name in ("same", "twice", "wide")], (1, 28, 28))
    assert torch.equal(same[0], torch.from_numpy(grey)) and torch.equal(cut, same)  # the centre is cut out
    colour = load_files([tmp_path / "same.png"], (3, 28, 28))
    assert colour.shape == (1, 3, 28, 28) and torch.equal(colour[0, 1], torch.from_numpy(grey))
    Image.fromarray(grey).convert("RGB").save(tmp_path / "colour.png")
    with pytest.raises(ValueError, match=r"colour.png is in colour, and the net takes grey images: save it as a grey"):
        load_files([tmp_path / "colour.png"], (1, 28, 28))


def test_files_for_a_net_of_images_that_are_not_square(tmp_path: Path) -> None:
    grey = np.arange(16 * 24, dtype=np.uint32).reshape(16, 24).astype(np.uint8)
    Image.fromarray(grey).save(tmp_path / "same.png")
    Image.fromarray(grey.T.copy()).save(tmp_path / "turned.png")
    assert torch.equal(load_files([tmp_path / "same.png"], (1, 16, 24))[0, 0], torch.from_numpy(grey))
    with pytest.raises(ValueError, match=r"turned.png does not have 24x16 pixels, .* not square: resize it first"):
        load_files([tmp_path / "turned.png"], (1, 16, 24))


def test_a_colour_file_is_refused_by_a_net_of_grey_images(tmp_path: Path) -> None:
    Image.new("RGB", (28, 28), "red").save(tmp_path / "red.png")
    with pytest.raises(ValueError, match="red.png is in colour, and the net takes grey images: save it as a grey"):
        load_files([tmp_path / "red.png"], (1, 28, 28))


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("runs") / "run"
    assert toughen(*small("--method", "FGSMAT", "--eps", 0.1, "--watch", "off", "--out", folder)).status == 0
    return folder


@pytest.fixture
def files(mnist: tuple[Images, Labels], tmp_path: Path) -> list[Path]:
    paths = [tmp_path / f"digit {number}.png" for number in range(6)]
    for path, image in zip(paths, mnist[0], strict=False):
        Image.fromarray((image[0] * 255).round().byte().numpy()).save(path)
    return paths


def test_the_command_says_what_the_run_says(run: Path, files: list[Path], mnist: tuple[Images, Labels]) -> None:
    ended = toughen("predict", run, *files, "--json")
    assert ended.status == 0, ended.err
    lines = [json.loads(line) for line in ended.out.splitlines()]
    with torch.no_grad():
        probabilities = runs.load(run)(mnist[0][:6]).softmax(1)
    assert [line["file"] for line in lines] == [str(path) for path in files]
    assert [int(line["class"]) for line in lines] == probabilities.argmax(1).tolist()
    assert [line["confidence"] for line in lines] == pytest.approx(probabilities.amax(1).tolist(), abs=1e-5)
    assert all(line["unchanged"] == (line["attacked_class"] == line["class"]) for line in lines)
    at_one = toughen("predict", run, *files, "--json", "--eps", 1)  # any image can be reached
    assert not any(json.loads(line)["unchanged"] for line in at_one.out.splitlines())
    none = toughen("predict", run, files[0], "--attack", "none", "--json")
    assert set(json.loads(none.out)) == {"file", "class", "confidence"}


def test_the_table_names_the_attack(run: Path, files: list[Path]) -> None:
    ended = toughen("predict", run, *files[:2])
    assert ended.status == 0 and "under attack" in ended.out and "pgd-20 within linf 0.1\n" in ended.out
    assert all(len(line) <= 200 for line in ended.out.splitlines())


@pytest.mark.parametrize("name", ["a\x1b[31mb", "\udcff", "[red]x"])
def test_a_file_s_name_steers_nothing(name: str, run: Path, files: list[Path]) -> None:
    odd = files[0].rename(files[0].with_name(f"{name}.png"))
    ended = toughen("predict", run, odd, "--attack", "none")
    shown = name.replace("\x1b", "\ufffd").replace("\udcff", "\ufffd")
    assert ended.status == 0 and f"{shown}.png" in ended.out.replace("\n", "") and "\x1b" not in ended.out, ended


def test_bad_words_are_refused(run: Path, files: list[Path], tmp_path: Path) -> None:
    (tmp_path / "text.png").write_text("no image")
    normal = tmp_path / "normal"
    assert toughen(*small("--method", "Standard", "--out", normal)).status == 0
    for words, said in (
        ((run, tmp_path / "none.png"), "there is no file"),
        ((run, tmp_path / "text.png"), "cannot be decoded"),
        ((run, files[0], "--attack", "pgdd"), "pgdd"),
        ((run, files[0], "--norm", "l2"), "was trained against linf eps 0.1: give --eps for l2, too"),
        ((run, files[0], "--eps", 0), "eps 0 allows no change of the image"),
        ((normal, files[0]), "trained without an attack: give --eps"),
        ((tmp_path / "nowhere", files[0]), "there is no run directory"),
    ):
        ended = toughen("predict", *words)
        assert ended.status == 2 and said in ended.err and "Traceback" not in ended.err, ended.err
