"""The step ``remove``: removes all detections of some categories (S12)."""

from __future__ import annotations

import numpy as np

from src.postprocess.category_names import CATEGORY_GROUPS, Categories
from src.postprocess.selection import Selection
from src.postprocess.steps import Step


class Remove(Step):
    """Remove all detections of some categories."""

    name = "remove"
    rules = ("remove_categories",)
    is_per_category = True
    uses_scores = False

    remove_categories: Categories  # ids, and names of CATEGORY_GROUPS

    @property
    def removed_categories(self) -> frozenset[int]:
        """Ids of the categories."""
        return frozenset(
            category
            for entry in self.remove_categories
            for category in (CATEGORY_GROUPS[entry] if isinstance(entry, str) else (entry,))
        )

    def apply(self, selection: Selection) -> Selection:
        """Return the detections of other categories."""
        removed = np.array(sorted(self.removed_categories), dtype=np.int64)
        return selection.take(~np.isin(selection.category_ids, removed))
