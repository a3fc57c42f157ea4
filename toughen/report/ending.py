"""Reads a run's recipe, and finds out from its files whether training is finished."""

from __future__ import annotations

import json
from contextlib import suppress
from typing import Any

import yaml
from safetensors import SafetensorError, safe_open

from toughen.report.read import CONFIG, RECORD, WEIGHTS, Run
from toughen.report.values import mapping, real, text, whole

CHECKPOINT, DIVERGED = "checkpoint.safetensors", "diverged.json"
FAST_LOADER = getattr(yaml, "CSafeLoader", yaml.SafeLoader)  # in C, ten times as fast
SHORT = 4096  # characters; only a shorter file is read in C, as there deep nesting ("[[[[...") can crash the process
UNFINISHED = "training is still running, or it was stopped early (`toughen train ... --resume` continues it)."
FAILED = "Training failed"


def read_recipe(run: Run) -> None:
    """Set ``run.config``, ``run.settings`` and ``run.unfinished``; parsing the recipe takes some milliseconds."""
    run.config, run.settings = _read_config(run)
    _fill_in(run, run.settings)
    run.unfinished = unfinished(run, run.settings)
    if run.unfinished:
        known = run.unfinished.endswith(UNFINISHED) or run.unfinished.startswith(FAILED)
        follows = " The report shows what is known so far." * known
        run.missing.insert(0, run.unfinished + follows)


def _fill_in(run: Run, settings: dict[str, Any]) -> None:
    """For a run without weights, take its method, model, data and threat from the recipe."""
    if (run.folder / RECORD).is_file() or run.own is not None:
        return
    method = settings.get("method")
    named = text(method if isinstance(method, str) else mapping(method).get("class_path"))
    run.method, run.model = run.method or named.rpartition(".")[2], text(settings.get("model"))
    run.data, run.norm = text(settings.get("data")).rstrip("/").rpartition("/")[2], text(settings.get("norm"))
    with suppress(
        ValueError, ZeroDivisionError
    ):  # float, as an exact fraction of a hostile value such as 1e999999999 would fill the memory
        above, _, below = str(settings.get("eps")).partition("/")
        run.eps = real(float(above) / float(below or 1))


def _read_config(run: Run) -> tuple[str, dict[str, Any]]:
    """The text of the recipe, and its settings."""
    try:
        written = (run.folder / CONFIG).read_text(encoding="utf-8", errors="replace")
        return written, mapping(yaml.load(written, Loader=FAST_LOADER if len(written) <= SHORT else yaml.SafeLoader))
    except FileNotFoundError:
        return "", {}
    except Exception:  # the constructor of a YAML tag can raise anything: KeyError, AttributeError and others
        run.missing.append("config.yaml cannot be read, so the recipe is left out.")
        return "", {}


def unfinished(run: Run, settings: dict[str, Any]) -> str:
    """That training is not finished, in a sentence; "" if it is finished, or if its length is not known."""
    if any(event.kind == "stop" for event in run.history.events):
        return ""
    diverged = run.fields(run.folder / DIVERGED)
    step, reason = whole(diverged.get("step")), text(diverged.get("reason"))
    if step is not None and reason:
        return f"{FAILED} after {step:,} steps: {reason}."
    if settings.get("time_budget") is not None:
        return _unfinished_budget(run, text(settings["time_budget"], "some time"))
    planned, done = whole(settings.get("stop_epoch")) or whole(settings.get("epochs")), run.history.done
    if not planned or done >= planned:
        return ""
    if len(run.history.broken) > 1 or (not run.history.epochs and (run.folder / WEIGHTS).is_file()):
        return "The number of trained epochs is not known: metrics.jsonl is damaged, missing or empty."
    return f"{done} of {planned} epochs are done: {UNFINISHED}"


def _unfinished_budget(run: Run, budget: str) -> str:
    """``unfinished`` for a run with a time budget; only its checkpoint has the planned and the done steps."""
    state = _state(run)
    step, planned = whole(state.get("step")), whole(state.get("planned"))
    if step is not None and planned:
        ended = step >= planned or state.get("stop_reason") is not None
        return "" if ended else f"{step:,} of about {planned:,} steps of a run of {budget} are done: {UNFINISHED}"
    if not run.history.done:
        return f"No epoch of a run of {budget} is done: {UNFINISHED}"
    return f"The run has a time budget ({budget}): without its checkpoint it is not known whether training is finished."


def _state(run: Run) -> dict[str, Any]:
    """The trainer's state in the metadata of the last checkpoint; {} if that cannot be read."""
    try:
        with safe_open(run.folder / CHECKPOINT, framework="numpy") as file:
            return mapping(json.loads((file.metadata() or {}).get("about", "{}")))
    except (OSError, ValueError, RecursionError, SafetensorError):
        return {}
