"""What methods that wrap others share."""

from __future__ import annotations

from toughen.methods.base import Method


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
