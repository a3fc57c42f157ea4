"""A user's own augmentation of training batches."""

from __future__ import annotations

import random
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import torch
from torch import Tensor

from toughen.core.rng import seed_generators
from toughen.core.types import Images
from toughen.utils.plugins import describe_error, import_object
from toughen.utils.plural import some

ROUNDING = 1e-3  # a blur of white pixels may end above 1


class Transform:
    """Calls what a recipe names as ``transform`` with each training batch.

    Before each batch the random numbers of torch, Python and NumPy are seeded, so that a resumed run has the same
    images. What it returns is clipped to [0, 1]; a run's first batch must be in this range but for rounding.

    Args:
        path: ``package.module.function``, or another callable such as one of torchvision's transforms.

    Raises:
        ValueError: it cannot be imported, or cannot be called with images.
    """

    def __init__(self, path: str) -> None:
        self.path, self.function = path, import_object(path, "transform")
        if isinstance(self.function, type):
            raise ValueError(f"transform {path} is a class: name a function, or an object that was made of the class")
        if not callable(self.function):
            raise ValueError(f"transform {path} is no function: name one that takes a batch of images")

    @torch.no_grad()
    def __call__(self, images: Images, seed: int, index: Tensor, *, check_range: bool = True) -> Images:
        """The transformed images, [n, c, h, w], with the type of those given.

        Args:
            images: floats in [0, 1], [n, c, h, w]; they may be changed in place.
            seed: of the random numbers.
            index: their places in the training set, [n].
            check_range: refuse what lies outside [0, 1]; a resumed run must not check another batch than the whole one.

        Raises:
            ValueError: the user's code failed, or did not return images of this shape in [0, 1]. On a GPU, NaN is found
                in the loss.
        """
        given = tuple(images.shape)
        with _seeded(seed, images.device):
            try:
                out = self.function(images)
            except Exception as error:  # the user's own code may raise anything
                raise ValueError(f"transform {self.path} failed {describe_error(error)}") from error
        if not isinstance(out, Tensor) or tuple(out.shape) != given or not out.is_floating_point():
            found = f"{out.dtype} of shape {list(out.shape)}" if isinstance(out, Tensor) else type(out).__name__
            raise ValueError(f"transform {self.path} returned {found}: it must return floats of shape {list(given)}")
        if out.device.type == "cpu" and not bool((finite := out.isfinite().flatten(1).all(1)).all()):
            raise ValueError(
                f"transform {self.path} returned NaN or infinity for the training images "
                f"{some(list(map(str, index[~finite].tolist())))} (counted from 0): it must return values in 0..1"
            )
        if check_range:
            low, high = float(out.min()), float(out.max())
            if not (low >= -ROUNDING and high <= 1 + ROUNDING):
                raise ValueError(
                    f"transform {self.path} returned values from {low:.3g} to {high:.3g}: they must be in 0..1 "
                    "(to normalise images, use --normalize true)"
                )
        return out.to(images).clamp(0, 1)


@contextmanager
def _seeded(seed: int, device: torch.device) -> Iterator[None]:
    """Seed torch's, Python's and NumPy's generators; the last two continue afterwards where they were.

    torch's are seeded again before each step.
    """
    python, numpy = random.getstate(), np.random.get_state()
    seed_generators(seed, device)
    random.seed(seed)
    np.random.seed(seed % 2**32)
    try:
        yield
    finally:
        random.setstate(python)
        np.random.set_state(numpy)
