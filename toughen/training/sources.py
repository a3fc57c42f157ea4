"""Normally trained nets that a method needs before its run begins: the sources of ensemble adversarial training."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from toughen.methods.ensemble import Ensemble
from toughen.methods.standard import Standard
from toughen.training.folder import SOURCES
from toughen.training.recipe import Recipe


@dataclass(frozen=True)
class SourceRun:
    """A net that is trained before a run begins.

    Attributes:
        recipe: how.
        folder: its run directory.
    """

    recipe: Recipe
    folder: Path


def missing_sources(recipe: Recipe, folder: Path) -> list[SourceRun]:
    """The source nets that must be trained before a run; sets their directories in the run's method.

    A source has the run's own settings, but for the net and what ``_changes`` names.

    Args:
        recipe: of the run.
        folder: the run directory.
    """
    source_runs = []
    for method in (each for each in recipe.method.modules() if isinstance(each, Ensemble)):
        method.trained.clear()  # those of an earlier run with the same method lie elsewhere
        for name in method.untrained():
            method.trained[name] = folder / SOURCES / name
            changes = _changes(recipe, name)
            source_runs.append(SourceRun(replace(recipe, **changes, method=Standard()), folder / SOURCES / name))
    return source_runs


def _changes(recipe: Recipe, net: str) -> dict[str, Any]:
    return {
        "model": net,
        "model_settings": recipe.model_settings if net == recipe.model else {},
        "init": None,
        "eps": None,
        "eps_factor": 1.0,
        "eps_warmup": 0.0,
        "frozen": 0,
        "layer_decay": 1.0,
        "epochs": max(1, recipe.epochs // 2),
        "time_budget": None,
        "stop_epoch": None,
        "keep_at": [],
        "callbacks": None,
        "watch": "off",
        "seed": recipe.seed + 1,  # other weights than the run's, whose net may be the same
    }
