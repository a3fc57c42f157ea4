"""What a run's recipe tells of it, and whether the run has come to its end, as far as its files tell."""

from __future__ import annotations

import json
from contextlib import suppress
from typing import Any

import yaml
from safetensors import SafetensorError, safe_open

from toughen.report.read import CONFIG, RECORD, WEIGHTS, Run
from toughen.report.values import mapping, real, text, whole

CHECKPOINT = "checkpoint.safetensors"
IN_C = getattr(yaml, "CSafeLoader", yaml.SafeLoader)  # ten times as fast
SHORT = 4096  # characters of a recipe that is read in C: tens of thousands of [ would end the process
GOES_ON = "it is still training, or was stopped before its end (`toughen train ... --resume` goes on with it)."


def read_recipe(run: Run) -> None:
    """Add what a run's recipe tells of it, and whether it has come to its end; parsing that takes some milliseconds."""
    run.config, run.settings = _read_config(run)
    _fill_in(run, run.settings)
    run.unfinished = unfinished(run, run.settings)
    if run.unfinished:
        follows = " What follows is what is known so far." * run.unfinished.endswith(GOES_ON)
        run.missing.insert(0, run.unfinished + follows)


def _fill_in(run: Run, settings: dict[str, Any]) -> None:
    """Say of a run without weights what its recipe tells of it."""
    if (run.folder / RECORD).is_file() or run.own is not None:
        return
    method = settings.get("method")
    named = text(method if isinstance(method, str) else mapping(method).get("class_path"))
    run.method, run.model = run.method or named.rpartition(".")[2], text(settings.get("model"))
    run.data, run.norm = text(settings.get("data")).rstrip("/").rpartition("/")[2], text(settings.get("norm"))
    with suppress(ValueError, ZeroDivisionError):  # a file may hold anything, as 1e999999999: no exact fractions here
        above, _, below = str(settings.get("eps")).partition("/")
        run.eps = real(float(above) / float(below or 1))


def _read_config(run: Run) -> tuple[str, dict[str, Any]]:
    """The recipe as it was written, and its settings."""
    try:
        written = (run.folder / CONFIG).read_text(encoding="utf-8", errors="replace")
        return written, mapping(yaml.load(written, Loader=IN_C if len(written) <= SHORT else yaml.SafeLoader))
    except FileNotFoundError:
        return "", {}
    except Exception:  # whatever the constructor of a tag raises comes through: KeyError, AttributeError and others
        run.missing.append("config.yaml cannot be read, so the recipe is left out.")
        return "", {}


def unfinished(run: Run, settings: dict[str, Any]) -> str:
    """What is to be said of a run that has not come to its end; "" where it has, or no length is known."""
    if any(event.kind == "stop" for event in run.history.events):
        return ""
    if settings.get("time_budget") is not None:
        return _within(run, text(settings["time_budget"], "some time"))
    planned, done = whole(settings.get("stop_epoch")) or whole(settings.get("epochs")), run.history.done
    if not planned or done >= planned:
        return ""
    if len(run.history.broken) > 1 or (not run.history.epochs and (run.folder / WEIGHTS).is_file()):
        return "How far it came cannot be seen here: metrics.jsonl is damaged, missing or empty."
    return f"{done} of {planned} epochs are done: {GOES_ON}"


def _within(run: Run, budget: str) -> str:
    """The same of a run with a time budget, whose steps are planned, and counted, in its checkpoint only."""
    state = _state(run)
    step, planned = whole(state.get("step")), whole(state.get("planned"))
    if step is not None and planned:
        ended = step >= planned or state.get("stop_reason") is not None
        return "" if ended else f"{step:,} of about {planned:,} steps of a run of {budget} are done: {GOES_ON}"
    if not run.history.done:
        return f"No epoch of a run of {budget} is done: {GOES_ON}"
    return f"This is a run with a time budget ({budget}): whether it came to its end cannot be seen here."


def _state(run: Run) -> dict[str, Any]:
    """What the trainer wrote of itself into the head of its last checkpoint; nothing where that cannot be read."""
    try:
        with safe_open(run.folder / CHECKPOINT, framework="numpy") as file:
            return mapping(json.loads((file.metadata() or {}).get("about", "{}")))
    except (OSError, ValueError, RecursionError, SafetensorError):
        return {}
