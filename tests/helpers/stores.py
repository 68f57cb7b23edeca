"""Prediction stores of generated candidates, for the tests of the store."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from src.predictions.candidates import Candidates
from src.predictions.store import PredictionStoreWriter
from tests.helpers.candidates import make_candidates

NUM_IMAGES = 6  # of the store that the command's tests read
SIZE_HW = (400, 300)
SETTINGS = {"checkpoint": "a1b2", "scales": [[1200, 1900]], "module": {"min_score": 0.001}}


def make_writer(directory: Path, **changes: Any) -> PredictionStoreWriter:
    values: dict[str, Any] = {
        "category_ids": range(46),
        "settings": SETTINGS,
        "images_per_shard": 4,
    }
    return PredictionStoreWriter(directory, **(values | changes))


def make_images(first: int, last: int, **changes: Any) -> list[Candidates]:
    return [
        make_candidates(
            number, image_id=f"{number:03d}.jpg", **({"count": 5 * (number % 4)} | changes)
        )
        for number in range(first, last)
    ]


def write_store(directory: Path, images: list[Candidates], **changes: Any) -> None:
    with make_writer(directory, **changes) as writer:
        for image in images:
            writer.add(image)


def check_same(found: Candidates, wanted: Candidates, mask_dtype: str) -> None:
    assert (found.image_id, found.size_hw) == (wanted.image_id, wanted.size_hw)
    assert found.complete_above_score == wanted.complete_above_score
    masks = wanted.mask_probabilities.astype(mask_dtype)
    for name, array in {
        "boxes_xyxy": wanted.boxes_xyxy,
        "boxes_for_nms": wanted.boxes_for_nms,
        "scores": wanted.scores,
        "category_ids": wanted.category_ids,
        "mask_probabilities": masks,
    }.items():
        assert getattr(found, name).dtype == array.dtype
        assert np.array_equal(getattr(found, name), array)
    assert (found.nms_boxes_xyxy is None) == (wanted.nms_boxes_xyxy is None)
