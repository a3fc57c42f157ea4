"""What a run takes where nobody says: by the images, under what is given."""

from __future__ import annotations

import re
import shutil
from pathlib import Path
from typing import Any

import pytest
import yaml
from commands import digits, refused, small, toughen

from toughen import data
from toughen.config.train import parse_train
from toughen.data.ingest import Outline
from toughen.data.size_warnings import size_warnings
from toughen.methods.awp import AWP
from toughen.methods.nuat import NuAT
from toughen.methods.pgd_at import PGDAT
from toughen.methods.standard import Standard
from toughen.methods.trades import TRADES
from toughen.training import Recipe, default_recipe, defaults
from toughen.training.recipe_yaml import recipe_yaml

GREY, COLOUR = (1, 28, 28), (3, 32, 32)


def outline(shape: tuple[int, int, int] = COLOUR, images: int = 6000) -> Outline:
    return Outline(shape, tuple("ab"), images, 100)


@pytest.mark.parametrize(
    ("shape", "model", "stem"),
    [
        (GREY, "fbf-mnist-cnn", None),
        ((1, 32, 32), "fbf-mnist-cnn", None),
        ((1, 64, 64), "resnet18", "cifar"),
        (COLOUR, "resnet18", "cifar"),
        ((3, 28, 28), "resnet18", "cifar"),
        ((3, 64, 64), "resnet18", "cifar"),
        ((3, 96, 96), "resnet18", "imagenet"),
        ((3, 48, 80), "resnet18", "imagenet"),
    ],
)
def test_the_net_fits_the_images(shape: tuple[int, int, int], model: str, stem: str | None) -> None:
    found = defaults.chosen(outline(shape), "cpu")
    assert (found["model"], found.get("model_settings", {}).get("stem")) == (model, stem)


def test_few_images_are_seen_more_often_in_smaller_batches() -> None:
    sizes = (20, 100, 600, 2000, 6000, 20_000, 50_000, 1_300_000)
    found = [defaults.chosen(outline(images=images), "cpu") for images in sizes]
    for name, rising in (("epochs", False), ("batch_size", True)):
        values = [each[name] for each in found]
        assert values == sorted(values, reverse=not rising) and len(set(values)) > 2


def test_a_gpu_trains_the_whole_width_and_many_classes_another_method() -> None:
    assert defaults.chosen(outline(), "cuda")["model_settings"]["width"] == 64
    assert defaults.chosen(outline(), "cpu")["model_settings"]["width"] < 64
    many = Outline(COLOUR, tuple(map(str, range(100))), 50_000, 10_000)
    methods = [defaults.chosen(each, "cpu")["method"]["class_path"].split(".")[-1] for each in (outline(), many)]
    assert methods == ["NuAT", "PGI"]


def test_what_is_given_wins_and_the_rest_is_written_down(tmp_path: Path) -> None:
    folder = digits()
    chosen, _, _ = parse_train(f"--data {folder} --eps 0.1".split())
    config = recipe_yaml(chosen)
    assert isinstance(chosen.method, NuAT) and chosen.method.eps == 0.1
    written = yaml.safe_load(config)
    expected = defaults.chosen(data.peek(str(folder)), "cpu")
    assert {name: written[name] for name in ("model", "epochs", "batch_size", "averaging")} == {
        name: expected[name] for name in ("model", "epochs", "batch_size", "averaging")
    }
    given = parse_train(f"--data {folder} --eps 0.1 --method TRADES --epochs 3 --model resnet18".split())[0]
    assert isinstance(given.method, TRADES) and (given.epochs, given.model, given.model_settings) == (3, "resnet18", {})
    assert (given.batch_size, given.averaging) == (chosen.batch_size, chosen.averaging)


@pytest.mark.parametrize(
    ("words", "settings"),
    [
        ("--model resnet18", {}),
        ("--model resnet18 --image_size 96", {"stem": "imagenet"}),
        ("--model WRN-16-4 --image_size 96", {"stem": "imagenet"}),
        ("--model resnet18 --image_size 96 --model_settings.width 8", {"stem": "imagenet", "width": 8}),
        ("--model resnet18 --image_size 96 --model_settings.stem cifar", {"stem": "cifar"}),
        ("--model m-lenet --image_size 96", {}),
        ("--model timm:resnet10t --image_size 96", {}),
    ],
)
def test_a_residual_net_that_is_named_gets_the_stem_for_large_images(words: str, settings: dict[str, Any]) -> None:
    assert parse_train(f"--data {digits()} --eps 0.1 {words}".split())[0].model_settings == settings


@pytest.mark.parametrize(
    ("method", "share"),
    [
        ("", 0.0),
        ("--method TRADES", 0.0),
        ("--method PGDAT", 0.3),
        ("--method toughen.methods.PGDAT --method.steps 7", 0.3),
        ("--method AWP --method.inner PGDAT", 0.3),
        ("--method PGDAT --eps_warmup 0", 0.0),
    ],
)
def test_eps_grows_for_pgd_at(method: str, share: float) -> None:
    assert parse_train(f"--data {digits()} --eps 0.1 {method}".split())[0].eps_warmup == share


def test_eps_grows_for_pgd_at_in_python() -> None:
    assert default_recipe("mnist-5k", method=AWP(inner=PGDAT(eps=0.3))).eps_warmup == 0.3


@pytest.mark.parametrize("more", [{}, {"epochs": 3, "model": "small-cnn", "image_size": 28}, {"seed": 5}], ids=str)
def test_python_takes_what_the_command_line_takes(more: dict[str, Any]) -> None:
    words = [word for name, value in more.items() for word in (f"--{name}", str(value))]
    told = parse_train(["--data", "mnist-5k", "--eps", "0.3", *words])[0]
    assert repr(default_recipe("mnist-5k", eps=0.3, **more)) == repr(told)


def test_a_recipe_says_what_python_must_pass() -> None:
    with pytest.raises(ValueError, match="needs"):
        default_recipe("mnist-5k")
    with pytest.raises(TypeError, match="method"):
        Recipe(data="mnist-5k", eps=0.3)  # type: ignore[call-arg]
    with pytest.raises(ValueError, match="Standard trains without attacks"):
        Recipe(eps=0.3, method=Standard())
    with pytest.raises(ValueError, match="give both the same"):
        Recipe(eps=0.3, method=NuAT(eps=0.1))


def test_a_recipe_that_names_no_method_is_filled_too(tmp_path: Path) -> None:
    (tmp_path / "mine.yaml").write_text(f"data: {digits()}\neps: 0.1\nepochs: 4\n")
    made = parse_train([str(tmp_path / "mine.yaml")])[0]
    assert isinstance(made.method, NuAT) and made.epochs == 4 and made.averaging is not None


def test_without_a_radius_one_is_asked_for(tmp_path: Path) -> None:
    refused(toughen("train", "--data", digits(), "--out", tmp_path / "run"), "--eps 8/255")


def test_a_setting_that_is_unknown_is_told_before_the_data_are_looked_at(tmp_path: Path) -> None:
    refused(toughen("train", "--data", tmp_path / "nowhere", "--eps", "0.1", "--epoch", 3), "--epoch")
    refused(toughen("train", "--data", tmp_path / "nowhere", "--eps", "0.1"), "nowhere")


def test_a_plan_says_what_training_then_does(tmp_path: Path) -> None:
    words = ["--data", digits(), "--eps", "0.1", "--epochs", 2, "--batch_size", 16]
    planned = toughen("plan", *words)
    assert planned.status == 0 and list(tmp_path.iterdir()) == []
    told = " ".join(planned.out.split())
    trained = toughen("train", *words, "--out", tmp_path / "run")
    assert trained.status == 0
    said = re.search(
        r"\((\d[\d,]*) parameters\), (\d+) images \+ (\d+) to choose.*?(\d+) epochs of (\d+) steps",
        " ".join(trained.err.split()),
    )
    assert said is not None
    parameters, images, held_out, epochs, steps = said.groups()
    assert f"{parameters} parameters" in told and f"{images} to train on, {held_out} to choose" in told
    assert f"{epochs} epochs of {steps}, 16 images each" in told
    assert "8.0 forward passes" in told  # as NuAT's docstring has it
    assert "28 x 28, grey" in told and "linf eps 0.1" in told


@pytest.mark.parametrize(
    ("words", "whole"),
    [
        ("--method Standard", "420"),
        ("--method Free --method.replays 4 --eps 0.1", "1,680"),
        ("--method Standard --batch-size 23", "414"),
    ],
)
def test_a_plan_counts_the_passes_of_every_replay(words: str, whole: str) -> None:
    """Three passes of 70 images in two epochs, once or four times; of 69 where the last one is alone in its batch."""
    planned = toughen("plan", *small(*words.split())[1:])
    assert f"3.0 forward passes per image and step, {whole} in total" in " ".join(planned.out.split()), planned


def test_a_set_that_says_little_is_said_to(tmp_path: Path) -> None:
    """Three classes of 3, 3 and 8 training images, one of them without test images, one with a single one."""
    shutil.copytree(digits(), tmp_path / "set")
    for split, counts in (("train", (3, 3, 8)), ("test", (4, 1, 0))):
        for label in range(10):
            folder = tmp_path / "set" / split / str(label)
            kept = counts[label] if label < len(counts) else 0
            for extra in sorted(folder.iterdir())[kept:]:
                extra.unlink()
            if not kept:
                folder.rmdir()
    words = ["--data", tmp_path / "set", "--eps", "0.1", "--epochs", 1, "--batch_size", 16]
    planned, trained = toughen("plan", *words), toughen("train", *words, "--validation", 0, "--out", tmp_path / "run")
    assert planned.status == trained.status == 0, planned.err + trained.err
    told = " ".join(planned.out.split())
    assert "test images 5, of 3: 0 4, 1 1, 2 0" in told and "1: 1 epoch of 1, 13 images each" in told
    for said in (told, " ".join(trained.err.split())):
        assert "too few training images: 0 has 3, 1 has 3, 2 has 8; with fewer than 20 per class, results" in said
        assert "no test images of 2: accuracy does not cover it" in said
        assert "too few test images: 0 has 4, 1 has 1; with fewer than 20" in said
    assert (
        max(len(line) for line in trained.err.splitlines() if str(tmp_path) not in line and "epoch " not in line) <= 80
    )
    said = " ".join(trained.err.split())
    assert "14 images, no validation images: the last weights are kept 1 epoch of 1 step," in said
    evaluated = toughen("evaluate", tmp_path / "run", "--attacks", "fgsm", "--verdict", "false")
    assert evaluated.status == 0 and "no test images of 2" in evaluated.err


def test_a_plan_shows_any_class_name_whole_and_none_controls_the_terminal(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    long = "n" * 100
    shutil.copytree(digits(), tmp_path / "set")
    for split in ("train", "test"):
        (tmp_path / "set" / split / "0").rename(tmp_path / "set" / split / long)
        (tmp_path / "set" / split / "1").rename(tmp_path / "set" / split / "red\x1b[31m")
    planned = toughen("plan", "--data", tmp_path / "set", "--eps", "0.1", "--epochs", 1)
    assert planned.status == 0 and "\x1b" not in planned.out and f"red{chr(0xFFFD)}[31m 8" in planned.out
    told = "".join(planned.out.split())
    assert told.count(long) == 2 and max(map(len, planned.out.splitlines()[:-1])) <= 80


def test_test_images_that_are_trained_on_are_told_of(tmp_path: Path) -> None:
    """Three of 43; an evaluation refuses them."""
    shutil.copytree(digits(), tmp_path / "set")
    for image in sorted((tmp_path / "set/train/3").iterdir())[:3]:
        shutil.copy(image, tmp_path / "set/test/3" / f"copy-{image.name}")
    words = ["--data", tmp_path / "set", "--eps", "0.1", "--epochs", 1]
    planned, trained = toughen("plan", *words), toughen("train", *words, "--out", tmp_path / "run")
    assert planned.status == trained.status == 0, planned.err + trained.err
    for said in (planned.out, trained.err):
        assert "3 of 43 test images are training images, too: an evaluation on them will" in " ".join(said.split())
    refused(toughen("evaluate", tmp_path / "run", "--attacks", "fgsm"), "was trained on 7 % of these images")


def test_a_set_that_says_enough_is_not_spoken_of() -> None:
    assert size_warnings(("a", "b"), (20, 500), (20, 30)) == [] and size_warnings(("a", "b"), (20, 500), ()) == []


@pytest.mark.parametrize("words", [("--eps", "0.1", "--epoch", "3"), ("--data", "nowhere", "--eps", "0.1")])
def test_a_plan_refuses_what_training_refuses(words: tuple[str, ...]) -> None:
    assert toughen("plan", *words) == toughen("train", *words)


def test_a_plan_knows_where_a_run_stops(tmp_path: Path) -> None:
    words = ["--data", digits(), "--eps", "0.1", "--epochs", 10, "--stop_epoch", 4, "--batch_size", 16]
    planned = toughen("plan", *words)
    assert "20: 4 epochs of 5, 16 images each; the schedule is that of 10 epochs" in " ".join(planned.out.split())
    never = [*words, "--method", "Delayed", "--method.after", "PGDAT", "--method.switch_epoch", 5]
    for ended in (toughen("plan", *never), toughen("train", *never, "--out", tmp_path / "run")):
        refused(ended, "switch_epoch 5 is never reached", "the run ends after 4 epochs")
