"""Which callbacks a run has: those of every run, in the order in which they are called, and those that are named."""

from __future__ import annotations

import difflib
from collections.abc import Sequence

from toughen.training import callbacks
from toughen.training.callbacks.base import Callback
from toughen.training.callbacks.checkpointing import Checkpointing, KeepWeights
from toughen.training.callbacks.collapse import CollapseWatch
from toughen.training.callbacks.stopping import EarlyStop, FiniteCheck
from toughen.training.callbacks.time_budget import TimeBudget
from toughen.training.callbacks.validation import BestWeights, ValidationAfterStop
from toughen.training.collapse import CollapseDetector
from toughen.training.display import ShowProgress
from toughen.training.recipe import Recipe
from toughen.utils.collect import collect
from toughen.utils.plugins import describe_error, import_object

BUILT_IN = {  # those of every run whose recipe wants them
    each.__name__
    for each in (
        FiniteCheck, BestWeights, KeepWeights, EarlyStop, CollapseWatch, TimeBudget, ValidationAfterStop, Checkpointing,
        ShowProgress,
    )
}  # fmt: skip


def callbacks_of(recipe: Recipe, detector: CollapseDetector, named: Sequence[Callback]) -> list[Callback]:
    """What happens around the steps of a recipe's run.

    Args:
        recipe: the settings.
        detector: notices a collapse; left out where it has nothing to watch.
        named: the user's; called after validation and the watch. One of them may end the run, so a validation that the
            end of a run asks for comes after them, and the checkpoint.
    """
    watch = [CollapseWatch(detector)] if detector.on else []
    budget = [] if recipe.budget_seconds is None else [TimeBudget(recipe.budget_seconds)]
    best = BestWeights()
    before = (FiniteCheck(), best, KeepWeights(), EarlyStop(), *watch)
    return [*before, *named, *budget, ValidationAfterStop(best), Checkpointing(recipe.checkpoint_seconds)]


def named_callbacks(names: str | Sequence[str] | None) -> list[Callback]:
    """A callback of each class, made without arguments.

    Args:
        names: one or more, the class names of toughen's optional callbacks or ``package.module.MyCallback``; never out
            of a file of a run directory.

    Raises:
        ValueError: one cannot be found, imported or made, or is no callback.
    """
    return [_instance(name) for name in ([names] if isinstance(names, str) else names or ())]


def optional_callbacks() -> dict[str, type[Callback]]:
    """The classes in the files of this folder that not every run has, by name."""
    classes = collect(callbacks.__name__, callbacks.__path__, Callback)
    return {name: kind for name, kind in classes.items() if name not in BUILT_IN}


def state_names(used: Sequence[Callback]) -> dict[str, Callback]:
    """Callbacks under the names by which a checkpoint keeps their state: their classes', a repeated one numbered."""
    names = [f"{type(each).__module__}.{type(each).__qualname__}" for each in used]
    names = [f"{name} {names[:place].count(name) + 1}" if name in names[:place] else name
             for place, name in enumerate(names)]  # fmt: skip
    return dict(zip(names, used, strict=True))


def _instance(name: str) -> Callback:
    if "." not in name:
        return _optional(name)()
    kind = import_object(name, "callback")
    if not (isinstance(kind, type) and issubclass(kind, Callback)):
        raise ValueError(f"callback {name!r} is not a subclass of toughen.training.Callback")
    for hook in (each for each in dir(kind) if each.startswith("on_") and not hasattr(Callback, each)):
        near = difflib.get_close_matches(hook, [each for each in dir(Callback) if each.startswith("on_")], n=1)
        meant = f": did you mean {near[0]}?" if near else ": rename it, so that it does not begin with on_"
        raise ValueError(f"callback {name!r} has {hook}, which is never called{meant}")
    try:
        return kind()
    except Exception as error:  # the user's own code may raise anything
        raise ValueError(
            f"callback {name!r} cannot be made without arguments ({describe_error(error)}): give them defaults, or use "
            "toughen.training.train(recipe, out, callbacks=[...])"
        ) from error


def _optional(name: str) -> type[Callback]:
    if name in BUILT_IN:
        raise ValueError(f"callback {name!r} is in every run whose settings need it: leave it out")
    optional = optional_callbacks()
    if name not in optional:
        names = f"use {', '.join(optional)}, or " if optional else ""
        raise ValueError(f"callback {name!r} is unknown: {names}write package.module.MyCallback")
    return optional[name]
