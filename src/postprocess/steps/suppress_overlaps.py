"""The step ``suppress_overlaps``: disjoint masks within a category (S13)."""

from __future__ import annotations

from dataclasses import replace

from src.postprocess.selection import Selection
from src.postprocess.steps import Step
from src.validation import Flag


class SuppressOverlaps(Step):
    """Take from each mask the pixels of better masks of its category."""

    name = "suppress_overlaps"
    place = "after masks"
    place_reason = "overlaps are those of masks"
    rules = ("suppress_overlaps",)
    is_per_category = True
    uses_scores = False

    suppress_overlaps: Flag

    def apply(self, selection: Selection) -> Selection:
        """Return all of them; masks may have become empty."""
        if not self.suppress_overlaps:
            return selection
        masks = selection.drawn_masks.without_overlaps(selection.category_ids)
        return replace(selection, masks=masks)
