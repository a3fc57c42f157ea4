"""The section of one run on the page: its cards, its figures and its texts."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from toughen.report import words
from toughen.report.classes import class_figure, confusion_figures, read_class_counts
from toughen.report.compare import cautions
from toughen.report.curves import eps_figure, steps_figure
from toughen.report.evaluations import Check, Evaluation
from toughen.report.figures import Cell, Figure, Table, number_cell, share_cell
from toughen.report.gallery import Example, read_gallery
from toughen.report.read import DIAGNOSTICS, PROVENANCE, Run, of_other_weights
from toughen.report.surface import surface_figure
from toughen.report.training import epoch_table, last_validation, training_figures
from toughen.report.values import clean, items, mapping, text
from toughen.utils.statistics import interval, percent

ICONS = {"sound": "✓", "doubtful": "?", "masked": "✕"}


@dataclass(frozen=True)
class Card:
    """One of the four boxes at the top: a name, the value, and the lines below it."""

    name: str
    value: str
    lines: tuple[str, ...]
    kind: str = ""
    icon: str = ""


@dataclass
class Details:
    """Everything that the page shows of one run."""

    run: Run
    anchor: str
    subtitle: str
    cards: list[Card]
    cautions: list[str]
    diagnostics: dict[str, Any]
    gallery: dict[str, list[Example]]
    facts: list[tuple[str, str]]
    robustness: list[Any]
    by_class: list[Any]
    training: list[Any]
    watched: str
    epochs: Table | None
    others: Table | None
    finding: str = ""
    meaning: str = ""
    attacks: Table | None = None
    failed: list[Check] = field(default_factory=list)
    other_checks: list[Check] = field(default_factory=list)
    other_summary: str = ""


def details(run: Run, anchor: str) -> Details:
    """Everything that the page shows of a run; ``read_recipe`` must have been called on it before."""
    curves = diagnostics(run)
    view = Details(
        run, anchor, subtitle(run), cards(run), cautions(run), curves,
        gallery=read_gallery(run), facts=facts(run),
        robustness=_robustness(run, curves), by_class=_by_class(run, curves), training=training_figures(run.history),
        watched=watched(run), epochs=epoch_table(run.history) if run.history.epochs else None,
        others=others_table(run) if run.others else None,
    )  # fmt: skip
    if run.own:
        _add_evaluation(view, run.own)
        _add_missing(view)
    return view


def _add_evaluation(view: Details, own: Evaluation) -> None:
    view.finding, view.meaning = words.findings(own), words.meaning(own)
    view.attacks = attack_table(own)
    view.failed = [check for check in own.checks if check.passed is False]
    view.other_checks = [check for check in own.checks if check.passed is not False]
    view.other_summary = words.checks(own)
    if view.run.outdated:
        view.meaning = f"The checks were made on the other weights. Their verdict was: {own.verdict or 'not checked'}."
    elif not own.checks and view.run.trained:
        view.meaning += f" `{view.run.evaluate}` makes the checks."


def _add_missing(view: Details) -> None:
    """Name the images and curves that are missing from an evaluation."""
    lacking = [] if view.gallery or any("gallery" in each for each in view.run.missing) else ["images under attack"]
    lacking += [] if view.robustness else ["curves over eps and steps"]
    if lacking:
        who = f"`{view.run.evaluate}` makes them" if view.run.trained else "an evaluation makes them"
        view.run.missing.append(f"There are no {' and no '.join(lacking)}: {who}, without `--details false`.")


def diagnostics(run: Run) -> dict[str, Any]:
    """The diagnostics of the run's weights in diagnostics.json; anything else in the file is ignored."""
    fields = run.fields(run.folder / DIAGNOSTICS)
    found = {name: mapping(each) for name, each in fields.items() if isinstance(each, dict)}
    if others := [name for name, each in found.items() if _of_other_weights(each, run)]:
        names = ", ".join(map(clean, others))
        run.missing.append(f"{DIAGNOSTICS} has figures of other weights than the run's, left out here: {names}.")
    return {name: each for name, each in found.items() if name not in others}


def _of_other_weights(diagnostic: dict[str, Any], run: Run) -> bool:
    known = items(mapping(diagnostic.get("about")).get("weights"))
    return bool(known) and run.trained and run.weights_hash not in known


def watched(run: Run) -> str:
    """That the collapse watch reported nothing; "" if it was off, or if its reports may have been lost."""
    wished = run.eps is not None and run.settings.get("watch") in ("warn", "rescue")
    worked = any("pgd" in epoch.validation for epoch in run.history.epochs)  # it needs held-out images
    return "The watch found no collapse." if wished and worked and not run.history.damaged else ""


def _robustness(run: Run, diagnostics: dict[str, Any]) -> list[Figure]:
    figures = (
        eps_figure({"": diagnostics.get("eps", {})}, run.own),
        steps_figure({"": diagnostics.get("steps", {})}, run.own),
        surface_figure(diagnostics.get("surface", {}), run.own),
    )
    return [figure for figure in figures if figure is not None]


def _by_class(run: Run, diagnostics: dict[str, Any]) -> list[Figure]:
    counts = read_class_counts(run)
    bars = class_figure(counts, run.classes) if counts else None
    return [*([bars] if bars else []), *confusion_figures(diagnostics.get("confusion", {}), run.classes, run.own)]


def _factor(run: Run) -> str:
    """How much larger attacks in training were than the threat; "" where they were not."""
    factor = run.settings.get("eps_factor", 1.0)
    return f" (times {factor:g} in training)" if isinstance(factor, int | float) and factor != 1 else ""


def subtitle(run: Run) -> str:
    """Method, net, data and threat, in one line."""
    trained = words.threat(run.norm, run.eps) + _factor(run) if run.eps is not None else ""
    evaluated = run.own.model if run.own and not run.method else ""
    parts = (
        run.method or evaluated,
        run.model,
        run.data,
        f"trained against {trained}" if trained else "",
    )
    return " · ".join(part for part in parts if part)


def cards(run: Run) -> list[Card]:
    """The four boxes: accuracy, robust accuracy, verdict and cost."""
    own, history = run.own, run.history
    if own is None:
        validated = [
            Card(name, cell.text, (f"{when}, not test images",)) for when, name, cell in last_validation(history)
        ]
        answers = validated[:3] or [Card("Robust accuracy", "unknown", ("not evaluated yet",))]
    else:
        correct, robust_images = (round(share * own.images) for share in (own.clean, own.robust))
        within = words.threat(own.norm, own.eps)
        robust = (f"{robust_images:,} of {own.images:,}, {within}", f"95 % interval {words.span(own)}")
        answers = [
            Card("Accuracy", percent(own.clean), (f"{correct:,} of {own.images:,} test images", "without an attack")),
            Card("Robust accuracy", percent(own.robust), robust),
            verdict_card(run, own),
        ]
    return [*answers, cost_card(run)]


def verdict_card(run: Run, own: Evaluation) -> Card:
    """The box of the verdict; an outdated evaluation gets a warning instead of its verdict."""
    question = "Can the number be believed?"
    if run.outdated:
        return Card(question, "Outdated", ("measured with other weights than the run has now",), "doubtful", "?")
    icon = ICONS.get(own.verdict, "")
    return Card(question, own.verdict.capitalize() or "Not checked", (words.checks(own),), own.verdict, icon)


def cost_card(run: Run) -> Card:
    """The box of the training cost."""
    history = run.history
    if history.seconds is None:
        reason = "metrics.jsonl has no seconds" if history.epochs else "metrics.jsonl has no epochs"
        return Card("Cost of training", "unknown", (reason,))
    lines = [words.count(len(history.epochs), "epoch")]
    if history.passes is not None:
        lines = [f"{history.passes:.1f} passes per step (standard training: 3)", lines[0]]
    least = "at least " if history.partial else ""
    return Card("Cost of training", f"{least}{words.duration(history.seconds)}", tuple(lines))


def attack_table(own: Evaluation) -> Table:
    """Accuracy under each attack, with the attack's cost."""
    rows = [(Cell("none (clean)"), share_cell(own.clean), _interval(own.clean, own.images), Cell(""), Cell(""))]
    for attack in own.attacks:
        cells = (number_cell(attack.seconds, ".1f"), number_cell(attack.passes, ",.1f"))
        name = Cell(("then " if attack.part else "") + attack.name)
        rows.append((name, share_cell(attack.accuracy), _interval(attack.accuracy, own.images), *cells))
    total = Cell("all attacks", strong=True)
    rows.append((total, share_cell(own.robust), _interval(own.robust, own.images), Cell(""), Cell("")))
    columns = ("attack", "accuracy", "95 % interval", "seconds", "passes per image")
    return Table(columns, tuple(rows), "accuracy under each attack")


def _interval(share: float, images: int) -> Cell:
    low, high = interval(share, images)
    return Cell(f"{100 * low:.1f} to {percent(high)}", low)


def others_table(run: Run) -> Table:
    """The other evaluations in the run directory."""
    rows = tuple(
        (
            Cell(each.place), Cell(each.data), Cell(words.threat(each.norm, each.eps), each.eps), Cell(each.names),
            number_cell(each.images, ","), share_cell(each.clean), share_cell(each.robust),
            Cell("outdated" if of_other_weights(run, each) else each.verdict or "not checked"),
        )
        for each in run.others
    )  # fmt: skip
    columns = ("where", "data", "threat", "attacks", "images", "clean", "robust", "verdict")
    return Table(columns, rows, "other evaluations")


def facts(run: Run) -> list[tuple[str, str]]:
    """How a run was made: settings, versions and hardware."""
    provenance = run.fields(run.folder / PROVENANCE)
    own = run.own.about if run.own else {}
    pairs: list[tuple[str, str | None]] = [
        ("run directory", run.place), ("method", run.method), ("net", run.model), ("data", run.data),
        ("threat", words.threat(run.norm, run.eps) + _factor(run) if run.eps is not None else ""),
        ("weights", run.weights), ("seed", text(run.settings.get("seed"))),
        ("trained with", text(provenance.get("toughen"))),
        ("processor in training", text(provenance.get("processor"))),
        ("precision in training", text(provenance.get("precision"))),
        *((name, text(provenance.get(name))) for name in ("commit", "torch", "python")),
    ]  # fmt: skip
    if run.own:
        pairs += [
            ("evaluated on", run.own.data), ("attacks", run.own.names), ("seed of the evaluation", own.get("seed")),
            ("precision of the search", own.get("precision")), ("processor of the evaluation", own.get("processor")),
        ]  # fmt: skip
    return [(name, value) for name, value in pairs if value]
