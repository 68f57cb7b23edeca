"""The steps together: what must hold for any candidates and settings."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from src.annotations.packed_masks import areas_px
from src.postprocess.candidates import Candidates
from src.postprocess.detections import Detections
from src.postprocess.overlaps import has_overlaps
from src.postprocess.pipeline import postprocess
from tests.postprocess.generated import DEFAULT, WINNER, make_candidates, make_settings

SEEDS = st.integers(0, 2**32 - 1)


def run(candidates: Candidates, changes: dict[str, Any]) -> Detections:
    return postprocess(candidates, make_settings(**changes))


def keys(objects: Detections) -> list[tuple[int, float, bytes]]:
    """What identifies an object, mask included."""
    return [
        (int(category), float(score), mask.tobytes())
        for category, score, mask in zip(
            objects.category_ids, objects.scores, objects.packed, strict=True
        )
    ]


@settings(max_examples=40, deadline=None)
@given(seed=SEEDS, low=st.floats(0, 0.9), step=st.floats(0, 0.5), suppress=st.booleans())
def test_a_higher_score_threshold_gives_the_first_of_the_same_objects(
    seed: int, low: float, step: float, suppress: bool
) -> None:
    # one class: the class offset, which a threshold can change through the largest coordinate, is 0
    candidates = make_candidates(seed, categories=1, count=30)
    changes = {"suppress_overlaps": suppress, "max_per_image": None}
    many = run(candidates, changes | {"score_threshold": low})
    few = run(candidates, changes | {"score_threshold": min(low + step, 1.0)})
    assert keys(few) == keys(many)[: len(few)]
    assert all(score > np.float32(low) for score in many.scores)


@settings(max_examples=40, deadline=None)
@given(seed=SEEDS, cap=st.integers(1, 30), suppress=st.booleans())
def test_a_cap_keeps_the_first(seed: int, cap: int, suppress: bool) -> None:
    candidates = make_candidates(seed, categories=5)
    changes = {"suppress_overlaps": suppress}
    whole = run(candidates, changes | {"max_per_image": None})
    capped = run(candidates, changes | {"max_per_image": cap})
    assert set(keys(capped)) <= set(keys(whole))
    assert len(capped) <= cap
    if cap >= 60:
        assert keys(capped) == keys(whole)


@settings(max_examples=40, deadline=None)
@given(seed=SEEDS, low=st.floats(0.01, 1), high=st.floats(0.01, 1))
def test_a_higher_mask_threshold_shrinks_masks(seed: int, low: float, high: float) -> None:
    low, high = sorted((low, high))
    candidates = make_candidates(seed, count=20)
    large = {key[1]: key for key in keys(run(candidates, {"mask_threshold": low}))}
    for _, score, mask in keys(run(candidates, {"mask_threshold": high})):
        inside = np.frombuffer(mask, np.uint8) & ~np.frombuffer(large[score][2], np.uint8)
        assert not inside.any()


@settings(max_examples=60, deadline=None)
@given(
    seed=SEEDS,
    changes=st.fixed_dictionaries(
        {
            "score_threshold": st.sampled_from([0.0, 0.2, 0.5, 1.0]),
            "nms_iou_threshold": st.sampled_from([0.0, 0.3, 0.9]),
            "max_per_image": st.sampled_from([None, 1, 20]),
            "mask_threshold": st.sampled_from([0.1, 0.45, 0.99]),
            "min_area_px": st.sampled_from([0, 20, 5000]),
            "remove_categories": st.sampled_from([[], [0, 1], list(range(46))]),
            "suppress_overlaps": st.booleans(),
        }
    ),
)
def test_what_every_result_obeys(seed: int, changes: dict[str, Any]) -> None:
    objects = run(make_candidates(seed, categories=4), changes)
    assert (np.diff(objects.scores) <= 0).all()
    assert (areas_px(objects.packed) >= max(1, changes["min_area_px"])).all()
    assert not np.isin(objects.category_ids, changes["remove_categories"]).any()
    assert len(objects) <= (changes["max_per_image"] or 10_000)
    if changes["suppress_overlaps"]:
        assert not has_overlaps(objects.category_ids, objects.packed)
    assert objects.packed.shape == (len(objects), 32768)
    assert objects.boxes_xyxy.shape == (len(objects), 4)


@settings(max_examples=20, deadline=None)
@given(seed=SEEDS)
def test_removing_categories_is_leaving_them_out_at_the_end(seed: int) -> None:
    candidates = make_candidates(seed, categories=6)
    for changes in (DEFAULT, WINNER):
        whole = run(candidates, changes | {"remove_categories": []})
        found = run(candidates, changes | {"remove_categories": [0, 3]})
        stays = ~np.isin(whole.category_ids, [0, 3])
        assert keys(found) == keys(whole.take(stays))


@pytest.mark.parametrize("changes", [DEFAULT, WINNER], ids=["default", "winner"])
def test_no_candidates_no_objects(changes: dict[str, Any]) -> None:
    objects = run(make_candidates(0, count=0), changes)
    assert len(objects) == 0
    assert objects.is_exact
    assert objects.packed.shape == (0, 32768)


@pytest.mark.parametrize(
    ("exact_above_score", "score_threshold", "max_per_image", "is_exact"),
    [
        (0.001, 0.001, None, True),  # 0.001 as float32 is not 0.001
        (0.4, 0.5, None, True),
        (0.5, 0.4, None, False),
        (0.5, 0.4, 2, True),  # two objects above 0.5: what is missing comes after them
        (0.5, 0.4, 60, False),
    ],
)
def test_exactness_rule(
    exact_above_score: float, score_threshold: float, max_per_image: int | None, is_exact: bool
) -> None:
    candidates = make_candidates(3, exact_above_score=exact_above_score)
    changes = {"score_threshold": score_threshold, "max_per_image": max_per_image}
    assert run(candidates, changes).is_exact is is_exact


@settings(max_examples=40, deadline=None)
@given(seed=SEEDS, stored=st.integers(20, 60), threshold=st.floats(0, 0.6), cap=st.integers(1, 30))
def test_exact_results_do_not_depend_on_what_the_store_left_out(
    seed: int, stored: int, threshold: float, cap: int
) -> None:
    whole = make_candidates(seed, categories=1)
    best = np.sort(np.argsort(-whole.scores, kind="stable")[:stored])
    capped = Candidates(
        image_id=whole.image_id,
        size_hw=whole.size_hw,
        boxes_xyxy=whole.boxes_xyxy[best],
        scores=whole.scores[best],
        category_ids=whole.category_ids[best],
        mask_probabilities=whole.mask_probabilities[best],
        exact_above_score=float(whole.scores[best].min()),
    )
    changes = {"score_threshold": threshold, "max_per_image": cap, "nms_iou_threshold": 0.3}
    found = run(capped, changes)
    if found.is_exact:
        assert keys(found) == keys(run(whole, changes))


def test_labels_not_ids_make_the_class_offset() -> None:
    """An offset of 30,000 classes rounds boxes to 8 px, so that these two become one."""
    candidates = Candidates(
        image_id="a",
        size_hw=(64, 64),
        boxes_xyxy=np.array([[0, 0, 5, 5], [3, 3, 8, 8], [0, 0, 3999, 3999]], dtype=np.float32),
        scores=np.array([0.9, 0.8, 0.7], dtype=np.float32),
        category_ids=np.array([30_000, 30_000, 5], dtype=np.int16),
        mask_probabilities=np.ones((3, 28, 28), dtype=np.float32),
        exact_above_score=0.0,
    )
    settings_used = make_settings(nms_iou_threshold=0.2)
    by_label = postprocess(candidates, settings_used, label_category_ids=[5, 30_000])
    by_id = postprocess(candidates, settings_used)
    assert by_label.category_ids.tolist() == [30_000, 30_000, 5]
    assert by_id.category_ids.tolist() == [30_000, 5]
