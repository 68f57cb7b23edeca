"""NMS through mmcv's own function, against exact arithmetic."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from mmcv.ops import batched_nms, nms, soft_nms

from tests.helpers import plain_kernels

corners = st.integers(0, 12)
sides = st.integers(0, 12)
boxes_and_scores = st.lists(
    st.tuples(corners, corners, sides, sides, st.sampled_from([0.1, 0.5, 0.5, 0.7, 0.9])),
    max_size=24,
)


@settings(max_examples=300, deadline=None)
@given(
    rows=boxes_and_scores,
    iou_threshold=st.sampled_from(["0", "0.3", "0.5", "0.7", "0.1", "0.6", "1"]),
    offset=st.sampled_from([0, 1]),
)
def test_equals_exact_arithmetic(rows, iou_threshold, offset):
    """Small whole boxes and few scores: ties, and IoUs that meet the threshold to the digit."""
    boxes = [[x, y, x + width, y + height] for x, y, width, height, _ in rows]
    scores = [row[-1] for row in rows]
    expected = plain_kernels.nms(boxes, scores, iou_threshold, offset)
    detections, kept = nms(
        torch.tensor(boxes, dtype=torch.float32).reshape(-1, 4),
        torch.tensor(scores, dtype=torch.float32),
        float(iou_threshold),
        offset=offset,
    )
    assert kept.tolist() == expected
    assert detections[:, :4].tolist() == [boxes[index] for index in expected]


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.float16, torch.bfloat16])
def test_an_iou_equal_to_the_threshold_stays(dtype):
    boxes = torch.tensor([[0, 0, 10, 10], [0, 0, 10, 3], [0, 0, 10, 4]], dtype=dtype)
    scores = torch.tensor([0.9, 0.8, 0.7], dtype=dtype)
    assert nms(boxes, scores, 0.3)[1].tolist() == [0, 1]


def test_takes_arrays_a_score_threshold_and_a_cap():
    boxes = np.array([[0, 0, 4, 4], [9, 9, 12, 12], [20, 20, 30, 30], [40, 0, 50, 9]], np.float32)
    scores = np.array([0.2, 0.6, 0.4, 0.9], np.float32)
    detections, kept = nms(boxes, scores, 0.5, score_threshold=0.3, max_num=2)
    assert kept.tolist() == [3, 1]
    np.testing.assert_array_equal(detections[:, 4], scores[kept])


def test_no_boxes():
    detections, kept = nms(torch.zeros(0, 4), torch.zeros(0), 0.5)
    assert detections.shape == (0, 5)
    assert kept.shape == (0,)


def test_classes_do_not_suppress_each_other():
    boxes = torch.tensor([[0.0, 0, 8, 8]]).repeat(3, 1)
    scores, labels = torch.tensor([0.5, 0.9, 0.7]), torch.tensor([0, 1, 0])
    _, kept = batched_nms(boxes, scores, labels, {"type": "nms", "iou_threshold": 0.5})
    assert kept.tolist() == [1, 2]


def soft_nms_step_by_step(boxes, scores, method, iou_threshold, sigma, min_score, offset):
    """mmcv's ``softnms_cpu`` in float32: places swapped, the end of the list shrinking."""
    single = np.float32
    left = [
        [*map(single, box), single(score), n]
        for n, (box, score) in enumerate(zip(boxes, scores, strict=True))
    ]

    def overlap(a, b):
        width = max(single(0), min(a[2], b[2]) - max(a[0], b[0]) + single(offset))
        height = max(single(0), min(a[3], b[3]) - max(a[1], b[1]) + single(offset))
        areas = [(c[2] - c[0] + single(offset)) * (c[3] - c[1] + single(offset)) for c in (a, b)]
        shared = width * height
        union = areas[0] + areas[1] - shared
        return shared / union if union else single(0)

    place = 0
    while place < len(left):
        best = max(range(place, len(left)), key=lambda n: (left[n][4], -n))
        left[place], left[best] = left[best], left[place]
        other = place + 1
        while other < len(left):
            iou = overlap(left[place], left[other])
            if method == "gaussian":
                factor = np.exp(-(iou * iou) / single(sigma))
            elif iou >= single(iou_threshold):
                factor = single(0) if method == "naive" else 1 - iou
            else:
                factor = single(1)
            left[other][4] = left[other][4] * factor
            if left[other][4] < single(min_score):
                left[other] = left[-1]
                left.pop()
            else:
                other += 1
        place += 1
    return left


@settings(max_examples=100, deadline=None)
@given(
    rows=boxes_and_scores,
    method=st.sampled_from(["naive", "linear", "gaussian"]),
    iou_threshold=st.sampled_from([0.1, 0.3, 0.5, 1.0]),
    sigma=st.sampled_from([0.1, 0.5, 2.0]),
    min_score=st.sampled_from([0.0, 0.001, 0.3]),
    offset=st.sampled_from([0, 1]),
)
def test_soft_nms_equals_mmcvs_loop(rows, method, iou_threshold, sigma, min_score, offset):
    boxes = [[x, y, x + width, y + height] for x, y, width, height, _ in rows]
    scores = [row[-1] for row in rows]
    expected = soft_nms_step_by_step(boxes, scores, method, iou_threshold, sigma, min_score, offset)
    detections, kept = soft_nms(
        torch.tensor(boxes, dtype=torch.float32).reshape(-1, 4),
        torch.tensor(scores, dtype=torch.float32),
        iou_threshold=iou_threshold,
        sigma=sigma,
        min_score=min_score,
        method=method,
        offset=offset,
    )
    assert kept.tolist() == [row[5] for row in expected]
    rows_of = torch.tensor([[float(value) for value in row[:5]] for row in expected])
    torch.testing.assert_close(detections, rows_of.reshape(-1, 5), rtol=1e-6, atol=1e-7)


def test_soft_nms_as_mmdet_configures_it():
    boxes = torch.tensor([[0.0, 0, 10, 10], [0, 0, 10, 8], [20, 20, 30, 30]])
    detections, kept = batched_nms(
        boxes,
        torch.tensor([0.9, 0.8, 0.7]),
        torch.tensor([0, 0, 1]),
        {"type": "soft_nms", "iou_threshold": 0.3, "min_score": 0.05},
    )
    assert kept.tolist() == [0, 2, 1]
    assert detections[:, 4].tolist() == pytest.approx([0.9, 0.7, 0.8 * 0.2])
