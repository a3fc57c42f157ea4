"""`toughen report`: reads runs and writes the page."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from toughen.report.page import render
from toughen.report.read import Run, names, read_run
from toughen.runs.files import check_writable, write_text

NAME = "report.html"
MARK, HEAD = b'<meta name="generator" content="toughen ', 4096  # what tells a report, within so many of its first bytes


def write_report(runs: Sequence[str | Path], out: str | Path | None = None, *, overwrite: bool = False) -> Path:
    """Write a report of one run or of several.

    Args:
        runs: run directories, or folders that an evaluation was written to.
        out: the HTML file; None means report.html, in the run's directory where there is one run.
        overwrite: whether a report that is there may be replaced.

    Returns:
        The file.

    Raises:
        ValueError: a folder is no run, or the file is there or cannot be written.
    """
    folders = [Path(run) for run in runs]
    if not folders:
        raise ValueError("name one run or more")
    path = place(folders, out)
    loaded = [read_run(folder, name) for folder, name in zip(folders, names(folders), strict=True)]
    check_place(path, overwrite=overwrite)
    page = render(loaded, title(loaded))
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        write_text(path, page)
    except OSError as error:
        raise ValueError(f"cannot write {path} ({error.strerror}): choose another --out") from None
    return path


def title(runs: Sequence[Run]) -> str:
    """The runs' names, or how many they are."""
    return " and ".join(run.name for run in runs) if len(runs) <= 2 else f"{len(runs)} runs"


def place(folders: Sequence[Path], out: str | Path | None) -> Path:
    """Where the report goes."""
    if out is not None:
        return Path(out)
    return folders[0] / NAME if len(folders) == 1 else Path(NAME)


def check_place(path: Path, *, overwrite: bool) -> None:
    """See that the report can be written, before it is made.

    Raises:
        ValueError: it can't, or a file is there that nobody asked to replace, or that is no report.
    """
    if path.is_dir():
        raise ValueError(f"{path} is a folder: give --out a file, such as {path / NAME}")
    if path.exists() and not replaceable(path):
        raise ValueError(f"{path} is there already, and no report that --overwrite may replace: choose another --out")
    if path.exists() and not overwrite:
        raise ValueError(f"{path} is there already: choose another --out, or replace it with --overwrite")
    check_writable(path.parent)


def replaceable(path: Path) -> bool:
    """Whether a file is a report, or empty; weights and other results are not to be lost by a slip."""
    if not path.is_file():
        return False
    with path.open("rb") as file:
        head = file.read(HEAD)
    return not head or MARK in head
