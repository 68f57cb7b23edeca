"""Soft-NMS in numpy, equal to mmcv's ``softnms`` on the CPU.

Source: Bodla et al., "Soft-NMS: improving object detection with one line of code", ICCV 2017.
"""

from __future__ import annotations

from typing import Literal

import numpy as np
import numpy.typing as npt

from src.postprocess.non_maximum_suppression import SPLIT_AT, pairwise_iou, shift_by_class

SoftKind = Literal["soft_linear", "soft_gaussian"]
# so many pairs are compared with one another in one numpy call (16 MB); more, as each is taken
_TOGETHER = 2048


def select_by_soft_nms(
    boxes_xyxy: npt.NDArray[np.float32],
    scores: npt.NDArray[np.float32],
    labels: npt.NDArray[np.integer],
    *,
    kind: SoftKind,
    iou_threshold: float,
    sigma: float,
    min_score: float,
    max_selected: int | None = None,
) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.float32]]:
    """Lower the scores of pairs that overlap better ones of their class, and drop the lowest.

    As ``mmcv.ops.batched_nms`` with type ``soft_nms`` does it: again and again the pair of the
    highest score is taken, and each other pair's score is multiplied by 1 - IoU where IoU is at
    least the threshold (linear), or by exp(-IoU^2 / sigma) (gaussian); a pair whose score falls
    below ``min_score`` is dropped. Of equal scores goes first what stands first in the array as
    mmcv shuffles it: the pair taken changes places with the first of those left, and a dropped pair
    leaves its place to the last one.

    mmcv makes a score that is no number of two boxes without area; here they have IoU 0. Where it
    goes class by class (10,000 pairs and more), it leaves the order of equal scores open.

    Args:
        boxes_xyxy: Shape (N, 4) float32, in the frame in which the model ran NMS.
        scores: Shape (N,) float32.
        labels: Shape (N,) integer: the model's class indices.
        kind: How a score falls.
        iou_threshold: Of ``soft_linear``; compared as float32.
        sigma: Of ``soft_gaussian``.
        min_score: Compared as float32.
        max_selected: After so many pairs the search ends; None: when there are none left.

    Returns:
        Indices into the arguments, shape (K,) int64, and their new scores, shape (K,) float32,
        which never rise.
    """
    classes = labels if len(scores) >= SPLIT_AT else None
    return soft_nms(
        shift_by_class(boxes_xyxy, labels),
        scores,
        kind=kind,
        iou_threshold=iou_threshold,
        sigma=sigma,
        min_score=min_score,
        max_selected=max_selected,
        labels=classes,
    )


def soft_nms(
    boxes_xyxy: npt.NDArray[np.float32],
    scores: npt.NDArray[np.float32],
    *,
    kind: SoftKind | Literal["naive"],
    iou_threshold: float,
    sigma: float,
    min_score: float,
    max_selected: int | None = None,
    labels: npt.NDArray[np.integer] | None = None,
) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.float32]]:
    """Lower the scores of boxes that overlap better ones, as mmcv's ``softnms`` kernel does.

    Arguments, ties and results are those of ``select_by_soft_nms``, but all boxes suppress one
    another unless ``labels`` tells classes apart. Of the kind ``naive``, a box whose IoU is at
    least the threshold gets the score 0.
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
    """Drop pairs as mmcv does, from the front on: the last one takes the place of each."""
    count = len(left)
    for place in np.flatnonzero(is_low).tolist():
        while count > place and is_low[count - 1]:
            count -= 1
        if place >= count:
            break
        count -= 1
        left[place], current[place] = left[count], current[count]
    return left[:count], current[:count]
