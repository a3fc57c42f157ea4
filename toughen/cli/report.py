"""`toughen report`."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from toughen.cli.shared import PROGRAM, Help
from toughen.config.parsing import Parser, tidy
from toughen.report import write_report
from toughen.report.read import RESULT
from toughen.report.values import clean
from toughen.runs import follow_up

HELP = Help(
    usage=f"{PROGRAM} report RUN ... [--out FILE] [--overwrite]",
    about="Write runs and their results as one HTML page, which works offline.",
    examples=(
        f"{PROGRAM} report runs/mine",
        f"{PROGRAM} report runs/mine runs/other --out both.html",
        f"{PROGRAM} report runs/mine runs/other --out both.html --overwrite",
    ),
    shown={"Runs": "runs", "Output": "out overwrite"},
)


def run(arguments: Sequence[str]) -> int:
    given = report_parser().read(tidy(arguments))
    path = write_report(given.runs, given.out, overwrite=given.overwrite)
    print(f"written: {clean(str(path))}, open it in a browser")
    if all((Path(run) / RESULT).is_file() for run in given.runs):
        print(f"compare runs in the terminal: {clean(follow_up.compare(given.runs))}")
    return 0


def report_parser() -> Parser:
    parser = Parser(prog=f"{PROGRAM} report", about=HELP)
    parser.add_argument("runs", nargs="+", type=str, metavar="RUN", help="run directories, evaluated or not")
    parser.add_argument(
        "-o",
        "--out",
        type=str | None,
        metavar="FILE",
        help="the file to write (default: report.html, for one run in its directory)",
    )
    parser.add_argument("--overwrite", action="store_true", help="replace an existing report")
    return parser
