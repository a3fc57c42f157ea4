"""The re-constructors: sizes, a literal transcription, images of other sizes, and that they can draw digits."""

from __future__ import annotations

from typing import TypeAlias

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from toughen import models
from toughen.core.types import Images, Labels

Shape: TypeAlias = tuple[int, int, int]
Weights: TypeAlias = dict[str, Tensor]


def parameters(model: nn.Module) -> int:
    return sum(each.numel() for each in model.parameters())


def wide_block(c_in: int, c_out: int) -> int:
    shortcut = 0 if c_in == c_out else c_in * c_out
    return 9 * c_in * c_out + 9 * c_out * c_out + 2 * c_in + 2 * c_out + shortcut


WIDE_BLOCKS = [(192, 192)] * 3 + [(192, 96)] + [(96, 96)] * 2 + [(96, 48)] + [(48, 48)] * 2


@pytest.mark.parametrize(
    ("name", "shape", "count", "millions"),
    [
        # dense 10-128-32*7*7, transposed 5x5 32-32-32-1
        ("dense", (1, 28, 28), 11 * 128 + 129 * 1568 + 2 * 801 * 32 - 2 * 31 + 62 + (25 * 32 + 1), 0.26),
        # dense 10-192-192*8*8, the blocks, a batch norm, a 3x3 convolution 48-3
        (
            "wrn-22-3",
            (3, 32, 32),
            11 * 192 + 193 * 192 * 64 + sum(wide_block(*pair) for pair in WIDE_BLOCKS) + 2 * 48 + (9 * 48 + 1) * 3,
            5.1,
        ),
        # ours, for small machines: one block a stage, a third of the maps
        (
            "wrn-10-1",
            (3, 32, 32),
            11 * 64 + 65 * 64 * 64 + wide_block(64, 64) + wide_block(64, 32) + wide_block(32, 16) + 32 + 145 * 3,
            0.38,
        ),
    ],
)
def test_a_reconstructor_has_the_papers_size(name: str, shape: Shape, count: int, millions: float) -> None:
    model = models.create_reconstructor(name, 10, shape)
    assert parameters(model) == count
    assert count == pytest.approx(millions * 1e6, rel=0.03)


def norm(w: Weights, x: Tensor, name: str) -> Tensor:
    """Batch norm in evaluation mode, by hand."""
    scale = w[f"{name}.weight"] / (w[f"{name}.running_var"] + 1e-5).sqrt()
    moved = x - w[f"{name}.running_mean"].view(1, -1, 1, 1)
    return moved * scale.view(1, -1, 1, 1) + w[f"{name}.bias"].view(1, -1, 1, 1)


def first_maps(w: Weights, p: Tensor, maps: int, side: int) -> Tensor:
    hidden = F.relu(p @ w["0.weight"].T + w["0.bias"])
    return (hidden @ w["2.weight"].T + w["2.bias"]).reshape(len(p), maps, side, side)


def doubled(w: Weights, x: Tensor, name: str) -> Tensor:
    """A transposed convolution of stride 2: zeros between pixels, then the mirrored kernel slides over them."""
    n, c, side, _ = x.shape
    spread = x.new_zeros(n, c, 2 * side, 2 * side)
    spread[:, :, ::2, ::2] = x
    return F.conv2d(spread, w[f"{name}.weight"].transpose(0, 1).flip(2, 3), w[f"{name}.bias"], padding=2)


def dense_by_hand(w: Weights, p: Tensor) -> Tensor:
    x = F.relu(first_maps(w, p, 32, 7))
    x = F.relu(doubled(w, F.relu(doubled(w, x, "5")), "7"))
    return 1 / (1 + (-F.conv2d(x, w["9.weight"].transpose(0, 1).flip(2, 3), w["9.bias"], padding=2)).exp())


def wide_by_hand(w: Weights, p: Tensor) -> Tensor:
    x = first_maps(w, p, 192, 8)
    for place, name in enumerate(("4", "6", "8")):
        for block in range(3):
            at = f"{name}.{block}"
            ready = F.relu(norm(w, x, f"{at}.ready.0"))
            out = F.relu(norm(w, F.conv2d(ready, w[f"{at}.residual.0.weight"], padding=1), f"{at}.residual.1"))
            out = F.conv2d(out, w[f"{at}.residual.3.weight"], padding=1)
            changes = place > 0 and block == 0
            x = out + (F.conv2d(ready, w[f"{at}.shortcut.weight"]) if changes else x)
        if place < 2:
            x = x.repeat_interleave(2, dim=2).repeat_interleave(2, dim=3)
    x = F.conv2d(F.relu(norm(w, x, "9")), w["11.weight"], w["11.bias"], padding=1)
    return 1 / (1 + (-x).exp())


@pytest.mark.parametrize(("name", "shape"), [("dense", (1, 28, 28)), ("wrn-22-3", (3, 32, 32))])
def test_a_reconstructor_computes_what_its_literal_transcription_does(name: str, shape: Shape) -> None:
    model = models.create_reconstructor(name, 10, shape).double().eval()
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            assert module.running_mean is not None and module.running_var is not None
            nn.init.normal_(module.running_mean)
            nn.init.uniform_(module.running_var, 0.5, 2)
            nn.init.normal_(module.bias)
        elif isinstance(module, nn.Linear):
            nn.init.normal_(module.weight)
    p = torch.rand(3, 10, dtype=torch.float64).softmax(1)
    by_hand = {"dense": dense_by_hand, "wrn-22-3": wide_by_hand}[name]
    expected = by_hand(dict(model.state_dict()), p)
    assert expected.std() > 0.01 and expected.shape == (3, *shape)
    torch.testing.assert_close(model(p), expected, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("name", ["dense", "wrn-22-3", "wrn-10-1"])
@pytest.mark.parametrize("shape", [(1, 28, 28), (3, 32, 32), (2, 8, 20), (3, 4, 4)])
def test_images_of_other_sizes_come_out_in_the_box_and_every_weight_learns(name: str, shape: Shape) -> None:
    model = models.create_reconstructor(name, 7, shape)
    images = model(torch.rand(4, 7).softmax(1))
    assert images.shape == (4, *shape) and images.min() >= 0 and images.max() <= 1
    assert 0.05 < images.min() and images.max() < 0.95  # an untrained sigmoid is not saturated
    images.square().mean().backward()
    assert all(each.grad is not None and each.grad.abs().sum() > 0 for each in model.parameters())


@pytest.mark.parametrize(
    ("shape", "chosen"), [((1, 28, 28), "dense"), ((3, 32, 32), "wrn-22-3"), ((3, 28, 28), "wrn-22-3")]
)
def test_auto_is_dense_for_one_channel_and_wide_for_colour(shape: Shape, chosen: str) -> None:
    found, expected = (str(models.create_reconstructor(name, 10, shape)) for name in ("auto", chosen))
    assert found == expected


@pytest.mark.parametrize(
    ("name", "shape", "message"),
    [
        ("wrn", (3, 32, 32), "re-constructor 'wrn' is unknown: there are dense, wrn-22-3, wrn-10-1 and auto"),
        ("auto", (3, 30, 32), "must be multiples of 4, these images are 30x32: pad or resize them"),
        ("dense", (1, 28, 27), "must be multiples of 4, these images are 28x27"),
    ],
)
def test_unknown_names_and_sizes_are_refused(name: str, shape: Shape, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        models.create_reconstructor(name, 10, shape)


def test_the_dense_one_draws_the_mean_image_of_a_class(mnist: tuple[Images, Labels]) -> None:
    """What a label alone can say of an image is the mean of its class: no other drawing has a lower squared error."""
    x, y = mnist
    model = models.create_reconstructor("dense", 10, (1, 28, 28))
    optimizer = torch.optim.Adam(model.parameters(), lr=3e-3)
    for _ in range(150):
        optimizer.zero_grad()
        F.mse_loss(model(torch.eye(10))[y], x).backward()
        optimizer.step()
    means = torch.stack([x[y == label].mean(0) for label in range(10)])[y]
    best, blind = F.mse_loss(means, x).item(), F.mse_loss(x.mean(0, keepdim=True).expand_as(x), x).item()
    reached = F.mse_loss(model(torch.eye(10))[y], x).item()
    assert best <= reached < best + 0.1 * (blind - best)
