"""Predictions straight from a prediction store, as their submission would have them."""

from __future__ import annotations

from collections.abc import Iterable

from src.postprocess.category_names import CategoryNames
from src.postprocess.pipeline import StoreDetections
from src.postprocess.settings import PostprocessSettings
from src.predictions.store import PredictionStore
from src.tuning.evaluated_image import SubmittedDetections


class StoredDetections(SubmittedDetections):
    """The detections of a prediction store as they are scored, post-processed when asked for.

    Args:
        store: Candidates before NMS.
        settings: Thresholds and rules.
        categories: Of the store. Where they are the competition's, an image without a detection has
            its filler row, which is scored as a prediction.
        use_attributes: See ``SubmittedDetections``, like the next.
        ids: Image ids to use where they name an image of the store in another spelling.
    """

    def __init__(
        self,
        store: PredictionStore,
        settings: PostprocessSettings,
        *,
        categories: CategoryNames,
        use_attributes: bool = False,
        ids: Iterable[str] = (),
    ) -> None:
        self.store, self.settings, self.categories = store, settings, categories
        super().__init__(
            StoreDetections(store, settings),
            with_filler=categories.is_competition,
            use_attributes=use_attributes,
            ids=ids,
        )

    @property
    def step_warnings(self) -> list[str]:
        """A sentence for each step that took all or most, of the images asked for so far."""
        return self.step_counts.warnings(self.settings, self.categories, self.store.category_ids)
