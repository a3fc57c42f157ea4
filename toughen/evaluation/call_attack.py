"""The one way to call an attack: its images are verified to lie within the threat and in [0, 1]."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from toughen.attacks.base import Attack, threat_of
from toughen.core.modules import mode
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
        RuntimeError: a user's attack raised an error, changed the model's weights, or returned images of another shape
            or type; or the images are outside the threat.
    """
    x_adv: object
    if type(attack).__module__.startswith("toughen."):
        x_adv = attack(model, x, y, noise)
    else:
        weights = {key: tensor.detach().clone() for key, tensor in _weights(model).items()}
        try:  # on copies, as it may write into what it is given
            with mode(model, "eval"), torch.enable_grad():  # whatever mode it leaves behind
                x_adv = attack(model, x.clone(), y.clone(), noise)
        except Exception as error:  # the user's own code may raise anything
            raise RuntimeError(f"attack {name} failed {describe_error(error)}") from error
        finally:
            changed = _restore(model, weights)
        if changed:
            raise RuntimeError(
                f"attack {name} changed {changed} of the model, which was put back: let it attack a copy, or the model "
                "in evaluation mode"
            )
    if not isinstance(x_adv, Tensor) or x_adv.shape != x.shape:
        raise RuntimeError(f"attack {name} must return images of the shape that it was given: fix it")
    if x_adv.dtype != x.dtype or x_adv.device != x.device:
        raise RuntimeError(
            f"attack {name} returned images of {x_adv.dtype} on {x_adv.device}: return {x.dtype} on {x.device}"
        )
    x_adv = x_adv.detach()
    return x_adv, verify_threat(x_adv, x, threat_of(attack), name, any_distance=any_distance)


def _weights(model: nn.Module) -> dict[str, Tensor]:
    """The weights of a model, and the statistics of its batch norms, which change in training mode."""
    statistics = {name: each for name, each in model.named_buffers() if name.endswith(("running_mean", "running_var"))}
    return {**dict(model.named_parameters()), **statistics}


@torch.no_grad()
def _restore(model: nn.Module, weights: Mapping[str, Tensor]) -> str:
    """Put changed weights back; the name of the first one that was changed, "" if none was."""
    now = _weights(model)
    changed = [name for name, before in weights.items() if not _same(now.get(name), before)]
    for name in changed:
        if name in now and now[name].shape == weights[name].shape:
            now[name].copy_(weights[name])
    return changed[0] if changed else ""


def _same(now: Tensor | None, before: Tensor) -> bool:
    """Whether a tensor has its former values; NaN equals NaN."""
    return now is not None and now.shape == before.shape and torch.allclose(now, before, 0.0, 0.0, equal_nan=True)


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
