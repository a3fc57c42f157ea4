"""Finds a data set by a folder, a name or a URL; its images are not decoded yet."""

from __future__ import annotations

import difflib
from collections import Counter
from importlib import resources
from pathlib import Path
from typing import TypeAlias

from toughen.data import embedded
from toughen.data.common_size import ImageSize
from toughen.data.sources import Sources
from toughen.utils.paths import expanded, meant

Classes: TypeAlias = str | Path | tuple[str, ...]
"""A file with class names, or the names."""


def names() -> dict[str, str]:
    """The data sets with a short name, each with a description."""
    from toughen.data import hub  # pyarrow takes a while to import

    own = {embedded.NAME: "the default, no download: handwritten digits, 28x28 grey, 4,000 + 1,000"}
    return own | {name: f"{entry.about} (hub: {entry.path})" for name, entry in hub.HUB_SETS.items()}


def find(spec: str, classes: Classes | None, image_size: ImageSize) -> Sources:
    """The set of this folder, name or URL, restricted to the given classes."""
    if isinstance(image_size, int) and image_size < 1:
        raise ValueError(f"image_size {image_size} must be 1 pixel or more")
    wanted = classes if classes is None or isinstance(classes, tuple) else read_classes(classes)
    sources = _encoded(spec)
    return sources if wanted is None else sources.keep(wanted)


def _encoded(spec: str) -> Sources:
    from toughen.data import folder, hub, remote  # pyarrow takes a while to import

    path = expanded(Path(spec))
    if spec and path.exists():
        return folder.sources(path)
    if spec == embedded.NAME:
        return embedded.sources()
    if remote.is_url(spec):
        return remote.sources(spec)
    if hub.is_name(spec):
        return hub.sources(spec)
    raise FileNotFoundError(_unknown(spec))


def _unknown(spec: str) -> str:
    """The message for an unknown set: the most similar name, and all known names."""
    near = meant(Path(spec)) if spec else None
    alike = [str(near)] if near else difflib.get_close_matches(spec, names(), n=1)
    maybe = f"did you mean {alike[0]}? Else " if alike else ""
    return f"folder {spec!r} does not exist: {maybe}give a folder of images or a known name: {', '.join(names())}"


def _classes_file(name: str | Path) -> Path:
    """The user's file, or the packaged file of this name if there is none."""
    packaged = Path(str(resources.files("toughen") / "data" / "classes" / f"{name}.txt"))
    file = expanded(Path(name))
    return packaged if not file.exists() and file.name == str(name) and packaged.is_file() else file


def read_classes(name: str | Path) -> tuple[str, ...]:
    """The names in a file, one per line.

    Args:
        name: the file, or "imagenet100" for the file in the package.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: it is not text, has no names, or has a name more than once.
    """
    file = _classes_file(name)
    if not file.is_file():
        raise FileNotFoundError(f"there is no file of classes {str(file)!r}: give a file with one class name per line")
    try:
        lines = [line.strip() for line in file.read_text(encoding="utf-8-sig").splitlines()]
    except UnicodeDecodeError:
        raise ValueError(f"classes {str(file)!r} is not text: write one class name per line, in UTF-8") from None
    wanted = [line for line in lines if line]
    repeated = min((name for name, number in Counter(wanted).items() if number > 1), default="")
    if repeated or not wanted:
        problem = f"names {repeated!r} more than once" if repeated else "names no class"
        raise ValueError(f"classes {str(file)!r} {problem}: write each class name once, one per line")
    return tuple(wanted)
