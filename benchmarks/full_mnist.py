"""AutoAttack on the papers' MNIST nets at the papers' lengths, beside each paper's strongest attack.

python benchmarks/full_mnist.py --data DIR [--rows NAME ...] [--minutes 30]

Each row trains the net of one paper as its recipe says, with seed 0, and attacks it on 1,000 test images, a balanced
sample, with the strongest attack that the paper prints for MNIST and with AutoAttack's standard version. What is done
is not done again; a stopped run goes on.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, NamedTuple

from record import record
from time_limit import TimeLimit, chosen_rows, finished, until_out_of_time

from toughen.runs.files import read_json, write_json

EPS, IMAGES = "0.3", 1000
PRINTED_FORM = '{"class_path":"EFGSM","init_args":{"classes":1,"remember":"gradient"}}'


class Row(NamedTuple):
    """One net: what follows ``toughen train``, the paper's strongest attack, and what the paper prints (percent)."""

    words: str
    attack: str
    clean: float
    robust: float


ROWS = {
    "PAP": Row("pap-mnist", "pgd-100@0.01", 99.29, 94.04),
    "eFGSM, AdvTrain": Row(
        "efgsm-mnist --method EFGSM --method.classes 1 --method.remember gradient", "pgd-adp", 99.02, 90.05
    ),
    "eFGSM, Combined": Row(f"efgsm-mnist --method.inner {PRINTED_FORM}", "pgd-adp", 99.01, 92.37),
    "PAP without dropout": Row("pap-mnist --model_settings.dropout 0.0", "pgd-100@0.01", 99.29, 94.04),
    "R-MGM": Row("rmgm-mnist", "pgd-100@0.01", 98.74, 87.74),
    "NuAT": Row("nuat-mnist", "pgd-500@0.01", 99.37, 96.24),
}


def run(name: str, row: Row, data: str, out: Path, time_limit: TimeLimit) -> None:
    """Train and attack one row; both are resumed if they were stopped."""
    if not finished(out):
        time_limit.toughen("train", *row.words.split(), "--seed", "0", "--data", data, "--out", str(out), "--resume")
    given = ["--data", data, "--eps", EPS, "--limit", str(IMAGES), "--verdict", "false", "--details", "false"]
    time_limit.toughen("evaluate", str(out), *given, "--attacks", row.attack, "autoattack")


def table(rows: dict[str, Any]) -> str:
    """The rows in Markdown, in percent."""
    lines = [
        "| net | clean (published) | paper's strongest attack | (published) | AutoAttack |",
        "|---|---|---|---|---|",
    ]
    for name, values in rows.items():
        row, found = ROWS[name], values["evaluation"]
        ours, auto = (100 * found["attacks"][key]["robust_accuracy"] for key in (row.attack, "autoattack"))
        clean = 100 * found["clean_accuracy"]
        lines.append(f"| {name} | {clean:.1f} ({row.clean}) | {row.attack}: {ours:.1f} | {row.robust} | {auto:.1f} |")
    return "\n".join(lines)


def main() -> None:
    known = chosen_rows(__doc__, list(ROWS), "full-mnist")
    time_limit = TimeLimit(known.minutes)
    rows = read_json(known.write) if known.write.exists() else {}
    with until_out_of_time():
        for name in known.rows:
            if name not in rows:
                out = known.out / name.lower().replace(", ", "-").replace(" ", "-")
                run(name, ROWS[name], known.data, out, time_limit)
                rows = (read_json(known.write) if known.write.exists() else {}) | {name: record(out)}
                write_json(known.write, {each: rows[each] for each in ROWS if each in rows})
    print(table(rows))


if __name__ == "__main__":
    main()
