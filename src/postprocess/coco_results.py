"""Predictions as COCO's results: the detections of an image at the image's size.

Source: the results format of the COCO API (cocodataset.org, "Results Format"), as pycocotools'
``loadRes`` and mmdet's ``CocoMetric.results2json`` read and write it.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from src.postprocess.detections import CocoResult, coco_entries
from src.postprocess.pipeline import draw, select
from src.postprocess.raster import sample_runs
from src.postprocess.selection import ImageMasks
from src.postprocess.settings import PostprocessSettings
from src.postprocess.step_counts import StepCounts
from src.predictions.candidates import Candidates


def coco_results(
    candidates: Candidates,
    settings: PostprocessSettings,
    *,
    image_number: int,
    category_ids: Sequence[int] | None = None,
    steps: StepCounts | None = None,
) -> list[CocoResult]:
    """Return the detections of one image under these settings, with masks at the image's size.

    The same candidates as ``postprocess`` chooses, by falling score. A mask without a pixel stays
    where ``min_area_px`` is 0, as mmdet leaves it in: for COCO's metric it is a detection, and a
    wrong one.

    Args:
        candidates: Before NMS.
        settings: Thresholds and rules; ``min_area_px`` counts pixels of ``min_area_raster``.
        image_number: COCO's number of the image.
        category_ids: See ``postprocess``.
        steps: Where it is counted what each step takes.
    """

    def draw_masks(
        indices: npt.NDArray[np.int64], thresholds: npt.NDArray[np.float32]
    ) -> ImageMasks:
        rles = sample_runs(
            candidates.mask_probabilities[indices],
            candidates.boxes_xyxy[indices],
            candidates.size_hw,
            mask_threshold=thresholds,
        )
        return ImageMasks(rles, candidates.size_hw)

    selection = select(candidates, settings, category_ids=category_ids)
    left = draw(selection, settings, draw_masks)
    masks = left.drawn_masks
    assert isinstance(masks, ImageMasks)
    if steps is not None:
        steps.add(len(left), left.taken)
    return coco_entries(
        image_number,
        left.category_ids,
        left.boxes_xyxy,
        left.scores,
        masks.rles,
        candidates.size_hw,
    )
