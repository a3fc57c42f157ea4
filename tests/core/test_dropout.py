"""Which rows dropout shares its masks between."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from toughen.core.dropout import SharedDropout

KINDS: list[tuple[type[nn.Module], tuple[int, ...]]] = [
    (nn.Dropout, (40,)),
    (nn.Dropout1d, (40, 3)),
    (nn.Dropout2d, (40, 3, 3)),
    (nn.Dropout3d, (40, 2, 2, 2)),
]


@pytest.mark.parametrize(("kind", "shape"), KINDS)
def test_the_last_rows_have_the_masks_of_those_before(kind: Callable[..., nn.Module], shape: tuple[int, ...]) -> None:
    """Of 7 rows the last 2 are twins: of ones each unit is 0 or 1 / (1 - 0.25), whole channels in 1 to 3 dimensions."""
    layer, x = kind(0.25).train(), torch.ones(7, *shape, dtype=torch.float64, requires_grad=True)
    torch.manual_seed(0)
    expected = layer(x[:5].detach())  # the masks of the first five, drawn as ever
    torch.manual_seed(0)
    with SharedDropout(7, 2):
        out = layer(x)
    assert torch.equal(out[:5], expected) and torch.equal(out[5:], out[3:5])
    assert set(out.unique().tolist()) == {0.0, 4 / 3}
    assert len({tuple(row.flatten().tolist()) for row in out}) == 5
    out.sum().backward()
    assert torch.equal(x.grad, out.detach())  # type: ignore[arg-type]


@pytest.mark.parametrize(
    "call",
    [
        lambda x: F.dropout(x, 0.5, False),
        lambda x: F.dropout(x[:6], 0.5, True),  # of another size
        lambda x: F.alpha_dropout(x, 0.5, True),
    ],
)
def test_all_else_is_as_ever(call: Callable[[Tensor], Any]) -> None:
    x = torch.rand(7, 40)
    torch.manual_seed(0)
    expected = call(x)
    torch.manual_seed(0)
    with SharedDropout(7, 2):
        assert torch.equal(call(x), expected)


def test_without_twins_nothing_is_shared() -> None:
    x = torch.ones(7, 40)
    torch.manual_seed(0)
    expected = F.dropout(x)
    torch.manual_seed(0)
    with SharedDropout(7, 0):
        assert torch.equal(F.dropout(x), expected)
