"""NMS and soft-NMS in numpy, bit-identical to mmdet 3 and mmcv on the CPU.

Soft-NMS: Bodla et al., "Soft-NMS: improving object detection with one line of code", ICCV 2017.
"""

from __future__ import annotations

from typing import Literal

import numpy as np
import numpy.typing as npt

from src.predictions.candidates import Scores

# from this number of boxes on, mmcv's batched_nms ("split_thr") goes class by class, and torch's
# sort decides the order of equal scores
SPLIT_AT = 10_000
BLOCK = 256  # boxes compared in one numpy call; 64 to 256 are equally fast
# up to this number, soft-NMS computes all IoUs at once (16 MB); above, those of each selected box
_TOGETHER = 2048
SoftKind = Literal["soft_linear", "soft_gaussian"]


def suppress_boxes(
    boxes_xyxy: npt.NDArray[np.float32],
    scores: Scores,
    labels: npt.NDArray[np.integer],
    *,
    iou_threshold: float,
    max_selected: int | None = None,
    class_agnostic: bool = False,
) -> npt.NDArray[np.int64]:
    """Return the candidates that survive NMS.

    As in ``mmcv.ops.batched_nms``, classes are kept apart by adding ``label * (largest coordinate
    + 1)`` in float32, including the rounding. Candidates are visited by falling score, ties in the
    order given; one is suppressed by an earlier one if their float32 IoU is strictly above the
    threshold. The search stops at ``max_selected``, because later candidates cannot change it.

    Args:
        boxes_xyxy: Shape (N, 4) float32, in the frame in which the model ran NMS.
        scores: Shape (N,) float32, or float64 as imported.
        labels: Shape (N,) integer: the model's class indices.
        iou_threshold: Compared as float32, as mmcv's kernel does (torchvision's: as float64).
        max_selected: Maximum number of candidates, the best; None: all.
        class_agnostic: Whether candidates of different classes suppress each other. (From 10,000
            candidates on, mmcv ignores this and goes class by class.)

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
            before = _suppresses(boxes, groups, np.array(kept), block, iou_threshold)
            block = block[~before.any(axis=0)]
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
    """Move boxes so that those of different classes do not overlap, as mmcv does."""
    if not len(boxes_xyxy):
        return boxes_xyxy
    offsets = labels.astype(np.float32) * (boxes_xyxy.max() + np.float32(1))
    result: npt.NDArray[np.float32] = boxes_xyxy + offsets[:, None]
    return result


def pairwise_iou(
    first: npt.NDArray[np.float32], second: npt.NDArray[np.float32]
) -> npt.NDArray[np.float32]:
    """Return the IoU of boxes as mmcv computes it, in float32; NaN for two boxes without area.

    Shapes (F, 4) and (S, 4) xyxy to (F, S).
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
    """Return whether each of ``first`` overlaps each of ``second`` too much. Shape (F, S)."""
    ious = pairwise_iou(boxes[first], boxes[second])
    # a box without area has IoU 0/0 with itself, which is above no threshold
    suppresses: npt.NDArray[np.bool_] = ious > np.float32(iou_threshold)
    if groups is not None:
        suppresses &= groups[first][:, None] == groups[second][None, :]
    return suppresses


def select_by_soft_nms(
    boxes_xyxy: npt.NDArray[np.float32],
    scores: Scores,
    labels: npt.NDArray[np.integer],
    *,
    kind: SoftKind,
    iou_threshold: float,
    sigma: float,
    min_score: float,
    max_selected: int | None = None,
) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.float32]]:
    """Lower the scores of candidates that overlap better ones of their class, and drop the lowest.

    As in ``mmcv.ops.batched_nms`` with type ``soft_nms``: the candidate with the highest score is
    selected repeatedly, and the score of each other one is multiplied by 1 - IoU if IoU is at
    least the threshold (linear), or by exp(-IoU^2 / sigma) (gaussian); a candidate whose score
    falls below ``min_score`` is dropped. Ties follow mmcv's in-place order: the selected box is
    swapped with the first remaining one, a dropped box is replaced by the last.

    mmcv yields NaN for two zero-area boxes; here their IoU is 0. Where mmcv goes class by class
    (from 10,000 candidates on), the order of equal scores is undefined there.

    Args:
        boxes_xyxy: Shape (N, 4) float32, in the frame in which the model ran NMS.
        scores: Shape (N,) float32, or float64 as imported.
        labels: Shape (N,) integer: the model's class indices.
        kind: How a score is lowered.
        iou_threshold: Of ``soft_linear``; compared as float32.
        sigma: Of ``soft_gaussian``.
        min_score: Compared as float32.
        max_selected: Number of candidates after which the search stops; None: select all.

    Returns:
        Indices into the arguments, shape (K,) int64, and their new scores, shape (K,) float32, in
        falling order.
    """
    return soft_nms(
        shift_by_class(boxes_xyxy, labels),
        scores,
        kind=kind,
        iou_threshold=iou_threshold,
        sigma=sigma,
        min_score=min_score,
        max_selected=max_selected,
        labels=labels if len(scores) >= SPLIT_AT else None,
    )


def soft_nms(
    boxes_xyxy: npt.NDArray[np.float32],
    scores: Scores,
    *,
    kind: SoftKind | Literal["naive"],
    iou_threshold: float,
    sigma: float,
    min_score: float,
    max_selected: int | None = None,
    labels: npt.NDArray[np.integer] | None = None,
) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.float32]]:
    """Lower the scores of boxes that overlap better ones, as mmcv's ``softnms`` kernel does.

    As ``select_by_soft_nms``, except that all boxes suppress one another unless ``labels`` separate
    classes. With the kind ``naive``, a box whose IoU is at least the threshold gets the score 0.
    """
    boxes = boxes_xyxy
    left = np.arange(len(scores))
    current = scores.astype(np.float32)  # a copy, in the order of ``left``
    lowest = np.float32(min_score)
    all_iou = pairwise_iou(boxes, boxes) if len(boxes) <= _TOGETHER else None
    taken: list[int] = []
    new_scores: list[np.float32] = []
    while len(left) and (max_selected is None or len(taken) < max_selected):
        best = int(np.argmax(current))
        pair, score = left[best], current[best]
        taken.append(int(pair))
        new_scores.append(score)
        left[best], current[best] = left[0], current[0]
        left, current = left[1:], current[1:]
        iou = (
            pairwise_iou(boxes[[pair]], boxes[left])[0] if all_iou is None else all_iou[pair][left]
        )
        iou[np.isnan(iou)] = 0
        if labels is not None:
            iou[labels[left] != labels[pair]] = 0
        if kind == "soft_gaussian":
            current *= np.exp(-(iou * iou) / np.float32(sigma))
        else:
            over = iou >= np.float32(iou_threshold)
            current[over] *= 1 - iou[over] if kind == "soft_linear" else 0
        left, current = _drop(left, current, current < lowest)
    return np.array(taken, dtype=np.int64), np.array(new_scores, dtype=np.float32)


def _drop(
    left: npt.NDArray[np.int64], current: npt.NDArray[np.float32], is_low: npt.NDArray[np.bool_]
) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.float32]]:
    """Drop boxes as mmcv does, from the front: the last remaining box takes the place of each."""
    count = len(left)
    for place in np.flatnonzero(is_low).tolist():
        while count > place and is_low[count - 1]:
            count -= 1
        if place >= count:
            break
        count -= 1
        left[place], current[place] = left[count], current[count]
    return left[:count], current[:count]
