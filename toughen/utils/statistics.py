"""What accuracies say: as text, of images that were not seen, and of a model that resists single steps alone."""

from __future__ import annotations

import math
from typing import Any

GAP = 0.2  # a model that FGSM finds this much more robust than the other attacks do is not to be believed


def percent(share: float) -> str:
    """A share, 0..1, as tables and sentences show it."""
    return f"{100 * share:.1f} %"


def interval(accuracy: float, n: int) -> tuple[float, float]:
    """The 95 % interval of an accuracy measured on ``n`` sampled images (Wilson, 1927)."""
    z = 1.959963984540054
    middle = (accuracy + z * z / (2 * n)) / (1 + z * z / n)
    half = z / (1 + z * z / n) * math.sqrt(accuracy * (1 - accuracy) / n + z * z / (4 * n * n))
    return max(0.0, min(accuracy, middle - half)), min(1.0, max(accuracy, middle + half))  # not beside it by rounding


def fgsm_gap(result: dict[str, Any]) -> float | None:
    """How much higher accuracy under FGSM is than under all attacks together; None without FGSM or others."""
    attacks = result["attacks"]
    if "fgsm" not in attacks or len(attacks) < 2:
        return None
    return float(attacks["fgsm"]["robust_accuracy"] - result["robust_accuracy"])


def warning(result: dict[str, Any]) -> str | None:
    """What a reader must know before believing the robust figure."""
    if result.get("no_gradient"):
        return (
            "The model's logits have no gradient with respect to the images, so the attacks that follow a gradient had "
            "none: their figures say nothing. Only attacks without gradients, such as square, count."
        )
    gap = fgsm_gap(result)
    if gap is None or gap <= GAP:
        return None
    said = (
        f"Accuracy under FGSM is {100 * gap:.1f} points higher than under all attacks: FGSM is too weak for this model."
    )
    if result["robust_accuracy"] < result["attacks"]["fgsm"]["robust_accuracy"] / 2:
        return f"{said} The model is not robust (catastrophic overfitting, or no robust training)."
    return f"{said} Use the lower figure."
