"""Parquet shards behind a URL, read in place through fsspec and never downloaded whole.

hf://datasets/OWNER/NAME is a set on the Hugging Face hub, by the file system of its own client. Tests read from a file
system in memory and, through that client, from an imitation of the hub on the same machine; nothing here has run
against the real hub yet. There each read of a row group is a few requests, and labels are read row group by row group
before training begins, which may take minutes for a thousand of them.
"""

from __future__ import annotations

from pathlib import PurePosixPath

from toughen.data import hub, shards
from toughen.data.sources import Sources


def is_url(spec: str) -> bool:
    """Whether this is the address of a folder on some file system."""
    return "://" in spec


def sources(url: str) -> Sources:
    """The set of parquet shards below a URL, named and laid out as in a local folder.

    Raises:
        ValueError: it cannot be reached, or holds no such set.
    """
    from fsspec.core import url_to_fs  # slow, and only URLs need it

    if url.startswith("hf://") and (trouble := hub.unreachable()):
        raise ValueError(f"{url}: the hub cannot be reached ({trouble}): connect, or give a local folder")
    try:
        system, root = url_to_fs(url)
        files = sorted(map(PurePosixPath, system.glob(f"{root}/**/*.parquet")))
    except Exception as error:  # each file system has its own
        reason = (str(error) or type(error).__name__).splitlines()[0]
        raise ValueError(f"{url} cannot be read ({reason[:200]}): check the address") from None
    if not files:
        raise ValueError(f"{url} has no parquet files: give the folder that holds train-*.parquet")
    return shards.sources(PurePosixPath(root), files, url, system.open)
