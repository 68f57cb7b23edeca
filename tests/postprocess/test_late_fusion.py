"""Late fusion beside weighted boxes fusion as the paper words it, and what must hold of it."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from src.errors import InputError
from src.postprocess.late_fusion import fuse
from src.postprocess.pipeline import postprocess
from src.postprocess.selection import select_all
from src.postprocess.steps import run_steps
from src.validation import check_weights
from tests.helpers.candidates import make_settings
from tests.helpers.plain_fusion import (
    make_fusion,
    make_members,
    own_detections,
    weighted_boxes_fusion,
)


@pytest.mark.parametrize(
    ("seed", "weights", "iou_threshold"),
    [(0, [1.0, 1.0, 1.0], 0.55), (1, [2.0, 1.0, 0.5], 0.55), (2, [1.0, 1.0, 1.0], 0.75)],
)
def test_is_weighted_boxes_fusion(seed: int, weights: list[float], iou_threshold: float) -> None:
    settings = make_fusion(iou_threshold=iou_threshold)
    members = make_members(seed)
    found = fuse(members, settings, weights=weights)
    detections = [own_detections(member, settings) for member in members]
    expected = weighted_boxes_fusion(detections, weights, iou_threshold)
    assert len(found) == len(expected) > 20
    assert max(one["members"] for one in expected) >= 3
    assert min(one["members"] for one in expected) == 1
    assert found.category_ids.tolist() == [one["category"] for one in expected]
    assert np.allclose(found.scores, [one["score"] for one in expected], rtol=1e-6)
    assert np.allclose(found.boxes_xyxy, [one["box"] for one in expected], rtol=1e-6)
    masks = np.stack([one["mask"] for one in expected])
    assert np.abs(found.mask_probabilities - masks).max() < 1e-6
    assert found.complete_above_score == 0.0
    assert found.nms_boxes_xyxy is None


@pytest.mark.parametrize("weights", [None, [3.0]])
def test_one_member_is_its_own_detections_to_the_bit(weights: list[float] | None) -> None:
    (member,) = make_members(3, count=1)
    settings = make_fusion()
    kept = run_steps(select_all(member), settings.own_steps).indices
    found = fuse([member], settings, weights=weights)
    assert len(kept) > 20
    for name in ("boxes_xyxy", "category_ids", "mask_probabilities"):
        assert np.array_equal(getattr(found, name), getattr(member, name)[kept])
    assert np.allclose(found.scores, member.scores[kept], rtol=1e-7)
    # and post-processing finds the same objects in it
    again = postprocess(found, make_settings(score_threshold=0.05))
    direct = postprocess(member, make_settings(score_threshold=0.05))
    assert again.bitmasks == direct.bitmasks
    assert again.is_exact


def test_identical_members_are_one() -> None:
    (member,) = make_members(4, count=1)
    one, two = fuse([member], make_fusion()), fuse([member, member], make_fusion())
    for name in ("boxes_xyxy", "scores", "category_ids", "mask_probabilities"):
        assert np.array_equal(getattr(one, name), getattr(two, name))


def test_order_of_equal_members_changes_nothing() -> None:
    members = make_members(5)
    members.append(replace(members[0]))  # and equal boxes
    first = fuse(members, make_fusion())
    for order in ([3, 2, 1, 0], [1, 3, 0, 2]):
        other = fuse([members[place] for place in order], make_fusion())
        for name in ("boxes_xyxy", "scores", "category_ids", "mask_probabilities"):
            assert np.array_equal(getattr(first, name), getattr(other, name))


def test_what_one_of_two_has_seen_counts_half() -> None:
    both = make_members(6, count=1)[0]
    nothing = replace(
        both,
        boxes_xyxy=both.boxes_xyxy[:0],
        scores=both.scores[:0],
        category_ids=both.category_ids[:0],
        mask_probabilities=both.mask_probabilities[:0],
    )
    alone, halved = fuse([both], make_fusion()), fuse([both, nothing], make_fusion())
    assert np.array_equal(halved.scores, alone.scores / 2)
    assert len(fuse([nothing, nothing], make_fusion())) == 0
    # the lighter of two members counts for its share of the weights
    quarter = fuse([both, nothing], make_fusion(), weights=[1.0, 3.0])
    assert np.allclose(quarter.scores, alone.scores / 4, rtol=1e-6)


def test_boxes_without_area_are_themselves() -> None:
    (member,) = make_members(7, count=1)
    member.boxes_xyxy[:, 2] = member.boxes_xyxy[:, 0]
    settings = make_fusion(max_per_image=None)
    one, two = fuse([member], settings), fuse([member, member], settings)
    assert np.isfinite(one.mask_probabilities).all()
    assert np.array_equal(one.boxes_xyxy, two.boxes_xyxy)
    assert np.array_equal(one.scores, two.scores)


def test_a_member_that_lacks_pairs_makes_nothing_certain() -> None:
    members = make_members(8)
    members[1] = replace(members[1], complete_above_score=0.3)
    assert fuse(members, make_fusion()).complete_above_score == 1.0
    assert fuse(members, make_fusion(score_threshold=0.3)).complete_above_score == 0.0
    assert fuse(members, make_fusion(max_per_image=3)).complete_above_score == 0.0


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"score_threshold": -0.1}, r"^score_threshold must be a number from 0 to 1, got -0\.1$"),
        ({"iou_threshold": True}, r"^iou_threshold must be a number from 0 to 1, got True$"),
        ({"nms_iou_threshold": "a"}, r"^nms_iou_threshold must be a number from 0 to 1, got 'a'$"),
        (
            {"iou_threshold": 0.4},
            r"iou_threshold must be at least nms_iou_threshold=0\.5, got 0\.4: a model's",
        ),
        (
            {"max_per_image": 0},
            r"max_per_image must be a whole number of at least 1, or null for no cap, got 0",
        ),
    ],
)
def test_bad_values_are_named(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        make_fusion(**changes)


def test_bad_weights_are_named() -> None:
    check_weights("weights", [1, 0.5], 2)
    with pytest.raises(
        InputError, match=r"weights must be 2 numbers, one for each model, got \[1\.0\]"
    ):
        check_weights("weights", [1.0], 2)
    for bad in (0, float("nan"), "a"):
        with pytest.raises(InputError, match=r"^weights must be a finite number above 0, got "):
            check_weights("weights", [1, bad], 2)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"image_id": "b.jpg"}, r"image\.jpg: models differ in image_id: image\.jpg and b\.jpg"),
        ({"size_hw": (4, 5)}, r"models differ in size_hw: \(480, 360\) and \(4, 5\)"),
    ],
)
def test_members_of_other_images(changes: dict[str, Any], message: str) -> None:
    (member,) = make_members(9, count=1)
    with pytest.raises(ValueError, match=message):
        fuse([member, replace(member, **changes)], make_fusion())
