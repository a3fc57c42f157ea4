"""Single image files, brought to what a net was trained on."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch

from toughen.core.types import ByteImages
from toughen.data.decode import Form, bombs_refused, pixels
from toughen.data.sources import Encoded

GREY = "and the net was trained on grey images: save it as grey"


def load_files(paths: Sequence[str | Path], shape: tuple[int, int, int], resize: int | None = None) -> ByteImages:
    """Decode image files to the shape that a net takes: the shorter side is resized, the centre is cut out.

    Args:
        paths: PNG, JPEG, BMP, WebP, GIF (first frame) or TIFF files.
        shape: channels (1 or 3), rows and columns.
        resize: pixels that the shorter side is brought to first; None means the smaller of rows and columns.

    Returns:
        uint8 [n, c, h, w].

    Raises:
        ValueError: a file is missing, damaged, no image, or in colour where the net takes grey images; or the shape is
            not that of images.
    """
    channels, rows, columns = shape
    if channels not in (1, 3) or rows != columns:
        raise ValueError(
            f"files cannot be brought to images of {channels} x {rows} x {columns}: only square grey or RGB"
        )
    missing = [str(path) for path in paths if not Path(path).is_file()]
    if missing:
        if Path(missing[0]).is_dir():
            raise ValueError(f"{missing[0]} is a folder: name the image files in it, such as {missing[0]}/*.jpg")
        raise ValueError(f"there is no file {missing[0]}: name image files")
    form = Form("L" if channels == 1 else "RGB", (columns, rows), resize or rows)
    with bombs_refused():
        decoded = [pixels(Encoded(str(path), Path(path)), form, grey_because=GREY) for path in paths]
    return torch.from_numpy(np.stack(decoded))
