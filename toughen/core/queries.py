"""Searches that change a window of each image at a time, and need the logits alone."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import nn

from toughen.core.classifier import Classifier, Found, Query
from toughen.core.gradients import logits
from toughen.core.types import Images, Labels, Logits
from toughen.core.window import Window


class FullQuery(Query):
    """Asks a model about all of every image; nothing is kept between two questions."""

    def __init__(self, model: nn.Module) -> None:
        self.model = model

    def logits(self, x: Images, windows: Sequence[Window]) -> Logits:
        return logits(self.model, x)


def search_windows(model: nn.Module, x: Images, side: int, search: Callable[[Labels, Query], Found]) -> list[Found]:
    """Run a search on all images, or on some after others; one that is run twice must find the same again.

    Args:
        model: any module that returns logits; a ``Classifier`` may compute again only what a window reaches.
        x: the images to begin with.
        side: of the smallest windows, in pixels.
        search: the rows of the images to search, and what to ask, to anything.

    Returns:
        What the search returned for each part, in the order of the images.
    """
    if isinstance(model, Classifier):
        return model.search_windows(x, side, search)
    rows = torch.arange(len(x), device=x.device)
    return [search(rows, FullQuery(model))]
