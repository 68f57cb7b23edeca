"""Sizes and pixels of pictures, read right: EXIF rotation applied, any colour mode made RGB."""

from __future__ import annotations

import math
import os
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
import numpy.typing as npt
import pyarrow as pa
from PIL import Image, ImageOps

from src.errors import InputError
from src.io import refuse_special_file

_ORIENTATION_TAG = 0x0112
SIDEWAYS = (5, 6, 7, 8)
"""EXIF orientations that exchange height and width (EXIF 2.32, section 4.6.4)."""

_END_MARKS = {"JPEG": b"\xff\xd9", "MPO": b"\xff\xd9", "PNG": b"IEND"}
_TAIL_BYTES = 4096
LARGEST_MEGAPIXELS = 2147  # masks count pixels in 32 bits
_BYTES_A_PIXEL = 7  # Pillow keeps four, and the array that is made of them takes three

# Pillow's own limit would call a large image a "decompression bomb" and not say its size; _open
# compares the size that the header names with the limit of max_image_megapixels instead.
Image.MAX_IMAGE_PIXELS = None
_limit_megapixels = 179.0


def set_max_megapixels(value: float) -> None:
    """Set the number of megapixels above which an image is refused, in this process.

    Raises:
        InputError: not a number above 0 and at most ``LARGEST_MEGAPIXELS``.
    """
    global _limit_megapixels
    is_number = isinstance(value, int | float) and not isinstance(value, bool)
    if not is_number or not 0 < value <= LARGEST_MEGAPIXELS:
        raise InputError(
            "max_image_megapixels must be a number above 0 and at most "
            f"{LARGEST_MEGAPIXELS}, got {value!r:.60}"
        )
    _limit_megapixels = value


def _check_pixels(path: Path, size_wh: tuple[int, int]) -> None:
    megapixels = size_wh[0] * size_wh[1] / 1e6
    if megapixels > _limit_megapixels:
        raise InputError(
            f"{path}: max_image_megapixels must be {math.ceil(megapixels)} or more for this image "
            f"of {size_wh[0]} x {size_wh[1]} px (width x height), got {_limit_megapixels:g}; "
            f"reading it takes about {megapixels * _BYTES_A_PIXEL / 1000:.1f} GB of memory"
        )


@dataclass(frozen=True, slots=True)
class ImageHeader:
    """Size of an image as its file stores it, and how a viewer turns it."""

    stored_hw: tuple[int, int]  # pixels
    orientation: int  # EXIF, 1 to 8; 1: displayed as stored

    @property
    def displayed_hw(self) -> tuple[int, int]:
        """Height and width in pixels, EXIF orientation applied."""
        return self.stored_hw[::-1] if self.orientation in SIDEWAYS else self.stored_hw


def read_header(path: str | Path) -> ImageHeader:
    """Read size and orientation of an image, without decoding its pixels.

    A JPEG or PNG must also carry its end mark near the end of the file; one without it (a download
    that broke off, or a long trailer) is decoded to know.

    Raises:
        InputError: the file is missing, is no picture, or is truncated.
    """
    path = Path(path)
    with _open(path) as image:
        width, height = image.size
        orientation = _orientation(image)
        # of a TIFF, Pillow gives the size as it is displayed
        if image.format == "TIFF" and orientation in SIDEWAYS:
            width, height = height, width
        if not _has_end_mark(path, image.format or ""):
            _load(image, path)
    return ImageHeader(stored_hw=(height, width), orientation=orientation)


def read_size_hw(path: str | Path) -> tuple[int, int]:
    """Read the size of an image as it is displayed, as ``read_header`` does.

    Returns:
        (height, width) in pixels, EXIF orientation applied.

    Raises:
        InputError: the file is missing, is no picture, or is truncated.
    """
    return read_header(path).displayed_hw


def read_image_rgb(
    path: str | Path, *, at_least_hw: tuple[int, int] | None = None
) -> npt.NDArray[np.uint8]:
    """Pixels of a picture as it is displayed.

    Grayscale is repeated in the three channels, CMYK and palettes are converted, transparency is
    dropped, 16-bit values keep their high byte.

    Args:
        path: the picture.
        at_least_hw: height and width that the result may not fall below; a JPEG is then decoded at
            a half, a quarter or an eighth of its size where that is enough. None: at full size.

    Returns:
        (H, W, 3) uint8, RGB, 0-255, EXIF rotation applied.

    Raises:
        InputError: the file is missing, is no picture, or is truncated.
    """
    path = Path(path)
    with _open(path) as image:
        if at_least_hw is not None:
            sideways = _orientation(image) in SIDEWAYS
            image.draft(None, at_least_hw if sideways else at_least_hw[::-1])
        _load(image, path)
        ImageOps.exif_transpose(image, in_place=True)
        if image.mode.startswith("I"):
            gray = (np.asarray(image).astype(np.int64) >> 8).clip(0, 255).astype(np.uint8)
            return np.repeat(gray[:, :, None], 3, axis=2)
        return _pixels(image if image.mode == "RGB" else image.convert("RGB"))


def _pixels(rgb: Image.Image) -> npt.NDArray[np.uint8]:
    """Copy the pixels of an RGB picture, shape (H, W, 3).

    Pillow keeps four bytes a pixel. Arrow shows them as they are where the rows lie together, which
    Pillow sees to up to 16 MB: in a fifth of the time of Pillow's own export.
    """
    try:
        values = pa.array(rgb).values
    except ValueError:
        return np.array(rgb)
    padded = np.frombuffer(values.buffers()[1], dtype=np.uint8).reshape(rgb.height, rgb.width, 4)
    return np.asarray(cv2.cvtColor(padded, cv2.COLOR_RGBA2RGB), dtype=np.uint8)


def _open(path: Path) -> Image.Image:
    refuse_special_file(path)
    try:
        image = Image.open(path)
    except FileNotFoundError as error:
        raise InputError(f"{path}: the image file is missing") from error
    except (OSError, ValueError, SyntaxError) as error:
        raise InputError(f"{path}: not a picture, or cut off in its header ({error})") from error
    try:
        _check_pixels(path, image.size)
    except InputError:
        image.close()
        raise
    return image


def _load(image: Image.Image, path: Path) -> None:
    try:
        image.load()
    except (OSError, ValueError, SyntaxError, EOFError) as error:
        raise InputError(f"{path}: the picture is damaged or truncated ({error})") from error


def _orientation(image: Image.Image) -> int:
    try:
        orientation = image.getexif().get(_ORIENTATION_TAG, 1)
    except (OSError, ValueError, TypeError, SyntaxError):
        return 1  # EXIF that cannot be read rotates nothing, as in every viewer
    return orientation if isinstance(orientation, int) and 1 <= orientation <= 8 else 1


def _has_end_mark(path: Path, picture_format: str) -> bool:
    mark = _END_MARKS.get(picture_format)
    if mark is None:
        return False
    with open(path, "rb") as file:
        file.seek(max(0, os.path.getsize(path) - _TAIL_BYTES))
        return mark in file.read()
