"""``toughen.load``: a trained classifier from a run directory, a file or the hub; and its record."""

from __future__ import annotations

from pathlib import Path

from torch import nn

from toughen.runs import directory, single_file
from toughen.runs.repository import SCHEME, fetch


def load(run: str | Path, model: nn.Module | None = None, *, revision: str | None = None) -> nn.Module:
    """A trained classifier: takes images in [0, 1], returns logits, in evaluation mode, normalisation inside.

    No code comes out of the files: they hold tensors and settings, and name only nets of toughen's and timm's.

    Args:
        run: a run directory, a file of `toughen export --format safetensors`, or "hf://user/name" for what `toughen
            push` uploaded to the Hugging Face hub.
        model: the net to put the weights into; needed only for a net of your own, which no file of a run may import.
        revision: a branch, tag or commit on the hub; None means "main". A commit never changes.

    Raises:
        ValueError: there is nothing of that kind, a file is damaged, or the weights belong to another net.
    """
    if not isinstance(run, str | Path):
        raise ValueError(f"run is {run!r}: give a run directory, a file, or hf://user/name")
    if model is not None and not isinstance(model, nn.Module):
        raise ValueError(f"model is {model!r}: give a net, an nn.Module")
    if str(run).startswith(SCHEME):
        return single_file.load_single(fetch(str(run), revision), model)
    if revision is not None:
        raise ValueError(f"{run} is on this machine and has no revisions: leave revision out")
    if Path(run).is_file():
        return single_file.load_single(Path(run), model)
    return directory.load(run, model)


def is_exported(run: str | Path) -> bool:
    """Whether this is a file of `toughen export --format safetensors`, or an address of one on the hub."""
    return str(run).startswith(SCHEME) or single_file.is_single(Path(run))


def read_record(run: str | Path) -> directory.Record:
    """What the weights are that ``load`` loads.

    Args:
        run: as for ``load``.

    Raises:
        ValueError: there is nothing of that kind, or a file is damaged.
    """
    if not is_exported(run):
        return directory.read_record(Path(run))
    return single_file.read_record(fetch(str(run)) if str(run).startswith(SCHEME) else Path(run))
