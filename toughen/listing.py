"""Results and lists as terminal tables, readable at 80 columns."""

from __future__ import annotations

import inspect
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table
from rich.text import Text

from toughen.collect import summary
from toughen.evaluation.result import RESULT, read_result
from toughen.shares import percent, warning


def recipe_summary(path: Path) -> str:
    """The first comment line of a recipe."""
    return next((line.lstrip("# ") for line in path.read_text(encoding="utf-8").splitlines()), "").strip()


def method_facts(kind: type) -> dict[str, str]:
    """What a method's docstring and signature say of it: "about", "paper", "passes" and "settings"; "" where nothing.

    The paper is the last parenthesis after a blank in the docstring's first line, the passes the number in its line
    ``Passes:``, with a sign where a wrapper adds them to those of the method it wraps.
    """
    text, about = inspect.getdoc(kind) or "", summary(kind)
    cited = list(re.finditer(r" \(([^()]+)\)", about))
    stated = re.search(r"^Passes: (\+?[\d.]*\d)", text, re.MULTILINE)
    own = [p for p in inspect.signature(kind).parameters.values() if p.kind is p.KEYWORD_ONLY]
    settings = [p.name if p.default is p.empty or p.name == "eps" else f"{p.name}={p.default}" for p in own]
    return {
        "about": about[: cited[-1].start()] + about[cited[-1].end() :] if cited else about,
        "paper": cited[-1][1] if cited else "",
        "passes": stated[1] if stated else "",
        "settings": ", ".join(settings),
    }


def print_methods(console: Console, kinds: Mapping[str, type]) -> None:
    """Each method with what it is, its paper, what a step costs and its settings; bare the ones that must be given."""
    table = Table(box=None, show_header=False, pad_edge=False)
    table.add_column(no_wrap=True, style="bold")
    table.add_column()
    for name, kind in kinds.items():
        facts = method_facts(kind)
        passes = f"{facts['passes']} passes a step" + (" beyond what it wraps" if "+" in facts["passes"] else "")
        cost = "; ".join(part for part in (facts["paper"], passes) if part)
        table.add_row(Text(name), Text(facts["about"]))
        table.add_row("", Text(cost, style="dim"))
        if facts["settings"]:
            table.add_row("", Text(facts["settings"], style="cyan"))
        table.add_row("", "")
    console.print(table)
    console.print("A pass is one image's forward pass. `toughen train --method.help NAME` explains the settings.")


def print_entries(console: Console, entries: dict[str, str]) -> None:
    """Names and what they are."""
    table = Table(box=None, show_header=False, pad_edge=False)
    table.add_column(no_wrap=True, style="bold")
    table.add_column()
    for name, about in entries.items():
        table.add_row(Text(name), Text(about))
    console.print(table)


def print_evaluation(console: Console, folder: Path, result: dict[str, Any]) -> None:
    """One evaluation: accuracy clean, under each attack, and under all of them."""
    threat = result["threat"]
    what = f"{result['images']:,} test images of {result['data']}, {threat['norm']} eps {threat['eps']:.4g}"
    console.print(f"{folder}\n{what}", highlight=False, markup=False)
    table = Table("attack", "accuracy", "seconds", "passes per image", box=None, pad_edge=False)
    for column in table.columns[1:]:
        column.justify = "right"
    table.add_row("none (clean)", percent(result["clean_accuracy"]))
    for name, found in result["attacks"].items():
        _attack_row(table, name, found, result["images"])
        for part, each in found.get("parts", {}).items():
            _attack_row(table, f"  then {part}", each, result["images"])
    table.add_row("all of them", percent(result["robust_accuracy"]), style="bold")
    console.print(table)
    for name, (low, high) in result.get("interval", {}).items():
        console.print(f"{name.replace('_', ' ')}: 95 % interval {percent(low)} to {percent(high)}", highlight=False)
    print_verdict(console, result)
    if said := result.get("seen_images"):
        console.print(f"whether these images were trained on: {said}", highlight=False)
    if warned := warning(result):
        console.print(warned, highlight=False, style="bold red")
    console.print(f"written: {folder / RESULT}, examples.parquet", highlight=False, markup=False)
    console.print(f"look at it: toughen report {folder}", highlight=False, markup=False)


def _attack_row(table: Table, name: str, found: dict[str, Any], images: int) -> None:
    passes = f"{found['passes'] / images:,.1f}"
    table.add_row(Text(name), percent(found["robust_accuracy"]), f"{found['seconds']:.1f}", passes)


STYLES = {"sound": "bold green", "doubtful": "bold yellow", "masked": "bold red"}


def print_verdict(console: Console, result: dict[str, Any]) -> None:
    """Whether the number can be believed, and the checks that say it cannot; the others are in evaluation.json."""
    word, checks = result.get("verdict"), result.get("checks", [])
    if word is None:
        return
    failed = [check for check in checks if check["passed"] is False]
    missing = sum(check["passed"] is None for check in checks)
    made = f"{len(checks) - len(failed) - missing} checks passed, {len(failed)} failed, {missing} not made"
    console.print(Text.assemble("verdict on the number: ", (word, STYLES[word]), f" ({made})"))
    for check in failed:
        console.print(Text(f"- {check['name']}: {check['sentence']}"))


def print_diagnostics(console: Console, found: dict[str, Any]) -> None:
    """Where each run's diagnostics went, and what they are."""
    for place, each in [*found["runs"].items(), *([("all runs", found["shared"])] if found["shared"] else [])]:
        console.print(f"{place}: {', '.join(each)}", highlight=False, markup=False)
    console.print("written: diagnostics.json in each of these folders", highlight=False)


def print_comparison(console: Console, folders: list[Path]) -> None:
    """Evaluated runs side by side."""
    results = {folder: read_result(folder) for folder in folders}
    table = Table("run", "threat", "clean", "FGSM", "robust", "train s", "passes/step", box=None, pad_edge=False)
    for column in table.columns[2:]:
        column.justify = "right"
    for folder, result in results.items():
        threat, cost = result["threat"], training_cost(folder)
        fgsm = result["attacks"].get("fgsm")
        table.add_row(
            Text(str(folder)),
            f"{threat['norm']} {threat['eps']:.4g}",
            percent(result["clean_accuracy"]),
            percent(fgsm["robust_accuracy"]) if fgsm else "-",
            percent(result["robust_accuracy"]),
            f"{cost['seconds']:.0f}" if cost else "-",
            f"{cost['passes']:.1f}" if cost else "-",
        )
    console.print(table)
    console.print(f"robust: right while clean and under {_attacks(results)}", highlight=False)
    if len({(r["threat"]["norm"], r["threat"]["eps"], r["data"], r["images"]) for r in results.values()}) > 1:
        console.print("These were not measured alike (threat, data or images differ): compare with care.", style="bold")
    for folder, result in results.items():
        if warned := warning(result):
            console.print(f"{folder}: {warned}", highlight=False, style="bold red")


def _attacks(results: dict[Path, dict[str, Any]]) -> str:
    kinds = {folder: ", ".join(result["attacks"]) for folder, result in results.items()}
    if len(set(kinds.values())) == 1:
        return next(iter(kinds.values()))
    return "its own attacks: " + "; ".join(f"{folder}: {names}" for folder, names in kinds.items())


def training_cost(folder: Path) -> dict[str, float] | None:
    """Seconds of training and mean passes per image, from metrics.jsonl; None where it is missing."""
    import json

    path = folder / "metrics.jsonl"
    if not path.is_file():
        return None
    try:
        lines = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
        seconds = sum(line["seconds"] for line in lines)
        passes = sum(line["passes"] for line in lines) / len(lines)
    except (ValueError, KeyError, TypeError, ZeroDivisionError):
        raise ValueError(f"{path} is damaged: restore it from a copy") from None
    return {"seconds": seconds, "passes": passes}
