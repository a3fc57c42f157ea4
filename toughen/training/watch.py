"""When the collapse watch looks at the model. What a collapse is: ``collapse.py``."""

from __future__ import annotations

import statistics
from typing import Literal, TypeAlias

from torch import nn

from toughen.core.rng import StepNoise, key
from toughen.core.threat import Threat
from toughen.data import Split
from toughen.data.sets import stratified
from toughen.evaluation.harness import as_floats, dtype_of
from toughen.evaluation.logit_distance import logit_distance
from toughen.training.collapse import CollapseMemory, Judge

Watching: TypeAlias = Literal["off", "warn", "rescue"]

JUMP = 3.0  # the logits' distance against the median of the last ones: time for a look within the epoch
KEPT, LEAST = 20, 5  # how many distances make that median
SAMPLE = 64  # images that the distance is taken on


class CollapseDetector:
    """Notices what calls for a look at the model, and judges what validation finds.

    Args:
        split: held-out images, on the run's device.
        threat: what is trained against, None for nothing.
        mode: "off", "warn" or "rescue".
        seed: the run's, for the noise of the signal.
    """

    def __init__(self, split: Split, threat: Threat | None, mode: Watching, seed: int) -> None:
        self.threat, self.mode, self.seed = threat, mode, seed
        self.judge = Judge.of(split.labels)
        places = stratified(split.labels, min(SAMPLE, len(split)), seed)  # held-out images lie class by class
        self.split = split.take(places.to(split.labels.device))

    @property
    def on(self) -> bool:
        """Whether there is something to watch, images to do it with, and the wish."""
        return self.mode != "off" and self.threat is not None and len(self.split) > 0

    def signal(self, model: nn.Module, step: int) -> float:
        """The mean L2 distance of FGSM and R-FGSM logits, which jumps when a model begins to collapse (R-MGM)."""
        assert self.threat is not None
        noise = StepNoise(key("signal", self.seed), step)
        x = as_floats(self.split.images).to(dtype_of(model))
        return float(logit_distance(model, x, self.split.labels, self.threat, noise))

    def jumped(self, memory: CollapseMemory, distance: float) -> bool:
        """Whether a signal calls for a look at once; keeps it for the next ones."""
        before = memory.signals[-KEPT:]
        memory.signals = [*before, distance]
        return len(before) >= LEAST and distance > JUMP * statistics.median(before)
