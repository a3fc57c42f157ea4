"""Every method on all of MNIST with the best of a small grid, in three seeds.

python benchmarks/grid.py --data DIR [--rows NAME ...] [--minutes 30]

The net, images, epochs and batches are those of `methods.py`. Each method has four runs of seed 0: two rates, and two
values of one setting of its own; a method without one has two lengths of the warm-up of eps, or of the rate where it
trains against no threat. The best on held-out training images, under the attack of validation, is run again with seeds
1 and 2. These three are attacked with PGD-100 and AutoAttack on 1,000 test images, a balanced sample. EAT's sources are
those of `methods.py`.

GradAlign had more tries than the others. Its second value was `lam 2` at first, and became another start after six
further tries of seed 0 on held-out images. N-FGSM had three such tries, and its values stayed.

What is done is not done again; a stopped run goes on. Several processes may share --out and
--write if each has other --rows.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from statistics import mean
from typing import Any

from methods import BASE, EPS, NATURAL, ROWS, SOURCE, SOURCES, UNCHOSEN, watched
from time_limit import TimeLimit, chosen_rows, finished, until_out_of_time

from toughen.runs.files import read_json, write_json

RATES = ("5e-3", "2e-3")
LONGER = ("", "--eps_warmup 0.5")
PEAKS = ("", "--schedule.peak 0.2")
OWN = {  # two values of a setting of each method; the first is that of `methods.py`
    "Standard": PEAKS,
    "R-FGSM-AT": ("", "--method.start_size 0.05"),
    "FBF": ("", "--method.step_size 0.3"),
    "N-FGSM": ("", "--method.start_size 0.3 --method.limit 0.3"),
    "GradAlign": ("", "--method.start uniform"),
    "PGI": ("", "--method.lam 4"),
    "Free": ("", "--method.step_size 0.15"),
    "PAP-FGSM": ("", "--method.lam 2"),
    "PAP naive": ("", "--method.lam 2"),
    "PAP-TRADES": ("", "--method.lam 2"),
    "R-MGM": ("", "--method.lam 1"),
    "GAT": ("", "--method.lam 10"),
    "NuAT": ("", "--method.lam 2"),
    "NuAT2": ("", "--method.lam 2"),
    "NuAT-H": ("", "--method.cheap.lam 2"),
    "eFGSM": ("", "--method.sigma 0.3"),
    "eFGSM + REC": ("", "--method.lam 0.5"),
    "REC": PEAKS,
    "TRADES": ("", "--method.beta 6"),
    "PGD-AT": ("", "--method.step_size 0.05"),
    "AT-AWP": ("", "--method.gamma 0.005"),
    "DAT": ("", "--method.switch_epoch 1"),
}
SEEDS = (0, 1, 2)
ATTACKS = ("fgsm", "pgd-100", "autoattack")
IMAGES = 1000


@dataclass(frozen=True)
class Run:
    """One training: a method, a rate, the setting of its own, a seed."""

    row: str
    rate: str
    own: str
    seed: int

    def folder(self, out: Path) -> Path:
        """The run directory."""
        own = OWN.get(self.row, LONGER).index(self.own)
        name = self.row.lower().replace(" + ", "-").replace(" ", "-")
        return out / f"{name}_{self.rate}_{own}_seed-{self.seed}"

    def words(self, data: str, out: Path) -> str:
        """What follows `toughen train`; later words count."""
        eps = "" if self.row in NATURAL else f"--eps {EPS}"
        places = json.dumps([str(out / "sources" / name) for name in SOURCES], separators=(",", ":"))
        method = ROWS[self.row].replace("{sources}", places)
        given = f"{BASE} {UNCHOSEN} {method} {self.own} --optimizer.lr {self.rate} {eps}"
        return f"{given} --seed {self.seed} --data {data} --out {self.folder(out)} --resume"


def grid(row: str) -> list[Run]:
    """The four runs of which one is chosen."""
    return [Run(row, rate, own, 0) for own in OWN.get(row, LONGER) for rate in RATES]


def held_out(run: Run, out: Path) -> float:
    """The best accuracy on held-out training images under the attack of validation; clean where there is no threat."""
    key = "clean" if run.row in NATURAL else "pgd"
    return max(float(epoch["validation"][key]) for epoch in epochs(run, out))


def epochs(run: Run, out: Path) -> list[dict[str, Any]]:
    """The epochs in a run's metrics file."""
    return [json.loads(line) for line in (run.folder(out) / "metrics.jsonl").read_text().splitlines()]


def chosen(row: str, out: Path) -> Run:
    """The best run of a grid that is trained; the first of equals."""
    return max(grid(row), key=lambda run: held_out(run, out))


def steps(row: str, data: str, out: Path) -> Iterator[list[str]]:
    """The commands that are still to be run for a method, in their order."""
    if row == "EAT":
        for name in SOURCES:
            place = out / "sources" / name
            if not finished(place):
                words = f"train {BASE} {UNCHOSEN} {SOURCE} --model {name} --data {data} --out {place} --resume"
                yield words.split()
    for run in grid(row):
        if not finished(run.folder(out)):
            yield ["train", *run.words(data, out).split()]
    best = chosen(row, out)
    for seed in SEEDS:
        run = Run(row, best.rate, best.own, seed)
        if not finished(run.folder(out)):
            yield ["train", *run.words(data, out).split()]
        if not (run.folder(out) / "evaluation.json").exists():
            given = f"evaluate {run.folder(out)} --data {data} --eps {EPS} --limit {IMAGES} --verdict false"
            yield [*given.split(), "--attacks", *ATTACKS]


def figures(row: str, out: Path) -> dict[str, Any] | None:
    """The figures of a method; None until all of its runs are complete."""
    if not all(finished(run.folder(out)) for run in grid(row)):
        return None
    best = chosen(row, out)
    runs = [Run(row, best.rate, best.own, seed) for seed in SEEDS]
    if not all((run.folder(out) / "evaluation.json").exists() for run in runs):
        return None
    tried = [{"rate": run.rate, "own": run.own, "held_out": held_out(run, out)} for run in grid(row)]
    return {
        "settings": ROWS[row],
        "grid": tried,
        "chosen": {"rate": best.rate, "own": best.own},
        "runs": [of_run(run, out) for run in runs],
    }


def of_run(run: Run, out: Path) -> dict[str, Any]:
    """One seed's figures."""
    found, noted = read_json(run.folder(out) / "evaluation.json"), epochs(run, out)
    return {
        "seed": run.seed,
        "images": found["images"],
        "clean": found["clean_accuracy"],
        **{name: found["attacks"][name]["robust_accuracy"] for name in ATTACKS},
        "passes": mean(epoch["passes"] for epoch in noted),
        **watched(run.row, [epoch["validation"] for epoch in noted]),
        "validation": [epoch["validation"] for epoch in noted],
        "provenance": read_json(run.folder(out) / "provenance.json"),
        "evaluated": found["provenance"],
    }


def gathered(out: Path, write: Path) -> dict[str, Any]:
    """All rows: those of this machine's runs and those in the file written before."""
    kept = read_json(write)["rows"] if write.exists() else {}
    found = {row: figures(row, out) or kept.get(row) for row in ROWS}
    return {row: values for row, values in found.items() if values}


def table(rows: dict[str, Any]) -> str:
    """The rows in Markdown: means and ranges over the seeds, in percent."""
    lines = ["| method | chosen | clean | FGSM | PGD-100 | AutoAttack | passes |", "|---|---|---|---|---|---|---|"]
    for row, values in rows.items():
        cells = [
            f"{values['chosen']['rate']} {values['chosen']['own'].replace('--method.', '').replace('--', '')}".strip()
        ]
        for key in ("clean", *ATTACKS):
            some = [100 * run[key] for run in values["runs"]]
            cells.append(f"{mean(some):.1f} ({min(some):.1f} to {max(some):.1f})")
        cells.append(f"{mean(run['passes'] for run in values['runs']):.1f}")
        lines.append(f"| {row} | {' | '.join(cells)} |")
    return "\n".join(lines)


def main() -> None:
    known = chosen_rows(__doc__, list(ROWS), "grid-mnist")
    time_limit = TimeLimit(known.minutes)
    about = {"base": BASE, "eps": EPS, "rates": RATES, "source": SOURCE, "sources": SOURCES, "attacks": ATTACKS}
    with until_out_of_time():
        for row in known.rows:
            if row in gathered(known.out, known.write):
                continue
            for words in steps(row, known.data, known.out):
                print("toughen", *words, flush=True)
                time_limit.toughen(*words)
            write_json(known.write, {**about, "rows": gathered(known.out, known.write)})
    rows = gathered(known.out, known.write)  # may hold a row whose last run was made by a process that was stopped
    write_json(known.write, {**about, "rows": rows})
    print(table(rows))


if __name__ == "__main__":
    main()
