"""What chance allows a sample of images: the limits that checks hold their figures to."""

from __future__ import annotations

import math

DROP = 0.03  # the error of a robust accuracy that is accepted
CONFIDENCE = 0.99  # the probability that a model at the limit passes a check
SUSPECT = 0.95  # beyond this quantile, what a few images show calls for more of them
UNSEEN = 0.05  # the probability, at the limit, of seeing as little as was seen


def allowed(n: int, share: float, confidence: float = CONFIDENCE) -> float:
    """The share of a sample of ``n`` images that is exceeded with probability 1 % where ``share`` is the true one.

    The quantile of the binomial distribution at ``confidence``, divided by ``n``; 1 where ``share`` is 1 or more.
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
    """How many of all images an attack may break that broke some of a sample: the upper 95 % limit.

    So many that a sample without more than ``broken`` among them is drawn with a probability of 5 % at least
    (hypergeometric: images are drawn without putting back, so of a sample of all of them nothing is left to chance).

    Args:
        broken: images of the sample that broke.
        n: images of the sample.
        of: all images that it was drawn from.
    """
    low, high = broken, of - n + broken
    while low < high:
        middle = (low + high + 1) // 2
        ways = sum(math.comb(middle, few) * math.comb(of - middle, n - few) for few in range(broken + 1))
        low, high = (middle, high) if ways >= UNSEEN * math.comb(of, n) else (low, middle - 1)
    return low
