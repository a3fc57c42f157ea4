"""Random crops and mirroring, judged by numpy's own padding and by what shift and flip claim was done."""

from __future__ import annotations

from typing import Any, Literal

import numpy as np
import pytest
import torch
from torch import Tensor

from toughen.core.rng import Noise, StepNoise
from toughen.core.types import Images
from toughen.data import Augment, load

Padding = Literal["zero", "reflect"]
PADDINGS: list[Padding] = ["zero", "reflect"]


@pytest.fixture(scope="module")
def digits() -> Images:
    """300 real digits as three channels that differ, rows cut off so that height and width differ: [300, 3, 24, 28]."""
    grey = load("mnist-5k").train.images[::13][:300, :, 4:].float() / 255
    return torch.cat([grey, 1 - grey, grey / 2 + 0.1], dim=1)


def one_by_one(images: Images, shift: Tensor, flip: Tensor, pad: int, padding: Padding) -> Images:
    """The literal way: pad an image, cut a window out, mirror it."""
    modes: dict[str, Any] = {"zero": "constant", "reflect": "reflect"}
    height, width = images.shape[2:]
    done = []
    for image, (down, right), mirrored in zip(images.numpy(), shift.tolist(), flip.tolist(), strict=True):
        wide = np.pad(image, ((0, 0), (pad, pad), (pad, pad)), mode=modes[padding])
        window = wide[:, pad - down : pad - down + height, pad - right : pad - right + width]
        done.append(window[:, :, ::-1] if mirrored else window)
    return torch.from_numpy(np.stack(done))


@pytest.mark.parametrize("padding", PADDINGS)
@pytest.mark.parametrize("flip", [False, True])
@pytest.mark.parametrize("pad", [0, 1, 4])
def test_equals_padding_cutting_and_mirroring_image_by_image(
    digits: Images, pad: int, flip: bool, padding: Padding
) -> None:
    augmented, shift, flipped = Augment(pad=pad, padding=padding, flip=flip)(digits, None)
    assert torch.equal(augmented, one_by_one(digits, shift, flipped, pad, padding))
    assert flipped.any().item() is flip and (shift != 0).any().item() is (pad > 0)


def test_shift_is_down_and_right_and_the_flip_comes_after() -> None:
    image = torch.zeros(1, 1, 5, 5)
    image[0, 0, 2, 2] = 1
    for seed in range(50):
        augmented, shift, flip = Augment(pad=2, flip=True)(image, StepNoise(seed=seed, step=0))
        down, right = shift[0].tolist()
        column = 2 + right
        expected = [0, 0, 2 + down, 4 - column if flip else column]
        assert augmented.nonzero().tolist() == [expected]


def test_every_shift_is_as_likely_and_half_are_mirrored() -> None:
    _, shift, flip = Augment(pad=4, flip=True)(torch.zeros(90_000, 1, 9, 9), StepNoise(seed=1, step=0))
    for axis in (0, 1):
        counts = torch.bincount(shift[:, axis] + 4)
        assert len(counts) == 9
        assert (counts - 10_000).abs().max() < 5 * 95  # standard deviation 94 of a count
    together = torch.bincount((shift[:, 0] + 4) * 9 + shift[:, 1] + 4, minlength=81)  # rows and columns by themselves
    assert (together - 90_000 / 81).abs().max() < 5 * 34
    assert abs(flip.float().mean().item() - 0.5) < 5 * 0.5 / 300


def test_draws_are_keyed_by_seed_and_step(digits: Images) -> None:
    augment = Augment(pad=3, flip=True)
    first, again = (augment(digits, StepNoise(seed=7, step=3)) for _ in range(2))
    assert all(torch.equal(a, b) for a, b in zip(first, again, strict=True))
    assert not torch.equal(first[1], augment(digits, StepNoise(seed=7, step=4))[1])
    assert not torch.equal(first[1], augment(digits, StepNoise(seed=8, step=3))[1])


def test_processes_share_the_draws_of_the_global_batch(digits: Images) -> None:
    augment = Augment(pad=3, flip=True)
    whole, _, _ = augment(digits, StepNoise(seed=7, step=3, total=300))
    parts = [augment(digits[at : at + 100], StepNoise(seed=7, step=3, total=300, first=at))[0] for at in (0, 100, 200)]
    assert torch.equal(torch.cat(parts), whole)


def test_the_largest_draw_stays_within_the_padding() -> None:
    class Largest(Noise):
        def random(self, like: Tensor, kind: str) -> Tensor:
            return torch.full_like(like, 1 - 2**-24)  # the largest float32 that torch.rand returns

    for pad in range(1, 9):
        _, shift, flip = Augment(pad=pad, flip=True)(torch.zeros(1, 1, 28, 28), Largest())
        assert shift.tolist() == [[pad, pad]] and not flip.item()


def test_keeps_the_images_type_and_leaves_the_original_alone(digits: Images) -> None:
    before = digits.clone()
    half = Augment(pad=2, flip=True)(digits.bfloat16(), None)[0]
    assert half.dtype == torch.bfloat16 and torch.equal(digits, before)


def test_bad_settings_are_refused() -> None:
    with pytest.raises(ValueError, match="pad -1 must be 0 or more"):
        Augment(pad=-1)
    augment = Augment()
    object.__setattr__(augment, "padding", "edge")  # past the type check of the tests
    with pytest.raises(ValueError, match='use "zero" or "reflect"'):
        augment.__post_init__()
    with pytest.raises(ValueError, match="below the image's 4 pixels"):
        Augment(pad=4, padding="reflect")(torch.zeros(1, 1, 4, 9), None)
