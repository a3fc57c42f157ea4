"""Validation, which chooses the best weights: accuracy on held-out images, clean, under FGSM and under PGD."""

from __future__ import annotations

import torch
from torch import nn

from toughen.attacks.base import Attack
from toughen.attacks.fgsm import FGSM
from toughen.attacks.pgd import PGD
from toughen.core.distributed import world
from toughen.data import Split
from toughen.engine.device import Precision
from toughen.evaluation.harness import predict, run_attack
from toughen.training.recipe import Recipe


class Validation:
    """Measures a model on the validation images, with the same noise each time.

    Args:
        recipe: gives steps, seed and the threat; without one, clean accuracy alone is measured.
        split: the images kept aside, on the run's device.
        precision: the run's, which attacks search in; what they find is confirmed by the model as it is.
    """

    def __init__(self, recipe: Recipe, split: Split, precision: Precision) -> None:
        self.split, self.seed, self.precision = split, recipe.seed, precision
        self.attacks: dict[str, Attack] = {}
        if (threat := recipe.threat) is not None:
            self.attacks["fgsm"] = FGSM(eps=threat.eps, norm=threat.norm)
            self.attacks["pgd"] = PGD(eps=threat.eps, norm=threat.norm, steps=recipe.validation_steps)

    def __call__(self, model: nn.Module) -> dict[str, float]:
        """Accuracies, 0..1: "clean", "fgsm", "pgd"; empty without validation images."""
        if not len(self.split):
            return {}
        index = torch.arange(len(self.split))[world().shard(len(self.split))]
        part = self.split.take(index.to(self.split.labels.device))
        counts = dict.fromkeys(("clean", *self.attacks), 0)
        if len(part):
            right = predict(model, part.images) == part.labels
            counts["clean"] = int(right.sum())
            for name, attack in self.attacks.items():
                of = f"validation-{name}"
                result = run_attack(
                    model,
                    part.images,
                    part.labels,
                    right,
                    attack,
                    name=of,
                    seed=self.seed,
                    index=index,
                    precision=self.precision,
                )
                counts[name] = int((right & ~result.broken).sum())
        everyone = world().all_gather(counts)
        return {name: sum(each[name] for each in everyone) / len(self.split) for name in counts}
