"""The scales of a reproduction: the full setting, a smaller one for comparing rows, and a short test run."""

from __future__ import annotations

import copy
import math
from collections.abc import Iterator
from dataclasses import dataclass, fields, replace
from typing import Any

from toughen.attacks.autoattack import AutoAttack
from toughen.attacks.base import Attack

EACH = 2  # the least number of images of each class in a sample
SMALL = 64  # pixels that a sample of large images is resized to
CAPPED = ("steps", "replays", "queries", "restarts", "targets", "window")  # settings that determine the cost


@dataclass(frozen=True, kw_only=True)
class Scale:
    """A scale. Rows of one table are compared only at the same scale.

    Attributes:
        name: the name on the command line.
        about: the description in headings.
        epochs: the fraction of a recipe's epochs that is trained.
        least: the least number of epochs, unless the recipe has fewer.
        images: the number of test images (``datasets.some``); None means all.
        training_images: the size of a stratified sample of training images; None means all.
        width: channels of the first stage of a ResNet or VGG; None leaves all nets unchanged, also wide ones.
        wide: depth and width that replace a wide ResNet of width 10; others get a proportional width.
        cap: the most steps, restarts, targets and queries of an attack, and the most steps, replays and window steps
            of a method; None: no limit.
        precision: the precision of attacks.
    """

    name: str
    about: str
    epochs: float = 1.0
    least: int = 1
    images: int | None = None
    training_images: int | None = None
    width: int | None = None
    wide: tuple[int, int] = (16, 2)
    cap: int | None = None
    precision: str = "auto"

    def epochs_of(self, epochs: int) -> int:
        """The number of epochs that are trained, from the recipe's number."""
        return min(epochs, max(self.least, math.ceil(self.epochs * epochs)))

    def shrink(self, settings: dict[str, Any]) -> dict[str, Any]:
        """A run's settings at this scale; epochs of events and the averaging of weights are scaled too."""
        shrunk = copy.deepcopy(settings)
        before, after = shrunk["epochs"], self.epochs_of(shrunk["epochs"])
        shrunk["epochs"] = after
        if shrunk.get("averaging"):  # keeps the fraction of the run that is averaged over
            shrunk["averaging"] = max(0.0, round(1 - (1 - shrunk["averaging"]) * before / after, 6))
        for node in nodes(shrunk):
            # the stop is rounded up, so that a switch before the stop still happens
            for name, rounded in (("stop_epoch", math.ceil), ("switch_epoch", round), ("reset", round)):
                if isinstance(node.get(name), int) and before != after:
                    node[name] = max(1, rounded(node[name] * after / before))
            for name in CAPPED:
                if self.cap is not None and isinstance(node.get(name), int) and node is not shrunk:
                    node[name] = min(node[name], self.cap)
            if self.width is not None and str(node.get("reconstructor")).startswith("wrn-"):
                node["reconstructor"] = "wrn-10-1"  # of the least depth, since it must be the smaller net
        shrunk["model_settings"] = {**(shrunk["model_settings"] or {}), **self._narrow(shrunk["model"])}
        if self.training_images is not None:
            shrunk |= {"batch_size": 32, "validation_steps": 2, "log_every": 2}
            shrunk |= {name: min(SMALL, shrunk[name]) for name in ("image_size", "resize") if shrunk.get(name)}
        return shrunk

    def sample(self, classes: int) -> int | None:
        """The number of training images from a set, with some of each class; None means all."""
        return None if self.training_images is None else max(self.training_images, EACH * classes)

    def _narrow(self, model: str) -> dict[str, int]:
        """Settings that make a net narrower."""
        if self.width is None:
            return {}
        if model.startswith("wrn-"):
            depth, width = self.wide
            return {"depth": depth, "width": max(1, round(width * int(model.split("-")[2]) / 10))}
        if not model.startswith(("resnet", "preact", "vgg", "conv-4")):
            return {}
        return {"width": min(16, self.width) if model == "resnet56" else self.width}

    def shorten(self, attack: Attack) -> Attack:
        """An attack at this scale."""
        if self.cap is None:
            return attack
        if isinstance(attack, AutoAttack):
            return Shortened(**{each.name: getattr(attack, each.name) for each in fields(attack)}, cap=self.cap)
        return _capped(attack, self.cap)


@dataclass(frozen=True, kw_only=True)
class Shortened(AutoAttack):
    """AutoAttack with a few steps for each part, only for testing that it runs.

    Attributes:
        cap: the most steps, restarts, targets and queries of a part.
    """

    cap: int = 1

    def parts(self) -> dict[str, Attack]:
        return {name: _capped(part, self.cap) for name, part in super().parts().items()}


def _capped(attack: Attack, cap: int) -> Attack:
    counts = {name: getattr(attack, name, None) for name in CAPPED}
    changed = {name: min(count, cap) for name, count in counts.items() if isinstance(count, int)}
    return replace(attack, **changed)  # type: ignore[type-var]


def nodes(value: Any) -> Iterator[dict[str, Any]]:
    """All mappings of nested settings, outer before inner."""
    if isinstance(value, dict):
        yield value
        for part in value.values():
            yield from nodes(part)


SCALES = {
    scale.name: scale
    for scale in (
        Scale(
            name="full",
            about="the paper's own setting, as in the recipes; all test images, unless --limit is given",
            precision="fp32",
        ),
        Scale(
            name="cpu",
            about="0.15 of the epochs, at least 15 (or all, if the recipe has fewer), nets with 16 channels in the "
            "first stage (WRN-16-2 for wide ones, WRN-16-1 for WRN-22-5), 1,000 test images, attacks at full strength: "
            "for comparing rows, not for reaching the published numbers",
            epochs=0.15,
            least=15,
            images=1000,
            width=16,
            wide=(16, 2),
        ),
        Scale(
            name="smoke",
            about="a test run: a few steps of tiny nets on 160 training images (or 2 of each class, if that is more) "
            "and 40 test images, of at most 64 pixels, attacks of 2 steps: its results have no meaning",
            epochs=0.0,
            least=2,
            images=40,
            training_images=160,
            width=8,
            wide=(10, 1),
            cap=2,
            precision="fp32",
        ),
    )
}
