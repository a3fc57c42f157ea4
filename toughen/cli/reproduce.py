"""`toughen reproduce`."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Literal

from rich.console import Console

from toughen.cli.shared import PROGRAM, Help, add_output, fail, goes_on, progress_console
from toughen.config.parsing import Parser, tidy
from toughen.papers.arguments import ALL
from toughen.papers.reproduce import list_all, reproduce

RESULTS = "runs/reproduce"
HELP = Help(
    usage=f"{PROGRAM} reproduce NAME ...|all --scale smoke|cpu|full [settings]\n"
    f"       {PROGRAM} reproduce --list [--out DIR]",
    about="Run a table or figure of a paper: train what is missing, evaluate it, keep it, and print it beside the "
    "published one; repeat the command to continue after a kill.",
    examples=(
        f"{PROGRAM} reproduce --list",
        f"{PROGRAM} reproduce pap-table7 --scale smoke --rows FGSM-AT --data datasets",
        f"{PROGRAM} reproduce all --scale cpu --data datasets --time-limit 2h",
    ),
    shown={
        "What to run": "name list scale rows seeds",
        "Test images": "data limit",
        "Length and output": "time_limit out",
        "Device": "device",
    },
    more={"Length and output": "quiet"},
)


def run(arguments: Sequence[str]) -> int:
    given = vars(reproduce_parser().read(tidy(arguments)))
    listed, names, time_limit = given.pop("list"), given.pop("name") or [], given.pop("time_limit")
    progress = progress_console(given.pop("quiet"))
    if listed and names:
        fail(f"--list names all tables and figures: leave {' '.join(names)} out, or leave --list out to run it")
    if listed:
        if given["out"] != RESULTS and not Path(given["out"]).is_dir():
            fail(f"there is no folder {given['out']}: give the --out that tables were run with")
        list_all(given["out"], Console())
        return 0
    if not names:
        fail(f"name a table or figure: `{PROGRAM} reproduce --list` names all")
    given["rows"] = None if given["rows"] is None else [row.strip() for row in given["rows"].split(",")]
    if given["rows"] is not None and (len(names) > 1 or names == [ALL]):
        fail("--rows are of one table: name one alone, or leave --rows out")
    with goes_on():
        failed = reproduce(names, time_limit=time_limit, **given, progress=progress)
    return 1 if failed else 0


def reproduce_parser() -> Parser:
    parser = Parser(prog=f"{PROGRAM} reproduce", about=HELP)
    parser.add_argument(
        "name",
        type=str,
        nargs="*",
        metavar="NAME",
        help="a table or figure, such as nuat-table1a; of several, or all, what costs least per missing figure is "
        "done first",
    )
    parser.add_argument("--list", action="store_true", help="name all, with what was measured of them in --out")
    parser.add_argument(
        "--scale",
        type=Literal["smoke", "cpu", "full"] | None,
        help="smoke (a few steps, to see it run), cpu (shorter training of narrower nets) or full (the paper's own "
        "setting); cpu evaluates on 1,000 test images",
    )
    parser.add_argument("--rows", type=str | None, help="some rows only, with commas between: NuAT,FBF")
    parser.add_argument("--seeds", type=int | None, help="how many seeds (default: 1, or the paper's for a spread)")
    parser.add_argument(
        "--data",
        type=str | None,
        help="a folder that is a data set, or holds mnist, cifar10 and the like (default: the hub)",
    )
    parser.add_argument(
        "--limit",
        type=int | None,
        help="evaluate on so many test images: the first, or a stratified sample of a set that lies sorted by class",
    )
    parser.add_argument(
        "--time_limit", type=str | None, help="stop then, such as 2h, and say what is left; the same command goes on"
    )
    parser.add_argument("--out", type=str, metavar="DIR", default=RESULTS, help="where runs and results are kept")
    parser.add_argument("--device", type=str, default="auto", help="cpu, cuda and the like; auto takes a GPU if any")
    add_output(parser)
    return parser
