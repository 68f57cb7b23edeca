"""Class-wise greedy NMS in numpy, equal to the bit to ``multiclass_nms`` of mmdet 3 on the CPU."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

# mmcv's batched_nms ("split_thr") treats so many boxes class by class, and then leaves the order of
# equal scores to torch's sort
SPLIT_AT = 10_000
# pairs compared with one another in one numpy call; 64 to 256 measured alike
BLOCK = 256


def select_by_nms(
    boxes_xyxy: npt.NDArray[np.float32],
    scores: npt.NDArray[np.float32],
    labels: npt.NDArray[np.integer],
    *,
    score_threshold: float,
    iou_threshold: float,
    max_per_image: int | None,
) -> npt.NDArray[np.int64]:
    """Which (box, class) pairs survive the score threshold, class-wise NMS and the cap.

    As ``mmdet.models.layers.multiclass_nms`` with ``mmcv.ops.batched_nms`` do it: pairs with a
    score strictly above the threshold; classes kept apart by adding ``label * (largest coordinate +
    1)`` in float32, with the rounding that this costs; pairs in order of falling score, ties in the
    order given; a pair falls to one before it of float32 IoU strictly above the threshold. The
    search ends as soon as the cap is reached, since what comes later cannot undo what was kept.

    Args:
        boxes_xyxy: Shape (N, 4) float32, in the frame in which the model ran NMS.
        scores: Shape (N,) float32.
        labels: Shape (N,) integer: the model's class indices (not category ids, where they differ).
        score_threshold: Compared as float32, as torch does.
        iou_threshold: Compared as float32, as mmcv's kernel does (torchvision's: as float64).
        max_per_image: Pairs kept at most; None: no cap.

    Returns:
        Shape (K,) int64: indices into the arguments, by falling score.
    """
    above = np.flatnonzero(scores > np.float32(score_threshold))
    if not len(above):
        return above
    order = above[np.argsort(-scores[above], kind="stable")]
    offsets = labels[order].astype(np.float32) * (boxes_xyxy[order].max() + np.float32(1))
    boxes = boxes_xyxy[order] + offsets[:, None]
    groups = labels[order] if len(order) >= SPLIT_AT else None
    cap = len(order) if max_per_image is None else max_per_image

    kept: list[int] = []
    for start in range(0, len(order), BLOCK):
        block = np.arange(start, min(start + BLOCK, len(order)))
        if kept:
            fallen = _suppresses(boxes, groups, np.array(kept), block, iou_threshold).any(axis=0)
            block = block[~fallen]
        suppresses = _suppresses(boxes, groups, block, block, iou_threshold)
        alive = np.ones(len(block), dtype=bool)
        for row, candidate in enumerate(block):
            if len(kept) == cap:
                return order[kept]
            if alive[row]:
                kept.append(int(candidate))
                alive &= ~suppresses[row]
    return order[kept]


def _suppresses(
    boxes: npt.NDArray[np.float32],
    groups: npt.NDArray[np.integer] | None,
    first: npt.NDArray[np.int64],
    second: npt.NDArray[np.int64],
    iou_threshold: float,
) -> npt.NDArray[np.bool_]:
    """Whether each of ``first`` overlaps each of ``second`` too much; shape (F, S) bool."""
    x_min, y_min, x_max, y_max = boxes[first].T[:, :, None]
    x_min_2, y_min_2, x_max_2, y_max_2 = boxes[second].T[:, None, :]
    width = np.maximum(np.minimum(x_max, x_max_2) - np.maximum(x_min, x_min_2), np.float32(0))
    height = np.maximum(np.minimum(y_max, y_max_2) - np.maximum(y_min, y_min_2), np.float32(0))
    shared = width * height
    area = (x_max - x_min) * (y_max - y_min)
    area_2 = (x_max_2 - x_min_2) * (y_max_2 - y_min_2)
    # a box without area has IoU 0/0 with itself, which is above no threshold
    with np.errstate(invalid="ignore", divide="ignore"):
        iou = shared / (area + area_2 - shared)
    too_much: npt.NDArray[np.bool_] = iou > np.float32(iou_threshold)
    if groups is not None:
        too_much &= groups[first][:, None] == groups[second][None, :]
    return too_much
