"""Candidates, thresholded afterwards, are mmdet's own prediction with those thresholds."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from mmcv.ops import batched_nms
from mmdet.models.roi_heads.mask_heads.fcn_mask_head import _do_paste_mask
from torch import Tensor

from src.mmdet_bridge.cascade.inference import predict_candidates
from src.predictions.candidates import Candidates
from tests.helpers.cascades import make_batch, make_detector
from tests.helpers.mmdet_results import predict_with_mmdet

CLASSES = 5
SCALE_WH = (0.37, 0.41)  # the image is larger than its view, not by one factor
THRESHOLDS = [(score, overlap) for score in (0.001, 0.05, 0.3) for overlap in (0.3, 0.5, 0.7)]


def candidates_of(detector: Any, stages: str = "last", **changes: Any) -> list[Candidates]:
    settings = {"min_score": 0.001, "max_candidates": 10_000, **changes}
    return predict_candidates(
        [detector],
        [make_batch(scale_wh=SCALE_WH, with_objects=False)],
        category_ids=range(CLASSES),
        mask_stages=stages,  # type: ignore[arg-type]
        **settings,
    )


def mmdet_prediction(detector: Any, score_threshold: float, nms_iou_threshold: float) -> list[Any]:
    return predict_with_mmdet(detector, score_threshold, nms_iou_threshold, scale_wh=SCALE_WH)


def suppress(candidates: Candidates, score_threshold: float, nms_iou_threshold: float) -> Tensor:
    """Indices of the candidates that mmcv's class-wise NMS keeps, the best first."""
    above = np.flatnonzero(candidates.scores > score_threshold)
    _, kept = batched_nms(
        torch.from_numpy(candidates.boxes_for_nms[above]),
        torch.from_numpy(candidates.scores[above]),
        torch.from_numpy(candidates.category_ids[above].astype(np.int64)),
        {"type": "nms", "iou_threshold": nms_iou_threshold},
    )
    return torch.from_numpy(above)[kept[:100]]


def paste(candidates: Candidates, kept: Tensor) -> Tensor:
    """(K, H, W) probabilities at the image's size."""
    probabilities, _ = _do_paste_mask(
        torch.from_numpy(candidates.mask_probabilities)[kept][:, None],
        torch.from_numpy(candidates.boxes_xyxy)[kept],
        *candidates.size_hw,
        skip_empty=False,
    )
    return probabilities


@pytest.mark.parametrize(("score_threshold", "nms_iou_threshold"), THRESHOLDS)
def test_thresholded_candidates_equal_mmdets_prediction(
    detector: Any, score_threshold: float, nms_iou_threshold: float
) -> None:
    expected = mmdet_prediction(detector, score_threshold, nms_iou_threshold)
    found = candidates_of(detector)
    assert len(found) == len(expected) == 2
    for candidates, wanted in zip(found, expected, strict=True):
        kept = suppress(candidates, score_threshold, nms_iou_threshold)
        assert len(kept) == len(wanted) >= 20
        assert torch.equal(torch.from_numpy(candidates.boxes_xyxy)[kept], wanted.bboxes)
        assert torch.equal(torch.from_numpy(candidates.scores)[kept], wanted.scores)
        assert candidates.category_ids[kept].tolist() == wanted.labels.tolist()
        probabilities = paste(candidates, kept)
        differs = (probabilities >= 0.5) != wanted.masks
        assert not (differs & ((probabilities - 0.5).abs() > 1e-6)).any()
        assert 0.02 < wanted.masks.float().mean() < 0.9


def test_all_mask_stages_equal_mmdets_prediction_with_its_loop_repaired(
    detector: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """mmdet 3 fills its list of stages after the loop over them; filled inside, they agree."""
    head = detector.roi_head

    def mask_forward(
        stage: int, x: Any, rois: Tensor, semantic_feat: None = None, training: bool = False
    ) -> dict[str, list[Tensor]]:
        features = head.mask_roi_extractor[-1](x[: head.mask_roi_extractor[-1].num_inputs], rois)
        stages, last = [], None
        for mask_head in head.mask_head:
            logits, last = mask_head(features, last)
            stages.append(logits)
        return {"mask_preds": stages}

    monkeypatch.setattr(head, "_mask_forward", mask_forward)
    expected = mmdet_prediction(detector, 0.05, 0.5)
    averaged, last = candidates_of(detector, "all"), candidates_of(detector, "last")
    for candidates, of_last, wanted in zip(averaged, last, expected, strict=True):
        probabilities = paste(candidates, suppress(candidates, 0.05, 0.5))
        differs = (probabilities >= 0.5) != wanted.masks
        assert not (differs & ((probabilities - 0.5).abs() > 1e-6)).any()
        assert np.abs(candidates.mask_probabilities - of_last.mask_probabilities).max() > 0.1


def test_candidates_stand_in_proposal_class_order_with_one_box_a_proposal(detector: Any) -> None:
    for candidates in candidates_of(detector, min_score=0.0):
        assert len(candidates) == 60 * CLASSES  # every proposal of the test configuration
        assert candidates.category_ids.tolist() == [*range(CLASSES)] * 60
        boxes = candidates.boxes_xyxy.reshape(60, CLASSES, 4)
        assert (boxes == boxes[:, :1]).all()
        assert candidates.complete_above_score == 0.0


def test_cap_keeps_the_best_pairs_and_says_from_where_on_they_are_all_there(detector: Any) -> None:
    for capped, whole in zip(
        candidates_of(detector, max_candidates=40), candidates_of(detector), strict=True
    ):
        best = np.sort(np.argsort(-whole.scores, kind="stable")[:40])
        assert np.array_equal(capped.scores, whole.scores[best])
        assert np.array_equal(capped.boxes_xyxy, whole.boxes_xyxy[best])
        assert np.allclose(capped.mask_probabilities, whole.mask_probabilities[best], atol=1e-6)
        assert capped.complete_above_score == capped.scores.min()
        assert whole.complete_above_score == 0.001


def test_no_candidates_at_all(detector: Any) -> None:
    for candidates in candidates_of(detector, min_score=0.9999999):
        assert len(candidates) == 0
        assert candidates.mask_probabilities.shape == (0, 28, 28)


def test_masks_without_classes_equal_mmdets() -> None:
    agnostic = make_detector(0, "module.detector.sizes.class_agnostic_masks=true")
    for candidates, wanted in zip(
        candidates_of(agnostic), mmdet_prediction(agnostic, 0.05, 0.5), strict=True
    ):
        probabilities = paste(candidates, suppress(candidates, 0.05, 0.5))
        differs = (probabilities >= 0.5) != wanted.masks
        assert not (differs & ((probabilities - 0.5).abs() > 1e-6)).any()
