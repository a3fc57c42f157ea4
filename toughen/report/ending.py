"""Whether a run has come to its end, as far as its files tell."""

from __future__ import annotations

import json
from typing import Any

from safetensors import SafetensorError, safe_open

from toughen.report.read import WEIGHTS, Run, fill_in, read_config
from toughen.report.values import mapping, text, whole

CHECKPOINT = "checkpoint.safetensors"
GOES_ON = "it is still training, or was stopped before its end (`toughen train ... --resume` goes on with it)."


def read_recipe(run: Run) -> None:
    """Add what a run's recipe tells of it, and whether it has come to its end; parsing that takes some milliseconds."""
    run.config, run.settings = read_config(run)
    fill_in(run, run.settings)
    run.unfinished = unfinished(run, run.settings)
    if run.unfinished:
        follows = " What follows is what is known so far." * run.unfinished.endswith(GOES_ON)
        run.missing.insert(0, run.unfinished + follows)


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
