"""Checks a method whose images another method trains on, without its loss."""

from __future__ import annotations

from toughen.methods.awp import AWP
from toughen.methods.base import Method
from toughen.methods.converge_smooth import ConvergeSmooth
from toughen.methods.free import Free
from toughen.methods.hybrid import Hybrid


def require_craft_only(holder: str, method: Method) -> Method:
    """Return a method of which only ``craft`` will be called.

    Raises:
        ValueError: it, or one that it wraps, works in its ``loss``, which would never be called.
    """
    lost = {
        Free: "perturbs images with the gradient of its own loss: use another method, such as FBF",
        Hybrid: f"switches by its own clean loss: put {holder} into its cheap and its strong method",
        ConvergeSmooth: f"holds the clean loss in its own loss: put ConvergeSmooth around {holder}",
        AWP: f"perturbs weights in its own loss: put AWP around {holder}",
    }
    for inner in method.modules():
        for kind, remedy in lost.items():
            if isinstance(inner, kind):
                raise ValueError(f"{holder} uses a method's images and not its loss, but {kind.__name__} {remedy}")
    return method
