"""Numbers of defences that the field has broken are never called sound, and no sound net is accused.

At the price of the quick suite.
"""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from broken_defences import DEFENCES, hardened, squeezed_and_hardened
from test_verdict import claim_of, failed, in_earnest
from test_verdict_price import priced
from torch import nn

from toughen.attacks.base import Attack
from toughen.attacks.pgd import PGD
from toughen.core.threat import Threat
from toughen.evaluation.suite import parse_attack

BUDGET = 100_000  # forward passes: about those of 20 seconds, which the quick suite always allows, for these nets


def few_steps(threat: Threat) -> list[Attack]:
    """PGD that can't reach the edge from most starts, as in the first evaluations of such defences."""
    return [PGD(eps=threat.eps, norm=threat.norm, steps=7, step_size=threat.eps / 10)]


@pytest.mark.slow
@pytest.mark.timeout(900)
@pytest.mark.parametrize("name", DEFENCES)
def test_a_broken_defence_is_never_sound(name: str) -> None:
    claim, blocks = claim_of(DEFENCES[name]().eval(), few_steps, threat=Threat("linf", 0.1), n=200, sample=0)
    assert claim.robust_accuracy > 0.35  # else there is nothing to doubt
    word, checks, _ = priced(claim, blocks, BUDGET)
    assert word in ("masked", "doubtful"), [check.sentence for check in checks]
    assert failed({check.name: check for check in checks}) - {"enough images"}  # for a reason, not for lack of room


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_gradients_that_clipping_hides_are_found() -> None:
    """PGD on the pixels as the net sees them, within what eps allows, has a gradient everywhere and breaks more."""
    model = squeezed_and_hardened()
    claim, blocks = claim_of(model, in_earnest, threat=Threat("linf", 0.3), n=200, sample=0)
    x, y = claim.images.float() / 255, claim.labels
    low, high = (model.squeeze((x + change).clamp(0, 1)) for change in (-0.3, 0.3))
    seen, robust = (low + high) / 2, claim.robust
    for _ in range(60):
        seen = seen.detach().requires_grad_()
        out = model.net(seen)
        robust = robust & (out.argmax(1) == y)
        (gradient,) = torch.autograd.grad(F.cross_entropy(out, y), seen)
        seen = (seen + 0.1 * gradient.sign()).clamp(low, high)
    assert claim.robust_accuracy > 0.85 and float(robust.double().mean()) < claim.robust_accuracy - 0.1
    word, checks, _ = priced(claim, blocks, BUDGET)
    # other checks may see it as well: what training makes of this net differs between processors
    assert word == "masked" and "gradients in the pixels that matter" in failed({check.name: check for check in checks})


SOUND = [  # activation, radius of the training, method
    (nn.ReLU, 0.2, "TRADES"),
    (nn.GELU, 0.1, "R-FGSM"),
    (nn.Tanh, 0.1, "PGD"),
    (nn.Softplus, 0.1, "TRADES"),
    (nn.SiLU, 0.2, "PGD"),
]


def thoroughly(threat: Threat) -> list[Attack]:
    """What finds all there is to find on these nets: PGD with 30 steps alone falls short on some."""
    return [*in_earnest(threat), parse_attack("apgd-t", threat)]


@pytest.mark.slow
@pytest.mark.timeout(900)
@pytest.mark.parametrize("eps", [0.1, 0.2])
@pytest.mark.parametrize(("activation", "trained", "method"), SOUND)
def test_no_sound_net_is_accused(activation: type[nn.Module], trained: float, method: str, eps: float) -> None:
    net, sample = hardened(activation, trained, method), SOUND.index((activation, trained, method))
    claim, blocks = claim_of(net, thoroughly, threat=Threat("linf", eps), n=200, sample=sample)
    word, checks, _ = priced(claim, blocks, BUDGET)
    assert word == "sound", [check.sentence for check in checks if check.passed is False]
