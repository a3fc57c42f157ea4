"""The callbacks of every run, in the order in which they are called."""

from __future__ import annotations

from collections.abc import Sequence

from toughen.training.callbacks.base import Callback
from toughen.training.callbacks.checkpointing import Checkpointing
from toughen.training.callbacks.collapse import CollapseWatch
from toughen.training.callbacks.early_stop import EarlyStop
from toughen.training.callbacks.finite import FiniteCheck
from toughen.training.callbacks.kept_weights import KeepWeights
from toughen.training.callbacks.time_budget import TimeBudget
from toughen.training.callbacks.validation import BestWeights
from toughen.training.recipe import Recipe
from toughen.training.watch import CollapseDetector


def callbacks_of(recipe: Recipe, detector: CollapseDetector, own: Sequence[Callback]) -> list[Callback]:
    """What happens around the steps of a recipe's run.

    Args:
        recipe: the settings.
        detector: notices a collapse; left out where it has nothing to watch.
        own: the user's; they see an epoch's line when all but the checkpoint is done.
    """
    watch = [CollapseWatch(detector)] if detector.on else []
    budget = [] if recipe.time_budget is None else [TimeBudget(recipe.time_budget)]
    before = (FiniteCheck(), BestWeights(), KeepWeights(), EarlyStop(), *watch)
    return [*before, *own, *budget, Checkpointing(recipe.checkpoint_seconds)]
