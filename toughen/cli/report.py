"""`toughen report`."""

from __future__ import annotations

from collections.abc import Sequence

from toughen.cli.shared import PROGRAM
from toughen.config.parsing import Parser, tidy
from toughen.report import write_report
from toughen.report.values import clean


def run(arguments: Sequence[str]) -> int:
    given = report_parser().read(tidy(arguments))
    path = write_report(given.runs, given.out, overwrite=given.overwrite)
    print(f"written: {clean(str(path))}, open it in a browser")
    return 0


def report_parser() -> Parser:
    parser = Parser(prog=f"{PROGRAM} report", description="Write runs and their results as one HTML page.")
    parser.add_argument("runs", nargs="+", type=str, metavar="RUN", help="run directories, evaluated or not")
    parser.add_argument(
        "-o", "--out", type=str | None, help="the file (default: report.html, in the run's directory if it is one run)"
    )
    parser.add_argument("--overwrite", action="store_true", help="replace a report that is there")
    return parser
