"""A stored prediction, post-processed, is mmdet's own prediction with those thresholds."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from src.mmdet_bridge.cascade.inference import predict_candidates
from src.postprocess.pipeline import postprocess
from src.postprocess.raster import RASTER_HW
from src.predictions.store import PredictionStore, PredictionStoreWriter
from src.rle import Bitmasks
from tests.helpers.candidates import make_settings
from tests.helpers.cascades import make_batch
from tests.helpers.masks import resize_by_nearest
from tests.helpers.mmdet_results import CATEGORY_IDS, SCALE_WH, paste_and_shrink, predict_with_mmdet


def store_predictions(detector: Any, directory: Path, mask_dtype: str) -> PredictionStore:
    """Candidates of the same images, through the files."""
    candidates = predict_candidates(
        [detector],
        [make_batch(scale_wh=SCALE_WH, with_objects=False)],
        category_ids=CATEGORY_IDS,
        min_score=0.001,
        max_candidates=10_000,
        mask_stages="last",
    )
    with PredictionStoreWriter(
        directory, category_ids=CATEGORY_IDS, settings={}, mask_dtype=mask_dtype
    ) as writer:
        for image in candidates:
            writer.add(image)
    return PredictionStore(directory)


@pytest.mark.parametrize(
    ("score", "iou", "mask"), [(0.001, 0.5, 0.5), (0.3, 0.3, 0.45), (0.05, 0.7, 0.6)]
)
def test_objects_scores_and_masks_are_those_of_mmdet(
    detector: Any, tmp_path: Path, score: float, iou: float, mask: float
) -> None:
    store = store_predictions(detector, tmp_path, "float32")
    settings = make_settings(score_threshold=score, nms_iou_threshold=iou, mask_threshold=mask)
    for index, wanted in enumerate(predict_with_mmdet(detector, score, iou, mask)):
        candidates = store.candidates(index)
        found = postprocess(candidates, settings, category_ids=store.category_ids)
        masks = resize_by_nearest(wanted.masks.numpy(), RASTER_HW)
        there = masks.any(axis=(1, 2))  # an object without a pixel is none
        assert found.is_exact
        assert there.sum() >= 10
        assert np.array_equal(found.scores, wanted.scores.numpy()[there])
        assert np.array_equal(found.boxes_xyxy, wanted.bboxes.numpy()[there])
        labels = wanted.labels.numpy()[there]
        assert np.array_equal(found.category_ids, np.array(CATEGORY_IDS)[labels])
        for drawn, full in zip(found.bitmasks.unpack(), masks[there], strict=True):
            if not np.array_equal(drawn, full):
                check_undecided(candidates, drawn != full, mask)


def check_undecided(candidates: Any, different: np.ndarray, threshold: float) -> None:
    """Every differing pixel has, under some candidate, a probability at the threshold."""
    near = np.zeros(RASTER_HW, dtype=bool)
    for mask, box in zip(candidates.mask_probabilities, candidates.boxes_xyxy, strict=True):
        near |= np.abs(paste_and_shrink(mask, box, candidates.size_hw) - threshold) <= 1e-6
    assert near[different].all()


def test_half_precision_changes_masks_by_less_than_a_thousandth(
    detector: Any, tmp_path: Path
) -> None:
    store = store_predictions(detector, tmp_path, "float16")
    for index, wanted in enumerate(predict_with_mmdet(detector, 0.3, 0.3, 0.45)):
        found = postprocess(
            store.candidates(index),
            make_settings(score_threshold=0.3, nms_iou_threshold=0.3, mask_threshold=0.45),
            category_ids=store.category_ids,
        )
        masks = resize_by_nearest(wanted.masks.numpy(), RASTER_HW)
        full = Bitmasks.pack(masks[masks.any(axis=(1, 2))])
        assert np.array_equal(found.scores, wanted.scores.numpy()[masks.any(axis=(1, 2))])
        shared = found.bitmasks.intersections_px(full).diagonal()
        union = found.bitmasks.areas_px() + full.areas_px() - shared
        large = union >= 1000
        assert large.sum() >= 5
        assert (1 - shared[large] / union[large]).max() < 1e-3
