"""The one way in: from what the user calls a data set to decoded images."""

from __future__ import annotations

from pathlib import Path

from toughen.data import embedded, folder, hub
from toughen.data.decode import decode, survey
from toughen.data.sets import Data, Split
from toughen.data.sources import Sources


def names() -> dict[str, str]:
    """The data sets that have a name here, each with a line on what it is."""
    known = {embedded.NAME: "the default, no download: handwritten digits, 28x28 grey, 4,000 + 1,000"}
    return known | {name: f"{entry.about} (hub: {entry.path})" for name, entry in hub.KNOWN.items()}


def load(spec: str, *, classes: str | Path | None = None, image_size: int | None = None) -> Data:
    """A data set, decoded to uint8.

    Args:
        spec: an existing folder (it wins over a name), "mnist-5k", or a name on the Hugging Face hub: a short one from
            ``names()``, OWNER/NAME or OWNER/NAME:CONFIGURATION. A folder has parquet shards, train-*.parquet and
            test-*.parquet, also within train/, test/ or data/; or images, train/CLASS/* and test/CLASS/*, or CLASS/*.
            Where there is no test split, the validation split is it; where there is neither, a stratified tenth of the
            training images, always the same (seed 0).
        classes: a file with one class name per line; only these classes are kept, numbered in that order.
        image_size: bring every image to so many rows and columns: the shorter side is resized (bicubic, antialiased),
            then the centre is cut out. None: all images must have one size.

    Raises:
        FileNotFoundError: there is no such folder, name or file of classes.
        ValueError: the set cannot be used as it is; the message names the file and row.
    """
    if image_size is not None and image_size < 1:
        raise ValueError(f"image_size {image_size} must be 1 pixel or more")
    wanted = None if classes is None else _read_classes(Path(classes).expanduser())
    found = _find(spec)
    if wanted is not None:
        found = found.keep(wanted)
    train, test = found.both()
    form = survey((train, test), image_size)
    splits = [Split(decode(source, form), source.labels) for source in (train, test)]
    return Data(found.name, splits[0], splits[1], found.classes)


def _find(spec: str) -> Sources:
    path = Path(spec).expanduser()
    if spec and path.exists():
        return folder.sources(path)
    if spec == embedded.NAME:
        return embedded.sources()
    if hub.is_name(spec):
        return hub.sources(spec)
    raise FileNotFoundError(f"data {spec!r} is neither a folder here nor a known name: use {', '.join(names())}")


def _read_classes(file: Path) -> tuple[str, ...]:
    """The names in a file, one per line.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: it is not text, or a name stands there twice, or none does.
    """
    if not file.is_file():
        raise FileNotFoundError(f"classes {str(file)!r} is no file: give one with a class name per line")
    try:
        lines = [line.strip() for line in file.read_text(encoding="utf-8-sig").splitlines()]
    except UnicodeDecodeError:
        raise ValueError(f"classes {str(file)!r} is not text: write one class name per line, in UTF-8") from None
    wanted = [line for line in lines if line]
    twice = sorted({name for name in wanted if wanted.count(name) > 1}) if len(set(wanted)) < len(wanted) else []
    if twice or not wanted:
        problem = f"names {twice[0]!r} twice" if twice else "names no class"
        raise ValueError(f"classes {str(file)!r} {problem}: write one class name per line")
    return tuple(wanted)
