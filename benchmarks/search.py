"""A search for a recipe: the best composition of single-step methods, starts, averages, smoothing and schedules.

python benchmarks/search.py --task mnist --data DIR [--minutes 60]
python benchmarks/search.py --task mnist --data DIR --ablate [--minutes 60]

Needs Optuna, which the development environment has. The first trials are known settings, and Optuna draws the others.
Each trial trains for the same number of passes per image. Its score is the accuracy under APGD-T on images that were
taken out of the training images; for mnist-8-epochs, that under APGD on the cross-entropy. No test image is used. What
is done is not done again, and a trial that was stopped goes on. A trial that fails, as one whose loss is no longer
finite, is logged apart. The log of all trials is benchmarks/results/search-TASK.json; without the folder of the runs,
the search goes on from the log. With --ablate the best trial is trained with three seeds, and the same without each of
its parts.
"""

from __future__ import annotations

import argparse
import itertools
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import optuna
import pyarrow as pa
import pyarrow.parquet as pq
import torch
from optuna.storages import JournalStorage
from optuna.storages.journal import JournalFileBackend
from optuna.trial import TrialState
from record import outcome
from time_limit import TimeLimit, until_out_of_time

from toughen.data.sets import stratified
from toughen.runs.files import read_json, write_json

SEEDS = (0, 1, 2)
ATTACK = "apgd-t"
FAILURES = 3  # in a row end the search: the cause may lie outside of the settings
# forward equivalents for each image and step, without and with a perturbation of the weights
PASSES = {"NuAT": 8, "GAT": 8, "PGI": 7, "EFGSM": 5, "NFGSM": 5, "LIET": 7}
WITH_AWP = {"NuAT": 15, "GAT": 15, "PGI": 14, "EFGSM": 8, "NFGSM": 8, "LIET": 14}
AWP_GAMMA = 0.005  # that of TRADES-AWP
OPTIMIZERS = {
    "SGD": "--optimizer SGD --optimizer.momentum 0.9 --optimizer.weight_decay 5e-4",
    "Adam": "--optimizer Adam",
    "Muon": "--optimizer Muon",
}
SMOOTHED = ("PGI", "EFGSM")  # methods with a label smoothing of their own


@dataclass(frozen=True)
class Task:
    """What is searched for: a data set, a net and a threat.

    Attributes:
        words: what every trial is told.
        rates: the optimizers to choose from, each with its lowest and highest learning rate.
        eps: radius, in units of images in [0, 1].
        crops: shifts in pixels, to choose from; 0 is none.
        train, held_out: images of the search, both out of the training images.
        passes: forward equivalents for each image, in all epochs together.
        stretches: contrast stretching before the net's first layer, to choose from; 0 is none.
        activations: the net's activation functions, to choose from.
        widths: the net's widths, to choose from; None is its default, or that of ``words``.
        attack: gives the score.
        first: settings of the first trials.
    """

    words: str
    rates: Mapping[str, tuple[float, float]]
    eps: str
    crops: tuple[int, ...]
    train: int
    held_out: int
    passes: int
    stretches: tuple[float, ...] = (0.0,)
    activations: tuple[str, ...] = ("relu",)
    widths: tuple[int | None, ...] = (None,)
    attack: str = ATTACK
    first: tuple[dict[str, Any], ...] = ()


PLAIN = {
    "stretch": 0.0,
    "activation": "relu",
    "width": None,
    "batch_size": 128,
    "schedule": "Cosine",
    "averaging": "null",
    "label_smoothing": 0.1,
    "crop": 0,
    "eps_warmup": 0.0,
    "eps_factor": 1.0,
    "awp_from": 1.0,
}
MNIST = PLAIN | {"optimizer": "Adam"}
EFGSM_MNIST = MNIST | {"method": "EFGSM", "sigma": 0.5, "remember": "gradient", "lr": 1e-3}  # as the recipe efgsm-mnist
NUAT_MNIST = MNIST | {"method": "NuAT", "start": 1.0, "alternate": False, "lam": 4.0, "lr": 1e-3}
TOUGHEN_MNIST = NUAT_MNIST | {  # as the recipe toughen-mnist
    "alternate": True,
    "averaging": "0.998",
    "label_smoothing": 0.0,
    "stretch": 0.3,
    "crop": 1,
}
MUON_MNIST = TOUGHEN_MNIST | {"stretch": 0.4, "optimizer": "Muon", "lr": 0.01}
CIFAR10 = PLAIN | {
    "optimizer": "SGD",
    "schedule": "OneCycle",
    "averaging": "0.998",
    "label_smoothing": 0.0,
    "crop": 4,
    "lr": 0.1,
}
NUAT_CIFAR10 = CIFAR10 | {"method": "NuAT", "start": 0.5, "alternate": True, "lam": 4.0}
EFGSM_CIFAR10 = CIFAR10 | {"method": "EFGSM", "sigma": 0.5, "remember": "gradient"}
NFGSM_CIFAR10 = CIFAR10 | {"method": "NFGSM", "noise": 1.0}
MUON_CIFAR10 = NFGSM_CIFAR10 | {"activation": "silu", "optimizer": "Muon", "lr": 0.04}
LIET_CIFAR10 = CIFAR10 | {"method": "LIET", "lam": 30.0, "label_smoothing": 0.4}
STRIDED = MNIST | {"schedule": "OneCycle", "averaging": "0.998", "label_smoothing": 0.0, "eps_factor": 1.1, "lr": 5e-3}
TASKS = {
    "mnist": Task(
        words="--model efgsm-cnn --normalize false",
        rates={"Adam": (3e-4, 5e-3)},
        eps="0.3",
        crops=(0, 1, 2),
        train=10_000,
        held_out=1000,
        passes=160,
        stretches=(0.0, 0.3),
        first=(
            EFGSM_MNIST,
            EFGSM_MNIST | {"averaging": "0.998"},
            EFGSM_MNIST | {"averaging": "0.998", "eps_factor": 1.1},
            EFGSM_MNIST | {"averaging": "0.998", "crop": 2},
            TOUGHEN_MNIST,
            TOUGHEN_MNIST | {"lam": 8.0},
            TOUGHEN_MNIST | {"eps_factor": 1.1},
            TOUGHEN_MNIST | {"alternate": False},
            TOUGHEN_MNIST | {"label_smoothing": 0.1},
            TOUGHEN_MNIST | {"lr": 2e-3},
            TOUGHEN_MNIST | {"lr": 3e-3, "schedule": "OneCycle"},
            TOUGHEN_MNIST | {"lam": 2.0},
            EFGSM_MNIST | {"averaging": "0.998", "stretch": 0.3},
            NUAT_MNIST,
            EFGSM_MNIST | {"averaging": "0.998", "eps_factor": 1.33},
            NUAT_MNIST | {"averaging": "0.998", "eps_factor": 1.2},
            EFGSM_MNIST | {"averaging": "0.998", "eps_factor": 1.2, "awp_from": 0.5},
        ),
    ),
    "mnist-8-epochs": Task(  # on almost all images, where a gain on 10,000 may be lost
        words="--model efgsm-cnn --normalize false",
        rates={"Adam": (3e-4, 5e-3), "Muon": (0.003, 0.03)},
        eps="0.3",
        crops=(0, 1, 2),
        train=56_000,
        held_out=4000,
        passes=64,
        stretches=(0.3, 0.35, 0.4, 0.45),
        widths=(None, 64),
        attack="apgd-ce",
        first=(
            TOUGHEN_MNIST,
            TOUGHEN_MNIST | {"stretch": 0.4},
            MUON_MNIST,
            MUON_MNIST | {"crop": 0, "lam": 2.0},
            MUON_MNIST | {"width": 64},
            MUON_MNIST | {"eps_factor": 1.1},
            MUON_MNIST | {"lam": 8.0},
            MUON_MNIST | {"stretch": 0.3},
        ),
    ),
    "mnist-strided": Task(  # a net whose passes take a sixth of the time, on almost all images
        words="--model fbf-mnist-cnn --normalize false",
        rates={"Adam": (1e-3, 1e-2)},
        eps="0.3",
        crops=(0, 2),
        train=59_000,
        held_out=1000,
        passes=80,
        first=(
            STRIDED | {"method": "PGI", "step_size": 1.0, "lam": 4.0},
            STRIDED | {"method": "EFGSM", "sigma": 1.0, "remember": "gradient", "label_smoothing": 0.1},
            STRIDED | {"method": "NuAT", "start": 1.0, "alternate": False, "lam": 4.0},
            STRIDED | {"method": "PGI", "step_size": 1.0, "lam": 4.0, "eps_factor": 1.2},
        ),
    ),
    "cifar10": Task(
        words="--model resnet18 --model_settings.width 16 --flip true",
        rates={"SGD": (0.01, 0.2), "Muon": (0.005, 0.1)},
        eps="8/255",
        crops=(0, 4),
        train=20_000,
        held_out=1000,
        passes=72,
        activations=("relu", "silu"),
        first=(
            NUAT_CIFAR10,
            NFGSM_CIFAR10,
            NUAT_CIFAR10 | {"label_smoothing": 0.2},
            EFGSM_CIFAR10,
            NUAT_CIFAR10 | {"activation": "silu"},
            NFGSM_CIFAR10 | {"activation": "silu"},
            NUAT_CIFAR10 | {"alternate": False},
            CIFAR10 | {"method": "GAT", "start": 0.5, "alternate": True, "lam": 10.0},
            NUAT_CIFAR10 | {"batch_size": 64},
            LIET_CIFAR10,
            MUON_CIFAR10,
            MUON_CIFAR10 | {"label_smoothing": 0.2},
            NUAT_CIFAR10 | {"activation": "silu", "optimizer": "Muon", "lr": 0.02, "batch_size": 64},
            CIFAR10 | {"method": "PGI", "step_size": 1.25, "lam": 10.0},
        ),
    ),
}
PARTS: dict[str, dict[str, Any]] = {  # of a recipe -> the settings that leave it out
    "contrast stretching": {"stretch": 0.0},
    "greater width": {"width": None},
    "smooth activation": {"activation": "relu"},
    "Muon": {"optimizer": "SGD", "lr": 0.1},
    "wide start": {"start": 0.5},
    "averaged weights": {"averaging": "null"},
    "label smoothing": {"label_smoothing": 0.0},
    "shifts": {"crop": 0},
    "warm-up of eps": {"eps_warmup": 0.0},
    "larger eps in training": {"eps_factor": 1.0},
    "perturbed weights": {"awp_from": 1.0},
    "regulariser in every batch": {"alternate": True},
    "regulariser": {"lam": 0.0},
}


def suggest(trial: optuna.trial.BaseTrial, task: Task) -> dict[str, Any]:
    """The settings of a trial.

    Args:
        trial: chooses them.
        task: gives the learning rates, contrast stretchings, shifts and widths to choose from.
    """
    found: dict[str, Any] = {"method": trial.suggest_categorical("method", list(PASSES))}
    if found["method"] == "PGI":
        found["step_size"] = trial.suggest_categorical("step_size", [0.5, 1.0, 1.25])
        found["lam"] = trial.suggest_float("lam of PGI", 1, 32, log=True)
    elif found["method"] == "EFGSM":
        found["sigma"] = trial.suggest_categorical("sigma", [0.25, 0.5, 1.0])
        found["remember"] = trial.suggest_categorical("remember", ["gradient", "perturbation"])
    elif found["method"] == "NFGSM":
        found["noise"] = trial.suggest_categorical("noise", [1.0, 2.0])
    elif found["method"] == "LIET":
        found["lam"] = trial.suggest_float("lam of LIET", 3, 100, log=True)
    else:
        found["start"] = trial.suggest_categorical("start", [0.5, 1.0])
        found["alternate"] = trial.suggest_categorical("alternate", [False, True])
        found["lam"] = trial.suggest_float(f"lam of {found['method']}", 1, 32, log=True)
    name = found["optimizer"] = trial.suggest_categorical("optimizer", list(task.rates))
    found["lr"] = trial.suggest_float(f"lr of {name}", *task.rates[name], log=True)
    return found | {
        "stretch": trial.suggest_categorical("stretch", task.stretches),
        "activation": trial.suggest_categorical("activation", task.activations),
        "width": trial.suggest_categorical("width", task.widths),
        "batch_size": trial.suggest_categorical("batch_size", [64, 128]),
        "schedule": trial.suggest_categorical("schedule", ["Cosine", "OneCycle"]),
        "averaging": trial.suggest_categorical("averaging", ["null", "0.99", "0.998", "0.9995"]),
        "label_smoothing": trial.suggest_categorical("label_smoothing", [0.0, 0.1, 0.2, 0.4, 0.6]),
        "crop": trial.suggest_categorical("crop", task.crops),
        "eps_warmup": trial.suggest_categorical("eps_warmup", [0.0, 0.3]),
        "eps_factor": trial.suggest_categorical("eps_factor", [1.0, 1.1, 1.2, 1.33]),
        "awp_from": trial.suggest_categorical("awp_from", [0.5, 1.0]),  # share of the run before AWP; 1: without
    }


def words(task: Task, settings: Mapping[str, Any]) -> list[str]:
    """The options of `toughen train`, except data, seed and output."""
    method, eps = settings["method"], radius(task) * settings["eps_factor"]
    given = f"{task.words} --eps {task.eps} --eps_factor {settings['eps_factor']}".split()
    node = "method.inner" if settings["awp_from"] < 1 else "method"
    if node == "method.inner":
        given += ["--method", "AWP", "--method.gamma", str(AWP_GAMMA), "--method.begin_at", str(settings["awp_from"])]
    given += [f"--{node}", method]
    if method == "EFGSM":
        given += [f"--{node}.classes", "1", f"--{node}.remember", settings["remember"]]
    if "lam" in settings:
        given += [f"--{node}.lam", f"{settings['lam']:.4g}"]
    for name, option in (
        ("start", "start_size"), ("noise", "start_size"), ("step_size", "step_size"), ("sigma", "sigma"),
    ):  # fmt: skip
        if name in settings:
            given += [f"--{node}.{option}", f"{settings[name] * eps:.9g}"]
    if settings["stretch"]:
        given += ["--model_settings.stretch", str(settings["stretch"])]
    if settings["width"] is not None:
        given += ["--model_settings.width", str(settings["width"])]
    if settings["activation"] != "relu":
        given += ["--model_settings.activation", settings["activation"]]
    if "alternate" in settings:
        given += [f"--{node}.alternate", str(settings["alternate"]).lower()]
    before, share = settings["awp_from"], 1 - settings["awp_from"]
    epochs = max(1, round(task.passes / (before * PASSES[method] + share * WITH_AWP[method])))
    given += f"--epochs {epochs} --validation_every {max(1, epochs // 4)} --validation 500".split()
    given += OPTIMIZERS[settings["optimizer"]].split()
    given += f"--optimizer.lr {settings['lr']:.4g} --schedule {settings['schedule']}".split()
    smoothing = f"{node}.smoothing" if method in SMOOTHED else "label_smoothing"
    given += [f"--{smoothing}", str(settings["label_smoothing"])]
    for name in ("batch_size", "averaging", "eps_warmup", "crop"):
        given += [f"--{name}", str(settings[name])]
    return given


def whole(task: Task, settings: Mapping[str, Any]) -> dict[str, Any]:
    """Settings with what earlier trials did not name."""
    return PLAIN | {"optimizer": next(iter(task.rates))} | dict(settings)


def radius(task: Task) -> float:
    """The radius of a task as a number."""
    above, _, below = task.eps.partition("/")
    return float(above) / float(below or 1)


def make_data(task: Task, source: Path, out: Path) -> Path:
    """A data set whose test images are held-out training images.

    Args:
        task: gives the sizes.
        source: a folder of parquet shards, train-*.parquet.
        out: where the folder `data` goes.
    """
    folder = out / "data"
    if (folder / "test-0.parquet").exists():
        return folder
    table = pa.concat_tables(pq.read_table(path) for path in sorted(source.glob("train-*.parquet")))
    labels = torch.tensor(table["label"].to_pylist())
    rows = stratified(labels, task.train + task.held_out, seed=0)
    held_out = stratified(labels[rows], task.held_out, seed=1)
    mask = torch.ones(len(rows), dtype=torch.bool)
    mask[held_out] = False
    folder.mkdir(parents=True, exist_ok=True)
    pq.write_table(table.take(rows[mask].tolist()), folder / "train-0.parquet")
    pq.write_table(table.take(rows[held_out].tolist()), folder / "test-0.parquet")
    return folder


def measure(
    task: Task, settings: Mapping[str, Any], data: Path, folder: Path, time_limit: TimeLimit, seed: int = 0
) -> dict[str, Any]:
    """Train and attack; both are resumed if they were stopped.

    Raises:
        OutOfTime: the time is up.
    """
    given = words(task, settings)
    time_limit.toughen("train", *given, "--seed", str(seed), "--data", str(data), "--out", str(folder), "--resume")
    asked = f"--data {data} --eps {task.eps} --attacks {task.attack} --verdict false --details false".split()
    time_limit.toughen("evaluate", str(folder), *asked)
    return {"settings": dict(settings), "words": " ".join(given), "seed": seed, **outcome(folder)}


def search(task: Task, data: Path, out: Path, file: Path, trials: int, time_limit: TimeLimit) -> None:
    """Run trials until their number is reached, or the time limit."""
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    storage = JournalStorage(JournalFileBackend(str(out / "study.log")))
    study = optuna.create_study(study_name="search", storage=storage, direction="maximize", load_if_exists=True)
    if not study.trials:
        log = logged(file)
        done = sorted([*log["trials"], *log.get("failed", [])], key=lambda line: int(line["trial"]))
        for line in done:
            study.add_trial(restored(task, line))
        for settings in task.first:
            if settings not in [whole(task, line["settings"]) for line in done]:
                study.enqueue_trial(parameters(task, settings))
    # one seed would draw the same after each stop
    study.sampler = optuna.samplers.TPESampler(seed=len(study.trials), n_startup_trials=len(task.first))
    failures = 0
    with until_out_of_time():
        while len(complete(study)) < trials:
            begun = [each for each in study.trials if each.state == TrialState.RUNNING]
            trial = optuna.trial.Trial(study, begun[0]._trial_id) if begun else study.ask()
            settings = suggest(trial, task)
            try:
                line = measure(task, settings, data, out / f"trial-{trial.number}", time_limit)
            except subprocess.CalledProcessError as error:
                failures += 1
                trial.set_user_attr("line", {"settings": settings, "status": error.returncode})
                study.tell(trial, state=TrialState.FAIL)
                text = f"failed with status {error.returncode}: {settings}"
            else:
                failures = 0
                trial.set_user_attr("line", line)
                study.tell(trial, line["robust"])
                text = f"{100 * line['robust']:.1f} % of {line['words']}"
            write_json(file, logged(file) | {"trials": complete(study), "failed": ended(study, TrialState.FAIL)})
            print(f"{trial.number}: {text}", flush=True)
            if failures == FAILURES:
                sys.exit(f"{failures} trials in a row failed")


def parameters(task: Task, settings: Mapping[str, Any]) -> dict[str, Any]:
    """The parameters, by Optuna's names, that lead to a trial's settings."""
    return fixed(task, settings).params


def fixed(task: Task, settings: Mapping[str, Any]) -> optuna.trial.FixedTrial:
    """Settings as a trial that suggests them."""
    given = whole(task, settings)
    named = {f"lam of {given['method']}": given.get("lam"), f"lr of {given['optimizer']}": given["lr"]}
    trial = optuna.trial.FixedTrial(named | given)
    suggest(trial, task)
    return trial


def restored(task: Task, line: Mapping[str, Any]) -> optuna.trial.FrozenTrial:
    """A trial of the log as one that Optuna has run."""
    trial = fixed(task, line["settings"])
    kept = {name: value for name, value in line.items() if name != "trial"}
    return optuna.trial.create_trial(
        state=TrialState.COMPLETE if "robust" in line else TrialState.FAIL,
        params=trial.params, distributions=trial.distributions, value=line.get("robust"), user_attrs={"line": kept},
    )  # fmt: skip


def complete(study: optuna.Study) -> list[dict[str, Any]]:
    """The trials that are done, best first."""
    return sorted(ended(study, TrialState.COMPLETE), key=lambda line: -float(line["robust"]))


def ended(study: optuna.Study, state: TrialState) -> list[dict[str, Any]]:
    """The trials that ended in this state, as lines of the log."""
    return [{"trial": each.number, **each.user_attrs["line"]} for each in study.trials if each.state == state]


def ablate(task: Task, data: Path, out: Path, file: Path, time_limit: TimeLimit) -> None:
    """The best trial with three seeds, and without each of its parts."""
    best = whole(task, logged(file)["trials"][0]["settings"])
    variants = {"all parts": best}
    for part, without in PARTS.items():
        name = next(iter(without))
        if name in best and best[name] != without[name] and (part != "Muon" or best[name] == "Muon"):
            variants[f"without {part}"] = best | without
    with until_out_of_time():
        for seed, (name, settings) in itertools.product(SEEDS, variants.items()):
            done = logged(file)
            lines = done["ablation"].setdefault(name, [])
            if not same(task, lines, settings, seed):
                folder = out / f"{name.replace(' ', '-')}-{seed}"
                trial = same(task, done["trials"], settings, seed)
                lines.append(trial or measure(task, settings, data, folder, time_limit, seed))
                write_json(file, done)
    for name, lines in logged(file)["ablation"].items():
        print(name, *(f"{100 * line['robust']:.1f}" for line in lines))


def same(task: Task, lines: Sequence[dict[str, Any]], settings: Mapping[str, Any], seed: int) -> dict[str, Any] | None:
    """The line of a run with these settings and this seed; None if there is none."""
    return next((line for line in lines if line["seed"] == seed and whole(task, line["settings"]) == settings), None)


def logged(file: Path) -> dict[str, Any]:
    """The trials in the log."""
    return read_json(file) if file.exists() else {"trials": [], "ablation": {}}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--task", choices=list(TASKS), required=True)
    parser.add_argument("--data", type=Path, required=True, help="a folder of parquet shards")
    parser.add_argument("--out", type=Path, help="where the runs go (default: runs/search-TASK)")
    parser.add_argument("--write", type=Path, help="the log (default: benchmarks/results/search-TASK.json)")
    parser.add_argument("--trials", type=int, default=100)
    parser.add_argument("--minutes", type=float, help="end within this time; what is under way is gone on with")
    parser.add_argument("--ablate", action="store_true", help="leave out each part of the best trial")
    known = parser.parse_args()
    task, time_limit = TASKS[known.task], TimeLimit(known.minutes)
    out = known.out or Path("runs") / f"search-{known.task}"
    file = known.write or Path(__file__).parent / "results" / f"search-{known.task}.json"
    out.mkdir(parents=True, exist_ok=True)
    data = make_data(task, known.data, out)
    if known.ablate:
        ablate(task, data, out, file, time_limit)
    else:
        search(task, data, out, file, known.trials, time_limit)


if __name__ == "__main__":
    main()
