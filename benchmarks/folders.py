"""What `toughen train --data FOLDER --eps E` gives on five sets of pictures, beside PGD-AT in the same seconds.

python benchmarks/folders.py --sets-at DIR [--rows WORD ...] [--minutes 30]

The sets are those of `folder_sets.py`. A row is a set, a radius, a seed, kernels ("native" or "avx2", which a processor
without AVX-512 has) and what trains: "default" names no further flag; "pgd-at" adds the method and as many epochs as
take the same time, by epochs of both that are timed in turn; "standard" trains against nothing. Accuracy is under
PGD-50 with two restarts, and under APGD-T on what stands after it, on a balanced sample of the test images. All rows by
default, or those whose name has one of the words. Rows that are done are not done again; a stopped run goes on.
"""

from __future__ import annotations

import argparse
import itertools
import json
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any

import torch
from time_limit import KERNELS, OutOfTime, TimeLimit, environment

from toughen import data, runs
from toughen.config.train import parse_train
from toughen.core.threat import Threat
from toughen.engine.device import provenance
from toughen.evaluation import measure
from toughen.evaluation.suite import parse_attack
from toughen.runs.files import read_json, write_json
from toughen.training import budget
from toughen.training.build import build
from toughen.training.run import train
from toughen.utils.units import Fraction

RADII = {  # of each set
    "fashion": ("0.1", "0.2"),
    **dict.fromkeys(("cifar", "three", "unbalanced", "two"), ("4/255", "8/255")),
}
LIMIT = {"fashion": 500, "cifar": 200}  # images that are attacked
FEWER = 300  # of the other sets
RUNS = (  # seeds and kernels: three seeds and both kinds of kernels are covered by the first three
    (0, "native"),
    (1, "avx2"),
    (2, "native"),
    (0, "avx2"),
    (1, "native"),
    (2, "avx2"),
)
TRAINED = {"default": [], "pgd-at": ["--method", "PGDAT"], "standard": ["--method", "Standard"]}
TURNS, TRIED = 3, 2.0  # how often the two are timed in turn, and for how many seconds each
PGD, APGD = "pgd-50x2", "apgd-t"


@dataclass(frozen=True)
class Row:
    """One run and its evaluation."""

    name: str
    eps: str
    seed: int
    kernels: str
    trained: str

    def __str__(self) -> str:
        return f"{self.name} {self.eps} seed-{self.seed} {self.kernels} {self.trained}"

    @property
    def folder(self) -> str:
        """A name for its files."""
        return str(self).replace(" ", "_").replace("/", "-")


def rows() -> list[Row]:
    """All rows, the most informative ones first."""
    turns = [(trained, RUNS[0]) for trained in TRAINED]
    turns += [("default", run) for run in RUNS[1:]]
    turns += [("pgd-at", run) for run in RUNS[1:3]]
    return [Row(name, eps, *run, trained) for trained, run in turns for name in RADII for eps in RADII[name]]


def words(row: Row, sets: Path) -> list[str]:
    """What follows `toughen train`, without the folder of the run."""
    eps = [] if row.trained == "standard" else ["--eps", row.eps]
    return ["--data", str(sets / row.name), *eps, "--seed", str(row.seed), *TRAINED[row.trained]]


def seconds(row: Row, sets: Path) -> dict[str, float]:
    """Seconds that an epoch takes of the default and of PGD-AT, timed in turn: medians."""
    taken: dict[str, list[float]] = {"default": [], "pgd-at": []}
    for _ in range(TURNS):
        for trained, found in taken.items():
            other = Row(row.name, row.eps, row.seed, row.kernels, trained)
            trainer, _, _ = build(parse_train(words(other, sets))[0], Path("."))
            tried = budget.measure(trainer, TRIED)
            found.append(
                trainer.state.steps_per_epoch * tried.step + tried.validation / trainer.recipe.validation_every
            )
    return {trained: median(found) for trained, found in taken.items()}


def one(row: Row, sets: Path, out: Path) -> None:
    """Train and attack one row in this process, and write the result into its run directory."""
    given, about = words(row, sets), dict[str, Any]()
    if row.trained == "pgd-at":
        place = out / f"{row.folder}.seconds.json"
        if not place.exists():
            write_json(place, seconds(row, sets))
        about["seconds_per_epoch"] = read_json(place)
        share = about["seconds_per_epoch"]["default"] / about["seconds_per_epoch"]["pgd-at"]
        given += ["--epochs", str(max(1, round(parse_train(given)[0].epochs * share)))]
    recipe, _, _ = parse_train(given)
    folder = train(recipe, out / row.folder, resume=True)
    epochs = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    record = runs.read_record(folder)
    test = data.load_test(str(sets / row.name), image_size=record.image_size).test
    sample = test.take(data.stratified(test.labels, LIMIT.get(row.name, FEWER), seed=0))
    threat, model = Threat("linf", Fraction(row.eps)), runs.load(folder)
    found = measure(model, sample, {name: parse_attack(name, threat) for name in ("fgsm", PGD)})
    broken = found.state.of(PGD).broken
    left = (found.correct.cpu() & ~broken).nonzero()[:, 0]
    under = measure(model, sample.take(left), {APGD: parse_attack(APGD, threat)}).accuracy(APGD) if len(left) else 0.0
    about |= {
        "settings": {name: getattr(recipe, name) for name in ("model", "model_settings", "epochs", "batch_size")},
        "images": len(sample),
        "clean": found.correct.double().mean().item(),
        "fgsm": found.accuracy("fgsm"),
        PGD: found.accuracy(PGD),
        APGD: under * len(left) / len(sample),
        "seconds": sum(epoch["seconds"] + epoch.get("validation_seconds", 0.0) for epoch in epochs),
        "passes": sum(epoch["passes"] for epoch in epochs) / len(epochs),
        "events": [event["text"] for epoch in epochs for event in epoch["events"]],
        "provenance": {**provenance(torch.device("cpu")), "threads": str(torch.get_num_threads())},
    }
    write_json(out / f"{row.folder}.json", about)


def gathered(out: Path, kept: dict[str, Any]) -> dict[str, Any]:
    """The results of all rows, in their order: from this machine's runs, and from the file written before."""
    found = dict[str, Any]()
    for row in rows():
        place = out / f"{row.folder}.json"
        if place.exists() or str(row) in kept:
            found[str(row)] = read_json(place) if place.exists() else kept[str(row)]
    return found


def table(found: dict[str, Any]) -> str:
    """The rows in Markdown: for each set and radius the median over seeds and kernels, and the range, in percent."""
    lines = ["| set | eps | trained | runs | clean | FGSM | PGD-50x2 | APGD-T |", "|---|---|---|---|---|---|---|---|"]
    for name, radii in RADII.items():
        for eps, trained in itertools.product(radii, TRAINED):
            if some := [row for key, row in found.items() if _is_of(key, name, eps, trained)]:
                figures = [_spread([100 * row[key] for row in some]) for key in ("clean", "fgsm", PGD, APGD)]
                lines.append(f"| {name} | {eps} | {trained} | {len(some)} | {' | '.join(figures)} |")
    return "\n".join(lines)


def margins(found: dict[str, Any]) -> str:
    """How far the default is ahead of PGD-AT of the same seed and kernels, in Markdown: points."""
    lines = ["| set | eps | pairs | clean | APGD-T |", "|---|---|---|---|---|"]
    for name, radii in RADII.items():
        for eps in radii:
            keys = [key for key in found if _is_of(key, name, eps, "pgd-at")]
            pairs = [(found[mine], found[key]) for key in keys if (mine := key.replace("pgd-at", "default")) in found]
            if pairs:
                ahead = [
                    _spread([100 * (mine[key] - other[key]) for mine, other in pairs], "+") for key in ("clean", APGD)
                ]
                lines.append(f"| {name} | {eps} | {len(pairs)} | {' | '.join(ahead)} |")
    return "\n".join(lines)


def _is_of(key: str, name: str, eps: str, trained: str) -> bool:
    return key.startswith(f"{name} {eps} ") and key.endswith(f" {trained}")


def _spread(values: list[float], sign: str = "") -> str:
    middle = f"{median(values):{sign}.1f}"
    return middle if len(values) == 1 else f"{middle} ({min(values):{sign}.1f} to {max(values):{sign}.1f})"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sets-at", type=Path, default=Path("runs/sets"), help="where folder_sets.py has put the sets")
    parser.add_argument("--rows", nargs="+", metavar="WORD", default=[""], help="those whose name has one of them")
    parser.add_argument("--out", type=Path, default=Path("runs/folders"), help="where the runs go")
    parser.add_argument("--write", type=Path, default=Path("benchmarks/results/folders.json"))
    parser.add_argument("--minutes", type=float, help="end within this time; what is under way is gone on with")
    parser.add_argument("--one", type=int, help=argparse.SUPPRESS)  # the number of a row to do in this process
    known = parser.parse_args()
    if known.one is not None:
        one(rows()[known.one], known.sets_at, known.out)
        return
    known.out.mkdir(parents=True, exist_ok=True)
    time_limit = TimeLimit(known.minutes)
    places = ["--sets-at", str(known.sets_at), "--out", str(known.out)]
    for number, row in enumerate(rows()):
        kept = read_json(known.write) if known.write.exists() else {}
        if not any(word in str(row) for word in known.rows) or str(row) in gathered(known.out, kept):
            continue
        print(row, flush=True)
        try:
            with environment(KERNELS[row.kernels]):
                time_limit.script("folders", *places, "--one", str(number))
        except OutOfTime:
            break
        except subprocess.CalledProcessError as error:
            sys.exit(f"{row} failed with status {error.returncode}")
        write_json(known.write, gathered(known.out, read_json(known.write) if known.write.exists() else {}))
    found = gathered(known.out, read_json(known.write) if known.write.exists() else {})
    print(table(found), margins(found), sep="\n\n")


if __name__ == "__main__":
    main()
