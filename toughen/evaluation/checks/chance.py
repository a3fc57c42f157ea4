"""Statistics of samples of images: thresholds with an allowance for chance."""

from __future__ import annotations

import math
from fractions import Fraction

DROP = 0.03  # the error of a robust accuracy that is accepted
CONFIDENCE = 0.99  # the probability that a model at the limit passes a check
SUSPECT = 0.95  # the quantile above which a result on a few images must be confirmed on more
UNSEEN = Fraction(1, 20)  # one minus the confidence of ``at_most``; exact, as a float cannot hold its large integers


def allowed(n: int, share: float, confidence: float = CONFIDENCE) -> float:
    """The largest share in a sample of ``n`` images that is still compatible with a true share of ``share``.

    This is the quantile of the binomial distribution at ``confidence``, divided by ``n``; 1 if ``share`` is 1 or more.
    """
    if share >= 1 or not n:
        return 1.0
    term, total = (1 - share) ** n, 0.0
    for count in range(n):
        total += term
        if total >= confidence:
            return count / n
        term *= share / (1 - share) * (n - count) / (count + 1)
    return 1.0


def at_most(broken: int, n: int, of: int) -> int:
    """The upper 95 % confidence limit for how many of all images an attack breaks, given how many of a sample.

    This is the largest number for which a sample has at most ``broken`` such images with a probability of 5 % or more.
    The distribution is hypergeometric: images are drawn without replacement, so a sample of all images is exact.

    Args:
        broken: how many images of the sample the attack broke.
        n: size of the sample.
        of: how many images the sample was drawn from.
    """
    low, high = broken, of - n + broken
    while low < high:
        middle = (low + high + 1) // 2
        ways = sum(math.comb(middle, count) * math.comb(of - middle, n - count) for count in range(broken + 1))
        low, high = (middle, high) if ways >= UNSEEN * math.comb(of, n) else (low, middle - 1)
    return low
