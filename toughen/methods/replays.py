"""How often methods that are wrapped together train on a batch."""

from __future__ import annotations

from toughen.methods.base import Method


def same_replays(wrapper: str, one: Method, other: Method) -> int:
    """How often both methods want a batch.

    Raises:
        ValueError: they differ, so that no one order of the data serves both.
    """
    if one.replays != other.replays:
        raise ValueError(
            f"{wrapper} cannot hold {type(one).__name__}, which trains {one.replays} times on a batch, together with "
            f"{type(other).__name__}, which does {other.replays} times: give both the same number of replays"
        )
    return one.replays
