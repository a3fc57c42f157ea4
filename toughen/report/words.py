"""Numbers and findings in plain words."""

from __future__ import annotations

from toughen.report.evaluations import Evaluation
from toughen.report.history import History
from toughen.utils.fraction import radius
from toughen.utils.plural import count as count
from toughen.utils.statistics import percent

MEANING = {
    "sound": "The number can be believed: no check speaks against it.",
    "doubtful": "Take it with care: a check failed.",
    "masked": "Do not believe it: attacks were kept from what they need, or too weak; the true number may be lower.",
    "unfinished": "The checks were stopped before they were all made; none of those that were failed.",
    "": "Nobody has checked whether the number can be believed.",
}


CUT = "No check speaks against the number, as finely as they can tell: the note on what they would not notice says it."


def meaning(verdict: str, *, cut: bool) -> str:
    """What a verdict means; of checks that were cut it says no more than they can tell."""
    return CUT if verdict == "sound" and cut else MEANING[verdict]


def threat(norm: str, eps: float) -> str:
    """A threat as the field writes it."""
    return f"{'L2' if norm == 'l2' else 'L∞'} eps {radius(eps)}"


def threat_in_words(norm: str, eps: float) -> str:
    """What an attacker may do to an image."""
    if norm == "l2":
        return f"every image may be changed by up to {radius(eps)} in all (L2; pixels go from 0 to 1)"
    return f"every pixel may be changed by up to {radius(eps)} (pixels go from 0 to 1)"


def duration(seconds: float) -> str:
    """A time in the unit that suits it."""
    if seconds < 120:
        return f"{seconds:.0f} s" if seconds >= 9.5 else f"{seconds:.1f} s"
    minutes = seconds / 60
    return f"{minutes:.0f} min" if minutes < 120 else f"{minutes / 60:.1f} h"


def findings(own: Evaluation) -> str:
    """What an evaluation found, for a stranger."""
    right, standing = (round(each * own.images) for each in (own.clean, own.robust))
    return (
        f"Of {count(own.images, 'test image')} the classifier gets {right:,} right. "
        f"{f'{standing:,}' if standing else 'None'} stay{'s' if standing == 1 else ''} right under attack, when "
        f"{threat_in_words(own.norm, own.eps)}."
        + (" So it is not robust." if own.robust < min(0.05, own.clean / 2) else "")
    )


def checks(own: Evaluation) -> str:
    """How many checks ended how."""
    if not own.checks:
        return "no check was made"
    summary = f"{count(own.count(True), 'check')} passed, {own.count(False)} failed"
    missing = own.count(None)
    return summary + (f", {missing} could not be made" if missing else "")


def span(own: Evaluation) -> str:
    """The 95 % interval of the robust accuracy."""
    low, high = own.interval
    return f"{100 * low:.1f} to {percent(high)}"


def cost(history: History) -> str:
    """What a step costs, against a plain one."""
    if history.passes is None:
        return ""
    return f"{history.passes:.1f} forward passes per image and step; plain training takes 3"
