"""`toughen reproduce`."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Literal

from rich.console import Console

from toughen.cli.shared import PROGRAM, Help, add_output, fail, progress_console, resumable
from toughen.config.parsing import Parser, tidy
from toughen.papers.arguments import ALL
from toughen.papers.reproduce import list_all, reproduce

RESULTS = "runs/reproduce"
HELP = Help(
    usage=f"{PROGRAM} reproduce NAME ...|all --scale smoke|cpu|full [settings]\n"
    f"       {PROGRAM} reproduce --list [--out DIR]",
    about="Run a table or figure of a paper: train and evaluate what is missing, keep the results, and print them with "
    "the published ones; a stopped command continues when it is repeated.",
    examples=(
        f"{PROGRAM} reproduce --list",
        f"{PROGRAM} reproduce pap-table7 --scale smoke --rows FGSM-AT --data datasets",
        f"{PROGRAM} reproduce all --scale cpu --data datasets --time-limit 2h",
    ),
    shown={
        "What to run": "name list scale rows net seeds",
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
        fail(f"--list takes no names: leave {' '.join(names)} out, or leave --list out to run it")
    if listed:
        if given["out"] != RESULTS and not Path(given["out"]).is_dir():
            fail(f"there is no folder {given['out']}: give the --out of an earlier `{PROGRAM} reproduce`")
        list_all(given["out"], Console())
        return 0
    if not names:
        fail(f"no table or figure is named: name one; `{PROGRAM} reproduce --list` lists all")
    given["rows"] = None if given["rows"] is None else [row.strip() for row in given["rows"].split(",")]
    if given["rows"] is not None and (len(names) > 1 or names == [ALL]):
        fail("--rows needs exactly one table or figure: name only one, or leave --rows out")
    with resumable():
        failed = reproduce(names, time_limit=time_limit, **given, progress=progress)
    return 1 if failed else 0


def reproduce_parser() -> Parser:
    parser = Parser(prog=f"{PROGRAM} reproduce", about=HELP)
    parser.add_argument(
        "name",
        type=str,
        nargs="*",
        metavar="NAME",
        help="a table or figure, such as nuat-table1a, or all; with several, the results that cost least are computed "
        "first",
    )
    parser.add_argument("--list", action="store_true", help="list all tables and figures, with the results in --out")
    parser.add_argument(
        "--scale",
        type=Literal["smoke", "cpu", "full"] | None,
        help="smoke (a few steps, as a test), cpu (shorter training of narrower nets, 1,000 test images) or full (the "
        "paper's own setting)",
    )
    parser.add_argument("--rows", type=str | None, help="only these rows, separated by commas: NuAT,FBF")
    parser.add_argument("--net", type=str | None, help="only the rows of this net, as the paper names it: ResNet-18")
    parser.add_argument(
        "--seeds", type=int | None, help="number of seeds (default: 1, or the paper's number if it reports a spread)"
    )
    parser.add_argument(
        "--data",
        type=str | None,
        help="a folder with a data set, or with folders mnist, cifar10 and so on (default: the hub)",
    )
    parser.add_argument(
        "--limit",
        type=int | None,
        help="number of test images: the first ones, or a stratified sample if the set is sorted by class",
    )
    parser.add_argument(
        "--time_limit", type=str | None, help="stop after this time, such as 2h; the same command continues"
    )
    parser.add_argument("--out", type=str, metavar="DIR", default=RESULTS, help="folder for runs and results")
    parser.add_argument("--device", type=str, default="auto", help="cpu, cuda and the like; auto takes a GPU if any")
    add_output(parser)
    return parser
