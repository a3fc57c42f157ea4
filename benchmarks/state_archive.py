"""Pack a folder's files into parts of limited size, and unpack them."""

from __future__ import annotations

import shutil
import zipfile
from collections.abc import Sequence
from pathlib import Path

PART = 15 * 2**20  # bytes
HEADER = 1024  # what a file takes in an archive besides itself, about


def fitting(paths: Sequence[Path], most: int) -> list[Path]:
    """The files that fit into ``most`` bytes, in order."""
    taken, size = list[Path](), 0
    for path in paths:
        if size + path.stat().st_size + HEADER <= most:
            taken.append(path)
            size += path.stat().st_size + HEADER
    return taken


def pack(root: Path, folder: Path, paths: Sequence[Path]) -> None:
    """Write files of ``root`` into ``folder`` as state.00, state.01 and so on."""
    folder.mkdir(parents=True, exist_ok=True)
    for old in folder.glob("state.*"):
        old.unlink()
    whole = folder / "whole.zip"
    with zipfile.ZipFile(whole, "w") as archive:
        for path in paths:
            archive.write(path, path.relative_to(root))
    with whole.open("rb") as source:
        for number, part in enumerate(iter(lambda: source.read(PART), b"")):
            (folder / f"state.{number:02d}").write_bytes(part)
    whole.unlink()


def unpack(folder: Path, root: Path) -> None:
    """Unpack what ``pack`` wrote; a folder without parts is copied as it is."""
    parts = sorted(folder.glob("state.*"))
    if not parts:
        shutil.copytree(folder, root, dirs_exist_ok=True, copy_function=shutil.copyfile)
        return
    whole = root / "whole.zip"
    with whole.open("wb") as target:
        for part in parts:
            target.write(part.read_bytes())
    with zipfile.ZipFile(whole) as archive:
        archive.extractall(root)  # never outside it
    whole.unlink()
