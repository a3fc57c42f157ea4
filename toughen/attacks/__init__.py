"""Attacks: frozen dataclasses, called with a model, images and labels. A new file in this folder is a new attack."""

from __future__ import annotations

from typing import Any

from toughen.attacks.base import Attack as Attack
from toughen.utils.collect import collect

REGISTRY: dict[str, type[Attack]] = collect(__name__, __path__, Attack)
globals().update(REGISTRY)


def __getattr__(name: str) -> Any:  # the collected classes, for type checkers
    raise AttributeError(f"there is no attack {name}: {', '.join(REGISTRY)}")
