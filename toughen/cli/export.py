"""`toughen export`: a run's classifier as a file that other programs read."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Literal

from rich.console import Console

from toughen import runs
from toughen.cli.shared import PROGRAM, own_model
from toughen.config.parsing import Parser, tidy
from toughen.evaluation.images import load_test, sample
from toughen.models.export import SUFFIXES, difference, export, load_exported
from toughen.runs.files import check_writable
from toughen.utils.fraction import radius

TOLERANCE = 1e-3  # of a logit: float32 sums in another order


def run(arguments: Sequence[str]) -> int:
    given = export_parser().read(tidy(arguments))
    folder, own = Path(given.run), own_model(given.run, given.model)
    record, model = runs.read_record(folder), runs.load(Path(given.run), own)
    out = Path(given.out) if given.out else folder / f"model{SUFFIXES[given.format]}"
    if out.exists():
        raise ValueError(f"{out} is there already: choose another --out, or remove it")
    check_writable(out.parent)
    test = load_test(folder, record, given.data)
    images, _ = sample(test.test, given.limit, 0)
    channels, rows, columns = record.shape
    part = out.with_name(f".part-{out.name}")  # until it is checked
    try:
        export(model, (channels, rows, columns), part, given.format, about(record))
        found, other = difference(model, load_exported(part, given.format), images.images.float() / 255)
        if other or not found <= TOLERANCE:
            raise RuntimeError(
                f"the exported net differs from the run's: {other:,} of {len(images):,} images change class, "
                f"logits by up to {found:.2g}; nothing is written"
            )
        part.replace(out)
    finally:
        part.unlink(missing_ok=True)
    Console().print(
        f"{out}: on {len(images):,} test images of {test.name} the same classes, logits within {found:.1g}",
        highlight=False, markup=False, soft_wrap=True,
    )  # fmt: skip
    return 0


def about(record: runs.Record) -> dict[str, str]:
    """What the file says of itself."""
    return {
        "classes": json.dumps(record.classes),
        "input": "float32 [n, c, h, w] in [0, 1]; normalisation is inside",
        "threat": "none" if record.eps is None else f"{record.norm} {radius(record.eps)}",
        "method": record.method,
    }


def export_parser() -> Parser:
    parser = Parser(
        prog=f"{PROGRAM} export",
        description="Write a run's classifier for other programs, checked against it on test images.",
    )
    parser.add_argument("run", type=str, help="a run directory")
    parser.add_argument("--format", type=Literal["onnx", "torch-export"], default="onnx", help="of the file")
    parser.add_argument("--out", type=str | None, help="the file (default: model.onnx or model.pt2 in the run)")
    parser.add_argument("--data", type=str | None, help="test images to check it on (default: the run's)")
    parser.add_argument("--limit", type=int | None, default=1000, help="check on so many of them")
    parser.add_argument("--model", type=str | None, help="package.module:function, for a run of a net of your own")
    return parser
