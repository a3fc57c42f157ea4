"""Writes docs/reproduction.md out of results/reproduction, where what `toughen reproduce` measured is kept.

python benchmarks/reproduction.py
python benchmarks/reproduction.py --add runs/reproduce   # first takes over a folder's figures (not its runs' weights)
"""

from __future__ import annotations

import argparse
import shutil
from pathlib import Path

from toughen.files import write_json, write_text
from toughen.reproduction.measure import training_record
from toughen.reproduction.page import SHOWN, page
from toughen.reproduction.store import ABOUT, CELLS, RUN, TRAINED

ROOT = Path(__file__).parent.parent
RESULTS, PAGE = ROOT / "results" / "reproduction", ROOT / "docs" / "reproduction.md"


def add(folder: Path, results: Path) -> int:
    """Copy the figures of a folder that `toughen reproduce` wrote; how many there were."""
    count = 0
    for scale in SHOWN:
        for cell in sorted((folder / scale).glob(f"*/{CELLS}/*.json")):
            place = results / cell.relative_to(folder)
            place.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(cell, place)
            shutil.copy(cell.parent.parent / ABOUT, place.parent.parent)
            if (cell.parent.parent / TRAINED).is_file():
                write_json(place.parent.parent / TRAINED, training_record(cell.parent.parent / RUN))
            count += 1
    return count


def main() -> None:
    parser = argparse.ArgumentParser(description="Write docs/reproduction.md.")
    parser.add_argument("--add", type=Path, help="an --out of `toughen reproduce` whose figures are taken over first")
    parser.add_argument("--results", type=Path, default=RESULTS, help="where figures are kept")
    parser.add_argument("--page", type=Path, default=PAGE, help="the page to write")
    given = parser.parse_args()
    if given.add:
        print(f"{add(given.add, given.results)} figures taken over from {given.add}")
    write_text(given.page, page(given.results))


if __name__ == "__main__":
    main()
