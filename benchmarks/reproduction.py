"""Write docs/results/reproduction.md from results/reproduction, the kept results of `toughen reproduce`.

python benchmarks/reproduction.py
python benchmarks/reproduction.py --add runs/reproduce   # first copies a folder's figures, without weights
"""

from __future__ import annotations

import argparse
import shutil
from pathlib import Path

from toughen.papers.markdown import SHOWN, page
from toughen.papers.store import ABOUT, CELLS, TRAINED, record_of
from toughen.runs.files import write_text

ROOT = Path(__file__).parent.parent
RESULTS, PAGE = ROOT / "results" / "reproduction", ROOT / "docs" / "results" / "reproduction.md"


def add(folder: Path, results: Path) -> int:
    """Copy the figures of a folder that `toughen reproduce` wrote, and return their number.

    Those of a model that was trained anew replace all that were measured of the former one.

    Raises:
        ValueError: a model has figures and no record of its training.
    """
    count = 0
    for scale in SHOWN:
        for cells in sorted((folder / scale).glob(f"*/{CELLS}")):
            model, place = cells.parent, results / cells.parent.relative_to(folder)
            record = record_of(model / TRAINED)
            if not record:
                raise ValueError(f"{model / TRAINED} is missing or damaged, so its figures are of no known training")
            if record != record_of(place / TRAINED):
                shutil.rmtree(place, ignore_errors=True)
            (place / CELLS).mkdir(parents=True, exist_ok=True)
            for file in (model / ABOUT, model / TRAINED, *cells.glob("*.json")):
                if file.is_file():
                    shutil.copy(file, place / file.relative_to(model))
                    count += file.parent == cells
    return count


def main() -> None:
    parser = argparse.ArgumentParser(description="Write docs/results/reproduction.md.")
    parser.add_argument(
        "--add", type=Path, help="an --out folder of `toughen reproduce` whose figures are copied first"
    )
    parser.add_argument("--results", type=Path, default=RESULTS, help="where figures are kept")
    parser.add_argument("--page", type=Path, default=PAGE, help="the page to write")
    given = parser.parse_args()
    if given.add:
        if not any(given.add.glob(f"*/*/{CELLS}/*.json")):
            parser.error(f"{given.add} holds no figures that `toughen reproduce` wrote")
        try:
            print(f"{add(given.add, given.results)} figures taken over from {given.add}")
        except ValueError as error:
            parser.error(str(error))
    if not any(given.results.glob(f"*/*/{CELLS}/*.json")):
        parser.error(f"{given.results} holds no figures, so the page would have none")
    write_text(given.page, page(given.results))


if __name__ == "__main__":
    main()
