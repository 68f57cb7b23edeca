"""Boxes, masks and candidates made by formula, for the tests of post-processing."""

from __future__ import annotations

from typing import Any

import numpy as np

from src.postprocess.settings import PostprocessSettings
from src.predictions.candidates import Candidates

DEFAULT_STEPS = ("score", "nms", "cap", "remove", "max_per_class")
DEFAULT_STEPS += ("masks", "suppress_overlaps", "min_area")
DEFAULT: dict[str, Any] = {
    "score_threshold": 0.001,
    "nms_iou_threshold": 0.5,
    "max_per_image": 100,
    "remove_categories": [],
    "mask_threshold": 0.5,
    "suppress_overlaps": False,
    "min_area_px": 0,
    "score_threshold_per_class": None,
    "nms_kind": "class_wise",
    "soft_nms_sigma": 0.5,
    "soft_nms_min_score": 0.001,
    "max_per_class": None,
    "mask_threshold_per_class": None,
    "min_area_raster": "512x512",
    "steps": list(DEFAULT_STEPS),
}
WINNER: dict[str, Any] = DEFAULT | {
    "score_threshold": 0.5,
    "nms_iou_threshold": 0.3,
    "remove_categories": list(range(13)),
    "mask_threshold": 0.45,
    "suppress_overlaps": True,
    "min_area_px": 20,
}


def make_settings(**changes: Any) -> PostprocessSettings:
    """S8 with some values changed."""
    return PostprocessSettings(**(DEFAULT | changes))


def make_boxes(
    random: np.random.Generator,
    count: int,
    size_hw: tuple[int, int],
    *,
    clusters: int | None = None,
    relative_size: float = 0.3,
) -> np.ndarray:
    """(N, 4) float32 boxes clipped to the image; around so many centres, or anywhere."""
    size_wh = np.array(size_hw[::-1], dtype=float)
    centres = random.uniform(0, 1, (clusters or count, 2))
    if clusters is not None:
        chosen = random.integers(0, clusters, count)
        centres = centres[chosen] + random.normal(0, 0.02, (count, 2))
    extents = random.exponential(relative_size, (count, 2))
    corners = np.concatenate([centres - extents / 2, centres + extents / 2], axis=1)
    return np.clip(corners * np.tile(size_wh, 2), 0, np.tile(size_wh, 2)).astype(np.float32)


def make_masks(random: np.random.Generator, count: int, size_px: int = 28) -> np.ndarray:
    """(N, size, size) float32 probabilities: smooth blobs with soft edges, as a mask head gives."""
    rows, columns = np.mgrid[-1 : 1 : size_px * 1j, -1 : 1 : size_px * 1j]
    parameters = random.normal(0, 1, (8, count, 1, 1))
    squared = (columns - 0.3 * parameters[0]) ** 2 + (rows - 0.3 * parameters[1]) ** 2
    waves = np.sin(3 * columns * parameters[2] + parameters[3]) * np.cos(
        3 * rows * parameters[4] + parameters[5]
    )
    steepness = 4 + 3 * np.abs(parameters[6])
    logits = steepness * (0.8 + 0.3 * parameters[7] - squared + 0.4 * waves)
    return (1 / (1 + np.exp(-logits))).astype(np.float32)


def make_candidates(
    seed: int,
    *,
    count: int = 60,
    size_hw: tuple[int, int] = (480, 360),
    categories: int = 46,
    clusters: int | None = 8,
    image_id: str = "image.jpg",
    complete_above_score: float = 0.0,
    mask_dtype: str = "float32",
) -> Candidates:
    """Overlapping pairs of a few objects."""
    random = np.random.default_rng(seed)
    return Candidates(
        image_id=image_id,
        size_hw=size_hw,
        boxes_xyxy=make_boxes(random, count, size_hw, clusters=clusters),
        scores=random.uniform(0.001, 1, count).astype(np.float32),
        category_ids=random.integers(0, categories, count).astype(np.int16),
        mask_probabilities=make_masks(random, count).astype(mask_dtype),
        complete_above_score=complete_above_score,
    )
