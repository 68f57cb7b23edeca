"""The step ``masks``: masks of the detections, from the network's probabilities."""

from __future__ import annotations

from collections.abc import Hashable
from dataclasses import replace

import numpy as np
from pydantic import Field

from src.postprocess.category_names import PositiveShareByCategory
from src.postprocess.selection import Selection, by_category
from src.postprocess.steps import Step
from src.validation import PositiveShare


class Masks(Step):
    """Draw masks; a pixel needs a probability of at least the threshold."""

    name = "masks"
    is_per_category = True
    uses_scores = False

    mask_threshold: PositiveShare
    mask_threshold_per_class: PositiveShareByCategory = Field(default_factory=dict)  # in its place

    def apply(self, selection: Selection) -> Selection:
        """Return the selection with masks."""
        thresholds = by_category(
            selection.category_ids, self.mask_threshold, self.mask_threshold_per_class
        )
        return replace(selection, masks=selection.draw(selection.indices, thresholds))

    def threshold_of(self, category: int) -> float:
        """Return the threshold of a category, rounded to float32 as masks compare it."""
        own: float = self.mask_threshold_per_class.get(category, self.mask_threshold)
        return float(np.float32(own))

    def category_key(self, category: int) -> Hashable:
        """Return the category's threshold."""
        return self.threshold_of(category)

    @property
    def reason(self) -> str:
        """Reason of empty masks."""
        return (
            f"no pixel reaches postprocess.mask_threshold={self.mask_threshold:g}, or better masks "
            "of the class cover all of it"
        )
