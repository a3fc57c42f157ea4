"""Texts of the report: numbers, threats, verdicts and findings as sentences."""

from __future__ import annotations

from toughen.report.evaluations import Evaluation
from toughen.report.history import History
from toughen.utils.plural import count as count
from toughen.utils.statistics import percent
from toughen.utils.units import format_radius

MEANING = {
    "sound": "The number can be believed: no check failed.",
    "doubtful": "Use the number with care: a check failed.",
    "masked": "Do not believe the number: the gradients misled the attacks, or the attacks were too weak. The true "
    "robust accuracy may be lower.",
    "unfinished": "The checks were stopped early. None of those that were made failed.",
    "": "No checks were made, so it is not known whether the number can be believed.",
}
CUT = "No check failed. But the checks were shortened to limit their cost; a note says which errors they can miss."


LABELS_FIT = "labels that fit"  # the check's name
UNFIT = "The answers fit the labels no better than by chance, or in another order: the robust accuracy says nothing."


def meaning(own: Evaluation) -> str:
    """What the verdict of an evaluation means."""
    if any(check.name == LABELS_FIT and check.passed is False for check in own.checks):
        return UNFIT
    return CUT if own.verdict == "sound" and own.cut else MEANING[own.verdict]


def threat(norm: str, eps: float) -> str:
    """A threat in short form, such as "L∞ eps 8/255"."""
    return f"{'L2' if norm == 'l2' else 'L∞'} eps {format_radius(eps)}"


def threat_in_words(norm: str, eps: float) -> str:
    """What an attacker may change in an image, as a clause."""
    if norm == "l2":
        return f"every image may be changed by an L2 distance of up to {format_radius(eps)} (pixel values are 0 to 1)"
    return f"every pixel may be changed by up to {format_radius(eps)} (pixel values are 0 to 1)"


def duration(seconds: float) -> str:
    """A time in seconds, minutes or hours, whichever is readable."""
    if seconds < 120:
        return f"{seconds:.0f} s" if seconds >= 9.5 else f"{seconds:.1f} s"
    minutes = seconds / 60
    return f"{minutes:.0f} min" if minutes < 120 else f"{minutes / 60:.1f} h"


def findings(own: Evaluation) -> str:
    """The result of an evaluation in sentences that need no knowledge of the field."""
    correct, robust = (round(each * own.images) for each in (own.clean, own.robust))
    return (
        f"The classifier predicts the right class for {correct:,} of {count(own.images, 'test image')}. Under attack, "
        f"when {threat_in_words(own.norm, own.eps)}, it is still right for {f'{robust:,}' if robust else 'none'}."
        + (" So it is not robust." if own.robust < min(0.05, own.clean / 2) else "")
    )


def checks(own: Evaluation) -> str:
    """The numbers of passed, failed and missing checks, as text."""
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
    """The cost of a training step, compared with standard training."""
    if history.passes is None:
        return ""
    return f"{history.passes:.1f} forward passes per image and step; standard training takes 3"
