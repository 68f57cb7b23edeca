"""Predictions as COCO's results: the objects of an image at the image's size.

Source: the results format of the COCO API (cocodataset.org, "Results Format"), as pycocotools'
``loadRes`` and mmdet's ``CocoMetric.results2json`` read and write it.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TypedDict

import numpy as np

from src.postprocess.pipeline import filter_pairs, mask_thresholds, select_pairs
from src.postprocess.raster import RASTERS, sample_runs
from src.postprocess.settings import PostprocessSettings
from src.postprocess.step_counts import StepCounts
from src.predictions.candidates import Candidates
from src.rle import Runs, area_px, resize_nearest, subtract, union
from src.rle.coco import to_coco_compressed_batch


class CompressedMask(TypedDict):
    """COCO's compressed run lengths."""

    size: list[int]  # height, width
    counts: str


class CocoResult(TypedDict):
    """One predicted object; JSON values only."""

    image_id: int
    category_id: int
    bbox: list[float]  # x, y, width, height in image pixels, as predicted: not of the mask
    score: float
    segmentation: CompressedMask


def coco_results(
    candidates: Candidates,
    settings: PostprocessSettings,
    *,
    image_number: int,
    label_category_ids: Sequence[int] | None = None,
    steps: StepCounts | None = None,
) -> list[CocoResult]:
    """The objects of one image under these settings, with masks at the image's size.

    The same pairs as ``postprocess`` chooses, by falling score. A mask without a pixel stays where
    ``min_area_px`` is 0, as mmdet leaves it in: for COCO's metric it is a prediction, and a wrong
    one.

    Args:
        candidates: Pre-NMS pairs.
        settings: Thresholds and rules; ``min_area_px`` counts pixels of ``min_area_raster``.
        image_number: COCO's number of the image.
        label_category_ids: See ``postprocess``.
        steps: Where it is counted what each step takes.
    """
    chosen = select_pairs(candidates, settings, label_category_ids=label_category_ids)
    runs = sample_runs(
        candidates.mask_probabilities[chosen.pairs],
        candidates.boxes_xyxy[chosen.pairs],
        candidates.size_hw,
        mask_threshold=mask_thresholds(chosen, settings),
    )
    for step in settings.steps[settings.steps.index("masks") + 1 :]:
        if step == "suppress_overlaps":
            if settings.suppress_overlaps:
                runs = _without_overlaps(chosen.category_ids.tolist(), runs)
            continue
        kept = np.ones(len(runs), dtype=bool)
        if step != "min_area":
            kept = np.isin(chosen.pairs, filter_pairs(step, chosen, settings).pairs)
        elif settings.min_area_px:
            raster_hw = RASTERS[settings.min_area_raster](candidates.size_hw)
            small = [resize_nearest(mask, candidates.size_hw, raster_hw) for mask in runs]
            kept = np.array([area_px(mask) >= settings.min_area_px for mask in small], dtype=bool)
        chosen = chosen.after(step, chosen.take(kept))
        runs = tuple(mask for mask, stays in zip(runs, kept, strict=True) if stays)
    if steps is not None:
        steps.add(len(chosen.pairs), chosen.taken)
    boxes_xywh = candidates.boxes_xyxy[chosen.pairs].astype(np.float64)
    boxes_xywh[:, 2:] -= boxes_xywh[:, :2]
    return [
        {
            "image_id": image_number,
            "category_id": category,
            "bbox": box,
            "score": score,
            "segmentation": {"size": list(candidates.size_hw), "counts": counts},
        }
        for category, box, score, counts in zip(
            chosen.category_ids.tolist(),
            boxes_xywh.tolist(),
            chosen.scores.tolist(),
            _compressed(runs, candidates.size_hw),
            strict=True,
        )
    ]


def _without_overlaps(category_ids: Sequence[int], runs: Sequence[Runs]) -> tuple[Runs, ...]:
    """As ``suppress_overlaps`` on packed masks: from each the masks of its class before it."""
    covered: dict[int, Runs] = {}
    result = []
    for category, mask in zip(category_ids, runs, strict=True):
        before = covered.get(category, mask[:0])
        result.append(subtract(mask, before))
        covered[category] = union(before, mask)
    return tuple(result)


def _compressed(runs: Sequence[Runs], size_hw: tuple[int, int]) -> list[str]:
    if not runs:
        return []
    offsets = np.cumsum([0, *map(len, runs)])
    sizes_hw = np.broadcast_to(np.array(size_hw), (len(runs), 2))
    return to_coco_compressed_batch(np.concatenate(runs), offsets, sizes_hw)
