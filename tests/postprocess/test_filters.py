"""Which objects stay: by category and by area."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from src.postprocess.pipeline import draw_bitmasks
from src.postprocess.selection import Selection, by_category, select_all
from src.postprocess.steps.max_per_class import first_of_each
from src.postprocess.steps.remove import Remove
from src.postprocess.steps.score import Score
from src.predictions.candidates import Candidates
from src.rle import Bitmasks
from tests.helpers.candidates import make_settings


def select_of(scores: list[float], categories: list[int]) -> Selection:
    """Candidates without boxes worth the name."""
    return select_all(
        Candidates(
            image_id="a.jpg",
            size_hw=(8, 8),
            boxes_xyxy=np.zeros((len(scores), 4), dtype=np.float32),
            scores=np.array(scores, dtype=np.float32),
            category_ids=np.array(categories, dtype=np.int16),
            mask_probabilities=np.ones((len(scores), 28, 28), dtype=np.float32),
            complete_above_score=0.0,
        )
    )


def test_removed_categories() -> None:
    selection = select_of([0.9, 0.8, 0.7, 0.6, 0.5, 0.4], [0, 12, 13, 27, 45, 0])
    left = Remove(remove_categories=list(range(13))).apply(selection)
    assert left.category_ids.tolist() == [13, 27, 45]
    assert len(Remove(remove_categories=[]).apply(selection)) == 6


@pytest.mark.parametrize(
    ("min_area_px", "kept"), [(0, [1, 19, 20, 21]), (1, [1, 19, 20, 21]), (20, [20, 21]), (22, [])]
)
def test_area_at_the_limit_stays_and_an_empty_mask_never(min_area_px: int, kept: list[int]) -> None:
    areas = np.array([0, 1, 19, 20, 21])
    pixels = np.arange(512 * 512).reshape(512, 512)
    drawn = Bitmasks.pack(pixels < areas[:, None, None])
    left, bitmasks = draw_bitmasks(
        select_of([0.9, 0.8, 0.7, 0.6, 0.5], [3] * 5),
        make_settings(min_area_px=min_area_px),
        sampler=lambda indices, thresholds, raster: drawn.bits[indices],
        raster="512x512",
    )
    assert areas[left.indices].tolist() == kept
    assert bitmasks == drawn[left.indices]


def test_a_score_at_its_threshold_goes_in_float32() -> None:
    # 0.3 as float32 is larger than 0.3
    selection = select_of([0.31, 0.3, 0.29], [7, 8, 9])
    assert Score(score_threshold=0.3).apply(selection).category_ids.tolist() == [7]
    own = Score(score_threshold=0.9, score_threshold_per_class={7: 0.4, 8: 0.2, 9: 0.28})
    assert own.apply(selection).category_ids.tolist() == [8, 9]


def test_thresholds_by_category() -> None:
    values = by_category(np.array([3, 5, 3, 7]), 0.5, {3: 0.25, 9: 0.75})
    assert values.tolist() == [0.25, 0.5, 0.25, 0.5]
    assert values.dtype == np.float32


@settings(max_examples=100, deadline=None)
@given(categories=st.lists(st.integers(0, 3), max_size=20), most=st.integers(1, 5))
def test_the_first_of_each_category_stay(categories: list[int], most: int) -> None:
    ids = np.array(categories, dtype=np.int16)
    kept = first_of_each(ids, most)
    for category in range(4):
        own = kept[ids == category]
        assert own[:most].all()
        assert not own[most:].any()
    assert first_of_each(ids[kept], most).all()
