"""Decodes images to uint8 pixels. No other module opens images."""

from __future__ import annotations

import os
import warnings
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from io import BytesIO
from itertools import islice
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
import torch
from PIL import ExifTags, Image, ImageOps, UnidentifiedImageError

from toughen.core.types import ByteImages
from toughen.data.common_size import ImageSize, Size, choose
from toughen.data.sources import Encoded, Source

_FORMATS = ("PNG", "JPEG", "BMP", "WEBP", "GIF", "TIFF")  # not EPS, for which PIL starts another program
_GREY = {"1", "L", "LA"}
_COLOUR = {"P", "PA", "RGB", "RGBA", "RGBX", "CMYK", "YCbCr", "HSV", "LAB"}
Pixels: TypeAlias = np.ndarray[Any, np.dtype[np.uint8]]  # [c, h, w]
Box: TypeAlias = tuple[int, int, int, int]  # left, top, right, bottom, in pixels

_BLOCK = 512  # images whose encoded bytes are in memory at the same time
_WORTH_THREADS = 128 * 128  # pixels; threads do not speed up smaller images, which mostly run Python code


@dataclass(frozen=True)
class Form:
    """The common form that every image of a set is converted to.

    Attributes:
        mode: "L" (one channel) or "RGB".
        size: width and height in pixels.
        resize: pixels that the shorter side is resized to before the centre crop; None: all images have the size.
        why: the reason for the size, if it was chosen automatically.
    """

    mode: str
    size: Size
    resize: int | None
    why: str = ""

    @property
    def image_size(self) -> int | None:
        """The size that images are resized to; None if they are left as they are."""
        return None if self.resize is None else self.size[0]

    @property
    def shape(self) -> tuple[int, int, int]:
        """Channels, rows, columns."""
        return len(self.mode), self.size[1], self.size[0]


@dataclass
class Headers:
    """Facts from the headers of images: their modes, and the number of images of each size, rotated upright."""

    modes: set[str] = field(default_factory=set)
    sizes: Counter[Size] = field(default_factory=Counter)


def read_headers(source: Source) -> Headers:
    """Read the header of every image, without decoding the pixels.

    Raises:
        ValueError: an image cannot be opened, is too large to be decoded safely, or has more than 8 bits per channel.
    """
    headers = Headers()
    with refuse_decompression_bombs():
        for item in source.images():
            with _open(item) as image:
                _require_bytes(item, image)
                headers.modes.add(image.mode)
                headers.sizes[image.size if _orientation(image) < 5 else image.size[::-1]] += 1
    return headers


def form_of(splits: Sequence[Headers], image_size: ImageSize, resize: int | None = None) -> Form:
    """The common form of images: grey only if all images are grey, and of one size.

    Args:
        splits: the headers of each split, training images first.
        image_size: "auto" chooses a size by the training images; None takes the size of the first training image,
            which all images must have.
        resize: pixels that the shorter side is resized to before the centre crop; None means ``image_size``.
    """
    mode = "L" if set().union(*(each.modes for each in splits)) <= _GREY else "RGB"
    sizes, why = splits[0].sizes, ""
    if image_size == "auto":
        image_size, why = choose(sizes) if sizes else (None, "")
    if image_size is None:
        return Form(mode, next(iter(sizes), (0, 0)), None, why)
    return Form(mode, (image_size, image_size), resize or image_size, why)


def survey(sources: tuple[Source, ...], image_size: ImageSize, resize: int | None = None) -> Form:
    """The common form of all images, found from their headers; the arguments are as for ``form_of``.

    Raises:
        ValueError: as ``read_headers``.
    """
    return form_of([read_headers(source) for source in sources], image_size, resize)


@contextmanager
def refuse_decompression_bombs() -> Iterator[None]:
    """Within the block, opening an image with more pixels than PIL's safety limit is an error."""
    with warnings.catch_warnings():
        warnings.simplefilter("error", Image.DecompressionBombWarning)
        yield


def decode(source: Source, form: Form) -> ByteImages:
    """All images of a split, uint8 [n, c, h, w].

    Raises:
        ValueError: an image is damaged; or it has another size than the first image, and no size was given.
    """
    images = torch.empty((len(source), *form.shape), dtype=torch.uint8)
    array, items = images.numpy(), source.images()
    threads = os.cpu_count() or 1
    if form.size[0] * form.size[1] < _WORTH_THREADS or threads == 1:
        for place, item in enumerate(items):
            array[place] = pixels(item, form)
        return images
    with ThreadPoolExecutor(threads) as pool:
        place = 0
        while block := list(islice(items, _BLOCK)):
            for decoded in pool.map(lambda item: pixels(item, form), block):
                array[place] = decoded
                place += 1
    return images


def _open(item: Encoded) -> Image.Image:
    """The image with its header read; its pixels are decoded later.

    Raises:
        ValueError: it is not an image in a known format, or it has more pixels than PIL's safety limit.
    """
    if isinstance(item.content, Image.Image):
        return item.content
    try:
        file = item.content if isinstance(item.content, Path) else BytesIO(item.content)
        return Image.open(file, formats=_FORMATS)
    except (Image.DecompressionBombError, Image.DecompressionBombWarning):
        raise ValueError(f"{item.where} has too many pixels to be decoded safely: make it smaller first") from None
    except Exception as error:  # damaged bytes make the format readers raise almost anything
        raise _damaged(item, error) from None


class OtherSize(ValueError):
    """An image has another size than its set."""


class Coloured(ValueError):
    """An image is in colour where only grey ones fit."""


def pixels(item: Encoded, form: Form, crop: Callable[[int, int], Box] | None = None) -> Pixels:
    """One image as [c, h, w].

    Args:
        item: the encoded image.
        form: the form that it is converted to.
        crop: a function from the image's width and height to the part that is resized to the form's size (bilinear,
            antialiased, without keeping the proportions); None takes the centre crop of the form.

    Raises:
        ValueError: it is damaged; it is in colour and the form is grey; or it has another size and no size was given.
    """
    try:
        with _open(item) as opened:
            _require_bytes(item, opened)
            opened.load()
            if form.mode == "L" and opened.mode not in _GREY:
                raise Coloured(f"{item.where} is in colour, but the images before it are grey: save all in colour")
            upright = opened if _orientation(opened) == 1 else ImageOps.exif_transpose(opened)
            image = _convert(upright, form.mode)
            if crop is None:
                image = _fit(image, form)
            else:
                image = image.crop(crop(*image.size)).resize(form.size, Image.Resampling.BILINEAR)
    except ValueError as error:
        raise (error if str(error).startswith(item.where) else _damaged(item, error)) from None
    except Exception as error:  # as in _open
        raise _damaged(item, error) from None
    if image.size != form.size:
        raise OtherSize(
            f"{item.where} has {image.width}x{image.height} pixels, the first image {form.size[0]}x{form.size[1]}: "
            "give --image-size N to resize all to NxN"
        )
    array = np.asarray(image)
    return array[None] if array.ndim == 2 else array.transpose(2, 0, 1)


def _require_bytes(item: Encoded, image: Image.Image) -> None:
    layouts = [str(tile[3]) for tile in getattr(image, "tile", [])]  # such as "RGB;16B", which PIL would cut to 8 bits
    if image.mode not in _GREY | _COLOUR or any(";16" in layout for layout in layouts):
        mode = f"{image.mode};16" if image.mode in _COLOUR else image.mode
        raise ValueError(f"{item.where} has pixels of mode {mode}: save it with 8 bits per channel")


def _damaged(item: Encoded, error: Exception) -> ValueError:
    reason = "unknown image format" if isinstance(error, UnidentifiedImageError) else str(error)
    return ValueError(f"{item.where} cannot be decoded ({reason}): replace or remove it")


def _orientation(image: Image.Image) -> int:
    """The Exif orientation: 1 for upright, 5 to 8 for rotated by 90 degrees; 1 if the Exif data are damaged."""
    try:
        return int(image.getexif().get(ExifTags.Base.Orientation, 1)) if "exif" in image.info else 1
    except Exception:  # as in _open
        return 1


def _convert(image: Image.Image, mode: str) -> Image.Image:
    if image.mode == mode:
        return image
    if "transparency" in image.info:  # PIL needs RGBA before it can drop a palette's transparency
        image = image.convert("RGBA")
    return image.convert(mode)


def _fit(image: Image.Image, form: Form) -> Image.Image:
    """The image with its shorter side resized (antialiased), then cropped to the centre, if the form has a size."""
    if form.resize is None or (image.size == form.size and form.resize == form.size[0]):
        return image
    side, scale = form.size[0], form.resize / min(image.size)
    width, height = (max(form.resize, round(length * scale)) for length in image.size)
    left, top = (width - side) // 2, (height - side) // 2
    bilinear = form.resize != side  # bilinear is usual for ImageNet's crops
    resized = image.resize((width, height), Image.Resampling.BILINEAR if bilinear else Image.Resampling.BICUBIC)
    return resized.crop((left, top, left + side, top + side))


def check_memory(needed: int) -> None:
    """Refuse a data set that is too large, before the system kills the process for it.

    Raises:
        ValueError: the decoded images need more than this machine's memory.
    """
    if not hasattr(os, "sysconf"):
        return
    present = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    if needed > present:
        raise ValueError(
            f"the decoded images need {needed / 2**30:.1f} GiB, this machine has {present / 2**30:.1f}: "
            "give a smaller --image-size or fewer --classes"
        )
