"""A user's own augmentation: what it gets, what becomes of what it returns, and that a run with it can be resumed."""

from __future__ import annotations

import random
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from commands import digits

from toughen.core.types import Images
from toughen.methods import PGI, Standard
from toughen.training import Recipe, budget, train
from toughen.training.build import build
from toughen.training.trainer import Trainer
from toughen.training.transform import Transform

ROWS = torch.arange(4)
CODE = """
import random
import threading

import numpy as np
import torch
from commands import digits

calls = []
stop_at = None


def inverted(images):
    return 1 - images


def brighter(images):  # by all three kinds of random numbers
    calls.append(len(images))
    if len(calls) == stop_at:
        raise KeyboardInterrupt
    share = torch.rand(len(images), 1, 1, 1) * random.random() * np.random.rand()
    return images + share * (1 - images)


def doubled(images):
    return 2 * images


def stretched(images):  # which divides by zero where an image is black
    low, high = images.amin((1, 2, 3), True), images.amax((1, 2, 3), True)
    return (images - low) / (high - low)


class Locked:
    def __init__(self):
        self.lock = threading.Lock()

    def __call__(self, images):
        return images


locked = Locked()


def failing(images):
    raise RuntimeError("no luck")


class Inverted:
    def __call__(self, images):
        return 1 - images


made, number = Inverted(), 3
bytes_of = lambda images: images.mul(255).byte()
cut = lambda images: images[:, :, 1:]
listed = lambda images: list(images)
"""


@pytest.fixture
def own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """The module above, imported."""
    (tmp_path / "own_transforms.py").write_text(CODE, encoding="utf-8")
    monkeypatch.syspath_prepend(tmp_path)
    module: Any = __import__("own_transforms")
    module.calls.clear()
    module.stop_at = None
    return module


def settings(**more: Any) -> Recipe:
    chosen = {
        "data": str(digits()),
        "model": "fbf-mnist-cnn",
        "epochs": 2,
        "batch_size": 10,
        "seed": 3,
        "device": "cpu",
    }
    return Recipe(**{**chosen, "method": Standard(), "crop": 2, "precision": "fp32", "validation": 20, **more})


def made(folder: Path, **more: Any) -> Trainer:
    return build(settings(**more), folder)[0]


def batches(trainer: Trainer, epoch: int = 0) -> list[Images]:
    trainer.state.step = epoch * trainer.state.batches
    return [x for x, _, _ in trainer.epoch_batches(epoch)]


@pytest.mark.parametrize("name", ["inverted", "made"])
def test_it_gets_batches_after_the_crop(name: str, own: Any, tmp_path: Path) -> None:
    plain = batches(made(tmp_path))
    inverted = batches(made(tmp_path, transform=f"own_transforms.{name}"))
    assert len(plain) == len(inverted) > 1
    for one, other in zip(plain, inverted, strict=True):
        assert torch.equal(other, 1 - one)


def test_random_numbers_depend_on_seed_and_batch_alone(own: Any, tmp_path: Path) -> None:
    transform = Transform("own_transforms.brighter")
    black = torch.zeros(4, 1, 8, 8)
    random.seed(1)
    np.random.seed(1)
    expected = random.random(), np.random.rand()
    random.seed(1)
    np.random.seed(1)
    one, again, other = (transform(black, seed, ROWS) for seed in (5, 5, 6))
    assert torch.equal(one, again) and not torch.equal(one, other)
    assert (random.random(), np.random.rand()) == expected  # a program's own numbers go on as before
    trainer = made(tmp_path, transform="own_transforms.brighter", crop=0)
    first, second = batches(trainer), batches(trainer, 1)
    assert all(torch.equal(*pair) for pair in zip(first, batches(trainer), strict=True))
    rows = [torch.cat(each).flatten(1).sum(1).sort().values for each in (first, second)]
    assert not torch.equal(*rows)  # the same images, in another order and otherwise brightened


def test_a_run_that_was_stopped_ends_with_the_same_weights(own: Any, tmp_path: Path) -> None:
    chosen = settings(transform="own_transforms.brighter")
    train(chosen, tmp_path / "whole")
    whole = len(own.calls)
    own.calls.clear()
    own.stop_at = whole // 2 + 2  # in the second epoch
    with pytest.raises(KeyboardInterrupt):
        train(chosen, tmp_path / "cut")
    own.stop_at = None
    train(chosen, tmp_path / "cut", resume=True)
    one, other = ((tmp_path / name / "model.safetensors").read_bytes() for name in ("whole", "cut"))
    assert one == other and len(own.calls) > whole // 2
    train(settings(), tmp_path / "plain")
    assert (tmp_path / "plain" / "model.safetensors").read_bytes() != one


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("own_transforms.invertd", "has no invertd: did you mean inverted?"),
        ("nowhere.inverted", "transform 'nowhere.inverted' cannot be imported"),
        ("inverted", "write package.module"),
        ("own_transforms.Inverted", "own_transforms.Inverted is a class: name a function, or an object"),
        ("own_transforms.number", "own_transforms.number is no function"),
    ],
)
def test_what_is_no_transform_is_refused(name: str, message: str, own: Any) -> None:
    with pytest.raises(ValueError, match=re.escape(message)):
        Transform(name)


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("doubled", "returned values from 0 to 2: they must be in 0..1"),
        ("failing", "RuntimeError: no luck"),
        ("bytes_of", "returned torch.uint8 of shape [2, 1, 4, 4]: it must return floats of shape [2, 1, 4, 4]"),
        ("cut", "returned torch.float32 of shape [2, 1, 3, 4]: it must"),
        ("listed", "returned list: it must"),
    ],
)
def test_what_it_may_not_return(name: str, message: str, own: Any) -> None:
    images = torch.linspace(0, 1, 32).view(2, 1, 4, 4)
    with pytest.raises(ValueError, match=re.escape(message)):
        Transform(f"own_transforms.{name}")(images, 0, ROWS)


def test_images_that_become_nan_are_named(own: Any) -> None:
    images = torch.rand(4, 1, 4, 4, generator=torch.Generator().manual_seed(0))
    images[[1, 3]] = 0
    with pytest.raises(ValueError, match=r"own_transforms.stretched returned NaN .* for the training images 7, 2 \("):
        Transform("own_transforms.stretched")(images, 0, torch.tensor([5, 7, 0, 2]), check_range=False)


def test_one_that_has_no_copy_is_timed_all_the_same(own: Any, tmp_path: Path) -> None:
    assert budget.measure(made(tmp_path, transform="own_transforms.locked"), 0.01).step > 0


def test_after_the_first_batch_values_are_clipped(own: Any) -> None:
    """Also where the run is resumed, so that no other batch is checked than in the whole run."""
    transform = Transform("own_transforms.doubled")
    assert transform(torch.full((1, 1, 2, 2), 0.5001), 0, ROWS).tolist() == [[[[1, 1], [1, 1]]]]  # up to rounding
    wide = torch.full((1, 1, 2, 2), 0.75)
    assert transform(wide.clone(), 0, ROWS, check_range=False).tolist() == [[[[1, 1], [1, 1]]]]
    with pytest.raises(ValueError, match="from 1.5 to 1.5"):
        transform(wide, 0, ROWS)


def test_a_history_of_each_image_s_pixels_does_not_fit_it() -> None:
    with pytest.raises(ValueError, match="PGI keeps a history of each image's pixels, which a transform may move"):
        settings(method=PGI(eps=0.2), transform="own_transforms.inverted")
