"""`toughen card`: a run as a model card."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path

from toughen.cli.shared import PROGRAM
from toughen.config.parsing import Parser, tidy
from toughen.report.card import card
from toughen.runs.files import check_writable, write_text
from toughen.runs.repository import check_name


def run(arguments: Sequence[str]) -> int:
    given = card_parser().read(tidy(arguments))
    text = card(Path(given.run), None if given.name is None else check_name(given.name))
    if given.out is None:
        sys.stdout.write(text)
        return 0
    out = Path(given.out)
    if out.exists():
        raise ValueError(f"{out} is there already: choose another --out, or remove it")
    check_writable(out.parent)
    write_text(out, text)
    print(f"written: {out}")
    return 0


def card_parser() -> Parser:
    parser = Parser(
        prog=f"{PROGRAM} card", description="Write a model card, Markdown with the Hugging Face hub's metadata."
    )
    parser.add_argument("run", type=str, help="a run directory, evaluated or not")
    parser.add_argument("--name", type=str | None, help="user/name on the hub, for the lines that load it")
    parser.add_argument("--out", type=str | None, help="the file, such as README.md (default: print it)")
    return parser
