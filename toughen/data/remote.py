"""Reads parquet shards behind a URL with fsspec, without downloading them completely.

hf://datasets/OWNER/NAME is a set on the Hugging Face hub, read with the file system of its client library. The tests
use a file system in memory and a local imitation of the hub; this module has not been run against the real hub yet.
On the hub, each read of a row group takes a few requests. Labels are read from all row groups before training starts,
which can take minutes for a thousand row groups.
"""

from __future__ import annotations

from pathlib import PurePosixPath

from toughen.data import hub, shards
from toughen.data.sources import Sources


def is_url(spec: str) -> bool:
    """Whether this is a URL."""
    return "://" in spec


def sources(url: str) -> Sources:
    """The set of parquet shards below a URL, named and laid out as in a local folder.

    Raises:
        ValueError: it cannot be reached, or it has no such set.
    """
    from fsspec.core import url_to_fs  # slow, and only URLs need it

    if url.startswith("hf://") and (trouble := hub.unreachable()):
        raise ValueError(f"{url}: the hub cannot be reached ({trouble}): connect, or give a local folder")
    try:
        system, root = url_to_fs(url)
        files = sorted(map(PurePosixPath, system.glob(f"{root}/**/*.parquet")))
    except Exception as error:  # each file system has its own error classes
        reason = (str(error) or type(error).__name__).splitlines()[0]
        raise ValueError(f"{url} cannot be read ({reason[:200]}): check the address") from None
    if not files:
        raise ValueError(f"{url} has no parquet files: give the folder that holds train-*.parquet")
    return shards.sources(PurePosixPath(root), files, url, system.open)
