"""Small random masks, and the bitmap arithmetic that RLE is held against."""

from __future__ import annotations

import numpy as np
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from src.rle import Rle, RleBatch

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
def masks(draw) -> Rle:
    """Valid masks whose runs are not always maximal: some are cut so that they touch."""
    mask = rle_by_pixel_loop(draw(bitmaps()))
    cut = []
    for start, length in mask.runs.tolist():
        at = draw(st.integers(1, length)) if length > 1 else length
        cut.append((start, at))
        if at < length:
            cut.append((start + at, length - at))
    return rle(cut, mask.size_hw)


def rle(runs, size_hw: tuple[int, int]) -> Rle:
    """A mask of runs given as pairs of start and length."""
    return Rle(np.array(runs, dtype=np.int32).reshape(-1, 2), size_hw)


def batch(runs, size_hw: tuple[int, int]) -> RleBatch:
    """Masks of runs given as pairs of start and length, on images of one size."""
    return RleBatch.of([rle(pairs, size_hw) for pairs in runs])


def rle_by_pixel_loop(bitmap: np.ndarray) -> Rle:
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
    return rle(runs, (height, width))


def bitmap_by_pixel_loop(mask: Rle) -> np.ndarray:
    """Draw runs one pixel after the other."""
    bitmap = np.zeros(mask.size_hw, dtype=bool)
    for start, length in mask.runs.tolist():
        for pixel in range(start, start + length):
            bitmap[pixel % mask.size_hw[0], pixel // mask.size_hw[0]] = True
    return bitmap


def coco_counts(mask: Rle) -> list[int]:
    """COCO's uncompressed counts, a run after the other."""
    counts, end = [], 0
    for start, length in mask.runs.tolist():
        counts += [start - end, length]
        end = start + length
    rest = mask.size_hw[0] * mask.size_hw[1] - end
    return [*counts, rest] if rest or not counts else counts


def resize_by_nearest(masks: np.ndarray, size_hw: tuple[int, int]) -> np.ndarray:
    """Resize (..., H, W) by nearest neighbour: source index = floor(i * source / target)."""
    rows, columns = (np.arange(n) * s // n for n, s in zip(size_hw, masks.shape[-2:], strict=True))
    return masks[..., rows[:, None], columns]


def resized_by_pixel_loop(bitmap: np.ndarray, grid_hw: tuple[int, int]) -> np.ndarray:
    """Nearest resizing as the competition words it: source index = floor(i * source / target)."""
    height, width = bitmap.shape
    return np.array(
        [
            [bitmap[y * height // grid_hw[0], x * width // grid_hw[1]] for x in range(grid_hw[1])]
            for y in range(grid_hw[0])
        ]
    )
