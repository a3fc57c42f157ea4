"""What is kept per image, judged by the real augmentation and by a move written out pixel by pixel."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from toughen.core.rng import StepNoise
from toughen.core.types import Batch, Images, Labels
from toughen.data import Augment
from toughen.methods.history import to_image, to_view


def augmented(x: Images, pad: int, flip: bool) -> tuple[Images, Batch]:
    view, shift, flipped = Augment(pad=pad, flip=flip)(x, StepNoise(seed=1, step=2))
    return view, Batch(shift=shift, flip=flipped)


@pytest.fixture
def colours(mnist: tuple[Images, Labels]) -> Images:
    """Real digits in three channels that differ, higher than wide, none of their pixels zero: [64, 3, 28, 24]."""
    grey = mnist[0][:, :, :, 4:] * 0.9 + 0.05
    return torch.cat([grey, 1 - grey, grey.flip(2)], 1)


@pytest.mark.parametrize(("pad", "flip"), [(0, True), (4, False), (4, True)])
def test_a_view_is_what_the_augmentation_made_of_the_image(colours: Images, pad: int, flip: bool) -> None:
    view, batch = augmented(colours, pad, flip)
    assert torch.equal(to_view(colours, batch), view) and not torch.equal(view, colours)


@pytest.mark.parametrize(("pad", "flip"), [(0, True), (4, False), (4, True)])
def test_the_way_back_restores_what_was_seen_and_is_zero_elsewhere(colours: Images, pad: int, flip: bool) -> None:
    view, batch = augmented(colours, pad, flip)
    assert batch.shift is not None
    height, width = colours.shape[2:]
    expected = torch.zeros_like(colours)
    for number, (down, right) in enumerate(batch.shift.tolist()):
        rows = slice(max(0, -down), min(height, height - down))  # what stays in the frame after the move
        columns = slice(max(0, -right), min(width, width - right))
        expected[number, :, rows, columns] = colours[number, :, rows, columns]
    assert torch.equal(to_image(view, batch), expected)
    assert torch.equal(to_image(torch.ones_like(view), batch), (expected != 0).float())


def one_pixel(row: int, column: int) -> Tensor:
    image = torch.zeros(1, 1, 4, 5)
    image[0, 0, row, column] = 1
    return image


def test_one_pixel_by_hand() -> None:
    # down 1 and left 2: (1, 3) goes to (2, 1), then the mirror of five columns puts it to (2, 3)
    batch = Batch(shift=torch.tensor([[1, -2]]), flip=torch.tensor([True]))
    assert torch.equal(to_view(one_pixel(1, 3), batch), one_pixel(2, 3))
    assert torch.equal(to_image(one_pixel(2, 3), batch), one_pixel(1, 3))
    assert not to_view(one_pixel(3, 3), batch).any()  # out of the frame
    assert torch.equal(to_view(one_pixel(1, 3), Batch(shift=torch.tensor([[1, -2]]))), one_pixel(2, 1))
    assert torch.equal(to_view(one_pixel(1, 3), Batch(flip=torch.tensor([True]))), one_pixel(1, 1))


def test_an_image_that_lies_still_is_passed_on(colours: Images) -> None:
    for batch in (None, Batch(), Batch(shift=torch.zeros(64, 2, dtype=torch.int64), flip=torch.zeros(64).bool())):
        assert torch.equal(to_view(colours, batch), colours) and torch.equal(to_image(colours, batch), colours)


def test_a_move_further_than_the_image_leaves_nothing(colours: Images) -> None:
    batch = Batch(shift=torch.full((64, 2), 30))
    assert not to_view(colours, batch).any() and not to_image(colours, batch).any()
