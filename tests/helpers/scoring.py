"""Files scored as the commands score them; COCO's average precision by pycocotools."""

from __future__ import annotations

import contextlib
import io
from collections.abc import Sequence
from pathlib import Path

import pytest
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from src.metrics.coco_average_precision import (
    CocoImage,
)
from src.metrics.scoring import compare, open_ground_truth, open_submission, score_comparison


def score_files(submission, ground_truth, averaging="per_class", image_ids=None, **options):
    with (
        open_ground_truth(ground_truth, **options) as ground_truth,
        open_submission(submission, ground_truth) as prediction,
    ):
        comparison = compare(
            ground_truth, prediction, prediction_name=Path(submission).name, image_ids=image_ids
        )
        score = score_comparison(comparison, averaging=averaging)
        return score, comparison.notes


CATEGORIES = [2, 3, 5, 8, 13, 21]  # 21 is never drawn


def by_pycocotools(
    images: list[CocoImage], kind: str, *, categories: Sequence[int] = CATEGORIES
) -> COCOeval:
    ground_truth = COCO()
    ground_truth.dataset = {
        "images": [
            {"id": image.number, "height": image.size_hw[0], "width": image.size_hw[1]}
            for image in images
        ],
        "categories": [{"id": category, "name": str(category)} for category in categories],
        "annotations": [
            {**annotation, "id": number}
            for number, annotation in enumerate((a for i in images for a in i.annotations), start=1)
        ],
    }
    with contextlib.redirect_stdout(io.StringIO()):
        ground_truth.createIndex()
        # as mmdet does: masks without the box, whose area pycocotools would take
        unwanted = "bbox" if kind == "segm" else "segmentation"
        results = [
            {key: value for key, value in result.items() if key != unwanted}
            for image in images
            for result in image.results
        ]
        evaluation = COCOeval(ground_truth, ground_truth.loadRes(results), kind)
        evaluation.evaluate()
        evaluation.accumulate()
        evaluation.summarize()
    return evaluation


def defined(value: float) -> float | None:
    """pycocotools' -1 is our None; the C++ code divides once where numpy rounds twice."""
    return None if value == -1 else pytest.approx(float(value), rel=0, abs=1e-12)
