"""Black-box searches that change a window of each image at a time."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import nn

from toughen.core.classifier import Classifier, Query, Result
from toughen.core.gradients import logits
from toughen.core.types import Images, Labels, Logits
from toughen.core.window import Window


class FullQuery(Query):
    """Computes the logits of whole images each time, and keeps nothing between two calls."""

    def __init__(self, model: nn.Module) -> None:
        self.model = model

    def logits(self, x: Images, windows: Sequence[Window]) -> Logits:
        return logits(self.model, x)


def search_windows(model: nn.Module, x: Images, side: int, search: Callable[[Labels, Query], Result]) -> list[Result]:
    """Run a search on all images, or on one group of images after the other.

    Args:
        model: any module that returns logits; a ``Classifier`` may recompute only what depends on a window.
        x: the images to begin with, [n, c, h, w].
        side: of the smallest windows, in pixels.
        search: called with the rows of ``x`` to search and the query to use. It may be called twice for the same rows,
            and must then return the same result.

    Returns:
        What ``search`` returned for each group, in the order of the images.
    """
    if isinstance(model, Classifier):
        return model.search_windows(x, side, search)
    rows = torch.arange(len(x), device=x.device)
    return [search(rows, FullQuery(model))]
