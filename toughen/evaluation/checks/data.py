"""Whether the images and labels are those that the model knows: if not, the number is about something else."""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor

from toughen.core.classifier import misclassified
from toughen.core.types import Images
from toughen.evaluation.checks.base import Check, CheckContext, ModelCheck, judge, not_made, percent
from toughen.evaluation.checks.chance import DROP, allowed
from toughen.evaluation.price import EXACT

MEANS = {  # the usual mean and standard deviation per channel, in [0, 1] units
    "ImageNet": ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)),
    "CIFAR-10": ((0.4914, 0.4822, 0.4465), (0.2471, 0.2435, 0.2616)),
    "CIFAR-100": ((0.5071, 0.4865, 0.4409), (0.2673, 0.2564, 0.2762)),
    "MNIST": ((0.1307,), (0.3081,)),
}
LEAST = 2.0  # images, below which the allowance for chance is all of them
FIRST = 16  # images that choose among other inputs where the checks have a price; all of them judge the best one
KINDS = 8  # other inputs that a model may want
GAIN = 0.05  # of clean accuracy by other input, beyond which the model was made for that


def _otherwise(x: Images) -> dict[str, Callable[[Images], Images]]:
    """How else the model may want its images: in words, and as a function of images in [0, 1]."""
    inputs: dict[str, Callable[[Images], Images]] = {
        "pixels of 0 to 255": lambda x: 255 * x,
        "pixels of -1 to 1": lambda x: 2 * x - 1,
        "pixels of -0.5 to 0.5": lambda x: x - 0.5,
    }
    for name, (mean, deviation) in MEANS.items():
        if len(mean) in (1, x.shape[1]):
            inputs[f"images normalised as for {name}"] = _normalise(x, mean, deviation)
    own = x.mean((0, 2, 3)), x.std((0, 2, 3)).clamp(min=1e-3)
    inputs["images normalised by their own mean and deviation"] = _normalise(x, own[0].tolist(), own[1].tolist())
    return inputs


def _normalise(x: Images, mean: object, deviation: object) -> Callable[[Images], Images]:
    shift, scale = (torch.as_tensor(each).to(x).view(1, -1, 1, 1) for each in (mean, deviation))
    return lambda x: (x - shift) / scale


def input_range(context: CheckContext, name: str) -> Check:
    """No other range or normalisation of the images makes the model much more accurate."""
    if context.claim.own:
        return not_made(name, "a run is trained on images in [0, 1], with any normalisation inside the model")
    x, y = context.x(context.all), context.y(context.all)

    def accuracy(images: Images) -> float:
        return float((~misclassified(context.model.exact(images), y[: len(images)])).double().mean())

    others = _otherwise(x)
    first = {how: accuracy(make(x)[: None if context.unlimited else FIRST]) for how, make in others.items()}
    best = max(first, key=lambda how: first[how])
    as_given = accuracy(x)
    accuracies = first if context.unlimited else {best: accuracy(others[best](x))}
    return judge(
        name,
        accuracies[best] - as_given,
        allowed(len(x), GAIN),
        "No other range or normalisation of the images makes the model much more accurate.",
        f"The model classifies {percent(as_given)} of the images in [0, 1] correctly, but "
        f"{percent(accuracies[best])} of {best}: make that conversion its first layer. Until then the number means "
        "nothing.",
    )


def enough(context: CheckContext, name: str) -> Check:
    """There are so many images that a check could fail at all."""
    few, number = len(context.correct), context.claim.robust_accuracy
    if number > DROP:  # one robust image of many says nothing, and is no more than may be wrong
        few = min(few, len(context.robust))
    bad = f"The checks use {few} image{'' if few == 1 else 's'}, which is too few for a verdict: evaluate more images."
    if context.too_few is not None:
        had, least = map(float, context.too_few)
        bad = f"Within its time limit an important check used {had:.0f} images, but it needs {least:.0f} or more: "
        return judge(name, had, least, "", bad + "--suite standard sets no time limit.", least=True)
    return judge(name, float(few), LEAST, f"The checks use {few} images or more.", bad, least=True)


def labels_fit(context: CheckContext, name: str) -> Check:
    """The model is right more often than chance, and no other numbering of the classes makes it much more so."""
    n, chance = len(context.claim.labels), 1 / context.classes
    accuracy = float(context.claim.correct.double().mean())
    fact = f"The model classifies {percent(accuracy)} of the clean images correctly"
    other = _renumbered(context.model.exact(context.x(context.all)).argmax(1), context.y(context.all), context.classes)
    if other > max(0.5, accuracy + 0.2 + 1 / len(context.all) ** 0.5):  # a few images fit some numbering by luck
        bad = f"{fact}, but {percent(other)} if its classes are numbered in another order: give the data that order."
        return judge(name, accuracy, other, "", bad, least=True)
    threshold = chance + 2.33 * math.sqrt(chance * (1 - chance) / n)  # one set in a hundred is above by luck
    if accuracy > chance and threshold > chance + 0.1:
        bad = f"{fact}. Chance is {percent(chance)}, and {n} images are too few to show a difference: evaluate more."
        return judge(name, accuracy, threshold, f"{fact}; chance is {percent(chance)}.", bad, least=True)
    bad = f"{fact}, which is no better than chance: the labels are wrong, or the model has learnt nothing."
    return judge(name, accuracy, threshold, f"{fact}; chance is {percent(chance)}.", bad, least=True)


def _renumbered(predicted: Tensor, labels: Tensor, classes: int) -> float:
    """The accuracy when each predicted class is read as another one, pair after pair, the most frequent pair first."""
    if classes > len(labels):
        return 0.0  # too few images to say anything
    counts = torch.bincount(predicted * classes + labels, minlength=classes * classes).view(classes, classes)
    total = 0
    for _ in range(classes):
        best = int(counts.argmax())
        total += max(int(counts.flatten()[best]), 0)
        counts[best // classes], counts[:, best % classes] = -1, -1
    return total / len(labels)


def _every_kind(context: CheckContext) -> float:
    """Forwards of all images as they are, and as other models want them."""
    every = len(context.all)
    kinds = every * KINDS if context.unlimited else min(FIRST, every) * KINDS + every
    return EXACT * (every + kinds * (not context.claim.own))


CHECKS = (
    ModelCheck(name="images as the model wants them", about="data", make=input_range, cost=_every_kind),
    ModelCheck(name="labels that fit", about="data", make=labels_fit, cost=lambda context: EXACT * len(context.all)),
    ModelCheck(name="enough images", about="data", make=enough, runs_model=False),
)
