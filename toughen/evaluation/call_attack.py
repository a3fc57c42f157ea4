"""The one way to call an attack: its images are verified to lie within the threat and in [0, 1]."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from toughen.attacks.base import Attack, threat_of
from toughen.core.rng import Noise
from toughen.core.threat import Threat
from toughen.core.types import Images, Labels, PerExample
from toughen.utils.plugins import describe_error


def call_attack(
    attack: Attack,
    name: str,
    model: nn.Module,
    x: Images,
    y: Labels,
    noise: Noise,
    *,
    any_distance: bool = False,
) -> tuple[Images, PerExample]:
    """Call an attack and verify what it returns.

    Args:
        attack: one of toughen's, or a user's own.
        name: the attack's name in messages.
        model: the model that is attacked, in evaluation mode.
        x: float [n, c, h, w] in [0, 1], the clean images.
        y: [n], their classes.
        noise: source of the attack's random numbers.
        any_distance: as in ``verify_threat``.

    Returns:
        The adversarial images [n, c, h, w], and their distances from ``x`` [n] in the attack's norm.

    Raises:
        RuntimeError: a user's attack raised an error or returned another shape, or the images are outside the threat.
    """
    x_adv: object
    if type(attack).__module__.startswith("toughen."):
        x_adv = attack(model, x, y, noise)
    else:
        try:  # on copies, as it may write into what it is given
            with torch.enable_grad():
                x_adv = attack(model, x.clone(), y.clone(), noise)
        except Exception as error:  # the user's own code may raise anything
            raise RuntimeError(f"attack {name} failed {describe_error(error)}") from error
    if not isinstance(x_adv, Tensor) or x_adv.shape != x.shape:
        raise RuntimeError(f"attack {name} must return images of the shape that it was given: fix it")
    x_adv = x_adv.detach()
    return x_adv, verify_threat(x_adv, x, threat_of(attack), name, any_distance=any_distance)


def verify_threat(x_adv: Images, x: Images, threat: Threat, name: str, *, any_distance: bool = False) -> PerExample:
    """Check that all adversarial images lie within the threat and in [0, 1], and return their distances [n].

    Args:
        x_adv, x: the adversarial images and the clean ones, [n, c, h, w].
        threat: norm and radius that the attack was given.
        name: the attack's name in messages.
        any_distance: don't check the radius, for an attack that searches for the nearest adversarial image.

    Raises:
        RuntimeError: they don't. The attack has a fault, and none of its results can be used.
    """
    distance = threat.distance(x_adv, x)
    largest, low, high = float(distance.max()), float(x_adv.min()), float(x_adv.max())
    faults = []
    if not any_distance and not largest <= threat.eps * (1 + 1e-5) + 1e-6:
        faults.append(f"moved an image by {largest:.6g}, beyond eps {threat.eps:.6g}")
    if not (low >= 0 and high <= 1):
        faults.append(f"returned pixels from {low:.6g} to {high:.6g}, outside [0, 1]")
    if faults:
        raise RuntimeError(f"attack {name} {' and '.join(faults)}: fix it")
    return distance
