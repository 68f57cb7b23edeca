"""Greedy NMS in numpy, equal to the bit to ``multiclass_nms`` of mmdet 3 on the CPU."""

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


def suppress_boxes(
    boxes_xyxy: npt.NDArray[np.float32],
    scores: npt.NDArray[np.float32],
    labels: npt.NDArray[np.integer],
    *,
    iou_threshold: float,
    max_selected: int | None = None,
    class_agnostic: bool = False,
) -> npt.NDArray[np.int64]:
    """Which pairs survive NMS.

    As ``mmcv.ops.batched_nms`` does it: classes kept apart by adding ``label * (largest coordinate
    + 1)`` in float32, with the rounding that this costs; pairs in order of falling score, ties in
    the order given; a pair falls to one before it of float32 IoU strictly above the threshold. The
    search ends as soon as so many are found as are asked for, since what comes later cannot undo
    what was kept.

    Args:
        boxes_xyxy: Shape (N, 4) float32, in the frame in which the model ran NMS.
        scores: Shape (N,) float32.
        labels: Shape (N,) integer: the model's class indices.
        iou_threshold: Compared as float32, as mmcv's kernel does (torchvision's: as float64).
        max_selected: Pairs kept at most, the best; None: all.
        class_agnostic: Whether pairs of different classes suppress each other. (mmcv forgets this
            from 10,000 pairs on, where it goes class by class all the same.)

    Returns:
        Shape (K,) int64: indices into the arguments, by falling score.
    """
    order = np.argsort(-scores, kind="stable")
    boxes = (boxes_xyxy if class_agnostic else shift_by_class(boxes_xyxy, labels))[order]
    groups = labels[order] if len(order) >= SPLIT_AT and not class_agnostic else None
    cap = len(order) if max_selected is None else max_selected

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


def shift_by_class(
    boxes_xyxy: npt.NDArray[np.float32], labels: npt.NDArray[np.integer]
) -> npt.NDArray[np.float32]:
    """Boxes moved so far that those of different classes lie apart, as mmcv moves them."""
    if not len(boxes_xyxy):
        return boxes_xyxy
    offsets = labels.astype(np.float32) * (boxes_xyxy.max() + np.float32(1))
    result: npt.NDArray[np.float32] = boxes_xyxy + offsets[:, None]
    return result


def pairwise_iou(
    first: npt.NDArray[np.float32], second: npt.NDArray[np.float32]
) -> npt.NDArray[np.float32]:
    """IoU of boxes as mmcv computes it, in float32; not a number for two boxes without area.

    Args:
        first: Shape (F, 4) xyxy.
        second: Shape (S, 4) xyxy.

    Returns:
        Shape (F, S).
    """
    x_min, y_min, x_max, y_max = first.T[:, :, None]
    x_min_2, y_min_2, x_max_2, y_max_2 = second.T[:, None, :]
    width = np.maximum(np.minimum(x_max, x_max_2) - np.maximum(x_min, x_min_2), np.float32(0))
    height = np.maximum(np.minimum(y_max, y_max_2) - np.maximum(y_min, y_min_2), np.float32(0))
    shared = width * height
    area = (x_max - x_min) * (y_max - y_min)
    area_2 = (x_max_2 - x_min_2) * (y_max_2 - y_min_2)
    with np.errstate(invalid="ignore", divide="ignore"):
        iou: npt.NDArray[np.float32] = shared / (area + area_2 - shared)
    return iou


def _suppresses(
    boxes: npt.NDArray[np.float32],
    groups: npt.NDArray[np.integer] | None,
    first: npt.NDArray[np.int64],
    second: npt.NDArray[np.int64],
    iou_threshold: float,
) -> npt.NDArray[np.bool_]:
    """Whether each of ``first`` overlaps each of ``second`` too much; shape (F, S) bool."""
    # a box without area has IoU 0/0 with itself, which is above no threshold
    too_much: npt.NDArray[np.bool_] = pairwise_iou(boxes[first], boxes[second]) > np.float32(
        iou_threshold
    )
    if groups is not None:
        too_much &= groups[first][:, None] == groups[second][None, :]
    return too_much
