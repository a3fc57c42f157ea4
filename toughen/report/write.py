"""`toughen report`: reads runs and writes the page."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from toughen.report.page import render
from toughen.report.read import Run, names, read_run
from toughen.runs.files import check_writable, write_text

NAME = "report.html"
MARK, HEAD = b'<meta name="generator" content="toughen ', 4096  # a report has MARK in its first HEAD bytes


def write_report(runs: Sequence[str | Path], out: str | Path | None = None, *, overwrite: bool = False) -> Path:
    """Write a report of one run or of several.

    Args:
        runs: run directories, or folders that an evaluation was written to.
        out: the HTML file; None means report.html: of one run, in its directory, else in the current directory.
        overwrite: whether an existing report may be replaced.

    Returns:
        The path of the file.

    Raises:
        ValueError: a folder is not a run directory, or the file exists or cannot be written.
    """
    folders = [Path(run) for run in runs]
    if not folders:
        raise ValueError("no run is named: name one or more")
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
    """The runs' names, or their number if there are more than two."""
    return " and ".join(run.name for run in runs) if len(runs) <= 2 else f"{len(runs)} runs"


def place(folders: Sequence[Path], out: str | Path | None) -> Path:
    """The path of the report."""
    if out is not None:
        return Path(out)
    return folders[0] / NAME if len(folders) == 1 else Path(NAME)


def check_place(path: Path, *, overwrite: bool) -> None:
    """Check that the report can be written, before it is rendered.

    Raises:
        ValueError: it cannot be written; or the file exists, and is not a report or ``overwrite`` is not set.
    """
    if path.is_dir():
        raise ValueError(f"{path} is a folder: give --out a file, such as {path / NAME}")
    if path.exists() and not replaceable(path):
        raise ValueError(f"{path} exists and is not a report, so --overwrite cannot replace it: choose another --out")
    if path.exists() and not overwrite:
        raise ValueError(f"{path} exists already: choose another --out, or replace it with --overwrite")
    check_writable(path.parent)


def replaceable(path: Path) -> bool:
    """Whether a file is a report or empty; so a wrong --out cannot overwrite weights or other results."""
    if not path.is_file():
        return False
    with path.open("rb") as file:
        head = file.read(HEAD)
    return not head or MARK in head
