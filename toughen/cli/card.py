"""`toughen card`: a run as a model card, or as an entry of RobustBench's leaderboard."""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Literal

from toughen.cli.shared import PROGRAM, Help
from toughen.config.parsing import Parser, tidy
from toughen.report.card import card
from toughen.report.robustbench import entry
from toughen.runs.files import check_writable, write_text
from toughen.runs.repository import check_name

PAPER = ("title", "authors", "venue", "link")

HELP = Help(
    usage=f"{PROGRAM} card RUN [--out FILE] [settings]",
    about="Write a model card, Markdown with the Hugging Face hub's metadata, or an entry of RobustBench.",
    examples=(
        f"{PROGRAM} card runs/mine",
        f"{PROGRAM} card runs/mine --out README.md",
        f"{PROGRAM} card runs/mine --name me/robust-net --out card.md",
    ),
    shown={
        "Run": "run",
        "Card": "format name out",
        "Paper, for robustbench": "title authors venue link additional_data",
    },
)


def run(arguments: Sequence[str]) -> int:
    given = card_parser().read(tidy(arguments))
    folder, paper = Path(given.run), {name: given[name] for name in PAPER}
    if given.format == "robustbench":
        text = json.dumps(entry(folder, **paper, additional_data=given.additional_data), indent=2) + "\n"
    elif any(paper.values()) or given.additional_data:
        raise ValueError(f"--{', --'.join(PAPER)} and --additional-data are for --format robustbench")
    else:
        text = card(folder, None if given.name is None else check_name(given.name))
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
    parser = Parser(prog=f"{PROGRAM} card", about=HELP)
    parser.add_argument("run", type=str, metavar="RUN", help="a run directory, evaluated or not")
    parser.add_argument("--name", type=str | None, help="user/name on the hub, for the lines that load it")
    parser.add_argument(
        "--format", type=Literal["markdown", "robustbench"], default="markdown", help="robustbench: its JSON"
    )
    for name in PAPER:
        parser.add_argument(f"--{name}", type=str, default="", help="of the paper, for robustbench")
    parser.add_argument(
        "--additional_data", type=bool, default=False, help="trained on more than the set's own images (robustbench)"
    )
    parser.add_argument(
        "--out", type=str | None, metavar="FILE", help="the file, such as README.md (default: print it)"
    )
    return parser
