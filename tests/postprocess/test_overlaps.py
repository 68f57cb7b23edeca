"""Hard overlap suppression: disjoint afterwards, idempotent, the first mask untouched."""

from __future__ import annotations

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from src.postprocess.raster import has_overlaps, suppress_overlaps
from src.rle import Bitmasks

SIZE_HW = (16, 16)


@st.composite
def objects(draw: st.DrawFn) -> tuple[np.ndarray, np.ndarray]:
    """Categories (N,) and bitmaps (N, 16, 16): rectangles with noise."""
    count = draw(st.integers(0, 8))
    random = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    masks = random.random((count, *SIZE_HW)) < 0.2
    for mask in masks:
        top, left = random.integers(0, 12, 2)
        mask[top : top + random.integers(1, 9), left : left + random.integers(1, 9)] = True
    return random.integers(0, 3, count), masks


def plain_suppression(categories: np.ndarray, masks: np.ndarray) -> np.ndarray:
    """The rule as the winner words it: in a double loop, minus all masks before."""
    result = masks.copy()
    for later in range(len(masks)):
        for earlier in range(later):
            if categories[earlier] == categories[later]:
                result[later] &= ~masks[earlier]
    return result


@settings(max_examples=300, deadline=None)
@given(objects())
def test_properties(made: tuple[np.ndarray, np.ndarray]) -> None:
    categories, masks = made
    packed = Bitmasks.pack(masks).bits
    before = packed.copy()
    result = suppress_overlaps(categories, packed)
    drawn = Bitmasks(result, SIZE_HW).unpack()
    assert np.array_equal(packed, before)
    assert np.array_equal(drawn, plain_suppression(categories, masks))
    assert np.array_equal(suppress_overlaps(categories, result), result)
    assert not has_overlaps(categories, result)
    assert has_overlaps(categories, packed) == (not np.array_equal(result, packed))
    for category in np.unique(categories):
        members = categories == category
        assert drawn[members].sum(axis=0).max() <= 1
        assert np.array_equal(drawn[members].any(axis=0), masks[members].any(axis=0))
        first = np.flatnonzero(members)[0]
        assert np.array_equal(drawn[first], masks[first])


def test_equal_masks_of_equal_score_go_to_the_first() -> None:
    packed = Bitmasks.pack(np.ones((3, *SIZE_HW), dtype=bool)).bits
    drawn = Bitmasks(suppress_overlaps(np.array([4, 4, 5]), packed), SIZE_HW).unpack()
    assert drawn.sum(axis=(1, 2)).tolist() == [256, 0, 256]


def test_nested_masks_of_different_classes_stay() -> None:
    jacket = np.ones(SIZE_HW, dtype=bool)
    pocket = np.zeros(SIZE_HW, dtype=bool)
    pocket[4:8, 4:8] = True
    packed = Bitmasks.pack(np.stack([jacket, pocket])).bits
    assert np.array_equal(suppress_overlaps(np.array([4, 29]), packed), packed)
