"""Small detectors and views of one image that the tests of the cascade share."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import cv2
import numpy as np
import torch

from src.mmdet_bridge.cascade.detectors import build_detector
from src.mmdet_bridge.cascade.inference import predict_candidates
from src.mmdet_bridge.cascade.samples import Batch, collate, make_sample
from src.predictions.candidates import Candidates
from tests.cascades import SMALL, detector_config, spread_scores

IMAGE_HW = (120, 90)
CLASSES = 5
SIZES_HW = ((67, 50), (93, 70), (120, 90))


def make_detector(seed: int, *overrides: str) -> Any:
    torch.manual_seed(seed)
    detector = build_detector(detector_config("htc_tiny", *SMALL, *overrides))
    spread_scores(detector, seed=seed)
    return detector.eval()


def draw_image(seed: int = 0) -> np.ndarray:
    """Noise in blocks of 2 x 2 pixels, so that its half size is a crisp view too."""
    noise = np.random.default_rng(seed).integers(0, 256, (60, 45, 3), dtype=np.uint8)
    return np.kron(noise, np.ones((2, 2, 1), dtype=np.uint8))


def view_of(image: np.ndarray, size_hw: tuple[int, int], *, flip: bool) -> np.ndarray:
    """The image resized, then mirrored where asked."""
    view = cv2.resize(image, size_hw[::-1], interpolation=cv2.INTER_LINEAR)
    return np.ascontiguousarray(view[:, ::-1] if flip else view)


def make_view(image: np.ndarray, size_hw: tuple[int, int], *, flip: bool = False) -> Batch:
    sample = make_sample(
        image=view_of(image, size_hw, flip=flip),
        image_id="image",
        image_path="image.jpg",
        original_hw=(image.shape[0], image.shape[1]),
        flip=flip,
    )
    return collate([sample])


def six_views(image: np.ndarray) -> list[Batch]:
    return [make_view(image, size, flip=flip) for flip in (False, True) for size in SIZES_HW]


def predict(members: Sequence[Any], views: Sequence[Batch], **changes: Any) -> Candidates:
    settings: dict[str, Any] = {"score_floor": 0.0, "max_candidates": 10_000, **changes}
    (candidates,) = predict_candidates(members, views, category_ids=range(CLASSES), **settings)
    return candidates
