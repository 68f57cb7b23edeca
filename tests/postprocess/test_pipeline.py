"""The steps together: what must hold for any candidates and settings."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from src.postprocess.detections import Detections
from src.postprocess.pipeline import postprocess
from src.postprocess.raster import has_overlaps
from src.predictions.candidates import Candidates
from tests.helpers.candidates import (
    DEFAULT,
    DEFAULT_STEPS,
    WINNER,
    make_candidates,
    make_settings,
)

SEEDS = st.integers(0, 2**32 - 1)


def run(candidates: Candidates, changes: dict[str, Any]) -> Detections:
    return postprocess(candidates, make_settings(**changes))


def keys(objects: Detections) -> list[tuple[int, float, bytes]]:
    """What identifies an object, mask included."""
    return [
        (int(category), float(score), mask.tobytes())
        for category, score, mask in zip(
            objects.category_ids, objects.scores, objects.bitmasks.bits, strict=True
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
@given(seed=SEEDS, cap=st.integers(1, 70), suppress=st.booleans())
def test_a_cap_keeps_the_first(seed: int, cap: int, suppress: bool) -> None:
    """Masks fill their boxes of 4 pixels or more, so that only an overlap takes a whole mask."""
    drawn = make_candidates(seed, categories=5, count=80)
    large = ((drawn.boxes_xyxy[:, 2:] - drawn.boxes_xyxy[:, :2]) >= 4).all(axis=1)
    candidates = replace(
        drawn,
        boxes_xyxy=drawn.boxes_xyxy[large],
        scores=drawn.scores[large],
        category_ids=drawn.category_ids[large],
        mask_probabilities=np.ones((int(large.sum()), 28, 28), dtype=np.float32),
    )
    changes = {"suppress_overlaps": suppress}
    whole = run(candidates, changes | {"max_per_image": None})
    capped = run(candidates, changes | {"max_per_image": cap})
    assert keys(capped) == keys(whole)[: len(capped) if suppress else cap]
    assert len(capped) <= cap


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
    assert (objects.bitmasks.areas_px() >= max(1, changes["min_area_px"])).all()
    assert not np.isin(objects.category_ids, changes["remove_categories"]).any()
    assert len(objects) <= (changes["max_per_image"] or 10_000)
    if changes["suppress_overlaps"]:
        assert not has_overlaps(objects.category_ids, objects.bitmasks.bits)
    assert objects.bitmasks.bits.shape == (len(objects), 32768)
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
    assert objects.bitmasks.bits.shape == (0, 32768)


@pytest.mark.parametrize(
    ("complete_above_score", "score_threshold", "max_per_image", "is_exact"),
    [
        (0.001, 0.001, None, True),  # 0.001 as float32 is not 0.001
        (0.4, 0.5, None, True),
        (0.5, 0.4, None, False),
        (0.5, 0.4, 2, True),  # two objects above 0.5: what is missing comes after them
        (0.5, 0.4, 60, False),
    ],
)
def test_exactness_rule(
    complete_above_score: float, score_threshold: float, max_per_image: int | None, is_exact: bool
) -> None:
    candidates = make_candidates(3, complete_above_score=complete_above_score)
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
        complete_above_score=float(whole.scores[best].min()),
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
        complete_above_score=0.0,
    )
    settings_used = make_settings(nms_iou_threshold=0.2)
    by_label = postprocess(candidates, settings_used, category_ids=[5, 30_000])
    by_id = postprocess(candidates, settings_used)
    assert by_label.category_ids.tolist() == [30_000, 30_000, 5]
    assert by_id.category_ids.tolist() == [30_000, 5]


@settings(max_examples=20, deadline=None)
@given(seed=SEEDS)
def test_thresholds_of_a_class_act_on_it_alone(seed: int) -> None:
    """What each class has with its thresholds is what it has where they are those of all."""
    candidates = make_candidates(seed, categories=3, count=40)
    own = {"score_threshold_per_class": {1: 0.6}, "mask_threshold_per_class": {1: 0.7, 9: 0.1}}
    low = {"max_per_image": None, "score_threshold": 0.2}
    mixed = keys(run(candidates, low | own))
    strict = keys(run(candidates, low | {"score_threshold": 0.6, "mask_threshold": 0.7}))
    plain = keys(run(candidates, low))
    assert [key for key in mixed if key[0] == 1] == [key for key in strict if key[0] == 1]
    assert [key for key in mixed if key[0] != 1] == [key for key in plain if key[0] != 1]


@settings(max_examples=20, deadline=None)
@given(seed=SEEDS, most=st.integers(1, 4), suppress=st.booleans())
def test_at_most_so_many_of_each_class_are_the_first_ones(
    seed: int, most: int, suppress: bool
) -> None:
    candidates = make_candidates(seed, categories=3, count=40)
    whole = keys(run(candidates, {"suppress_overlaps": suppress}))
    few = keys(run(candidates, {"suppress_overlaps": suppress, "max_per_class": most}))
    assert set(few) <= set(whole)
    for category in range(3):
        own = [key for key in few if key[0] == category]
        assert len(own) <= most
        # one that overlaps or the mask threshold leaves no pixel of may have been among them
        assert own == [key for key in whole if key[0] == category][: len(own)]


def test_a_cap_after_the_masks_counts_objects_not_pairs() -> None:
    candidates = make_candidates(4, categories=2, count=60, clusters=2)
    changes: dict[str, Any] = {"suppress_overlaps": True, "min_area_px": 2000, "max_per_image": 3}
    late = [step for step in DEFAULT_STEPS if step != "cap"] + ["cap"]
    whole = run(candidates, changes | {"max_per_image": None})
    assert len(whole) > 3
    capped = run(candidates, changes | {"steps": late})
    assert keys(capped) == keys(whole)[:3]
    assert len(run(candidates, changes)) < 3


@settings(max_examples=20, deadline=None)
@given(seed=SEEDS, kind=st.sampled_from(["soft_linear", "soft_gaussian"]))
def test_soft_nms_keeps_the_best_of_each_class_as_it_is(seed: int, kind: str) -> None:
    candidates = make_candidates(seed, categories=3, count=30)
    soft = run(candidates, {"nms_kind": kind, "max_per_image": None, "min_area_px": 0})
    hard = run(candidates, {"max_per_image": None})
    every = run(candidates, {"max_per_image": None, "nms_iou_threshold": 1.0})
    assert (np.diff(soft.scores) <= 0).all()
    for category in np.unique(candidates.category_ids):
        best = candidates.scores[candidates.category_ids == category].max()
        if best in every.scores[every.category_ids == category]:  # else its mask is empty
            for found in (soft, hard):
                assert found.scores[found.category_ids == category].max() == best
    again = [step for step in DEFAULT_STEPS if step != "score"]
    again.insert(again.index("nms") + 1, "score")
    late = run(
        candidates,
        {"nms_kind": kind, "max_per_image": None, "score_threshold": 0.4, "steps": again},
    )
    assert keys(late) == [key for key in keys(soft) if key[1] > np.float32(0.4)]


def test_class_agnostic_nms_compares_boxes_of_all_classes() -> None:
    candidates = Candidates(
        image_id="a",
        size_hw=(64, 64),
        boxes_xyxy=np.array([[0, 0, 40, 40], [0, 0, 40, 40]], dtype=np.float32),
        scores=np.array([0.8, 0.9], dtype=np.float32),
        category_ids=np.array([1, 2], dtype=np.int16),
        mask_probabilities=np.ones((2, 28, 28), dtype=np.float32),
        complete_above_score=0.0,
    )
    assert run(candidates, {}).category_ids.tolist() == [2, 1]
    assert run(candidates, {"nms_kind": "class_agnostic"}).category_ids.tolist() == [2]


def test_area_is_counted_on_the_named_raster() -> None:
    """A square of 30 x 30 px on an image of 300 x 300: 51 x 51 on 512 x 512, 102 x 102 on 1024."""
    candidates = Candidates(
        image_id="a",
        size_hw=(300, 300),
        boxes_xyxy=np.array([[0, 0, 30, 30]], dtype=np.float32),
        scores=np.array([0.9], dtype=np.float32),
        category_ids=np.array([1], dtype=np.int16),
        mask_probabilities=np.ones((1, 28, 28), dtype=np.float32),
        complete_above_score=0.0,
    )
    areas = {}
    for raster in ("512x512", "long_edge_1024"):
        found = postprocess(candidates, make_settings(), raster=raster)
        areas[raster] = int(found.bitmasks.areas_px()[0])
    assert 2500 < areas["512x512"] < 2800
    assert 10_000 < areas["long_edge_1024"] < 11_200
    for area_raster, area in areas.items():
        for least, kept in ((area, 1), (area + 1, 0)):
            rules = make_settings(min_area_px=least, min_area_raster=area_raster)
            for raster in areas:
                assert len(postprocess(candidates, rules, raster=raster)) == kept


@pytest.mark.parametrize(
    ("changes", "is_exact"),
    [
        ({"score_threshold": 0.6, "score_threshold_per_class": {1: 0.5}}, True),
        ({"score_threshold": 0.6, "score_threshold_per_class": {1: 0.4}}, False),
        ({"steps": ["nms", "masks", "score"], "score_threshold": 0.6}, True),
        ({"steps": ["nms", "masks"], "score_threshold": 0.6}, False),
        ({"steps": ["nms", "masks", "cap"], "max_per_image": 2}, True),
    ],
)
def test_exactness_with_other_steps(changes: dict[str, Any], is_exact: bool) -> None:
    assert run(make_candidates(3, complete_above_score=0.5), changes).is_exact is is_exact
