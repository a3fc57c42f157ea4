"""Checks of the data: whether the model expects such images and labels, and whether there are enough of them."""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor

from toughen.core.objectives import misclassified
from toughen.core.types import Images, Labels
from toughen.evaluation.checks.base import EXACT, Check, CheckContext, ModelCheck, judge, not_made
from toughen.evaluation.checks.chance import DROP, allowed
from toughen.utils.statistics import percent

MEANS = {  # the usual mean and standard deviation per channel, in [0, 1] units
    "ImageNet": ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)),
    "CIFAR-10": ((0.4914, 0.4822, 0.4465), (0.2471, 0.2435, 0.2616)),
    "CIFAR-100": ((0.5071, 0.4865, 0.4409), (0.2673, 0.2564, 0.2762)),
    "MNIST": ((0.1307,), (0.3081,)),
}
LEAST = 2.0  # images; with fewer, the allowance for chance is 100 %
FEW = 16  # with a budget, other input formats are tried on this many images, and the best one on all
FORMATS = 8  # number of other input formats, at most
OF_A_CLASS = 5  # images, for the comparison with another class
ENOUGH = 20  # images, for a comparison with labels in a random order
GAIN = 0.05  # a larger gain of clean accuracy shows that the model expects the other format


def _other_formats(x: Images) -> dict[str, Callable[[Images], Images]]:
    """Other input formats that the model may expect: each one's name, and how to convert images in [0, 1] to it."""
    formats: dict[str, Callable[[Images], Images]] = {
        "pixels of 0 to 255": lambda x: 255 * x,
        "pixels of -1 to 1": lambda x: 2 * x - 1,
        "pixels of -0.5 to 0.5": lambda x: x - 0.5,
    }
    for name, (mean, deviation) in MEANS.items():
        if len(mean) in (1, x.shape[1]):
            formats[f"images normalised as for {name}"] = _normalise(x, mean, deviation)
    own_mean, own_deviation = x.mean((0, 2, 3)).tolist(), x.std((0, 2, 3)).clamp(min=1e-3).tolist()
    formats["images normalised by their own mean and deviation"] = _normalise(x, own_mean, own_deviation)
    return formats


def _normalise(x: Images, mean: object, deviation: object) -> Callable[[Images], Images]:
    shift, scale = (torch.as_tensor(each).to(x).view(1, -1, 1, 1) for each in (mean, deviation))
    return lambda x: (x - shift) / scale


def input_range(context: CheckContext, name: str) -> Check:
    """No other range or normalisation of the images makes the model much more accurate.

    Fails if another range (0..255, -1..1) or the usual normalisation increases accuracy by more than 5 points plus the
    allowance; not made for a run, whose range is known.
    """
    if context.claim.own:
        return not_made(name, "a run is trained on images in [0, 1], with any normalisation inside the model")
    x, y = context.x(context.all), context.y(context.all)

    def accuracy(images: Images, labels: Labels) -> float:
        return float((~misclassified(context.model.exact(images), labels)).double().mean())

    formats = _other_formats(x)
    count = len(x) if context.unlimited else min(FEW, len(x))
    few = torch.arange(count, device=x.device) * len(x) // count  # spread, as images are often sorted by class
    accuracies = {kind: accuracy(convert(x[few]), y[few]) for kind, convert in formats.items()}
    best = max(accuracies, key=lambda kind: accuracies[kind])
    as_given = accuracy(x, y)
    if not context.unlimited:
        accuracies[best] = accuracy(formats[best](x), y)
    return judge(
        name,
        accuracies[best] - as_given,
        allowed(len(x), GAIN),
        "No other range or normalisation of the images makes the model much more accurate.",
        f"The model classifies {percent(as_given)} of the images in [0, 1] correctly, but "
        f"{percent(accuracies[best])} of {best}: make that conversion its first layer. Until then the number means "
        "nothing.",
    )


def enough_images(context: CheckContext, name: str) -> Check:
    """There are enough images for checks to fail.

    Fails if only a single image is checked, for which chance allows any result; or the budget is too small for the most
    important checks.
    """
    count, number = len(context.correct), context.claim.robust_accuracy
    if number > DROP:  # a lower number is within the accepted error, with any number of robust images
        count = min(count, len(context.robust))
    used = f"{count} image{'' if count == 1 else 's'}"
    bad = f"The checks use {used}, which is too few for a verdict: evaluate more images."
    if context.too_few is not None:
        had, least = map(float, context.too_few)
        bad = f"Within its time limit an important check used {had:.0f} images, but it needs {least:.0f} or more: "
        return judge(name, had, least, "", bad + "--suite standard sets no time limit.", least=True)
    return judge(name, float(count), LEAST, f"The checks use {count} images or more.", bad, least=True)


def labels_fit(context: CheckContext, name: str) -> Check:
    """The model is better than chance, and no other numbering of the classes makes it much more accurate.

    Fails if clean accuracy is no better than chance, another numbering of the classes fits much better, the labels of
    two classes seem to be exchanged, or the predictions would fit labels in a random order as well, as those of a model
    that always answers the same class do.
    """
    n, chance = len(context.claim.labels), 1 / context.classes
    accuracy = float(context.claim.correct.double().mean())
    fact = f"The model classifies {percent(accuracy)} of the clean images correctly"
    predicted, labels = context.model.exact(context.x(context.all)).argmax(1), context.y(context.all)
    other = _renumbered(predicted, labels, context.classes)
    if other > max(0.5, accuracy + 0.2 + 1 / len(context.all) ** 0.5):  # with few images, some numbering fits by chance
        bad = f"{fact}, but {percent(other)} if its classes are numbered in another order: give the data that order."
        return judge(name, accuracy, other, "", bad, least=True)
    if swapped := _swapped(predicted, labels):
        first, second = swapped
        bad = (
            f"{fact}, but most images of class {first} are predicted as {second} and most of {second} as {first}: "
            "their labels seem to be exchanged."
        )
        return Check(name, False, accuracy, None, bad)
    threshold = chance + 2.33 * math.sqrt(chance * (1 - chance) / n)  # exceeded by chance in 1 % of data sets
    if accuracy > chance and threshold > chance + 0.1:
        bad = f"{fact}. Chance is {percent(chance)}, and {n} images are too few to show a difference: evaluate more."
        return judge(name, accuracy, threshold, f"{fact}; chance is {percent(chance)}.", bad, least=True)
    if accuracy >= threshold and len(labels) >= ENOUGH and len(labels.unique()) > 1:
        mean, deviation = agreement_by_chance(predicted, labels, context.classes)
        reached, limit = float((predicted == labels).double().mean()), mean + 2.33 * deviation
        if reached <= limit + 1e-9:
            bad = (
                f"{fact}. The same predictions would fit labels in a random order as well ({percent(mean)}): the "
                "labels are wrong, or the model has learnt only how frequent the classes are."
            )
            return Check(name, False, reached, limit, bad)
    bad = f"{fact}, which is no better than chance: the labels are wrong, or the model has learnt nothing."
    return judge(name, accuracy, threshold, f"{fact}; chance is {percent(chance)}.", bad, least=True)


def _swapped(predicted: Tensor, labels: Tensor) -> tuple[int, int] | None:
    """Two classes of which most images of one are predicted as the other, both ways; None without such a pair.

    Each of them needs ``OF_A_CLASS`` images, so that a pair is not found by chance.
    """
    mostly = {}
    for label in labels.unique().tolist():
        own = predicted[labels == label]
        winner = int(own.mode().values)
        if len(own) >= OF_A_CLASS and int((own == winner).sum()) > len(own) / 2:
            mostly[label] = winner
    return next(((a, b) for a, b in mostly.items() if a < b and mostly.get(b) == a), None)


def agreement_by_chance(predicted: Tensor, labels: Tensor, classes: int) -> tuple[float, float]:
    """Mean and standard deviation of the accuracy if the labels are put in a random order.

    The mean is the expected agreement of Cohen's kappa (Cohen 1960). The variance is that of a permutation statistic:
    the sum of the squared matches, each without its row's and column's mean, over n - 1 (Hoeffding 1951, Theorem 2).

    Args:
        predicted, labels: [n], with n of at least 2.
        classes: the number of classes k.
    """
    n = len(labels)
    answers, truths = (torch.bincount(each.cpu(), minlength=classes).double() for each in (predicted, labels))
    mean = float((answers * truths).sum()) / n**2
    match = torch.eye(classes, dtype=torch.float64)
    centred = match - truths[:, None] / n - answers / n + mean
    weights = answers[:, None] * truths
    return mean, math.sqrt(float((weights * centred**2).sum()) / (n - 1)) / n


def _renumbered(predicted: Tensor, labels: Tensor, classes: int) -> float:
    """The accuracy if the classes are renumbered: greedily, the most frequent pair of prediction and label first."""
    if 2 * classes > len(labels):
        return 0.0  # too few images: with one per class, chance alone fits two thirds of them
    counts = torch.bincount(predicted * classes + labels, minlength=classes * classes).view(classes, classes)
    total = 0
    for _ in range(classes):
        best = int(counts.argmax())
        total += max(int(counts.flatten()[best]), 0)
        counts[best // classes], counts[:, best % classes] = -1, -1
    return total / len(labels)


def _input_range_cost(context: CheckContext) -> float:
    """Forward passes of all images in [0, 1], and of images in other formats."""
    n = len(context.all)
    others = n * FORMATS if context.unlimited else min(FEW, n) * FORMATS + n
    return EXACT * (n + others * (not context.claim.own))


CHECKS = (
    ModelCheck(name="images as the model wants them", about="data", make=input_range, cost=_input_range_cost),
    ModelCheck(name="labels that fit", about="data", make=labels_fit, cost=lambda context: EXACT * len(context.all)),
    ModelCheck(name="enough images", about="data", make=enough_images, runs_model=False),
)
