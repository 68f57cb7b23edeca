"""What makes run lengths valid, and the exact words for what does not."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from src.annotations.instances import Runs
from src.errors import InputError


class RunLengthError(InputError):
    """Run lengths that describe no mask; the message names the bad value and its place."""


def check_runs(runs: Runs, size_hw: tuple[int, int]) -> None:
    """Refuse runs that are no mask of a picture of this size.

    Args:
        runs: Shape (R, 2), column-major 0-based start and length.
        size_hw: Height and width of the picture in pixels.

    Raises:
        RunLengthError: names the first run with a negative start, a length below 1, a start before
            the end of the run before it, or an end past the picture. Starts are counted from 1 in
            the message, as the files do.
    """
    problems = check_runs_batch(
        runs=runs, offsets=np.array([0, len(runs)]), sizes_hw=np.array([size_hw], dtype=np.int64)
    )
    if problems:
        raise RunLengthError(problems[0])


def check_runs_batch(
    runs: Runs, offsets: npt.NDArray[np.int64], sizes_hw: npt.NDArray[np.integer]
) -> dict[int, str]:
    """Check the runs of many masks at once.

    Args:
        runs: Shape (R, 2), the runs of all masks one after the other.
        offsets: Shape (N + 1,), mask i has the runs ``offsets[i]`` to ``offsets[i + 1]``.
        sizes_hw: Shape (N, 2), height and width of each mask's picture in pixels.

    Returns:
        The number of each bad mask with the message that :func:`check_runs` would raise; empty
        where all are right.
    """
    starts = runs[:, 0].copy()
    ends = starts + runs[:, 1]  # wraps where it is too large for int32, to before the start
    sizes_px = np.prod(sizes_hw, axis=1, dtype=np.int64)
    filled = np.flatnonzero(np.diff(offsets))
    first, last = offsets[filled], offsets[filled + 1] - 1

    overlaps = starts[1:] < ends[:-1]
    overlaps[first[1:] - 1] = False
    # Where runs ascend, only a first start can be negative and only a last end too large.
    if (
        not overlaps.any()
        and (ends > starts).all()
        and (starts[first] >= 0).all()
        and (ends[last] <= sizes_px[filled]).all()
    ):
        return {}

    ends_px = starts.astype(np.int64) + runs[:, 1]
    bad = (starts < 0) | (runs[:, 1] <= 0) | (ends_px > np.repeat(sizes_px, np.diff(offsets)))
    overlaps = starts[1:] < ends_px[:-1]
    overlaps[first[1:] - 1] = False
    bad[1:] |= overlaps
    first_bad: dict[int, int] = {}
    at = np.flatnonzero(bad)
    for row, run in zip(np.searchsorted(offsets, at, side="right") - 1, at, strict=True):
        first_bad.setdefault(int(row), int(run))
    return {
        row: _explain(runs[offsets[row] : run + 1], (int(sizes_hw[row, 0]), int(sizes_hw[row, 1])))
        for row, run in first_bad.items()
    }


def _explain(runs: Runs, size_hw: tuple[int, int]) -> str:
    """Say what is wrong with the last of these runs, the first bad one of its mask."""
    start, length = int(runs[-1, 0]) + 1, int(runs[-1, 1])
    name = f"run {len(runs)} (start {start}, length {length})"
    if start < 1:
        return f"{name}: the start is below 1"
    if length < 1:
        return f"{name}: the length is below 1"
    if len(runs) > 1:
        previous_start, previous_length = int(runs[-2, 0]) + 1, int(runs[-2, 1])
        previous = f"run {len(runs) - 1} (start {previous_start}, length {previous_length})"
        if start < previous_start:
            return f"{name} descends: it starts before {previous}; starts must ascend"
        if start < previous_start + previous_length:
            return f"{name} overlaps {previous}; runs of a mask must not overlap"
    height_px, width_px = size_hw
    return (
        f"{name} ends past the picture: its last pixel is {start + length - 1}, a picture of "
        f"height {height_px} and width {width_px} has {height_px * width_px}"
    )
