"""Training methods: modules used like a criterion. A new file in this folder is a new method."""

from __future__ import annotations

from typing import Any

from toughen.methods.base import Method as Method
from toughen.utils.collect import collect

REGISTRY: dict[str, type[Method]] = collect(__name__, __path__, Method)
globals().update(REGISTRY)


def __getattr__(name: str) -> Any:  # the collected classes, for type checkers
    raise AttributeError(f"there is no method {name}: {', '.join(REGISTRY)}")
