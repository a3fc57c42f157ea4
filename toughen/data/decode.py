"""From encoded images to uint8 pixels. The only place that opens an image."""

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

_FORMATS = ("PNG", "JPEG", "BMP", "WEBP", "GIF", "TIFF")  # none of them starts another program, as EPS would
_GREY = {"1", "L", "LA"}
_COLOUR = {"P", "PA", "RGB", "RGBA", "RGBX", "CMYK", "YCbCr", "HSV", "LAB"}
Pixels: TypeAlias = np.ndarray[Any, np.dtype[np.uint8]]  # [c, h, w]
Box: TypeAlias = tuple[int, int, int, int]  # left, top, right, bottom, in pixels

_BLOCK = 512  # images whose bytes are held at a time
_OTHERS_ARE_GREY = "the images looked at first are grey: save all as colour"
_WORTH_THREADS = 128 * 128  # pixels; decoding smaller images is mostly Python, which threads cannot share


@dataclass(frozen=True)
class Form:
    """What every image of a set is turned into.

    Attributes:
        mode: "L" (one channel) or "RGB".
        size: width and height in pixels.
        resize: pixels that the shorter side is brought to before the centre is cut out; None: all have the size.
        why: where nobody gave the size, why it is this one.
    """

    mode: str
    size: Size
    resize: int | None
    why: str = ""

    @property
    def image_size(self) -> int | None:
        """What images are brought to; None where they stay as they are."""
        return None if self.resize is None else self.size[0]

    @property
    def shape(self) -> tuple[int, int, int]:
        """Channels, rows, columns."""
        return len(self.mode), self.size[1], self.size[0]


@dataclass
class Look:
    """What the headers of images say: their modes, and how many there are of each size, upright."""

    modes: set[str] = field(default_factory=set)
    sizes: Counter[Size] = field(default_factory=Counter)


def look(source: Source) -> Look:
    """Read every image's header, and no pixels.

    Raises:
        ValueError: an image cannot be opened, is too large to be decoded safely, or has more than 8 bits a channel.
    """
    survey = Look()
    with bombs_refused():
        for item in source.images():
            with _open(item) as image:
                _require_bytes(item, image)
                survey.modes.add(image.mode)
                survey.sizes[image.size if _orientation(image) < 5 else image.size[::-1]] += 1
    return survey


def form_of(looks: Sequence[Look], image_size: ImageSize, resize: int | None = None) -> Form:
    """One channel only if all are grey; the size that is given, or chosen by the first look, or its first image's.

    Args:
        looks: at each split, training images first.
        image_size: "auto" chooses one; None takes that of the first image, which all must have then.
        resize: what the shorter side is brought to before the centre is cut out; None means ``image_size``.
    """
    mode = "L" if set().union(*(each.modes for each in looks)) <= _GREY else "RGB"
    sizes, why = looks[0].sizes, ""
    if image_size == "auto":
        image_size, why = choose(sizes) if sizes else (None, "")
    if image_size is None:
        return Form(mode, next(iter(sizes), (0, 0)), None, why)
    return Form(mode, (image_size, image_size), resize or image_size, why)


def survey(sources: tuple[Source, ...], image_size: ImageSize, resize: int | None = None) -> Form:
    """What all images are turned into, after a look at each one's header; the arguments are as for ``form_of``.

    Raises:
        ValueError: as ``look``.
    """
    return form_of([look(source) for source in sources], image_size, resize)


@contextmanager
def bombs_refused() -> Iterator[None]:
    """Within the block, an image that declares more pixels than PIL thinks safe is an error."""
    with warnings.catch_warnings():
        warnings.simplefilter("error", Image.DecompressionBombWarning)
        yield


def decode(source: Source, form: Form) -> ByteImages:
    """All images of a split, uint8 [n, c, h, w].

    Raises:
        ValueError: an image is damaged, or has another size than the first and none was asked for.
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


def pixels(
    item: Encoded, form: Form, crop: Callable[[int, int], Box] | None = None, *, grey_because: str = _OTHERS_ARE_GREY
) -> Pixels:
    """One image as [c, h, w].

    Args:
        item: the image.
        form: what it is turned into.
        crop: given the image's width and height, the part that is resized to the form's size, whatever its proportions
            (bilinear, antialiased); None takes the centre, as the form says.
        grey_because: why an image in colour is refused where the form is grey, and what to do.

    Raises:
        ValueError: it is damaged, in colour where the others are grey, or of another size and none was asked for.
    """
    try:
        with _open(item) as opened:
            _require_bytes(item, opened)
            opened.load()
            if form.mode == "L" and opened.mode not in _GREY:
                raise ValueError(f"{item.where} is in colour, {grey_because}")
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
        raise ValueError(
            f"{item.where} has {image.width}x{image.height} pixels, the first image {form.size[0]}x{form.size[1]}: "
            "give --image-size N to bring all to NxN"
        )
    array = np.asarray(image)
    return array[None] if array.ndim == 2 else array.transpose(2, 0, 1)


def _require_bytes(item: Encoded, image: Image.Image) -> None:
    layouts = [str(tile[3]) for tile in getattr(image, "tile", [])]  # such as "RGB;16B", which PIL would cut to 8 bits
    if image.mode not in _GREY | _COLOUR or any(";16" in layout for layout in layouts):
        mode = f"{image.mode};16" if image.mode in _COLOUR else image.mode
        raise ValueError(f"{item.where} has pixels of mode {mode}: save it with 8 bits a channel")


def _damaged(item: Encoded, error: Exception) -> ValueError:
    reason = "no known image format" if isinstance(error, UnidentifiedImageError) else str(error)
    return ValueError(f"{item.where} cannot be decoded ({reason}): replace or remove it")


def _orientation(image: Image.Image) -> int:
    """1 for an upright image, 5 to 8 for one that lies on its side; damaged Exif data count as none."""
    try:
        return int(image.getexif().get(ExifTags.Base.Orientation, 1)) if "exif" in image.info else 1
    except Exception:  # as in _open
        return 1


def _convert(image: Image.Image, mode: str) -> Image.Image:
    if image.mode == mode:
        return image
    if "transparency" in image.info:  # PIL wants the palette's transparency made explicit first
        image = image.convert("RGBA")
    return image.convert(mode)


def _fit(image: Image.Image, form: Form) -> Image.Image:
    """Shorter side resized with antialiasing, centre cut out, where the form asks for it."""
    if form.resize is None or (image.size == form.size and form.resize == form.size[0]):
        return image
    side, scale = form.size[0], form.resize / min(image.size)
    width, height = (max(form.resize, round(length * scale)) for length in image.size)
    left, top = (width - side) // 2, (height - side) // 2
    bilinear = form.resize != side  # the way of ImageNet's crops, in training and test
    resized = image.resize((width, height), Image.Resampling.BILINEAR if bilinear else Image.Resampling.BICUBIC)
    return resized.crop((left, top, left + side, top + side))


def check_memory(needed: int) -> None:
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
            "give a smaller --image-size or fewer --classes"
        )
