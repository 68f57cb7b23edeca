"""The step ``cap``: a maximum number of detections of an image."""

from __future__ import annotations

import numpy as np

from src.postprocess.selection import Selection
from src.postprocess.steps import Step
from src.validation import Cap as Limit


class Cap(Step):
    """Keep the best detections of an image."""

    name = "cap"

    max_per_image: Limit

    @property
    def max_kept(self) -> int | None:
        """The cap."""
        return self.max_per_image

    def apply(self, selection: Selection) -> Selection:
        """Return the first ``max_per_image`` detections."""
        if self.max_per_image is None:
            return selection
        left = selection.take(slice(self.max_per_image))
        # candidates that the store lacks come after a cap filled by better ones
        is_filled = len(left) == self.max_per_image
        floor = np.float32(selection.candidates.complete_above_score)
        return left.exact_where(is_filled and bool(left.scores[-1] > floor))
