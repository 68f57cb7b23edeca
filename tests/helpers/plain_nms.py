"""The score threshold, NMS and the cap of mmdet's ``multiclass_nms``, one after the other."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from src.postprocess.nms import suppress_boxes


def select_by_nms(
    boxes_xyxy: npt.NDArray[np.float32],
    scores: npt.NDArray[np.float32],
    labels: npt.NDArray[np.integer],
    *,
    score_threshold: float,
    iou_threshold: float,
    max_per_image: int | None,
    class_agnostic: bool = False,
) -> npt.NDArray[np.int64]:
    """Which (box, class) pairs survive the score threshold, NMS and the cap.

    As ``mmdet.models.layers.multiclass_nms`` does it: pairs with a score strictly above the
    threshold, then ``suppress_boxes``.

    Args:
        boxes_xyxy: Shape (N, 4) float32, in the frame in which the model ran NMS.
        scores: Shape (N,) float32.
        labels: Shape (N,) integer: the model's class indices (not category ids, where they differ).
        score_threshold: Compared as float32, as torch does.
        iou_threshold: See ``suppress_boxes``, as for the rest.
        max_per_image: Pairs kept at most; None: no cap.
        class_agnostic: Whether pairs of different classes suppress each other.

    Returns:
        Shape (K,) int64: indices into the arguments, by falling score.
    """
    above = np.flatnonzero(scores > np.float32(score_threshold))
    kept = suppress_boxes(
        boxes_xyxy[above],
        scores[above],
        labels[above],
        iou_threshold=iou_threshold,
        max_selected=max_per_image,
        class_agnostic=class_agnostic,
    )
    return above[kept]
