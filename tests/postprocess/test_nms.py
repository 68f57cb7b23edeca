"""Class-wise NMS on cases worked out by hand; tests/equivalence holds it against mmdet."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from src.postprocess.nms import BLOCK
from tests.helpers.candidates import make_boxes
from tests.helpers.plain_nms import select_by_nms


def select(boxes, scores, labels=None, *, score=0.0, iou=0.5, cap=None) -> list[int]:
    labels = np.zeros(len(scores), dtype=np.int16) if labels is None else np.array(labels)
    return select_by_nms(
        np.array(boxes, dtype=np.float32).reshape(-1, 4),
        np.array(scores, dtype=np.float32),
        labels,
        score_threshold=score,
        iou_threshold=iou,
        max_per_image=cap,
    ).tolist()


SQUARE, SHIFTED, FAR = (0, 0, 4, 4), (0, 1, 4, 5), (100, 100, 104, 104)  # IoU of the first two: 0.6


def test_lower_score_falls_and_order_is_by_falling_score() -> None:
    assert select([SQUARE, SHIFTED, FAR], [0.5, 0.9, 0.7]) == [1, 2]


def test_iou_at_the_threshold_does_not_suppress() -> None:
    assert select([SQUARE, SHIFTED], [0.9, 0.5], iou=0.6) == [0, 1]
    assert select([SQUARE, SHIFTED], [0.9, 0.5], iou=0.599) == [0]


def test_score_at_the_threshold_is_left_out() -> None:
    assert select([SQUARE, FAR], [0.5, 0.25], score=0.25) == [0]
    # 0.3 as float32 is larger than 0.3; torch compares in float32, where they are equal
    assert select([SQUARE], [0.3], score=0.3) == []


def test_classes_do_not_suppress_each_other() -> None:
    assert select([SQUARE, SQUARE], [0.9, 0.5], labels=[0, 1]) == [0, 1]


def test_a_suppressed_box_suppresses_nothing() -> None:
    chain = [(0, 0, 4, 4), (0, 1, 4, 5), (0, 2, 4, 6)]  # neighbours overlap by 0.6, ends by 1/3
    assert select(chain, [0.9, 0.8, 0.7]) == [0, 2]


def test_equal_scores_keep_the_order_given() -> None:
    assert select([SHIFTED, SQUARE, FAR], [0.5, 0.5, 0.5]) == [0, 2]


def test_cap_keeps_the_best() -> None:
    boxes = [(10 * n, 0, 10 * n + 5, 5) for n in range(5)]
    assert select(boxes, [0.1, 0.5, 0.3, 0.4, 0.2], cap=2) == [1, 3]


@pytest.mark.parametrize("scores", [[], [0.1, 0.2]])
def test_nothing_above_the_threshold(scores: list[float]) -> None:
    assert select([SQUARE] * len(scores), scores, score=0.5) == []


@settings(max_examples=60, deadline=None)
@given(seed=st.integers(0, 2**32 - 1), count=st.integers(1, 3 * BLOCK), iou=st.floats(0.1, 0.9))
def test_survivors_are_apart_and_the_fallen_overlap_a_better_one(
    seed: int, count: int, iou: float
) -> None:
    random = np.random.default_rng(seed)
    boxes = make_boxes(random, count, (500, 500), clusters=10)
    scores = random.uniform(0, 1, count).astype(np.float32)
    kept = select(boxes, scores, iou=iou)
    low = np.maximum(boxes[:, None, :2], boxes[None, :, :2])
    high = np.minimum(boxes[:, None, 2:], boxes[None, :, 2:])
    shared = np.prod(np.maximum(high - low, 0).astype(np.float64), axis=2)
    areas = np.prod((boxes[:, 2:] - boxes[:, :2]).astype(np.float64), axis=1)
    overlap = shared / np.maximum(areas[:, None] + areas[None] - shared, 1e-12)
    among_kept = overlap[np.ix_(kept, kept)] - np.eye(len(kept))
    assert (among_kept <= iou + 1e-5).all()
    for fallen in np.setdiff1d(np.arange(count), kept):
        better = [other for other in kept if scores[other] >= scores[fallen]]
        assert overlap[fallen, better].max() > iou - 1e-5
