"""Data sets of the Hugging Face hub, loaded with its client library and cache."""

from __future__ import annotations

import re
import threading
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from importlib import import_module
from pathlib import Path
from time import monotonic
from typing import Any, NamedTuple

import pyarrow as pa

from toughen.data import tables
from toughen.data.sources import Sources
from toughen.utils.paths import meant

PATIENCE = 2.5  # seconds to wait for the hub's first answer; its client alone would retry for 23 seconds
_ROWS = 1024
_GROUP = 100  # rows read together, from memory-mapped files


class HubSet(NamedTuple):
    """A set of the hub that has a short name in toughen."""

    path: str
    configuration: str | None
    about: str


HUB_SETS = {
    "mnist": HubSet("ylecun/mnist", None, "handwritten digits, 28x28 grey, 60,000 + 10,000"),
    "cifar10": HubSet("uoft-cs/cifar10", None, "10 kinds of things, 32x32 colour, 50,000 + 10,000"),
    "cifar100": HubSet("uoft-cs/cifar100", None, "100 kinds of things (fine labels), 32x32 colour, 50,000 + 10,000"),
    "fashion_mnist": HubSet("zalando-datasets/fashion_mnist", None, "clothes, 28x28 grey, 60,000 + 10,000"),
    "svhn": HubSet("ufldl-stanford/svhn", "cropped_digits", "house numbers' digits, 32x32 colour, 73,257 + 26,032"),
}


def is_name(spec: str) -> bool:
    """Whether this could name a hub set: a known short name, OWNER/NAME, or OWNER/NAME:CONFIGURATION."""
    return spec in HUB_SETS or re.fullmatch(r"\w[\w.-]*/\w[\w.-]*(:[\w.-]+)?", spec) is not None


def sources(spec: str) -> Sources:
    """A hub set's training split and its test split (or its validation split, if it has no test split).

    Raises:
        ValueError: the hub cannot be reached (within five seconds) and the set is not in the cache; there is no such
            set; or it has no training split.
    """
    path, _, configuration = spec.partition(":")
    dataset = HUB_SETS.get(spec, HubSet(path, configuration or None, ""))
    trouble = unreachable()
    import datasets  # slow, and only hub sets need it

    try:
        with _offline() if trouble else nullcontext():
            loaded = datasets.load_dataset(dataset.path, dataset.configuration)
    except Exception as error:  # the client raises its own errors, and those of HTTP and of the file system
        if trouble:
            raise ValueError(
                f"{no_folder(spec)}{spec!r} is not in the hub's cache, and the hub cannot be reached ({trouble}): "
                "connect, give a local folder, or use mnist-5k"
            ) from None
        reason = (str(error) or type(error).__name__).splitlines()[0]
        raise ValueError(
            f"{no_folder(spec)}the hub cannot load {spec!r} ({reason[:200]}): check its name or give a local folder"
        ) from None
    tested = next((name for name in ("test", "validation", "valid", "val") if name in loaded), None)
    if "train" not in loaded:
        raise ValueError(f"{spec} has no train split, only {', '.join(loaded)}: choose another set")
    return tables.sources(spec, [_shard(spec, "train", loaded)], [_shard(spec, tested, loaded)] if tested else None)


def no_folder(spec: str) -> str:
    """The start of a message: that there is no such folder, and which folder has a similar name."""
    if spec in HUB_SETS:
        return ""
    near = meant(Path(spec))
    return f"folder {spec} does not exist{f': did you mean {near}? A' if near else ', and a'}s a name on the hub, "


def _shard(spec: str, split: str, loaded: Any) -> tables.Shard:
    dataset = loaded[split]

    def batches(column: str) -> Iterator[pa.Array]:
        for batch in dataset.data.select([column]).to_batches(max_chunksize=_ROWS):
            yield batch.column(0)

    def read(number: int, rows: int, column: str) -> pa.Array:
        return dataset.data.column(column).slice(number * _GROUP, rows).combine_chunks()

    count = len(dataset.data)
    each = {name: dataset.data.column(name).nbytes / max(1, count) for name in dataset.data.column_names}
    sizes = [min(_GROUP, count - first) for first in range(0, count, _GROUP)]
    groups = tuple(tables.Group(rows, {name: int(rows * size) for name, size in each.items()}) for rows in sizes)
    return tables.Shard(f"{spec}, {split}", dataset.features.arrow_schema, batches, read, groups, files=True)


def unreachable(meanwhile: str | None = "datasets") -> str:
    """Why the hub cannot be reached; "" if it answers.

    The request runs in a separate thread, since looking up a host name has no time limit.

    Args:
        meanwhile: a module to import while waiting; `datasets` takes half a second.
    """
    deadline = monotonic() + PATIENCE
    answer: list[str] = []
    thread = threading.Thread(target=lambda: answer.append(_request()), daemon=True)
    thread.start()
    if meanwhile is not None:
        import_module(meanwhile)
    thread.join(max(0.0, deadline - monotonic()))
    return answer[0] if answer else f"no answer in {PATIENCE:g} s"


def _request() -> str:
    """Send one request to the hub with its client library, which respects the user's proxies and mirrors."""
    import huggingface_hub

    try:
        response = huggingface_hub.get_session().head(huggingface_hub.constants.ENDPOINT, timeout=PATIENCE)
    except Exception as error:  # which class depends on the client's version
        return str(error).splitlines()[0] if str(error) else type(error).__name__
    return f"it answers {response.status_code}" if response.status_code >= 500 else ""


@contextmanager
def _offline() -> Iterator[None]:
    """Within the block, `datasets` uses only its cache."""
    import datasets

    before = datasets.config.HF_HUB_OFFLINE
    datasets.config.HF_HUB_OFFLINE = True
    try:
        yield
    finally:
        datasets.config.HF_HUB_OFFLINE = before
