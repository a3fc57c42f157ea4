"""`toughen card`: writes a run's model card, or its entry for RobustBench's leaderboard."""

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
    about="Write a run's model card for the Hugging Face hub, or its entry for RobustBench's leaderboard.",
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
        raise ValueError(
            f"--{', --'.join(PAPER)} and --additional-data need --format robustbench: add it, or leave them out"
        )
    else:
        text = card(folder, None if given.name is None else check_name(given.name))
    if given.out is None:
        sys.stdout.write(text)
        return 0
    if not given.out:
        raise ValueError("--out is empty: name a file, or leave it out")
    out = Path(given.out)
    if out.exists():
        raise ValueError(f"{out} exists already: choose another --out, or remove it")
    check_writable(out.parent)
    out.parent.mkdir(parents=True, exist_ok=True)
    write_text(out, text)
    print(f"written: {out}")
    return 0


def card_parser() -> Parser:
    parser = Parser(prog=f"{PROGRAM} card", about=HELP)
    parser.add_argument("run", type=str, metavar="RUN", help="a run directory, evaluated or not")
    parser.add_argument(
        "--name", type=str | None, help="user/name on the hub, for the card's code that loads the model"
    )
    parser.add_argument(
        "--format", type=Literal["markdown", "robustbench"], default="markdown", help="robustbench writes JSON"
    )
    for name in PAPER:
        parser.add_argument(f"--{name}", type=str, default="", help=f"the paper's {name}, for robustbench")
    parser.add_argument(
        "--additional_data", type=bool, default=False, help="training used more than the set's own images (robustbench)"
    )
    parser.add_argument(
        "--out", type=str | None, metavar="FILE", help="the file to write, such as README.md (default: print the card)"
    )
    return parser
