"""The step ``nms``: non-maximum suppression, hard or soft."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Annotated, Any, ClassVar, Literal

import numpy as np

from src.postprocess.detections import NMS_AND_CAP
from src.postprocess.nms import select_by_soft_nms, suppress_boxes
from src.postprocess.selection import Selection
from src.postprocess.steps import Step
from src.validation import Legal, Positive, Share

NMS_KINDS = ("class_wise", "class_agnostic", "soft_linear", "soft_gaussian")
_HARD, _SOFT = NMS_KINDS[:2], NMS_KINDS[2:]


class Nms(Step):
    """Suppress boxes that overlap better ones; see ``suppress_boxes``, ``select_by_soft_nms``."""

    name = "nms"
    place = "before masks"
    place_reason = "NMS compares boxes, and masks are made of what it leaves"
    matters_for: ClassVar[Mapping[str, tuple[str, tuple[Any, ...]]]] = {
        "nms_iou_threshold": ("nms_kind", (*_HARD, "soft_linear")),
        "soft_nms_sigma": ("nms_kind", ("soft_gaussian",)),
        "soft_nms_min_score": ("nms_kind", _SOFT),
    }
    takes_most = True
    capped_name = NMS_AND_CAP

    nms_kind: Annotated[
        Literal["class_wise", "class_agnostic", "soft_linear", "soft_gaussian"],
        Legal(f"one of {', '.join(NMS_KINDS)}"),
    ] = "class_wise"
    nms_iou_threshold: Share  # suppresses strictly above it; soft_linear: at it, too
    soft_nms_sigma: Positive = 0.5  # of soft_gaussian
    soft_nms_min_score: Share = 0.001  # soft-NMS drops detections below it

    def apply(self, selection: Selection) -> Selection:
        """Return the detections that are not suppressed."""
        # in the order of the candidates, by which mmdet breaks ties of score
        order = np.argsort(selection.indices)
        indices = selection.indices[order]
        boxes, labels = selection.candidates.boxes_for_nms[indices], selection.labels[indices]
        scores = selection.scores[order]
        if self.nms_kind == "soft_linear" or self.nms_kind == "soft_gaussian":
            kept, lowered = select_by_soft_nms(
                boxes,
                scores,
                labels,
                kind=self.nms_kind,
                iou_threshold=self.nms_iou_threshold,
                sigma=self.soft_nms_sigma,
                min_score=self.soft_nms_min_score,
                max_selected=self._num_needed,
            )
            return replace(selection.take(order[kept]), scores=lowered)
        kept = suppress_boxes(
            boxes,
            scores,
            labels,
            iou_threshold=self.nms_iou_threshold,
            max_selected=self._num_needed,
            class_agnostic=self.nms_kind == "class_agnostic",
        )
        return selection.take(order[kept])
