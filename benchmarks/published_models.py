"""Published nets of known robustness, beside toughen's figures.

python benchmarks/published_models.py --models DIR --mnist DIR [--limit N] [--minutes 30]

DIR holds the files of weights, under the names below. They are opened as weights alone. Each net is attacked with PGD
and with AutoAttack's standard version, on all test images unless --limit is given. What is done is not done again, and
a stopped evaluation goes on.
"""

from __future__ import annotations

import argparse
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from time_limit import TimeLimit, until_out_of_time

from toughen.runs.files import read_json, sha256, write_json

ATTACKS = ("pgd-100x5", "autoattack")


@dataclass(frozen=True)
class Published:
    """A net and what is known of it.

    Attributes:
        file: its weights.
        source: where they are from, with the licence.
        net: what `toughen evaluate` is told.
        eps: radius of the L-inf ball.
        clean, pgd: published accuracies in percent.
        exact: share of images that no perturbation breaks, in percent; None where it is not known.
    """

    file: str
    source: str
    net: str
    eps: str
    clean: float
    pgd: float
    exact: float | None = None


MODELS = {
    "WK17a": Published(
        "wk17a.pth",
        "vtjeng/MIPVerify_data, weights/mnist/WK17a/linf0.1/master_seed_1_epochs_100.pth, MIT",
        "fbf-mnist-cnn",
        "0.1",
        clean=98.11,
        pgd=95.89,
        exact=95.62,
    ),
}


def table(rows: dict[str, Any]) -> str:
    """The rows in Markdown, in percent."""
    lines = [
        "| net | images | clean (published) | PGD-100x5 (published PGD) | AutoAttack | exact |",
        "|---|---|---|---|---|---|",
    ]
    for name, found in rows.items():
        net = MODELS[name]
        pgd, auto = (100 * found["attacks"][attack]["robust_accuracy"] for attack in ATTACKS)
        exact = "" if net.exact is None else f"{net.exact:.2f}"
        clean = 100 * found["clean_accuracy"]
        lines.append(
            f"| {name} | {found['images']:,} | {clean:.2f} ({net.clean:.2f}) | {pgd:.2f} ({net.pgd:.2f}) | {auto:.2f} "
            f"| {exact} |"
        )
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--models", type=Path, required=True, help="the folder with the files of weights")
    parser.add_argument("--mnist", required=True, help="MNIST, a folder or a name of the hub")
    parser.add_argument("--limit", type=int, help="attack a balanced sample of so many images")
    parser.add_argument("--out", type=Path, default=Path("runs/published"))
    parser.add_argument("--write", type=Path, default=Path(__file__).parent / "results" / "published-models.json")
    parser.add_argument("--minutes", type=float, help="end within this time; what is under way is gone on with")
    known = parser.parse_args()
    time_limit, rows = TimeLimit(known.minutes), read_json(known.write) if known.write.exists() else {}
    with until_out_of_time():
        for name, net in MODELS.items():
            file = known.models / net.file
            if name in rows or not file.exists():
                continue
            out = known.out / name
            given = ["--weights", str(file), "--data", known.mnist, "--eps", net.eps, "--out", str(out)]
            given += ["--limit", str(known.limit)] if known.limit else []
            if not (out / "evaluation.json").exists():
                time_limit.toughen(
                    "evaluate", net.net, *given, "--attacks", *ATTACKS, "--verdict", "false", "--details", "false"
                )
            found = read_json(out / "evaluation.json")
            found |= {"data": "mnist", "weights": net.file, "sha256": sha256(file), "source": net.source}
            rows[name] = found
            write_json(known.write, rows)
    print(table(rows))


if __name__ == "__main__":
    main()
