"""Run directories written by hand, so that a report's figures are known without any training."""

from __future__ import annotations

import base64
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

PNG = base64.b64decode(  # one grey pixel
    "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAAAAAA6fptVAAAACklEQVR4nGNoAAAAggCBd81ytgAAAABJRU5ErkJggg=="
)
CONFIG = (
    "data: digits\nmodel: small-cnn\nmethod:\n  class_path: toughen.methods.FBF\nepochs: 3\nwatch: rescue\nseed: 7\n"
)


def evaluation(robust: float = 0.5, **others: Any) -> dict[str, Any]:
    """What evaluation.json holds: 200 images, 90 % right, FGSM and PGD."""
    made = {
        "clean_accuracy": 0.9,
        "robust_accuracy": robust,
        "attacks": {
            "fgsm": {"robust_accuracy": min(0.9, robust + 0.1), "seconds": 0.5, "passes": 400},
            "pgd-20": {"robust_accuracy": robust, "seconds": 10.0, "passes": 8000},
        },
        "images": 200,
        "threat": {"norm": "linf", "eps": 0.3},
        "data": "digits",
        "verdict": "doubtful",
        "checks": [
            {"name": "more steps change little", "passed": True, "sentence": "PGD-200 breaks no more."},
            {"name": "accuracy falls with eps", "passed": False, "sentence": "It rises from 10.0 % to 20.0 %."},
            {"name": "white-box beats black-box", "passed": None, "sentence": "Not made: there is no source."},
        ],
    }
    return made | others


def epoch(number: int, **others: Any) -> dict[str, Any]:
    """A line of metrics.jsonl: 8 passes and 30 seconds."""
    made = {
        "epoch": number, "step": 10 * number + 10, "method": "FBF", "lr": 0.1,
        "loss": 2.0 - 0.5 * number, "accuracy": 0.5,
        "terms": {"robust": 1.0}, "passes": 8.0, "gamma": 1.0, "seconds": 30.0, "images_per_second": 100.0,
        "validation": {"clean": 0.8, "fgsm": 0.6, "pgd": 0.4}, "kept": True, "events": [],
    }  # fmt: skip
    return made | others


def diagnostics(size: int = 3) -> dict[str, Any]:
    """What diagnostics.json holds."""
    about = {"images": 100, "data": "digits", "threat": {"norm": "linf", "eps": 0.3}}
    attack = {"attack": "PGD", "steps": 20}
    matrix = [[8 if i == j else 1 for j in range(size)] for i in range(size)]
    axis = [-0.3, 0.0, 0.3]
    return {
        "eps": {"eps": [0.0, 0.15, 0.3], "accuracy": [0.9, 0.7, 0.5], "attack": attack, "about": about},
        "steps": {"steps": [1, 10, 20], "accuracy": [0.6, 0.52, 0.5], "attack": attack, "about": about},
        "surface": {"along": axis, "across": axis, "mean": [[0.5, 0.4, 0.5]] * 3, "about": about},
        "confusion": {"clean": {"matrix": matrix}, "attacked": {"matrix": matrix}, "attack": attack, "about": about},
    }


def write_run(
    folder: Path,
    *,
    robust: float = 0.5,
    epochs: int = 3,
    classes: Sequence[str] = ("cat", "dog", "owl"),
    pictures: bool = True,
) -> Path:
    """A run directory with all files that a report reads."""
    folder.mkdir(parents=True)
    (folder / "config.yaml").write_text(CONFIG)
    (folder / "metrics.jsonl").write_text("".join(json.dumps(epoch(number)) + "\n" for number in range(epochs)))
    record = {
        "model": {"name": "small-cnn", "settings": {}}, "classes": list(classes), "shape": [1, 28, 28], "norm": "linf",
        "eps": 0.3, "method": "FBF", "data": "digits", "weights": "live", "epoch": 2, "validation": {},
    }  # fmt: skip
    (folder / "model.json").write_text(json.dumps(record))
    (folder / "model.safetensors").write_bytes(b"")
    (folder / "evaluation.json").write_text(json.dumps(evaluation(robust)))
    (folder / "provenance.json").write_text(json.dumps({"commit": "0123456789ab", "processor": "a processor, 2 cores"}))
    if pictures:
        (folder / "diagnostics.json").write_text(json.dumps(diagnostics(len(classes))))
        write_tables(folder, classes)
    return folder


def write_tables(folder: Path, classes: Sequence[str]) -> None:
    """A ledger of two images a class, both right, the second one broken; and a gallery of one image."""
    labels = [label for label in range(len(classes)) for _ in range(2)]
    broken = ["pgd-20" if place % 2 else None for place in range(len(labels))]
    ledger = {"label": labels, "prediction": labels, "broken_by": pa.array(broken, pa.string())}
    pq.write_table(pa.table(ledger), folder / "examples.parquet")
    row = {"index": 5, "label_name": classes[0], "prediction_name": classes[0], "attacked_prediction_name": classes[-1],
           "outcome": "broken", "attack": "pgd-20", "distance": 0.3, "gain": 1.7, "image": PNG, "attacked": PNG,
           "difference": PNG}  # fmt: skip
    pq.write_table(pa.Table.from_pylist([row]), folder / "gallery.parquet")
