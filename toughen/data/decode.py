"""From encoded images to one uint8 tensor. The only place that opens an image."""

from __future__ import annotations

import os
import warnings
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from io import BytesIO
from itertools import islice
from pathlib import Path

import numpy as np
import torch
from PIL import ExifTags, Image, ImageOps, UnidentifiedImageError

from toughen.data.sources import Encoded, Source
from toughen.types import ByteImages

_FORMATS = ("PNG", "JPEG", "BMP", "WEBP", "GIF", "TIFF")  # none of them starts another program, as EPS would
_GREY = {"1", "L", "LA"}
_COLOUR = {"P", "PA", "RGB", "RGBA", "RGBX", "CMYK", "YCbCr", "HSV", "LAB"}
_BLOCK = 512  # images whose bytes are held at a time
_WORTH_THREADS = 128 * 128  # pixels; decoding smaller images is mostly Python, which threads cannot share


@dataclass(frozen=True)
class Form:
    """What every image of a set is turned into.

    Attributes:
        mode: "L" (one channel) or "RGB".
        size: width and height in pixels.
        resize: whether images are brought to that size (shorter side resized, centre cut out) or must have it.
    """

    mode: str
    size: tuple[int, int]
    resize: bool

    @property
    def shape(self) -> tuple[int, int, int]:
        """Channels, rows, columns."""
        return len(self.mode), self.size[1], self.size[0]


def survey(sources: tuple[Source, ...], image_size: int | None) -> Form:
    """Look at every image's header: one channel only if all are grey, and the size of the first image or the given one.

    Raises:
        ValueError: an image cannot be opened, is too large to be decoded safely, or has more than 8 bits a channel;
            or the decoded set would not fit into memory.
    """
    modes: set[str] = set()
    first: tuple[int, int] | None = None
    with warnings.catch_warnings():
        warnings.simplefilter("error", Image.DecompressionBombWarning)
        for source in sources:
            for item in source.images():
                with _open(item) as image:
                    if image.mode not in _GREY | _COLOUR:
                        raise ValueError(f"{item.where} has pixels of mode {image.mode}: save it with 8 bits a channel")
                    modes.add(image.mode)
                    first = first or (image.size if _orientation(image) < 5 else image.size[::-1])
    mode = "L" if modes <= _GREY else "RGB"
    form = Form(mode, (image_size, image_size) if image_size else first or (0, 0), image_size is not None)
    _check_memory(sum(map(len, sources)) * int(np.prod(form.shape)))
    return form


def decode(source: Source, form: Form) -> ByteImages:
    """All images of a split, uint8 [n, c, h, w].

    Raises:
        ValueError: an image is damaged, or has another size than the first and none was asked for.
    """
    images = torch.empty((len(source), *form.shape), dtype=torch.uint8)
    pixels, items = images.numpy(), source.images()
    threads = os.cpu_count() or 1
    if form.size[0] * form.size[1] < _WORTH_THREADS or threads == 1:
        for place, item in enumerate(items):
            pixels[place] = _pixels(item, form)
        return images
    with ThreadPoolExecutor(threads) as pool:
        place = 0
        while block := list(islice(items, _BLOCK)):
            for decoded in pool.map(lambda item: _pixels(item, form), block):
                pixels[place] = decoded
                place += 1
    return images


def _open(item: Encoded) -> Image.Image:
    """The image with its header read; its pixels are decoded later.

    Raises:
        ValueError: it is no image in a known format, or declares more pixels than PIL thinks safe.
    """
    if isinstance(item.content, Image.Image):
        return item.content
    try:
        file = item.content if isinstance(item.content, Path) else BytesIO(item.content)
        return Image.open(file, formats=_FORMATS)
    except (Image.DecompressionBombError, Image.DecompressionBombWarning):
        raise ValueError(f"{item.where} declares too many pixels to be decoded safely: make it smaller first") from None
    except Exception as error:  # damaged bytes make the format readers raise almost anything
        raise _damaged(item, error) from None


def _pixels(item: Encoded, form: Form) -> np.ndarray[tuple[int, ...], np.dtype[np.uint8]]:
    """One image as [c, h, w]."""
    try:
        with _open(item) as opened:
            opened.load()
            image = _fit(_convert(_upright(opened), form.mode), form)
    except ValueError as error:
        raise (error if str(error).startswith(item.where) else _damaged(item, error)) from None
    except Exception as error:  # as in _open
        raise _damaged(item, error) from None
    if image.size != form.size:
        raise ValueError(
            f"{item.where} has {image.width}x{image.height} pixels, the first image {form.size[0]}x{form.size[1]}: "
            "give --image_size N to bring all to NxN"
        )
    array = np.asarray(image)
    return array[None] if array.ndim == 2 else array.transpose(2, 0, 1)


def _damaged(item: Encoded, error: Exception) -> ValueError:
    reason = "no known image format" if isinstance(error, UnidentifiedImageError) else str(error)
    return ValueError(f"{item.where} cannot be decoded ({reason}): replace or remove it")


def _orientation(image: Image.Image) -> int:
    """1 for an upright image, 5 to 8 for one that lies on its side; damaged Exif data count as none."""
    try:
        return int(image.getexif().get(ExifTags.Base.Orientation, 1)) if "exif" in image.info else 1
    except Exception:  # as in _open
        return 1


def _upright(image: Image.Image) -> Image.Image:
    """Turned as its camera says."""
    return ImageOps.exif_transpose(image) if _orientation(image) != 1 else image


def _convert(image: Image.Image, mode: str) -> Image.Image:
    if image.mode == mode:
        return image
    if "transparency" in image.info:  # PIL wants the palette's transparency made explicit first
        image = image.convert("RGBA")
    return image.convert(mode)


def _fit(image: Image.Image, form: Form) -> Image.Image:
    """Shorter side resized with antialiasing, centre cut out, where the form asks for it."""
    if not form.resize or image.size == form.size:
        return image
    side = form.size[0]
    scale = side / min(image.size)
    width, height = (max(side, round(length * scale)) for length in image.size)
    left, top = (width - side) // 2, (height - side) // 2
    resized = image.resize((width, height), Image.Resampling.BICUBIC)
    return resized.crop((left, top, left + side, top + side))


def _check_memory(needed: int) -> None:
    """Refuse early what would otherwise be killed without a word.

    Raises:
        ValueError: the decoded images exceed this machine's memory.
    """
    if not hasattr(os, "sysconf"):
        return
    present = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    if needed > present:
        raise ValueError(
            f"the decoded images need {needed / 2**30:.1f} GiB, this machine has {present / 2**30:.1f}: "
            "give a smaller --image_size or fewer --classes"
        )
