"""Run lengths to bitmaps and back, and nearest resizing that never makes the full bitmap.

Nearest resizing takes the source row ``floor(i * source / target)`` for target row i, and columns
alike. It is a choice of rows and columns, so it can be read off the runs: the target rows taken
from source rows y0 to before y1 are ``ceil(y0 * target / source)`` to before ``ceil(y1 * target /
source)``.
"""

from __future__ import annotations

from collections.abc import Sequence

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
    (height, width), grid_width = size_hw, grid_hw[1]
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
    return _intervals(starts, ends, columns, tops, height, grid_hw[0])


def resized_intervals_batch(
    masks: Sequence[Runs], size_hw: tuple[int, int], grid_hw: tuple[int, int]
) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
    """Where the runs of N masks of one picture lie on N other grids, the first of which is followed
    by the second, and so on: ``resized_intervals`` of all of them in one go.

    Args:
        masks: N arrays of shape (R_i, 2), valid for the picture.
        size_hw: Height and width of the picture.
        grid_hw: Height and width of each grid, both at least 1.

    Returns:
        Starts and ends, shape (S,) int64, of ascending disjoint intervals; those of mask i, counted
        from i * grid height * grid width, may touch.
    """
    (height, width), (grid_height, grid_width) = size_hw, grid_hw
    counts = np.array([len(runs) for runs in masks], dtype=np.int64)
    filled = np.flatnonzero(counts)
    runs = np.concatenate([np.zeros((0, 2), dtype=np.int32), *masks])
    # Side by side the masks are one mask of a picture N times as wide.
    starts = runs[:, 0] + (np.arange(len(masks)) * (height * width)).repeat(counts)
    ends = starts + runs[:, 1]
    last = counts.cumsum()[filled] - 1
    left, right = starts[last + 1 - counts[filled]] // height, -(-ends[last] // height)
    first_column = -(-left * grid_width // width)
    columns_of_mask = -(-right * grid_width // width) - first_column
    columns = _ranges(first_column, columns_of_mask)
    tops = columns * width // grid_width * height
    starts, ends = _intervals(starts, ends, columns, tops, height, grid_height)
    seen = starts < ends  # an empty one may lie past the last column, in the next mask's grid
    return starts[seen], ends[seen]


def _ranges(begins: npt.NDArray[np.int64], lengths: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
    """Count up from each begin, one range after the other. Shapes (N,) and (sum of lengths,)."""
    ends = lengths.cumsum()
    total = int(ends[-1]) if len(ends) else 0
    return np.arange(total) + np.repeat(begins - (ends - lengths), lengths)


def _intervals(
    starts: npt.NDArray[np.int64],
    ends: npt.NDArray[np.int64],
    columns: npt.NDArray[np.int64],
    tops: npt.NDArray[np.int64],
    height: int,
    grid_height: int,
) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
    """Cut intervals at the source columns that begin at ``tops``, and put them into the columns of
    the grid. Shapes (R,), (R,), (C,), (C,)."""
    first = ends.searchsorted(tops, side="right")
    pieces = np.maximum(starts.searchsorted(tops + height, side="left") - first, 0)
    chosen = _ranges(first, pieces)
    tops = tops.repeat(pieces)
    grid_tops = (columns * grid_height).repeat(pieces)
    y_first = np.maximum(starts[chosen] - tops, 0)
    y_end = np.minimum(ends[chosen] - tops, height)
    return (
        grid_tops + -(-y_first * grid_height // height),
        grid_tops + -(-y_end * grid_height // height),
    )
