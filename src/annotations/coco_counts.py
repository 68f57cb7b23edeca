"""Masks as COCO's uncompressed counts: the lengths of runs by turns, background first.

Runs that touch are kept apart by a background run of length zero, so a mask comes back with the
very runs it had.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from src.annotations.instances import Runs
from src.annotations.run_length_checks import RunLengthError


def to_coco_counts(runs: Runs, size_hw: tuple[int, int]) -> list[int]:
    """Uncompressed COCO counts of a mask.

    Args:
        runs: Shape (R, 2), valid for the picture.
        size_hw: Height and width of the picture.

    Returns:
        Lengths of background and object runs by turns, background first; they sum to H * W. A
        background run of length zero at the end is left out.
    """
    counts, _ = counts_batch(runs, np.array([0, len(runs)]), np.array([size_hw]))
    return counts.tolist() if counts[-1] or len(runs) == 0 else counts[:-1].tolist()


def from_coco_counts(
    counts: Sequence[int] | npt.NDArray[np.integer], size_hw: tuple[int, int]
) -> Runs:
    """Runs of uncompressed COCO counts.

    Args:
        counts: Lengths of background and object runs by turns, background first.
        size_hw: Height and width of the picture.

    Returns:
        Shape (R, 2) int32, without object runs of length zero; runs that a background run of length
        zero parts are kept apart.

    Raises:
        RunLengthError: a count is no whole number or negative, or they do not sum to H * W.
    """
    try:
        lengths = np.asarray(counts, dtype=np.int64 if len(counts) == 0 else None)
    except (TypeError, ValueError):
        lengths = np.zeros(())
    if lengths.ndim != 1 or lengths.dtype.kind not in "iu":
        raise RunLengthError(f"counts must be a list of whole numbers, got {str(counts)[:60]}")
    if (lengths < 0).any():
        at = int(np.argmax(lengths < 0))
        raise RunLengthError(f"count {at + 1} of {len(lengths)} is negative: {lengths[at]}")
    height_px, width_px = size_hw
    ends = np.cumsum(lengths, dtype=np.int64)
    total = int(ends[-1]) if len(ends) else 0
    if total != height_px * width_px:
        raise RunLengthError(
            f"counts sum to {total}, a picture of height {height_px} and width {width_px} has "
            f"{height_px * width_px}"
        )
    runs = np.stack([(ends - lengths)[1::2], lengths[1::2]], axis=1)
    return runs[runs[:, 1] > 0].astype(np.int32)


def counts_batch(
    runs: Runs, offsets: npt.NDArray[np.int64], sizes_hw: npt.NDArray[np.integer]
) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
    """Counts of N masks in a row, 2 R + 1 of a mask of R runs, and the place of each's first."""
    sizes_px = np.prod(sizes_hw, axis=1, dtype=np.int64)
    begins = 2 * offsets[:-1] + np.arange(len(sizes_px))
    places = 2 * np.arange(len(runs)) + np.repeat(np.arange(len(sizes_px)), np.diff(offsets))
    filled = np.diff(offsets) > 0
    starts = runs[:, 0].astype(np.int64)
    ends = starts + runs[:, 1]
    gaps = np.diff(ends, prepend=0) - runs[:, 1]
    gaps[offsets[:-1][filled]] = starts[offsets[:-1][filled]]
    sizes_px[filled] -= ends[offsets[1:][filled] - 1]
    counts = np.empty(2 * len(runs) + len(sizes_px), dtype=np.int64)
    counts[places] = gaps
    counts[places + 1] = runs[:, 1]
    counts[begins + 2 * np.diff(offsets)] = sizes_px
    return counts, begins
