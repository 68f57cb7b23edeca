"""Pixels of photos at the size in which they are wanted."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import numpy.typing as npt

from src.annotations.image_headers import read_image_rgb
from src.datamodules.transforms import resize_photo


def read_photo(path: Path, *, size_hw: tuple[int, int]) -> npt.NDArray[np.uint8]:
    """Read a photo, EXIF rotation applied, and resize it.

    A JPEG of twice the size or more is decoded at a half, a quarter or an eighth of it (a choice of
    the inverse DCT's size: the mean of the pixels that it stands for), which takes a fraction of
    the time; what is left is bilinear. Where mmdetection skips pixels this averages them: a gray
    level of 255 apart in the mean (benchmarks/loading.py).

    Args:
        path: the picture.
        size_hw: height and width of the result.

    Returns:
        Shape (*size_hw, 3), uint8, RGB.

    Raises:
        InputError: the file is missing or damaged.
    """
    return resize_photo(read_image_rgb(path, at_least_hw=size_hw), size_hw)
