"""What is asked of a detector, and how it is fed."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from src.annotations.errors import InputError
from src.mmdet_bridge.config import Detector


def preprocess(detector: Detector, batch: Mapping[str, Any], *, training: bool) -> dict[str, Any]:
    """Move a batch to the detector's device, normalise and pad it by the detector's preprocessor.

    Args:
        batch: ``inputs``: N uint8 tensors (3, H_i, W_i), RGB; ``data_samples``: N DetDataSample.

    Returns:
        ``inputs``: float32 (N, 3, H, W); ``data_samples``: N DetDataSample with the padded size
        and, in training, padded masks.
    """
    preprocessor = detector.data_preprocessor
    # mmengine's preprocessor keeps a device of its own, which moving the module does not reach.
    preprocessor.to(next(detector.parameters()).device)
    data: dict[str, Any] = preprocessor(dict(batch), training)
    return data


def check_member(detector: Detector) -> None:
    """Refuse a detector that ``predict_candidates`` is not written for.

    Raises:
        InputError: names the key, its value and what is legal.
    """
    head: Any = getattr(detector, "roi_head", None)
    if type(head).__name__ != "HybridTaskCascadeRoIHead":
        raise InputError(
            f"detector.roi_head.type: {type(head).__name__} given, HybridTaskCascadeRoIHead wanted"
        )
    if head.with_semantic:
        raise InputError("detector.roi_head.semantic_head: given, but this cascade has none")
    for stage, box_head in enumerate(head.bbox_head):
        if not box_head.reg_class_agnostic:
            raise InputError(
                f"detector.roi_head.bbox_head.{stage}.reg_class_agnostic: false given, true "
                "wanted: the classes of a proposal share one box"
            )
    for stage, mask_head in enumerate(head.mask_head):
        if mask_head.class_agnostic:
            raise InputError(
                f"detector.roi_head.mask_head.{stage}.class_agnostic: true given, false wanted: "
                "a pair's mask is that of its class"
            )
