"""What methods that wrap others share."""

from __future__ import annotations

from torch import Tensor

from toughen.core.distributed import world
from toughen.methods.base import Method


def batch_mean(method: Method, mean: Tensor) -> Tensor:
    """The mean over a batch's images in all processes, float64.

    Args:
        method: knows this process's share of the images.
        mean: over this process's images, [].
    """
    share = 1 / world().world_size if method.batch_share is None else method.batch_share
    return world().all_reduce(share * mean.detach().double())


def same_replays(wrapper: str, one: Method, other: Method) -> int:
    """The number of replays that two methods in one wrapper share.

    Raises:
        ValueError: they differ; the data can only be replayed in one way.
    """
    if one.replays != other.replays:
        raise ValueError(
            f"{wrapper} cannot hold {type(one).__name__}, which trains {one.replays} times on a batch, together with "
            f"{type(other).__name__}, which does {other.replays} times: give both the same number of replays"
        )
    return one.replays
