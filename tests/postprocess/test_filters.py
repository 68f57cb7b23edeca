"""Which objects stay: by category and by area."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from src.postprocess.filters import (
    above_score,
    by_category,
    first_of_each_category,
    of_enough_pixels,
    of_other_categories,
)
from src.rle.bitmasks import pack


def test_removed_categories() -> None:
    categories = np.array([0, 12, 13, 27, 45, 0], dtype=np.int16)
    kept = of_other_categories(categories, list(range(13)))
    assert categories[kept].tolist() == [13, 27, 45]
    assert of_other_categories(categories, []).all()


@pytest.mark.parametrize(
    ("min_area_px", "kept"), [(0, [1, 19, 20, 21]), (1, [1, 19, 20, 21]), (20, [20, 21]), (22, [])]
)
def test_area_at_the_limit_stays_and_an_empty_mask_never(min_area_px: int, kept: list[int]) -> None:
    areas = np.array([0, 1, 19, 20, 21])
    masks = np.arange(64).reshape(8, 8) < areas[:, None, None]
    assert areas[of_enough_pixels(pack(masks), min_area_px)].tolist() == kept


def test_a_score_at_its_threshold_goes_in_float32() -> None:
    scores = np.array([0.3, 0.31, 0.29], dtype=np.float32)
    # 0.3 as float32 is larger than 0.3
    assert above_score(scores, 0.3).tolist() == [False, True, False]
    own = np.array([0.2, 0.4, 0.28], dtype=np.float32)
    assert above_score(scores, own).tolist() == [True, False, True]


def test_thresholds_by_category() -> None:
    values = by_category(np.array([3, 5, 3, 7]), 0.5, {3: 0.25, 9: 0.75})
    assert values.tolist() == [0.25, 0.5, 0.25, 0.5]
    assert values.dtype == np.float32


@settings(max_examples=100, deadline=None)
@given(categories=st.lists(st.integers(0, 3), max_size=20), most=st.integers(1, 5))
def test_the_first_of_each_category_stay(categories: list[int], most: int) -> None:
    ids = np.array(categories, dtype=np.int16)
    kept = first_of_each_category(ids, most)
    for category in range(4):
        own = kept[ids == category]
        assert own[:most].all()
        assert not own[most:].any()
    assert first_of_each_category(ids[kept], most).all()
