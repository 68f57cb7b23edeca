"""The step ``suppress_overlaps``: makes the masks of a category disjoint (S13)."""

from __future__ import annotations

from dataclasses import replace

from src.postprocess.selection import Selection
from src.postprocess.steps import Step
from src.validation import Flag


class SuppressOverlaps(Step):
    """Remove from each mask the pixels of better masks of its category."""

    name = "suppress_overlaps"
    place = "after masks"
    place_reason = "overlaps are those of masks"
    rules = ("suppress_overlaps",)
    is_per_category = True
    uses_scores = False

    suppress_overlaps: Flag

    def apply(self, selection: Selection) -> Selection:
        """Return the selection with disjoint masks, of which some may be empty."""
        if not self.suppress_overlaps:
            return selection
        masks = selection.drawn_masks.without_overlaps(selection.category_ids)
        return replace(selection, masks=masks)
