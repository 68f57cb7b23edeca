"""The step ``suppress_overlaps``: makes the masks of a category, or all masks, disjoint (S13)."""

from __future__ import annotations

from dataclasses import replace
from typing import Annotated, Any, Literal

import numpy as np
from pydantic import PlainValidator

from src.postprocess.selection import Selection
from src.postprocess.steps import Step
from src.validation import Legal


def _check(value: Any) -> Any:
    if isinstance(value, bool) or value == "all":
        return value
    raise ValueError


class SuppressOverlaps(Step):
    """Remove from each mask the pixels of better masks, of its category or of all."""

    name = "suppress_overlaps"
    place = "after masks"
    place_reason = "overlaps are those of masks"
    rules = ("suppress_overlaps",)
    uses_scores = False

    suppress_overlaps: Annotated[
        bool | Literal["all"],
        PlainValidator(_check),
        Legal("true, false, or all (masks of different categories, too)"),
    ]

    @property
    def is_per_category(self) -> bool:  # type: ignore[override]  # the base's is of the class
        """Whether detections of other categories change nothing."""
        return self.suppress_overlaps != "all"

    def apply(self, selection: Selection) -> Selection:
        """Return the selection with disjoint masks, of which some may be empty."""
        if not self.suppress_overlaps:
            return selection
        groups = selection.category_ids
        if self.suppress_overlaps == "all":
            groups = np.zeros_like(groups)
        masks = selection.drawn_masks.without_overlaps(groups)
        return replace(selection, masks=masks)
