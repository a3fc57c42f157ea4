"""Normally trained nets that a method needs before its run begins: the sources of ensemble adversarial training."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from toughen.methods.ensemble import Ensemble
from toughen.methods.standard import Standard
from toughen.training.folder import SOURCES
from toughen.training.recipe import Recipe


def missing_sources(recipe: Recipe, folder: Path) -> dict[Path, Recipe]:
    """The source nets that must be trained before a run, by run directory; sets these in the run's method.

    A source has the run's own settings, but for the net and what is about the threat, the length or the weights.

    Args:
        recipe: of the run.
        folder: the run directory.

    Raises:
        ValueError: the run has a time budget, which such a training does not keep.
    """
    sources = {}
    for method in (each for each in recipe.method.modules() if isinstance(each, Ensemble)):
        method.trained.clear()  # those of an earlier run with the same method lie elsewhere
        for net in method.untrained():
            if recipe.time_budget is not None:
                raise ValueError(
                    f"time_budget does not include the training of the source {net}: train it before (toughen train "
                    f"--method Standard --model {net}), and give its run directory in method.sources; or give epochs"
                )
            method.trained[net] = folder / SOURCES / net
            sources[method.trained[net]] = replace(
                recipe,
                model=net,
                model_settings=recipe.model_settings if net == recipe.model else {},
                method=Standard(),
                init=None,
                eps=None,
                eps_factor=1.0,
                eps_warmup=0.0,
                frozen=0,
                layer_decay=1.0,
                epochs=max(1, recipe.epochs // 2),
                time_budget=None,
                stop_epoch=None,
                keep_at=[],
                callbacks=None,
                watch="off",
                seed=recipe.seed + 1,  # other weights than the run's, whose net may be the same
            )
    return sources
