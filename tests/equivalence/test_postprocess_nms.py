"""NMS in numpy keeps the pairs that mmdet's ``multiclass_nms`` keeps, in its order."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from mmcv.ops import batched_nms
from mmcv.ops.nms import ext_module
from mmdet.models.layers import multiclass_nms

from src.postprocess.nms import SPLIT_AT, select_by_soft_nms
from tests.helpers.candidates import make_boxes
from tests.helpers.plain_nms import select_by_nms

SCORE_THRESHOLDS = st.sampled_from([0.0, 0.001, 0.1, 0.3, 0.5, 0.9])
IOU_THRESHOLDS = st.sampled_from([0.0, 0.1, 0.3, 0.5, 0.7, 1.0]) | st.floats(0, 1)
# a compiled mmcv's module is a file; the one that stands in for it has no kernel for this operator
HAS_COMPILED_SOFT_NMS = str(getattr(ext_module, "__file__", "")).endswith((".so", ".pyd"))


def check_equal(
    boxes_xyxy: np.ndarray,
    scores: np.ndarray,
    *,
    score_threshold: float,
    iou_threshold: float,
    max_per_image: int | None,
    class_agnostic: bool = False,
) -> int:
    """Compare both on P proposals of C classes; returns how many pairs are kept."""
    classes = scores.shape[1]
    background = torch.zeros(len(scores), 1)
    _, _, wanted = multiclass_nms(
        torch.from_numpy(boxes_xyxy),
        torch.cat([torch.from_numpy(scores), background], dim=1),
        score_thr=score_threshold,
        nms_cfg={
            "type": "nms",
            "iou_threshold": iou_threshold,
            "class_agnostic": class_agnostic,
        },
        max_num=max_per_image or -1,
        return_inds=True,
    )
    found = select_by_nms(
        np.repeat(boxes_xyxy, classes, axis=0),
        scores.reshape(-1),
        np.tile(np.arange(classes), len(scores)),
        score_threshold=score_threshold,
        iou_threshold=iou_threshold,
        max_per_image=max_per_image,
        class_agnostic=class_agnostic,
    )
    assert found.tolist() == wanted.tolist()
    return len(found)


@settings(max_examples=1500, deadline=None)
@given(
    seed=st.integers(0, 2**32 - 1),
    proposals=st.integers(0, 60),
    classes=st.sampled_from([1, 2, 5, 46]),
    clusters=st.sampled_from([None, 1, 3]),
    score_steps=st.sampled_from([None, 2, 10]),
    box_grid=st.sampled_from([None, 0.5, 8.0]),
    image_px=st.sampled_from([40, 600, 8688]),
    score_threshold=SCORE_THRESHOLDS,
    iou_threshold=IOU_THRESHOLDS,
    max_per_image=st.sampled_from([None, 1, 5, 100]),
    class_agnostic=st.booleans(),
)
def test_equal_on_random_clustered_and_tied_pairs(
    seed: int,
    proposals: int,
    classes: int,
    clusters: int | None,
    score_steps: int | None,
    box_grid: float | None,
    image_px: int,
    score_threshold: float,
    iou_threshold: float,
    max_per_image: int | None,
    class_agnostic: bool,
) -> None:
    random = np.random.default_rng(seed)
    boxes = make_boxes(random, proposals, (image_px, image_px), clusters=clusters)
    scores = random.uniform(0, 1, (proposals, classes)) ** 2
    if score_steps is not None:
        scores = np.round(scores * score_steps) / score_steps
    if box_grid is not None:
        boxes = np.round(boxes / box_grid) * np.float32(box_grid)
    check_equal(
        boxes.astype(np.float32),
        scores.astype(np.float32),
        score_threshold=score_threshold,
        iou_threshold=iou_threshold,
        max_per_image=max_per_image,
        class_agnostic=class_agnostic,
    )


@settings(max_examples=500, deadline=None)
@given(
    corners=st.lists(
        st.tuples(*[st.sampled_from([-3.0, 0.0, 1.0, 2.0, 3.0, 4.0])] * 4), min_size=1, max_size=12
    ),
    ranks=st.lists(st.integers(0, 3), min_size=36, max_size=36),
    iou_threshold=st.sampled_from([0.0, 1 / 3, 0.5, 0.3]),
)
def test_equal_on_boxes_without_area_turned_over_or_off_the_frame(
    corners: list[tuple[float, ...]], ranks: list[int], iou_threshold: float
) -> None:
    boxes = np.array(corners, dtype=np.float32)
    scores = np.array(ranks[: 3 * len(boxes)], dtype=np.float32).reshape(-1, 3) / 3
    check_equal(boxes, scores, score_threshold=0.1, iou_threshold=iou_threshold, max_per_image=None)


@pytest.mark.parametrize("iou_threshold", [0.3, 0.5])
def test_equal_on_thousands_of_pairs(iou_threshold: float) -> None:
    random = np.random.default_rng(0)
    boxes = make_boxes(random, 1000, (1200, 1900), clusters=30)
    scores = (random.uniform(0, 1, (1000, 5)) ** 3).astype(np.float32)
    for cap in (100, None):
        kept = check_equal(
            boxes, scores, score_threshold=0.1, iou_threshold=iou_threshold, max_per_image=cap
        )
        assert kept >= 100


def test_equal_where_mmcv_goes_class_by_class() -> None:
    random = np.random.default_rng(1)
    boxes = make_boxes(random, 1200, (800, 800), clusters=40)
    # off the frame on the left: the class offset no longer keeps such boxes of two classes apart
    boxes[:, [0, 2]] -= 700
    # no ties, whose order mmcv leaves open here
    scores = random.permutation(np.linspace(0.1, 1, 12_000, dtype=np.float32)).reshape(1200, 10)
    assert scores.size >= SPLIT_AT
    check_equal(boxes, scores, score_threshold=0.05, iou_threshold=0.5, max_per_image=None)


@pytest.mark.skipif(not HAS_COMPILED_SOFT_NMS, reason="mmcv has no compiled operators here")
@settings(max_examples=500, deadline=None)
@given(
    seed=st.integers(0, 2**32 - 1),
    count=st.integers(1, 60),
    kind=st.sampled_from(["linear", "gaussian"]),
    steps=st.sampled_from([None, 3, 10]),
    iou_threshold=st.sampled_from([0.1, 0.3, 0.5]),
    min_score=st.sampled_from([0.0, 0.001, 0.3]),
)
def test_soft_nms_equals_the_compiled_kernel(
    seed: int,
    count: int,
    kind: str,
    steps: int | None,
    iou_threshold: float,
    min_score: float,
) -> None:
    """Where mmcv has none, tests/postprocess/test_soft_nms.py has its kernel written out."""
    random = np.random.default_rng(seed)
    boxes = make_boxes(random, count, (600, 800), clusters=3)
    scores = random.uniform(0, 1, count).astype(np.float32)
    if steps is not None:
        scores = (np.round(scores * steps) / steps).astype(np.float32)
    labels = random.integers(0, 3, count)
    found, new_scores = select_by_soft_nms(
        boxes,
        scores,
        labels,
        kind="soft_linear" if kind == "linear" else "soft_gaussian",
        iou_threshold=iou_threshold,
        sigma=0.5,
        min_score=min_score,
    )
    wanted, kept = batched_nms(
        torch.from_numpy(boxes),
        torch.from_numpy(scores),
        torch.from_numpy(labels),
        {
            "type": "soft_nms",
            "iou_threshold": iou_threshold,
            "sigma": 0.5,
            "min_score": min_score,
            "method": kind,
        },
    )
    assert np.allclose(new_scores, wanted[:, 4].numpy(), rtol=1e-6)
    if kind == "linear":
        assert found.tolist() == kept.tolist()
