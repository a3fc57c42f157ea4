"""``toughen.load``: a trained classifier from a run directory, a file or the hub."""

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
    if str(run).startswith(SCHEME):
        return single_file.load_single(fetch(str(run), revision), model)
    if revision is not None:
        raise ValueError(f"{run} is on this machine and has no revisions: leave revision out")
    if Path(run).is_file():
        return single_file.load_single(Path(run), model)
    return directory.load(run, model)
