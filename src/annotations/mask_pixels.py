"""Pixel values of mask images as their files store them: palette indices, grey values, numbers."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import numpy.typing as npt
from PIL import Image

from src.annotations.image_files import UNREADABLE, load_pixels, open_image
from src.annotations.mat_file import read_mat_array
from src.annotations.rows import RowError

MAT_SUFFIX = ".mat"
LOSSLESS_SUFFIXES = (".png", ".tif", ".tiff", ".bmp", ".gif", MAT_SUFFIX)
"""Of files that can hold ids or labels, in lower case; what JPEG stores is not what was drawn."""

# Grey values of few bits, which Pillow spreads over 0 to 255, by its name of how they are stored.
_SPREAD = {"L;2": 85, "L;4": 17}


def read_mask_values(path: Path, *, mat_variable: str | None = None) -> npt.NDArray[np.integer]:
    """Read the values of a mask image, without any conversion of colours.

    A palette image gives its indices, whatever the colours of the palette. Of an image with colour
    channels these must be equal, and an alpha channel is left out.

    Args:
        path: The file; by its suffix a MAT-file, else an image.
        mat_variable: Name of the matrix in a MAT-file; None: the only one.

    Returns:
        (H, W), whole numbers of any type.

    Raises:
        InputError: The file is missing, no image, truncated, or too large.
        RowError: A value is none that a mask can have; names it and its place.
    """
    if path.name.lower().endswith(MAT_SUFFIX):
        return _whole_numbers(read_mat_array(path, mat_variable))
    with open_image(path) as image:
        if (num_pages := _num_pages(image)) > 1:
            raise RowError(f"must hold one image, got {num_pages} pages or frames")
        stored = _stored_as(image)
        load_pixels(image, path)
        values = np.asarray(image)
        has_palette = image.mode in ("P", "PA")
        mode = image.mode
    if mode in ("RGB", "RGBA", "RGBX", "RGBa"):
        if "16" in stored:
            raise RowError(
                "values must be grey, palette indices or 8-bit colours with equal channels, got "
                "colours of 16 bits"
            )
        values = _equal_channels(values[:, :, :3])
    elif mode in ("LA", "La", "PA"):
        values = values[:, :, 0]
    elif values.ndim != 2:
        raise RowError(f"values must be grey or palette indices, got colours ({mode})")
    if values.dtype == np.bool_:
        return np.asarray(values.view(np.uint8) != 0, dtype=np.uint8)  # Pillow has 255 for true
    if not has_palette and stored in _SPREAD:
        return np.asarray(values // _SPREAD[stored], dtype=np.uint8)
    return _whole_numbers(values)


def _num_pages(image: Image.Image) -> int:
    try:
        return int(getattr(image, "n_frames", 1))
    except UNREADABLE:
        return 1  # damaged; decoding says so


def _stored_as(image: Image.Image) -> str:
    """Return how the file stores pixels, as Pillow calls it (``L;4``); empty where it is unsaid."""
    tiles = getattr(image, "tile", None) or ()
    layout = tiles[0][3] if tiles else ""
    return str(layout[0] if isinstance(layout, tuple) and layout else layout)


def _equal_channels(rgb: npt.NDArray[np.uint8]) -> npt.NDArray[np.uint8]:
    differs = (rgb[:, :, 0] != rgb[:, :, 1]) | (rgb[:, :, 0] != rgb[:, :, 2])
    if differs.any():
        row, column = np.argwhere(differs)[0].tolist()
        colour = tuple(rgb[row, column].tolist())
        raise RowError(
            f"red, green and blue must be equal in each pixel, got {colour} in row {row}, column "
            f"{column} (counted from 0)"
        )
    return rgb[:, :, 0]


def _whole_numbers(values: npt.NDArray[np.generic]) -> npt.NDArray[np.integer]:
    if values.dtype.kind in "iu":
        return values.astype(values.dtype.newbyteorder("="), copy=False)
    numbers = values.astype(np.float64)
    with np.errstate(invalid="ignore"):
        whole = np.abs(numbers) < 2**31
        rounded = np.where(whole, numbers, 0).astype(np.int32)
    wrong = ~whole | (rounded != numbers)
    if wrong.any():
        row, column = np.argwhere(wrong)[0].tolist()
        raise RowError(
            f"values must be whole numbers, got {numbers[row, column]} in row {row}, column "
            f"{column} (counted from 0)"
        )
    return rounded
