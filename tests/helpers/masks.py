"""Small random masks, and the bitmap arithmetic that run lengths are held against."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from src.rle import RunLengthError

many_examples = settings(deadline=None, max_examples=150, derandomize=True)

sizes_hw = st.tuples(st.integers(1, 12), st.integers(1, 12))


@st.composite
def bitmaps(draw, size_hw=None) -> np.ndarray:
    """A bool bitmap: noise, a block, empty or full."""
    size = size_hw if size_hw is not None else draw(sizes_hw)
    kind = draw(st.sampled_from(["noise", "noise", "block", "empty", "full"]))
    if kind == "noise":
        return draw(hnp.arrays(np.bool_, size))
    bitmap = np.zeros(size, dtype=bool)
    if kind == "block":
        top, bottom = sorted(draw(st.tuples(*[st.integers(0, size[0])] * 2)))
        left, right = sorted(draw(st.tuples(*[st.integers(0, size[1])] * 2)))
        bitmap[top:bottom, left:right] = True
    return ~bitmap if kind == "full" else bitmap


@st.composite
def bitmap_pairs(draw) -> tuple[np.ndarray, np.ndarray]:
    """Two bitmaps of one size."""
    size = draw(sizes_hw)
    return draw(bitmaps(size_hw=size)), draw(bitmaps(size_hw=size))


@st.composite
def runs_with_size(draw) -> tuple[np.ndarray, tuple[int, int]]:
    """Valid runs, not always maximal: some are cut so that they touch."""
    size = draw(sizes_hw)
    runs = runs_by_pixel_loop(draw(bitmaps(size_hw=size)))
    cut = []
    for start, length in runs.tolist():
        at = draw(st.integers(1, length)) if length > 1 else length
        cut.append((start, at))
        if at < length:
            cut.append((start + at, length - at))
    return np.array(cut, dtype=np.int32).reshape(-1, 2), size


def runs_by_pixel_loop(bitmap: np.ndarray) -> np.ndarray:
    """Maximal runs, found one pixel after the other, top to bottom and left to right."""
    runs: list[list[int]] = []
    height, width = bitmap.shape
    inside = False
    for pixel in range(height * width):
        now = bool(bitmap[pixel % height, pixel // height])
        if now and inside:
            runs[-1][1] += 1
        elif now:
            runs.append([pixel, 1])
        inside = now
    return np.array(runs, dtype=np.int32).reshape(-1, 2)


def bitmap_by_pixel_loop(runs: np.ndarray, size_hw: tuple[int, int]) -> np.ndarray:
    """Draw runs one pixel after the other."""
    bitmap = np.zeros(size_hw, dtype=bool)
    for start, length in runs.tolist():
        for pixel in range(start, start + length):
            bitmap[pixel % size_hw[0], pixel // size_hw[0]] = True
    return bitmap


def resized_by_pixel_loop(bitmap: np.ndarray, grid_hw: tuple[int, int]) -> np.ndarray:
    """Nearest resizing as the competition words it: source index = floor(i * source / target)."""
    height, width = bitmap.shape
    return np.array(
        [
            [bitmap[y * height // grid_hw[0], x * width // grid_hw[1]] for x in range(grid_hw[1])]
            for y in range(grid_hw[0])
        ]
    )


def concatenated(masks: list[np.ndarray]) -> tuple[np.ndarray, np.ndarray]:
    """The runs of many masks one after the other, and their offsets."""
    offsets = np.cumsum([0, *(len(mask) for mask in masks)])
    return np.concatenate([np.zeros((0, 2), dtype=np.int32), *masks]), offsets


def outcome(parse: Callable, *arguments) -> tuple[np.ndarray, str | None]:
    """What parsing gives: runs, or no runs and the message."""
    try:
        return parse(*arguments), None
    except RunLengthError as error:
        return np.zeros((0, 2), dtype=np.int32), str(error)
