"""Write a run directory's settings and figures into one JSON file of results/.

python benchmarks/record.py RUN results/NAME.json
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

import yaml

from toughen.runs.files import read_json, write_json


def record(folder: Path) -> dict[str, Any]:
    """Settings, provenance, each epoch's figures, and the evaluation if there is one."""
    lines = (folder / "metrics.jsonl").read_text(encoding="utf-8").splitlines()
    epochs = [json.loads(line) for line in lines]
    evaluation = folder / "evaluation.json"
    config = yaml.safe_load((folder / "config.yaml").read_text(encoding="utf-8"))
    config["data"] = Path(config["data"]).name  # without the path on this machine
    found: dict[str, Any] = {
        "config": config,
        "provenance": read_json(folder / "provenance.json"),
        "seconds": round(sum(epoch["seconds"] for epoch in epochs), 1),
        "epochs": epochs,
    }
    if evaluation.exists():
        found["evaluation"] = read_json(evaluation)
        for place in ("model", "data"):
            found["evaluation"][place] = Path(found["evaluation"][place]).name
    return found


def outcome(folder: Path) -> dict[str, Any]:
    """Accuracies of an evaluated run, clean and under attack, and its seconds of training."""
    found = read_json(folder / "evaluation.json")
    lines = (folder / "metrics.jsonl").read_text(encoding="utf-8").splitlines()
    return {
        "clean": found["clean_accuracy"],
        "robust": found["robust_accuracy"],
        "seconds": round(sum(json.loads(line)["seconds"] for line in lines), 1),
        "provenance": read_json(folder / "provenance.json"),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", type=Path)
    parser.add_argument("file", type=Path)
    known = parser.parse_args()
    known.file.parent.mkdir(parents=True, exist_ok=True)
    write_json(known.file, record(known.run))


if __name__ == "__main__":
    main()
