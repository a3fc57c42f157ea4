"""The message on labels that are no classes of a model."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from toughen.core.types import Labels, Logits


@contextmanager
def labels_explained(logits: Logits, target: Labels | Logits) -> Iterator[None]:
    """Say it plainly where a label is none of the model's classes; on a GPU torch's own message remains."""
    try:
        yield
    except (IndexError, RuntimeError) as error:
        if target.ndim == 1 and target.device.type == "cpu" and int(target.max()) >= logits.shape[1]:
            raise ValueError(beyond(target, logits.shape[1])) from error
        raise


def beyond(target: Labels, classes: int) -> str:
    """The message on class numbers that a model does not have."""
    return (
        f"labels go from {int(target.min())} to {int(target.max())}, but the model has {classes} classes: number them "
        "from 0"
    )
