"""The step ``score``: a score threshold for all categories or by category."""

from __future__ import annotations

from collections.abc import Hashable

import numpy as np
from pydantic import Field

from src.postprocess.category_names import ShareByCategory
from src.postprocess.selection import Selection, by_category
from src.postprocess.steps import Step
from src.validation import Share


class Score(Step):
    """Keep detections with a score strictly above the threshold, both as float32, as in torch."""

    name = "score"
    rules = ("score_threshold_per_class",)
    is_per_category = True
    takes_most = True

    score_threshold: Share
    score_threshold_per_class: ShareByCategory = Field(default_factory=dict)  # in its place

    def apply(self, selection: Selection) -> Selection:
        """Return the detections above their threshold."""
        own = self.score_threshold_per_class
        thresholds = by_category(selection.category_ids, self.score_threshold, own)
        lowest = np.float32(min(self.score_threshold, *own.values(), 1.0))
        scores = selection.scores.astype(np.float32, copy=False)
        return selection.take(scores > thresholds).exact_where(
            bool(lowest >= np.float32(selection.candidates.complete_above_score))
        )

    def category_key(self, category: int) -> Hashable:
        """Return the category's threshold."""
        return self.score_threshold_per_class.get(category, self.score_threshold)
