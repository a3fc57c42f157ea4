"""What an attack gave back: the images themselves, whether they keep to the threat, and what share a mask marks."""

from __future__ import annotations

from torch import Tensor, nn

from toughen.attacks.base import Attack
from toughen.core.rng import Noise
from toughen.core.threat import Threat
from toughen.core.types import Images, Labels, Mask, PerExample
from toughen.utils.plugins import describe_error


def call_attack(attack: Attack, name: str, model: nn.Module, x: Images, y: Labels, noise: Noise) -> Images:
    """What an attack returns; where a user's own fails, it is said which and where.

    Raises:
        RuntimeError: it failed.
    """
    if type(attack).__module__.startswith("toughen."):
        return attack(model, x, y, noise)
    try:
        x_adv: object = attack(model, x, y, noise)
    except Exception as error:  # the user's own code may raise anything
        raise RuntimeError(f"attack {name} failed {describe_error(error)}") from error
    if not isinstance(x_adv, Tensor) or x_adv.shape != x.shape:
        raise RuntimeError(f"attack {name} must return images of the shape that it was given: fix it")
    return x_adv


def verify_threat(x_adv: Images, x: Images, threat: Threat, name: str, *, anywhere: bool = False) -> PerExample:
    """Each image's distance, after seeing that all of them are within the threat and the box.

    Args:
        x_adv, x: attacked images, and what they were made from.
        threat: what the attack was allowed.
        name: the attack's, in messages.
        anywhere: leave the radius open, for an attack that searches for the nearest image that fools.

    Raises:
        RuntimeError: they are not; the attack is wrong, and no figure of it can be used.
    """
    moved = threat.distance(x_adv, x)
    furthest, low, high = float(moved.max()), float(x_adv.min()), float(x_adv.max())
    faults = []
    if not anywhere and not furthest <= threat.eps * (1 + 1e-5) + 1e-6:
        faults.append(f"moved an image by {furthest:.6g}, beyond eps {threat.eps:.6g}")
    if not (low >= 0 and high <= 1):
        faults.append(f"returned pixels from {low:.6g} to {high:.6g}, outside [0, 1]")
    if faults:
        raise RuntimeError(f"attack {name} {' and '.join(faults)}: fix it")
    return moved


def share(mask: Mask) -> float:
    """The share of images that a mask marks, 0..1."""
    return int(mask.sum()) / len(mask)
