"""Writes docs/performance.md out of the files in benchmarks/results.

python benchmarks/performance.py
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import official

from toughen.files import read_json, write_text

RESULTS = Path(__file__).parent / "results"
PAGE = Path(__file__).parent.parent / "docs" / "performance.md"
HEAD = """# Performance

What a step and an evaluation cost, measured; made by `python benchmarks/performance.py` out of `benchmarks/results/`,
so that no figure here is typed by hand. Every ratio is of runs that took turns in one session; brackets hold the
lowest and the highest round.

"""
STEPS = """A unit is one plain training step (forward, backward with weight gradients, SGD) in float32, of the same net
on the same 64 images, in the same round. "Released" is the step as the method's public script makes it, in plain
float32 (`benchmarks/official.py`; PAP and R-MGM have no public code, theirs follow the papers). "Of its passes" is the
step's time over that of the bare passes it consists of, in the same precision and layout.

"""


def steps(model: str, rows: dict[str, Any]) -> str:
    """One net's table."""
    precisions = sorted({name.split()[1] for row in rows.values() for name in row["times"] if name.startswith("tough")})
    columns = [f"{precision}: units | of its passes | x released | peak MB" for precision in precisions]
    lines = [
        f"## A training step: {model}\n",
        STEPS + "| method | released: units | scripts measured elsewhere | " + " | ".join(columns) + " |",
        "|" + "---|" * (3 + 4 * len(precisions)),
    ]
    for method, row in rows.items():
        times = row["times"]
        cells = [units(times.get("released")), f"{official.PUBLISHED.get(method, '')}"]
        for precision in precisions:
            line = times[f"toughen {precision}"]
            faster = line.get("times_as_fast_as_released")
            cells += [
                units(line),
                f"{line['over_limit']:.2f}",
                f"{faster[0]:.2f} [{faster[1]:.2f}, {faster[2]:.2f}]" if faster else "",
                f"{row['peak_bytes'][precision] / 1e6:.0f}",
            ]
        lines.append(f"| {method} | " + " | ".join(cells) + " |")
    first = next(iter(rows.values()))
    unit = sorted(1000 * row["times"]["unit"]["seconds"] for row in rows.values())
    shares = [row["times"][f"toughen {each}"]["data_share"] for row in rows.values() for each in precisions]
    lines.append(
        f"\nThe unit took {unit[0]:.0f} to {unit[-1]:.0f} ms. Loading and augmenting a batch took at most "
        f"{100 * max(shares):.1f} % of a step. {about(first['about'])}\n"
    )
    return "\n".join(lines)


def units(line: dict[str, float] | None) -> str:
    return f"{line['units']:.2f} [{line['units_lowest']:.2f}, {line['units_highest']:.2f}]" if line else ""


def about(found: dict[str, Any]) -> str:
    """Where it was measured."""
    return f"{found['processor']}, torch {found['torch']}, commit {found['commit']}, {found['rounds']} rounds."


def main() -> None:
    page = HEAD
    for model, rows in read_json(RESULTS / "step.json").items():
        page += steps(model, rows) + "\n"
    page += "AutoAttack against the reference: [evaluation.md](evaluation.md#against-the-reference).\n"
    write_text(PAGE, page)


if __name__ == "__main__":
    main()
