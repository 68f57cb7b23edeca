"""Candidates that the settings drop: the step that dropped each, the reason, and its suppressor.

The real steps are run one after the other; what a step leaves out is a ghost of that step. Only the
words are made here, and for NMS the kept candidate that overlaps it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from src.postprocess.category_names import CategoryNames
from src.postprocess.detections import NMS_AND_CAP
from src.postprocess.nms import pairwise_iou, shift_by_class
from src.postprocess.selection import Selection, by_category
from src.postprocess.settings import PostprocessSettings
from src.postprocess.steps import Step
from src.postprocess.steps.cap import Cap
from src.postprocess.steps.max_per_class import MaxPerClass
from src.postprocess.steps.min_area import MinArea
from src.postprocess.steps.nms import Nms
from src.postprocess.steps.remove import Remove
from src.postprocess.steps.score import Score


@dataclass(frozen=True, slots=True)
class Ghost:
    """A candidate that a step dropped."""

    index: int  # of the candidate
    step: str  # the name under which it is counted
    reason: str
    by: int | None = None  # the candidate that suppressed it


def find_ghosts(
    start: Selection,
    settings: PostprocessSettings,
    categories: CategoryNames,
) -> tuple[list[Ghost], Selection]:
    """Return the candidates that each step drops, and the selection that the last one leaves.

    Args:
        start: All candidates, with the means to draw masks on all rasters of the settings.
        settings: Thresholds and rules.
        categories: Names for the reasons.
    """
    ghosts: list[Ghost] = []
    current = start
    for step in (*settings.before_masks, *settings.from_masks):
        left = step.apply(current)
        gone = ~np.isin(current.indices, left.indices)
        if gone.any():
            ghosts += _describe(step, current, left, np.flatnonzero(gone), categories)
        current = left
    return ghosts, current


def _describe(
    step: Step,
    before: Selection,
    left: Selection,
    gone: npt.NDArray[np.intp],
    categories: CategoryNames,
) -> list[Ghost]:
    """Return the ghosts of one step, given their positions in the selection before it."""
    if isinstance(step, Nms):
        return _suppressed(step, before, left, gone)
    name = step.count_name(len(left))
    reasons = _reasons(step, before, gone, categories)
    return [
        Ghost(int(before.indices[place]), name, reason)
        for place, reason in zip(gone.tolist(), reasons, strict=True)
    ]


def _reasons(
    step: Step, before: Selection, gone: npt.NDArray[np.intp], categories: CategoryNames
) -> list[str]:
    names = [categories.describe([number]) for number in before.category_ids[gone].tolist()]
    if isinstance(step, Score):
        thresholds = by_category(
            before.category_ids[gone], step.score_threshold, step.score_threshold_per_class
        )
        pairs = zip(before.scores[gone].tolist(), thresholds.tolist(), strict=True)
        return [f"score {score:.4g} is not above {threshold:.4g}" for score, threshold in pairs]
    if isinstance(step, Cap):
        return [f"beyond the best {step.max_per_image} of the image"] * len(gone)
    if isinstance(step, MaxPerClass):
        return [f"beyond the best {step.max_per_class} of {name}" for name in names]
    if isinstance(step, Remove):
        return [f"category {name} is removed" for name in names]
    if isinstance(step, MinArea):
        areas = before.drawn_masks.areas_px(step.min_area_raster)[gone].tolist()
        return [
            f"{area} px on {step.min_area_raster}, fewer than {step.min_area_px}" for area in areas
        ]
    return [step.reason] * len(gone)


def _suppressed(
    step: Nms, before: Selection, left: Selection, gone: npt.NDArray[np.intp]
) -> list[Ghost]:
    """Return the ghosts of NMS: each with the best kept candidate that overlaps it too much."""
    order = np.argsort(before.indices)
    indices = before.indices[order]
    boxes, labels = before.candidates.boxes_for_nms[indices], before.labels[indices]
    if step.nms_kind != "class_agnostic":
        boxes = shift_by_class(boxes, labels)
    box_of = dict(zip(indices.tolist(), boxes, strict=True))
    name = step.count_name(len(left))
    if not len(left):
        return [Ghost(int(before.indices[place]), name, step.reason) for place in gone.tolist()]
    kept_boxes = np.stack([box_of[index] for index in left.indices.tolist()])
    score_of = dict(zip(before.indices.tolist(), before.scores.tolist(), strict=True))
    is_hard = step.nms_kind in ("class_wise", "class_agnostic")
    ghosts = []
    for place in gone.tolist():
        index, score = int(before.indices[place]), float(before.scores[place])
        ious = np.nan_to_num(pairwise_iou(box_of[index][None], kept_boxes)[0])
        if is_hard:
            over = np.flatnonzero(ious > np.float32(step.nms_iou_threshold))
            by = int(over[0]) if len(over) else None
        else:
            better = ious * (left.candidates.scores[left.indices] >= score)
            by = int(np.argmax(better)) if better.max(initial=0) > 0 else None
        if by is None:
            reason = f"beyond the best {len(left)} of the image"
            if name != NMS_AND_CAP:
                reason = f"score {score:.4g} is below {step.soft_nms_min_score:g}"
            ghosts.append(Ghost(index, name, reason))
            continue
        suppressor = int(left.indices[by])
        other = f"a better candidate (score {score_of[suppressor]:.3f})"
        reason = f"IoU {ious[by]:.3f} with {other}, above {step.nms_iou_threshold:g}"
        if not is_hard:
            reason = (
                f"soft-NMS lowered its score {score:.3f}, because of the IoU {ious[by]:.3f} with "
                f"{other}, below {step.soft_nms_min_score:g}"
            )
        ghosts.append(Ghost(index, "nms", reason, suppressor))
    return ghosts


def empty_reasons(
    settings: PostprocessSettings,
    drawn_px: Mapping[int, int],
    covered_by: Mapping[int, int],
) -> dict[int, tuple[str, int | None]]:
    """Return the reason of each detection whose mask is empty in the end, and what covers it.

    Args:
        settings: Thresholds and rules.
        drawn_px: Pixels of the mask of each such candidate as it was drawn.
        covered_by: The better candidate that covers most of it.
    """
    reasons: dict[int, tuple[str, int | None]] = {}
    for index, area in drawn_px.items():
        if area:
            by = covered_by.get(index)
            reasons[index] = f"better masks cover all of its {area} px", by
        else:
            threshold = settings.mask_threshold
            reasons[index] = f"no pixel of its mask reaches the threshold {threshold:g}", None
    return reasons
