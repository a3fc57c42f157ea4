"""Numbers of defences that the field has broken are never called sound, and no sound net is accused.

At the price of the quick suite, on several samples of test images.
"""

from __future__ import annotations

import pytest
from broken_defences import DEFENCES, hardened
from test_verdict import claim_of, failed, in_earnest
from test_verdict_price import priced
from torch import nn

from toughen.attacks.base import Attack
from toughen.attacks.pgd import PGD
from toughen.core.threat import Threat

BUDGET = 100_000  # forward passes: about those of 20 seconds, which the quick suite always allows, for these nets
SAMPLES = (0, 1)


def few_steps(threat: Threat) -> list[Attack]:
    """PGD that can't reach the edge from most starts, as in the first evaluations of such defences."""
    return [PGD(eps=threat.eps, norm=threat.norm, steps=7, step_size=threat.eps / 10)]


@pytest.mark.slow
@pytest.mark.timeout(900)
@pytest.mark.parametrize("sample", SAMPLES)
@pytest.mark.parametrize("name", DEFENCES)
def test_a_broken_defence_is_never_sound(name: str, sample: int) -> None:
    claim, blocks = claim_of(DEFENCES[name]().eval(), few_steps, threat=Threat("linf", 0.1), n=200, sample=sample)
    assert claim.robust_accuracy > 0.35  # else there is nothing to doubt
    word, checks, _ = priced(claim, blocks, BUDGET)
    assert word in ("masked", "doubtful"), [check.sentence for check in checks]
    assert failed({check.name: check for check in checks}) - {"enough images"}  # for a reason, not for lack of room


SOUND = [  # activation, radius of the training, method
    (nn.ReLU, 0.1, "PGD"),
    (nn.GELU, 0.2, "TRADES"),
    (nn.Tanh, 0.1, "PGD"),
    (nn.SiLU, 0.2, "PGD"),
    (nn.Softplus, 0.1, "TRADES"),
    (nn.LeakyReLU, 0.1, "R-FGSM"),
    (nn.ELU, 0.1, "PGD"),
    (nn.ReLU, 0.2, "TRADES"),
    (nn.GELU, 0.1, "R-FGSM"),
    (nn.Hardswish, 0.2, "PGD"),
]


@pytest.mark.slow
@pytest.mark.timeout(900)
@pytest.mark.parametrize(("activation", "trained", "method"), SOUND)
def test_no_sound_net_is_accused(activation: type[nn.Module], trained: float, method: str) -> None:
    net = hardened(activation, trained, method)
    for sample, eps in enumerate((0.1, 0.2)):
        claim, blocks = claim_of(net, in_earnest, threat=Threat("linf", eps), n=200, sample=sample)
        word, checks, _ = priced(claim, blocks, BUDGET)
        assert word == "sound", (eps, [check.sentence for check in checks if check.passed is False])
