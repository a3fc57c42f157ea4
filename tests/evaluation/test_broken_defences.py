"""Defences that the field has broken: no number that their own attacks give is called sound."""

from __future__ import annotations

import pytest
from broken_defences import DEFENCES
from test_verdict import claim_of, failed
from test_verdict_price import priced

from toughen.attacks.base import Attack
from toughen.attacks.pgd import PGD
from toughen.core.threat import Threat

BUDGET = 100_000  # forward passes: about those of 20 seconds, which the quick suite always allows, for these nets


def few_steps(threat: Threat) -> list[Attack]:
    """PGD that can't reach the edge from most starts, as in the first evaluations of such defences."""
    return [PGD(eps=threat.eps, norm=threat.norm, steps=7, step_size=threat.eps / 10)]


@pytest.mark.slow
@pytest.mark.timeout(900)
@pytest.mark.parametrize("name", DEFENCES)
def test_a_broken_defence_is_never_sound(name: str) -> None:
    claim, blocks = claim_of(DEFENCES[name]().eval(), few_steps, threat=Threat("linf", 0.1), n=200)
    assert claim.robust_accuracy > 0.35  # else there is nothing to doubt
    word, checks, _ = priced(claim, blocks, BUDGET)
    assert word in ("masked", "doubtful"), [check.sentence for check in checks]
    assert failed({check.name: check for check in checks}) - {"enough images"}  # for a reason, not for lack of room
