"""Loads single image files, converted to the shape that a net was trained on."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch

from toughen.core.types import ByteImages
from toughen.data.decode import Coloured, Form, OtherSize, Pixels, pixels, refuse_decompression_bombs
from toughen.data.layout import PICTURES
from toughen.data.sources import Encoded


def load_files(paths: Sequence[str | Path], shape: tuple[int, int, int], resize: int | None = None) -> ByteImages:
    """Decode image files to the input shape of a net: the shorter side is resized, then the centre is cropped.

    Only square images are resized: for a net of other images a file must have their size.

    Args:
        paths: PNG, JPEG, BMP, WebP, GIF (first frame) or TIFF files.
        shape: channels (1 or 3), rows and columns.
        resize: pixels that the shorter side is resized to first; None means the number of rows.

    Returns:
        uint8 [n, c, h, w].

    Raises:
        ValueError: a file is missing, damaged, not an image, in colour while the net takes grey images, or of another
            size than a net of images that are not square; or the shape is not that of grey or RGB images.
    """
    channels, rows, columns = shape
    if channels not in (1, 3):
        raise ValueError(f"image files have 1 or 3 channels, and the net takes {channels}")
    missing = [str(path) for path in paths if not Path(path).is_file()]
    if missing:
        if (folder := Path(missing[0])).is_dir():
            kinds = sorted({file.suffix for file in folder.iterdir()} & PICTURES) or [".jpg"]
            raise ValueError(f"{folder} is a folder: name the image files in it, such as {folder / f'*{kinds[0]}'}")
        raise ValueError(f"there is no file {missing[0]}: name image files")
    form = Form("L" if channels == 1 else "RGB", (columns, rows), (resize or rows) if rows == columns else None)
    with refuse_decompression_bombs():
        return torch.from_numpy(np.stack([_decoded(path, form) for path in paths]))


def _decoded(path: str | Path, form: Form) -> Pixels:
    try:
        return pixels(Encoded(str(path), Path(path)), form)
    except OtherSize:
        columns, rows = form.size
        raise ValueError(
            f"{path} does not have {columns}x{rows} pixels, as the net's images, which are not square: resize it first"
        ) from None
    except Coloured:
        raise ValueError(f"{path} is in colour, and the net takes grey images: save it as a grey image first") from None
