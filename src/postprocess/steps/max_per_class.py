"""The step ``max_per_class``: a maximum number of detections of each category."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from src.postprocess.selection import Selection
from src.postprocess.steps import Step
from src.validation import Cap


class MaxPerClass(Step):
    """Keep the best detections of each category."""

    name = "max_per_class"
    rules = ("max_per_class",)
    is_per_category = True
    uses_scores = False

    max_per_class: Cap = None

    def apply(self, selection: Selection) -> Selection:
        """Return the first ``max_per_class`` detections of each category."""
        if self.max_per_class is None:
            return selection
        return selection.take(first_of_each(selection.category_ids, self.max_per_class))


def first_of_each(category_ids: npt.NDArray[np.integer], count: int) -> npt.NDArray[np.bool_]:
    """Return whether each detection is among the first ``count`` of its category. Shape (N,)."""
    kept = np.zeros(len(category_ids), dtype=bool)
    for category in np.unique(category_ids):
        kept[np.flatnonzero(category_ids == category)[:count]] = True
    return kept
