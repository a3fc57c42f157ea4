"""How early signs of a collapse come before it, and whether they come without one.

python benchmarks/collapse_signals.py --data DIR [--rows NAME ...] [--minutes 30]

FGSM-AT loses its robustness here slowly, over a thousand steps. NuAT keeps its robustness. Every 40 steps each run
measures, on 200 held-out images: accuracy under PGD; the watch's signal, the distance between the logits of FGSM and
R-FGSM images; and the alignment, the mean cosine of the input gradients at the clean and at the FGSM images. The
alignment is written after the description of PertAlign ("gradient alignment across attack stages", arXiv:2606.00738),
whose formula was not at hand. The limits below were chosen on seed 0, which is not among the seeds that are measured.

What is done is not done again. Several processes may share --out and --write if each has other --rows.
"""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from time_limit import TimeLimit, chosen_rows, finished, until_out_of_time

from toughen.attacks import FGSM, PGD
from toughen.config.train import parse_train
from toughen.core.gradients import input_gradient, mode
from toughen.core.objectives import cross_entropy
from toughen.core.rng import StepNoise, derive_seed
from toughen.core.types import Step
from toughen.evaluation.logit_distance import logit_distance
from toughen.methods.gradalign import cosine
from toughen.runs.files import read_json, write_json
from toughen.training import Callback, train
from toughen.training.collapse import FALLEN_PGD_RATIO, JUMP, KEPT, LEAST
from toughen.training.training_state import TrainingState

ROWS = {"FGSM-AT": "--method FGSMAT", "NuAT": "--method NuAT"}
EPS, WARM_UP = 0.2, 0.1
BASE = (
    f"--model fbf-mnist-cnn --normalize false --eps {EPS} --eps_warmup {WARM_UP} --epochs 4 --batch_size 100 "
    "--optimizer Adam --optimizer.lr 2e-3 --schedule Constant --averaging null --watch off --precision fp32"
)
SEEDS = range(1, 11)
EVERY, IMAGES, STEPS = 40, 200, 10  # steps between measurements; held-out images; steps of PGD
SMOOTHED = 5  # measurements in a median
ALIGNED = 0.75  # of the highest alignment: below this share it has fallen
RISEN = 1.1  # times the lowest distance: above this it has risen
FIELDS = ("step", "clean", "fgsm", "pgd", "distance", "alignment")
Measured = dict[str, float]


class Signals(Callback):
    """Measures the signs every ``EVERY`` steps."""

    def __init__(self) -> None:
        self.rows: list[list[float]] = []

    def on_step_end(self, state: TrainingState, step: Step) -> None:
        if state.step % EVERY:
            return
        model, threat, split = state.model, state.main.threat, state.validation.split.take(torch.arange(IMAGES))
        assert threat is not None
        x, y = split.images.float() / 255, split.labels
        noise = StepNoise(derive_seed("collapse signals", state.recipe.seed), state.step)
        with mode(model, "eval"):
            x_fgsm = FGSM(eps=threat.eps)(model, x, y)
            x_pgd = PGD(eps=threat.eps, steps=STEPS, step_size=float(threat.eps) / 4)(model, x, y, noise)
            ends = [input_gradient(model, each, y, cross_entropy).gradient for each in (x, x_fgsm)]
            with torch.no_grad():
                accuracies = [float((model(each).argmax(1) == y).double().mean()) for each in (x, x_fgsm, x_pgd)]
        distance = logit_distance(model, x, y, threat, noise)
        self.rows.append([float(state.step), *accuracies, float(distance), float(cosine(*ends))])

    def state_dict(self) -> dict[str, Any]:
        return {"rows": self.rows}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.rows = state["rows"]


def fall(rows: Sequence[Measured]) -> float | None:
    """The step at which PGD accuracy is below half of its best so far; None where it never is."""
    best = 0.0
    for row in rows:
        best = max(best, row["pgd"])
        if row["pgd"] < FALLEN_PGD_RATIO * best:
            return row["step"]
    return None


def jump(rows: Sequence[Measured]) -> float | None:
    """The step at which the watch would validate: the distance is three times the median of the last ones."""
    for place, row in enumerate(rows):
        before = [each["distance"] for each in rows[max(0, place - KEPT) : place]]
        if len(before) >= LEAST and row["distance"] > JUMP * statistics.median(before):
            return row["step"]
    return None


def misaligned(rows: Sequence[Measured], *, risen: bool) -> float | None:
    """The step at which the alignment has fallen and, where that is asked, the distance has risen."""
    high, low = 0.0, float("inf")
    for place in range(SMOOTHED, len(rows) + 1):
        last = rows[place - SMOOTHED : place]
        alignment, distance = (statistics.median(row[name] for row in last) for name in ("alignment", "distance"))
        high, low = max(high, alignment), min(low, distance)
        if alignment < ALIGNED * high and (not risen or distance > RISEN * low):
            return last[-1]["step"]
    return None


def signs(rows: Sequence[Measured]) -> dict[str, float | None]:
    """The steps of the fall and of each sign, after the warm-up of eps."""
    full = [row for row in rows if row["step"] >= WARM_UP * rows[-1]["step"]]
    return {
        "fall": fall(full),
        "jump": jump(full),
        "alignment": misaligned(full, risen=False),
        "alignment and distance": misaligned(full, risen=True),
    }


def one(row: str, seed: int, data: str, out: Path) -> None:
    """Train one run and write what it measured."""
    folder = out / f"{row.lower()}_seed-{seed}"
    measured = folder / "signals.json"
    if finished(folder) and measured.exists():
        return
    recipe, _, _ = parse_train(f"{BASE} {ROWS[row]} --seed {seed} --data {data}".split())
    signals = Signals()
    train(recipe, folder, resume=True, callbacks=[signals])
    write_json(measured, [dict(zip(FIELDS, each, strict=True)) for each in signals.rows])


def gathered(out: Path, write: Path) -> dict[str, Any]:
    """All runs: those of this machine and those in the file written before."""
    found: dict[str, Any] = read_json(write)["rows"] if write.exists() else {}
    for row in ROWS:
        for seed in SEEDS:
            folder = out / f"{row.lower()}_seed-{seed}"
            if (folder / "signals.json").exists():
                rows = read_json(folder / "signals.json")
                about = {"signs": signs(rows), "provenance": read_json(folder / "provenance.json"), "measured": rows}
                found.setdefault(row, {})[str(seed)] = about
    return found


def table(rows: dict[str, Any]) -> str:
    """In Markdown: how many runs show each sign, and how many steps before the fall."""
    lines = ["| runs | sign | in | steps before the fall |", "|---|---|---|---|"]
    for row, runs in rows.items():
        for sign in ("jump", "alignment", "alignment and distance"):
            found = [run["signs"] for run in runs.values()]
            shown = [each for each in found if each[sign] is not None]
            leads = [each["fall"] - each[sign] for each in shown if each["fall"] is not None]
            lead = f"{statistics.median(leads):.0f} ({min(leads):.0f} to {max(leads):.0f})" if leads else ""
            fell = sum(each["fall"] is not None for each in found)
            lines.append(f"| {row}: {fell} of {len(found)} fell | {sign} | {len(shown)} | {lead} |")
    return "\n".join(lines)


def main() -> None:
    known = chosen_rows(__doc__, list(ROWS), "collapse-signals")
    time_limit = TimeLimit(known.minutes)
    limits = {"aligned": ALIGNED, "risen": RISEN, "smoothed": SMOOTHED, "every": EVERY, "images": IMAGES}
    about = {"base": BASE, "methods": ROWS, "limits": limits}
    with until_out_of_time():
        for seed in SEEDS:
            for row in known.rows:
                time_limit.check()
                one(row, seed, known.data, known.out)
                write_json(known.write, {**about, "rows": gathered(known.out, known.write)})
    print(table(gathered(known.out, known.write)))


if __name__ == "__main__":
    main()
