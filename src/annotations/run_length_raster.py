"""Run lengths to bitmaps and back, and nearest resizing that never makes the full bitmap.

Nearest resizing takes the source row ``floor(i * source / target)`` for target row i, and columns
alike. It is a choice of rows and columns, so it can be read off the runs: the target rows taken
from source rows y0 to before y1 are ``ceil(y0 * target / source)`` to before ``ceil(y1 * target /
source)``.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from src.annotations.instances import Runs
from src.annotations.run_length_algebra import merge_touching
from src.annotations.run_length_bits import (
    pixels_to_words,
    runs_to_words,
    transpose,
    words_to_pixels,
    words_to_runs,
)


def decode(runs: Runs, size_hw: tuple[int, int]) -> npt.NDArray[np.bool_]:
    """Draw a mask.

    Args:
        runs: Shape (R, 2), valid for the picture (``check_runs``).
        size_hw: Height and width of the picture.

    Returns:
        Shape (H, W) bool.
    """
    mask = np.zeros(size_hw, dtype=np.bool_)
    draw(runs, mask)
    return mask


def draw(runs: Runs, mask: npt.NDArray[np.bool_]) -> None:
    """Draw a mask into a bitmap that is there.

    Args:
        runs: Shape (R, 2), valid for the picture (``check_runs``).
        mask: Shape (H, W) bool, of the picture, nothing drawn in it yet. Changed; outside of the
            columns that the mask meets not even touched, so that a row of ``np.zeros`` takes no
            memory there.
    """
    starts = runs[:, 0].astype(np.int64)
    _draw(starts, starts + runs[:, 1], mask)


def encode(mask: npt.NDArray[np.bool_]) -> Runs:
    """Maximal runs of a bitmap.

    Args:
        mask: Shape (H, W), bool or any numbers, not zero where the object is.

    Returns:
        Shape (R, 2) int32.
    """
    columns = transpose(mask.astype(np.bool_, copy=False))
    return words_to_runs(pixels_to_words(columns.ravel()))


def decode_resized(
    runs: Runs,
    size_hw: tuple[int, int],
    grid_hw: tuple[int, int],
    flip_horizontal: bool = False,
) -> npt.NDArray[np.bool_]:
    """Draw a mask on a smaller or larger grid: as ``decode``, nearest resizing, flipping would.

    Args:
        runs: Shape (R, 2), valid for the picture.
        size_hw: Height and width of the picture.
        grid_hw: Height and width of the grid, both at least 1.
        flip_horizontal: Flip left to right after resizing.

    Returns:
        Shape (grid height, grid width) bool.
    """
    starts, ends = resized_intervals(runs, size_hw, grid_hw, flip_horizontal)
    mask = np.zeros(grid_hw, dtype=np.bool_)
    _draw(starts, ends, mask)
    return mask


def resize_nearest(
    runs: Runs,
    size_hw: tuple[int, int],
    new_size_hw: tuple[int, int],
    flip_horizontal: bool = False,
) -> Runs:
    """Resize a mask by nearest: the maximal runs of what ``decode_resized`` draws.

    Args:
        runs: Shape (R, 2), valid for the picture.
        size_hw: Height and width of the picture.
        new_size_hw: Height and width of the result, both at least 1.
        flip_horizontal: Flip left to right after resizing.

    Returns:
        Shape (S, 2) int32; empty where no chosen row and column meets the mask.
    """
    return merge_touching(*resized_intervals(runs, size_hw, new_size_hw, flip_horizontal))


def _draw(
    starts: npt.NDArray[np.int64], ends: npt.NDArray[np.int64], mask: npt.NDArray[np.bool_]
) -> None:
    height_px = len(mask)
    # Only the columns from the first interval to the last are drawn; a mask is often a small part.
    left = int(starts[0]) // height_px if len(starts) else 0
    right = -(-int(ends[-1]) // height_px) if len(ends) else 0
    if left < right:
        pixels = (right - left) * height_px
        words = runs_to_words(starts - left * height_px, ends - left * height_px, pixels)
        columns = words_to_pixels(words, pixels).reshape(right - left, height_px)
        mask[:, left:right] = transpose(columns)


def resized_intervals(
    runs: Runs, size_hw: tuple[int, int], grid_hw: tuple[int, int], flip_horizontal: bool
) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
    """Where the runs lie on another grid, for who draws them: as ``resize_nearest``, not merged.

    Args:
        runs: Shape (R, 2), valid for the picture.
        size_hw: Height and width of the picture.
        grid_hw: Height and width of the grid, both at least 1.
        flip_horizontal: Flip left to right after resizing.

    Returns:
        Starts and ends, shape (S,) int64, of ascending disjoint intervals of grid pixels; they may
        touch or be empty.
    """
    (height, width), (grid_height, grid_width) = size_hw, grid_hw
    starts = runs[:, 0].astype(np.int64)
    ends = starts + runs[:, 1]
    if len(runs) == 0:
        return starts, ends
    # The grid columns whose source column floor(x * width / grid_width) lies between the mask's
    # first and last one.
    left, right = int(starts[0]) // height, -(-int(ends[-1]) // height)
    columns = np.arange(-(-left * grid_width // width), -(-right * grid_width // width))
    tops = columns * width // grid_width * height  # first pixel of each grid column's source
    if flip_horizontal:
        columns, tops = grid_width - 1 - columns[::-1], tops[::-1]
    first = np.searchsorted(ends, tops, side="right")
    pieces = np.maximum(np.searchsorted(starts, tops + height, side="left") - first, 0)
    within = np.arange(pieces.sum()) - np.repeat(np.cumsum(pieces) - pieces, pieces)
    chosen = np.repeat(first, pieces) + within
    tops = np.repeat(tops, pieces)
    grid_tops = np.repeat(columns * grid_height, pieces)
    y_first = np.maximum(starts[chosen] - tops, 0)
    y_end = np.minimum(ends[chosen] - tops, height)
    return (
        grid_tops + -(-y_first * grid_height // height),
        grid_tops + -(-y_end * grid_height // height),
    )
