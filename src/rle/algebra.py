"""Set operations, areas and boxes of run-length masks, without decoding them."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import numpy.typing as npt

Runs = npt.NDArray[np.int32]
"""Run lengths of one mask. Shape (R, 2), int32: column-major 0-based start and length, in pixels.

Starts ascend, runs do not overlap (they may touch), lengths are positive. R = 0 is the empty mask.
The pixel in row y and column x of an image of height H has the number x * H + y.
"""


def area_px(runs: Runs) -> int:
    """Number of pixels of a mask. Runs: shape (R, 2)."""
    return int(runs[:, 1].sum(dtype=np.int64))


def box_xyxy(runs: Runs, height_px: int) -> npt.NDArray[np.int32]:
    """Smallest box around a mask.

    Args:
        runs: Shape (R, 2).
        height_px: Height of the image.

    Returns:
        Shape (4,) int32, x_min, y_min, x_max, y_max in pixels, half-open (the maxima are one past
        the last pixel); zeros for the empty mask.
    """
    result: npt.NDArray[np.int32] = boxes_xyxy_batch(
        runs=runs, offsets=np.array([0, len(runs)]), heights_px=np.array([height_px])
    )[0]
    return result


def areas_px_batch(runs: Runs, offsets: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
    """Number of pixels of each of N masks, shape (N,) int64.

    Args:
        runs: Shape (R, 2), the runs of all masks one after the other.
        offsets: Shape (N + 1,), mask i has the runs ``offsets[i]`` to ``offsets[i + 1]``.
    """
    areas = np.zeros(len(offsets) - 1, dtype=np.int64)
    filled = np.flatnonzero(np.diff(offsets))
    if len(filled):
        areas[filled] = np.add.reduceat(runs[:, 1], offsets[filled], dtype=np.int64)
    return areas


def boxes_xyxy_batch(
    runs: Runs, offsets: npt.NDArray[np.int64], heights_px: npt.NDArray[np.integer]
) -> npt.NDArray[np.int32]:
    """Smallest box around each of N masks, as :func:`box_xyxy`, shape (N, 4) int32.

    Args:
        runs: Shape (R, 2), the runs of all masks one after the other.
        offsets: Shape (N + 1,), mask i has the runs ``offsets[i]`` to ``offsets[i + 1]``.
        heights_px: Shape (N,), height of each mask's image.
    """
    boxes = np.zeros((len(offsets) - 1, 4), dtype=np.int32)
    filled = np.flatnonzero(np.diff(offsets))
    if len(filled) == 0:
        return boxes
    first, last = offsets[filled], offsets[filled + 1] - 1
    heights = np.repeat(np.asarray(heights_px, dtype=np.int32), np.diff(offsets))
    starts = runs[:, 0]
    x_first, y_first = np.divmod(starts, heights)
    y_end = y_first + runs[:, 1]
    # A run that goes on into the next column covers the bottom of this one and the top of the next.
    crosses = y_end > heights
    if crosses.any():
        y_first[crosses] = 0
        y_end[crosses] = heights[crosses]
    boxes[filled, 0] = x_first[first]
    boxes[filled, 1] = np.minimum.reduceat(y_first, first)
    boxes[filled, 2] = (starts[last] + runs[last, 1] - 1) // heights[last] + 1
    boxes[filled, 3] = np.maximum.reduceat(y_end, first)
    return boxes


def split_columns(runs: Runs, height_px: int) -> Runs:
    """Cut runs at the ends of columns, so that each lies in one. Shapes (R, 2) and (S, 2)."""
    starts = runs[:, 0].astype(np.int64)
    ends = starts + runs[:, 1]
    columns = starts // height_px
    pieces = (ends - 1) // height_px - columns + 1
    if (pieces == 1).all():
        return runs
    within = np.arange(pieces.sum()) - np.repeat(np.cumsum(pieces) - pieces, pieces)
    tops = (np.repeat(columns, pieces) + within) * height_px
    cut_starts = np.maximum(np.repeat(starts, pieces), tops)
    cut_ends = np.minimum(np.repeat(ends, pieces), tops + height_px)
    return np.stack([cut_starts, cut_ends - cut_starts], axis=1).astype(np.int32)


def merge_touching(starts: npt.NDArray[np.integer], ends: npt.NDArray[np.integer]) -> Runs:
    """Maximal runs, shape (R, 2), of ascending disjoint intervals; empty ones are dropped."""
    kept = ends > starts
    starts, ends = starts[kept], ends[kept]
    if len(starts) == 0:
        return np.zeros((0, 2), dtype=np.int32)
    apart = starts[1:] > ends[:-1]
    starts = starts[np.append(True, apart)]
    ends = ends[np.append(apart, True)]
    return np.stack([starts, ends - starts], axis=1).astype(np.int32)


def mirror(runs: Runs, size_hw: tuple[int, int]) -> Runs:
    """Flip a mask left to right: pixel (x, y) goes to (width - 1 - x, y).

    Args:
        runs: Shape (R, 2).
        size_hw: Height and width of the image.

    Returns:
        Maximal runs, shape (S, 2).
    """
    height_px, width_px = size_hw
    pieces = split_columns(runs, height_px).astype(np.int64)
    starts = pieces[:, 0] + (width_px - 1 - 2 * (pieces[:, 0] // height_px)) * height_px
    order = np.argsort(starts)
    return merge_touching(starts[order], (starts + pieces[:, 1])[order])


def intersection_px(a: Runs, b: Runs) -> int:
    """Number of pixels that two masks of one image share. Runs: shapes (R, 2) and (S, 2)."""
    if len(a) == 0 or len(b) == 0:
        return 0
    if len(a) > len(b):
        a, b = b, a
    starts = b[:, 0].astype(np.int64)
    lengths = b[:, 1].astype(np.int64)
    before = np.cumsum(lengths) - lengths

    def covered(places: npt.NDArray[np.int64]) -> int:
        """Sum over places of the number of pixels of ``b`` before each."""
        run = np.searchsorted(starts, places, side="right") - 1
        inside = np.minimum(places - starts[run], lengths[run])
        return int(np.where(run < 0, 0, before[run] + inside).sum())

    a_starts = a[:, 0].astype(np.int64)
    return covered(a_starts + a[:, 1]) - covered(a_starts)


def iou(a: Runs, b: Runs) -> float:
    """Intersection over union of two masks of one image, in [0, 1]; 0 where both are empty."""
    shared = intersection_px(a, b)
    total = area_px(a) + area_px(b) - shared
    return shared / total if total else 0.0


def subtract(a: Runs, b: Runs) -> Runs:
    """Pixels of ``a`` that are not in ``b``, as maximal runs, shape (R, 2)."""
    return _combine(a, b, wanted=lambda in_a, in_b: in_a & ~in_b)


def union(a: Runs, b: Runs) -> Runs:
    """Pixels of ``a``, ``b`` or both, as maximal runs, shape (R, 2)."""
    return _combine(a, b, wanted=lambda in_a, in_b: in_a | in_b)


def _combine(
    a: Runs,
    b: Runs,
    wanted: Callable[[npt.NDArray[np.bool_], npt.NDArray[np.bool_]], npt.NDArray[np.bool_]],
) -> Runs:
    """Maximal runs of the pixels for which ``wanted(in_a, in_b)``, false outside both."""
    a_starts, b_starts = a[:, 0].astype(np.int64), b[:, 0].astype(np.int64)
    places = np.concatenate([a_starts, a_starts + a[:, 1], b_starts, b_starts + b[:, 1]])
    a_steps, b_steps = np.repeat([[1, -1, 0, 0], [0, 0, 1, -1]], [len(a)] * 2 + [len(b)] * 2, 1)
    order = np.argsort(places, kind="stable")
    places = places[order]
    # Between equal places the sums may be off, but no pixel lies there; merging drops those.
    in_a = np.cumsum(a_steps[order])[:-1] > 0
    in_b = np.cumsum(b_steps[order])[:-1] > 0
    kept = wanted(in_a, in_b)
    return merge_touching(places[:-1][kept], places[1:][kept])
