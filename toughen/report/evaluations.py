"""Reads evaluation.json for the report."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from toughen.report.values import SENTENCE, items, mapping, real, share, text, whole
from toughen.utils.statistics import interval, warning

VERDICTS = ("sound", "doubtful", "masked", "unfinished")
NORMS = ("linf", "l2")


@dataclass(frozen=True)
class Check:
    """One sanity check: its name, whether it passed (None: not made), and what the outcome means."""

    name: str
    passed: bool | None
    sentence: str


@dataclass(frozen=True)
class Attack:
    """One attack, or a part of one: the accuracy under it, and its cost.

    Attributes:
        part: whether it is a part of the attack listed before it, run on the images that the earlier parts did not
            break.
        passes: forward passes per evaluated image.
    """

    name: str
    accuracy: float
    seconds: float | None
    passes: float | None
    part: bool = False


@dataclass(frozen=True)
class Evaluation:
    """The result of one evaluation.

    Attributes:
        place: the file that it was read from, within the run directory; "" for the run's own evaluation.
        clean, robust: accuracies, 0..1.
        images: the number of evaluated images.
        norm, eps: the threat.
        data: the data set, as the user named it.
        model: the model, as the user named it.
        attacks, checks: the attacks and the sanity checks.
        verdict: "sound", "doubtful", "masked", "unfinished", or "" if no check was made.
        warning: a warning about the numbers; "" for none.
        notes: further sentences for the reader.
        no_gradient: whether the logits have no gradient with respect to the images.
        sampled_by: the seed of the random sample of test images; "" for all images.
        data_hash: tells the images and labels from others; "" where it is not known.
        cut: whether the checks were shortened to limit their cost, so that they find less.
        epoch, weights: the evaluated weights, as in model.json; None and "" if not known.
    """

    place: str
    clean: float
    robust: float
    images: int
    norm: str
    eps: float
    data: str
    model: str
    attacks: tuple[Attack, ...]
    checks: tuple[Check, ...]
    verdict: str
    warning: str
    no_gradient: bool
    notes: tuple[str, ...]
    classes: tuple[str, ...]
    about: dict[str, str]
    epoch: int | None = None
    weights: str = ""
    sampled_by: str = ""
    data_hash: str = ""
    cut: bool = False

    @property
    def interval(self) -> tuple[float, float]:
        """The 95 % interval of the robust accuracy."""
        return interval(self.robust, self.images)

    @property
    def names(self) -> str:
        """The attacks' names."""
        return ", ".join(attack.name for attack in self.attacks if not attack.part)

    def count(self, passed: bool | None) -> int:
        """The number of checks with this outcome."""
        return sum(check.passed is passed for check in self.checks)


def evaluation(value: Any, place: str = "") -> Evaluation | None:
    """The evaluation in the content of an evaluation.json; None if the content is not valid."""
    fields = mapping(value)
    threat, images = mapping(fields.get("threat")), whole(fields.get("images"))
    clean, robust = share(fields.get("clean_accuracy")), share(fields.get("robust_accuracy"))
    eps, norm = real(threat.get("eps")), text(threat.get("norm"))
    if clean is None or robust is None or robust > clean or not images or eps is None or eps < 0 or norm not in NORMS:
        return None
    attacks, verdict, checks = _attacks(fields.get("attacks"), images), text(fields.get("verdict")), _checks(fields)
    if any(
        attack.accuracy < robust for attack in attacks
    ):  # impossible: the robust accuracy counts images that no attack breaks
        return None
    if verdict == "sound" and not (checks and all(check.passed is not False for check in checks)):
        return None
    no_gradient = fields.get("no_gradient") is True
    judged = {attack.name: {"robust_accuracy": attack.accuracy} for attack in attacks if not attack.part}
    return Evaluation(
        place=place, clean=clean, robust=robust, images=images, norm=norm, eps=eps,
        data=text(fields.get("data")), model=text(fields.get("model")), attacks=attacks,
        checks=checks, verdict=verdict if verdict in VERDICTS else "",
        warning=warning({"attacks": judged, "robust_accuracy": robust, "no_gradient": no_gradient}) or "",
        no_gradient=no_gradient,
        notes=_notes(fields),
        classes=tuple(text(name) for name in items(fields.get("classes"))), about=_about(fields),
        epoch=whole(fields.get("epoch")), weights=text(fields.get("weights")),
        sampled_by=text(fields.get("seed")) if mapping(fields.get("interval")) else "",
        data_hash=text(fields.get("data_hash")),
        cut=bool(text(mapping(fields.get("price")).get("note"))),
    )  # fmt: skip


def _notes(fields: dict[str, Any]) -> tuple[str, ...]:
    """Notes on overlap with the training images, on random predictions, and on shortened checks."""
    membership, cut = text(fields.get("seen_images")), text(mapping(fields.get("price")).get("note"), longest=SENTENCE)
    drawn = mapping(fields.get("draws"))
    total, wrong = whole(drawn.get("total")), whole(drawn.get("wrong"))
    notes = [f"Whether these images were used for training was {membership}."] if membership else []
    if matched := text(fields.get("classes_matched")):
        notes.append(f"The classes of the data were matched with those of the run {matched}.")
    if total and wrong:
        notes.append(
            f"The model's predictions are random: an image counts as broken if at least {wrong} of {total} repeated "
            "predictions are wrong, which is more than chance explains."
        )
    return (*notes, *([cut] if cut else []))


def _attacks(value: Any, images: int) -> tuple[Attack, ...]:
    attacks: list[Attack] = []
    for name, each in mapping(value).items():
        attacks += _attack(name, each, images, part=False)
        for part, inner in mapping(mapping(each).get("parts")).items():
            attacks += _attack(part, inner, images, part=True)
    return tuple(attacks)


def _attack(name: str, value: Any, images: int, *, part: bool) -> list[Attack]:
    fields = mapping(value)
    accuracy, passes = share(fields.get("robust_accuracy")), real(fields.get("passes"))
    if accuracy is None:
        return []
    spent = None if passes is None else passes / images
    return [Attack(name, accuracy, real(fields.get("seconds")), spent, part)]


def _checks(result: dict[str, Any]) -> tuple[Check, ...]:
    """The checks: failed ones first, then passed ones, then those that could not be made."""
    checks = []
    for each in items(result.get("checks")):
        fields = mapping(each)
        passed = fields.get("passed")
        if text(fields.get("name")):
            passed = passed if isinstance(passed, bool) else None
            checks.append(Check(text(fields["name"]), passed, text(fields.get("sentence"), longest=SENTENCE)))
    return tuple(sorted(checks, key=lambda check: {False: 0, True: 1, None: 2}[check.passed]))


def _about(fields: dict[str, Any]) -> dict[str, str]:
    """How the evaluation was made: settings, versions and hardware."""
    names = ("weights", "epoch", "seed", "precision", "batch_size", "block")  # "batch_size" was "block" up to 0.1
    plain = {name: text(fields.get(name)) for name in names} | mapping(fields.get("provenance"))
    return {name: text(value) for name, value in plain.items() if text(value)}
