"""How much of a paper's setting is run: all of it, a part that keeps the comparison, or just enough to see it run."""

from __future__ import annotations

import copy
import math
from collections.abc import Iterator
from dataclasses import dataclass, fields, replace
from typing import Any

from toughen.attacks.autoattack import AutoAttack
from toughen.attacks.base import Attack

EACH = 2  # images that a sample has of a class, at least
SMALL = 64  # pixels that a sample of large images is brought to
CAPPED = ("steps", "replays", "queries", "restarts", "targets", "window")  # what makes an attack or a method long


@dataclass(frozen=True, kw_only=True)
class Scale:
    """A scale. Rows of one table are only ever compared at one and the same.

    Attributes:
        name: on the command line.
        about: what a heading says of it.
        epochs: share of a recipe's epochs that is trained.
        least: epochs that are trained at least, where the recipe has as many.
        images: so many test images (``images.some``); None means all.
        training_images: of a stratified sample; None means all.
        width: channels of the first stage of a ResNet or VGG; None leaves nets, wide ones, too.
        wide: depth and width of a wide ResNet of width 10; narrower ones have their share of the width.
        cap: most steps, restarts, targets and queries of an attack, and steps, replays and steps between two looks of
            a method; None: no limit.
        precision: what attacks search in.
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
        """How many of a recipe's epochs are trained."""
        return min(epochs, max(self.least, math.ceil(self.epochs * epochs)))

    def shrink(self, settings: dict[str, Any]) -> dict[str, Any]:
        """A run's settings at this scale; epochs at which something happens, and averages, keep their share of it."""
        shrunk = copy.deepcopy(settings)
        before, after = shrunk["epochs"], self.epochs_of(shrunk["epochs"])
        shrunk["epochs"] = after
        if shrunk.get("averaging"):  # looks back over steps: 5,000 of 76,600 with 0.9998, as many epochs' share now
            shrunk["averaging"] = max(0.0, round(1 - (1 - shrunk["averaging"]) * before / after, 6))
        for node in nodes(shrunk):
            # the stop is rounded up, so that what is to switch before it still does
            for name, rounded in (("stop_epoch", math.ceil), ("switch_epoch", round), ("reset", round)):
                if isinstance(node.get(name), int) and before != after:
                    node[name] = max(1, rounded(node[name] * after / before))
            for name in CAPPED:
                if self.cap is not None and isinstance(node.get(name), int) and node is not shrunk:
                    node[name] = min(node[name], self.cap)
            if self.width is not None and str(node.get("reconstructor")).startswith("wrn-"):
                node["reconstructor"] = "wrn-10-1"  # of the least depth, since it is to stay the smaller net
        shrunk["model_settings"] = {**(shrunk["model_settings"] or {}), **self._narrow(shrunk["model"])}
        if self.training_images is not None:
            shrunk |= {"batch_size": 32, "validation_steps": 2, "log_every": 2}
            shrunk |= {name: min(SMALL, shrunk[name]) for name in ("image_size", "resize") if shrunk.get(name)}
        return shrunk

    def sample(self, classes: int) -> int | None:
        """How many training images are taken of a set: some of each class; None means all."""
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
    """AutoAttack whose parts take a few steps each: to see it run, and for nothing else.

    Attributes:
        cap: most steps, restarts, targets and queries of a part.
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
            about="the paper's own setting as the recipes have it, all test images where --limit names no number",
            precision="fp32",
        ),
        Scale(
            name="cpu",
            about="0.15 of the epochs and at least 15 (a shorter recipe keeps its own), nets of 16 channels at first "
            "(WRN-16-2 for wide ones, WRN-16-1 for WRN-22-5), 1,000 test images, attacks at full strength: for "
            "comparing rows, not for the published level",
            epochs=0.15,
            least=15,
            images=1000,
            width=16,
            wide=(16, 2),
        ),
        Scale(
            name="smoke",
            about="a few steps of tiny nets on 160 training images (2 of each class where these are more) and 40 "
            "test images, of 64 pixels at most, attacks of 2 steps: it shows that it runs, and its figures mean "
            "nothing",
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
