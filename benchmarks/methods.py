"""Every method on all of MNIST in one table; further tables compare settings of one method.

python benchmarks/methods.py --data DIR                          every method
python benchmarks/methods.py --data DIR --table delayed          natural epochs before the switch to PGD-AT
python benchmarks/methods.py --data mnist-5k --table hybrid      Hybrid's threshold and window, where FGSM-AT collapses
python benchmarks/methods.py --data DIR --table free             what Free cuts to [0, 1]
python benchmarks/methods.py --data DIR --table nuat2            NuAT2's start and step
python benchmarks/methods.py --data DIR --table pap              the weight of PAP's penalty, in the pipeline and naive
python benchmarks/methods.py --data DIR --table warmup           how long eps grows for PGD-AT
python benchmarks/methods.py --data mnist-5k --table efgsm       eFGSM as printed, and its two settings of ours
python benchmarks/methods.py --data mnist-5k --table liet        LIET's weight, beside NuAT and PGD-AT
python benchmarks/methods.py --data mnist-5k --table open        values that papers leave open

The same net, images, optimizer, schedule, epochs and seed for all; each method's own settings are those of its MNIST
recipe where it has one, but for attacks of ten steps where a method iterates. A run that was stopped goes on where it
stood; rows that are done are not done again; the file is written after each row.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import torch
import yaml
from rich.console import Console
from rich.table import Table

from toughen.engine.device import provenance
from toughen.runs.files import read_json, write_json
from toughen.training.collapse import CollapseCriterion, CollapseMemory

BASE = (  # FBF's released settings for MNIST; ours: the epochs, and the warm-up, without which PGD-AT stays at chance
    "--model fbf-mnist-cnn --normalize false --optimizer Adam --optimizer.lr 5e-3"
    " --schedule Cyclic --schedule.peak 0.4 --batch_size 100 --epochs 5 --watch warn --eps_warmup 0.1"
)
SOURCES = ("small-cnn", "D")  # EAT's static sources: other nets, as in R-MGM's Table 2
SOURCE = "--method Standard --epochs 2 --seed 1"
ROWS = {  # in the order of the table: name -> what it adds to BASE
    "Standard": "--method Standard",
    "FGSM-AT": "--method FGSMAT",
    "R-FGSM-AT": "--method RFGSMAT",
    "FBF": "--method FBF --method.clip_start false",  # as released for MNIST
    "N-FGSM": "--method NFGSM",
    "GradAlign": "--method GradAlign",
    "PGI": "--method PGI",
    "Free": "--method Free",
    "EAT": "--method Ensemble --method.sources {sources}",
    "PAP-FGSM": "--method PAP --method.lam 0.5 --method.steps 10",
    "PAP naive": "--method PAP --method.lam 0.5 --method.steps 10 --method.schedule naive",
    "PAP ablation": "--method PAP --method.ablation true --method.steps 10",
    "PAP-TRADES": "--method PAP --method.over trades --method.lam 0.5 --method.eta 1 --method.steps 10",
    "R-MGM": "--method RMGM --method.start_size 0.05",
    "GAT": (
        "--method GAT --method.lam 15 --method.jump_at 0.52 --method.jump 3 --method.start_size 0.3"
        " --method.alternate false"
    ),
    "NuAT": "--method NuAT --method.start_size 0.3 --method.alternate false",
    "NuAT2": "--method NuAT2 --method.start_size 0.15 --method.step_size 0.15",  # the best of --table nuat2
    "NuAT-H": "--method Hybrid --method.cheap NuAT --method.cheap.start_size 0.3 --method.cheap.alternate false",
    "eFGSM": "--method EFGSM --method.classes 1 --method.remember gradient",
    "eFGSM + REC": "--method Reconstruct --method.inner EFGSM"
    " --method.inner.classes 1 --method.inner.remember gradient",
    "REC": "--method Reconstruct --method.inner Standard",
    "TRADES": "--method TRADES --method.beta 1",
    "PGD-AT": "--method PGDAT",
    "AT-AWP": "--method AWP --method.inner PGDAT",
    "DAT": "--method Delayed --method.after PGDAT",
}
DELAYED = {  # epochs before the switch
    "switch 0": "--method PGDAT",
    **{f"switch {n}": f"--method Delayed --method.after PGDAT --method.switch_epoch {n}" for n in (1, 3, 4)},
    "auto": "--method Delayed --method.after PGDAT",  # after epoch 2 of 5
}
CHEAP = "--method.cheap FGSMAT --method.cheap.clean_weight 1"
HYBRID = {
    "cheap": "--method FGSMAT --method.clean_weight 1",
    "strong": "--method PGDAT --method.steps 2 --method.step_size 0.25",  # the cheap method's rescue
    **{
        f"{threshold} {window}": f"--method Hybrid {CHEAP} --method.threshold {threshold} --method.window {window}"
        for window in (5, 20)
        for threshold in (0.1, 0.2, 0.3, 0.5)
    },
}
SMALL = (  # for the 3,600 embedded images
    "--model fbf-mnist-cnn --normalize false --optimizer Adam --optimizer.lr 2e-3"
    " --schedule Cosine --schedule.warmup 0.05 --batch_size 50 --epochs 15 --watch warn --eps_warmup 0.1"
)
FREE = {form: f"--epochs 2 --method Free --method.clamp {form}" for form in ("delta", "image")}
NUAT2 = {  # the start and the step in the units of eps
    f"{start} {step}": f"--epochs 3 --method NuAT2 --method.start_size {start} --method.step_size {step}"
    for start, step in ((0.3, 0.3), (0.15, 0.3), (0.15, 0.15))
}
PAP = {
    f"{schedule} {lam}": f"--epochs 2 --method PAP --method.steps 10 --method.schedule {schedule} --method.lam {lam}"
    for schedule, lam in (("pipeline", 0.5), ("pipeline", 2), ("naive", 0.5), ("naive", 0.125))
}
WARMUP = {f"{share}": f"--epochs 3 --method PGDAT --eps_warmup {share}" for share in (0, 0.1, 0.3)}
PRINTED = "efgsm-mnist --epochs 10 --weights last --watch warn"
EFGSM = {
    f"{classes} {remember}": f"--method EFGSM --method.classes {classes} --method.remember {remember}"
    for remember in ("gradient", "perturbation")
    for classes in (1, "null")
}
OVER_TRADES = "--method PAP --method.over trades --method.lam 0.5 --method.steps 10"
MEASURED = "--method EFGSM --method.classes 1 --method.remember gradient"
OPEN = {
    **{f"PAP N {n}": f"--method PAP --method.lam 0.5 --method.steps {n}" for n in (5, 10, 20, 40)},
    **{f"PAP-TRADES eta {eta}": f"{OVER_TRADES} --method.eta {eta}" for eta in (1, 3, 6)},
    **{f"eFGSM sigma {sigma}": f"{MEASURED} --method.sigma {sigma}" for sigma in (0.05, 0.15, 0.3)},
    "eFGSM smoothing 0": f"{MEASURED} --method.smoothing 0",  # the others have 0.1
}
LIET = {f"LIET {lam}": f"--method LIET --method.lam {lam}" for lam in (3, 10, 30, 100)}
LIET |= {name: ROWS[name] for name in ("NuAT", "PGD-AT")}
TABLES = {
    "methods": (BASE, ROWS),
    "delayed": (BASE, DELAYED),
    "hybrid": (SMALL, HYBRID),
    "free": (BASE, FREE),
    "nuat2": (BASE, NUAT2),
    "pap": (BASE, PAP),
    "warmup": (BASE, WARMUP),
    "efgsm": (PRINTED, EFGSM),
    "liet": (f"{SMALL} --eps_warmup 0.3", LIET),
    "open": (SMALL, OPEN),
}
LIMITS = dict.fromkeys(
    ("free", "nuat2", "pap", "warmup", "liet", "open"), "--limit 1000"
)  # tables that attack fewer test images
UNCHOSEN = "--averaging null --validation_every 1"  # what `train` would choose for the data
EPS = "0.3"
NATURAL = ("Standard", "REC")  # train against no threat
ATTACKS = ["fgsm", "pgd-100"]


def toughen(words: str) -> None:
    """Run a toughen command."""
    subprocess.run([sys.executable, "-m", "toughen", *words.split()], check=True)


def place(row: str, out: Path) -> Path:
    """A row's run directory."""
    return out / row.lower().replace(" + ", "-").replace(" ", "-")


def train(row: str, base: str, words: str, data: str, out: Path, limit: str = "") -> None:
    """Train one row's run, or what is left of it, then evaluate it."""
    folder = place(row, out)
    folder.parent.mkdir(parents=True, exist_ok=True)
    if "{sources}" in words:
        sources = [out / "sources" / name for name in SOURCES]
        for source in sources:
            toughen(f"train {BASE} {UNCHOSEN} {SOURCE} --model {source.name} --data {data} --out {source} --resume")
        words = words.replace("{sources}", json.dumps([str(source) for source in sources], separators=(",", ":")))
    eps = "" if row in NATURAL else f"--eps {EPS}"
    toughen(f"train {base} {UNCHOSEN} {words} {eps} --data {data} --out {folder} --resume")
    if not (folder / "evaluation.json").exists():
        asked = f"--attacks {' '.join(ATTACKS)} --verdict false --details false {limit}"
        toughen(f"evaluate {folder} --data {data} --eps {EPS} {asked}")


def figures(row: str, words: str, out: Path) -> dict[str, Any]:
    """One row of the table: its settings, the resulting configuration, and the figures."""
    folder = place(row, out)
    config = yaml.safe_load((folder / "config.yaml").read_text(encoding="utf-8").replace(f"{out}/", ""))
    found = read_json(folder / "evaluation.json")
    epochs = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    seconds = sorted(epoch["seconds"] for epoch in epochs)
    return {
        "settings": words,
        "config": {name: value for name, value in config.items() if name != "data"},  # which is a place on a machine
        "seed": config["seed"],
        "images": found["images"],
        "clean": found["clean_accuracy"],
        "fgsm": found["attacks"]["fgsm"]["robust_accuracy"],
        "pgd_100": found["attacks"]["pgd-100"]["robust_accuracy"],
        "epoch_kept": read_json(folder / "model.json")["epoch"],
        "gamma": sum(epoch["gamma"] for epoch in epochs) / len(epochs),
        "passes": sum(epoch["passes"] for epoch in epochs) / len(epochs),
        "seconds_per_epoch": {"median": seconds[len(seconds) // 2], "least": seconds[0], "most": seconds[-1]},
        **watched(row, [epoch["validation"] for epoch in epochs]),
        "validation": [epoch["validation"] for epoch in epochs],
        "events": [event["text"] for epoch in epochs for event in epoch["events"]],
        "strong_share": [epoch["strong_share"] for epoch in epochs if "strong_share" in epoch],
        "provenance": read_json(folder / "provenance.json"),
    }


def kept(write: Path, about: dict[str, Any], table: dict[str, str], wanted: list[str]) -> dict[str, Any]:
    """The rows of the result file, without those that are run again; their runs may be on another machine.

    Raises:
        ValueError: the whole file has other settings, or a row has that is not wanted again.
    """
    if not write.exists():
        return {}
    found = {"seed": 0, **read_json(write)}  # files were written without it as long as all runs had seed 0
    for name, value in about.items():
        if found[name] != value:
            raise ValueError(f"{write} was made with another {name}: give another --write, or remove it")
    other = {name for name, row in found["rows"].items() if row["settings"] != table.get(name)}
    if missed := sorted(other.difference(wanted)):
        raise ValueError(f"{write} has other settings than the table for {', '.join(missed)}: add them to --rows")
    return {name: row for name, row in found["rows"].items() if name not in other}


def watched(row: str, validation: list[dict[str, float]]) -> dict[str, Any]:
    """What the watch finds in a run: whether it was ever robust, and after which epochs, from 0, it had collapsed."""
    if row in NATURAL:
        return {"stood": None, "collapsed_after_epochs": []}
    criterion, memory = CollapseCriterion(chance=0.1, images=1000), CollapseMemory()
    collapsed = [epoch for epoch, found in enumerate(validation) if criterion.collapsed(memory, found)]
    return {"stood": criterion.was_robust(memory), "collapsed_after_epochs": collapsed}


def word(row: dict[str, Any]) -> str:
    """Whether a run collapsed, for a table."""
    if row["collapsed_after_epochs"]:
        return "yes"
    return "never robust" if row["stood"] is False else "no"


def show(rows: dict[str, dict[str, Any]]) -> None:
    """The table, at 80 columns."""
    table = Table(
        "method", "clean", "FGSM", "PGD-100", "gamma", "passes", "s/epoch", "collapse", box=None, pad_edge=False
    )
    for column in table.columns[1:]:
        column.justify = "right"
    for name, row in rows.items():
        accuracies = [f"{100 * row[key]:.1f}" for key in ("clean", "fgsm", "pgd_100")]
        cost = [f"{row['gamma']:.1f}", f"{row['passes']:.1f}", f"{row['seconds_per_epoch']['median']:.0f}"]
        table.add_row(name, *accuracies, *cost, word(row))
    Console(width=80).print(table)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", required=True, help="MNIST: a folder of parquet shards, or a name of the hub")
    parser.add_argument("--table", choices=list(TABLES), default="methods")
    parser.add_argument("--rows", nargs="+", metavar="NAME", help="all by default")
    parser.add_argument("--seed", type=int, default=0, help="of all runs but EAT's sources; 0 by default")
    parser.add_argument(
        "--out", type=Path, help="where the runs lie; runs/TABLE by default, runs/TABLE-seed-N for others"
    )
    parser.add_argument("--write", type=Path, help="the result file; benchmarks/results/TABLE-mnist.json, and so on")
    known = parser.parse_args()
    base, table = TABLES[known.table]
    seeded = f"-seed-{known.seed}" if known.seed else ""
    out = known.out or Path("runs") / f"{known.table}{seeded}"
    write = known.write or Path("benchmarks/results") / f"{known.table}-mnist{seeded}.json"
    about = {
        "base": base,
        "eps": EPS,
        "sources": list(SOURCES),
        "source": SOURCE,
        "attacks": ATTACKS,
        "seed": known.seed,
    }
    wanted = known.rows or list(table)
    for row in wanted:
        if row not in table:
            parser.error(f"there is no row {row}: choose from {', '.join(table)}")
    try:
        found = kept(write, about, table, wanted)
    except ValueError as error:
        parser.error(str(error))
    for row in wanted:
        train(row, f"{base} --seed {known.seed}", table[row], known.data, out, LIMITS.get(known.table, ""))
        found[row] = figures(row, table[row], out)
        rows = {name: found[name] for name in table if name in found}
        write.parent.mkdir(parents=True, exist_ok=True)
        write_json(write, {**about, "provenance": provenance(torch.device("cpu")), "rows": rows})
        show(rows)


if __name__ == "__main__":
    main()
