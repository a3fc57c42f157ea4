"""Draws docs/images/methods.svg, accuracy under attack against the cost of training, from committed results.

python tools/method_picture.py
"""

from __future__ import annotations

from pathlib import Path

import matplotlib

matplotlib.use("svg")
matplotlib.rcParams["svg.hashsalt"] = "toughen"  # the same bytes each time
matplotlib.rcParams["svg.fonttype"] = "none"  # text stays text

from matplotlib import pyplot as plt  # noqa: E402

from toughen.runs.files import read_json  # noqa: E402

ROOT = Path(__file__).parent.parent
OUT = ROOT / "docs" / "images" / "methods.svg"
SHOWN = 60.0  # percent: below lie those that collapsed
NAMED = {"GAT": "", "NuAT": "", "NuAT-H": "GAT, NuAT, NuAT-H", "AT-AWP": "", "TRADES": "AT-AWP, TRADES"}  # as they lie
BESIDE = {"NuAT-H": (6, -3), "PAP naive": (4, -11), "TRADES": (2, -12), "PGD-AT": (-14, 7), "eFGSM + REC": (-34, 7)}


def points(rows: dict[str, dict[str, float]]) -> dict[str, tuple[float, float]]:
    """Passes of a training step, and percent under PGD-100, of those that held."""
    found = {}
    for name, row in rows.items():
        if 100 * row["pgd_100"] >= SHOWN:
            found[name] = (row["passes"], 100 * row["pgd_100"])
    return found


def draw(out: Path) -> None:
    """Draw the picture."""
    rows = read_json(ROOT / "benchmarks" / "results" / "methods-mnist.json")["rows"]
    figure, axes = plt.subplots(figsize=(7, 4))
    for name, (passes, robust) in points(rows).items():
        axes.scatter(passes, robust, s=24, color="#3f51b5")
        axes.annotate(
            NAMED.get(name, name), (passes, robust), BESIDE.get(name, (5, 3)), textcoords="offset points", fontsize=8
        )
    axes.set_xscale("log")
    axes.set_xticks([5, 10, 20, 40], ["5", "10", "20", "40"])
    axes.set_xticks([], minor=True)
    axes.set_ylim(65, 95)
    axes.set_xlabel("passes of a training step (plain training: 3)")
    axes.set_ylabel("accuracy under PGD-100, %")
    axes.spines[["top", "right"]].set_visible(False)
    figure.tight_layout()
    figure.savefig(out, metadata={"Date": None, "Creator": None})


def main() -> None:
    draw(OUT)


if __name__ == "__main__":
    main()
