"""Predictions straight from a prediction store, as their submission would have them."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import replace

from src.annotations.image_names import match_ids
from src.metrics.competition import ImageObjects
from src.postprocess.category_names import CategoryNames
from src.postprocess.pipeline import postprocess_store
from src.postprocess.settings import PostprocessSettings
from src.postprocess.step_counts import StepCounts
from src.predictions.store import PredictionStore
from src.tuning.submitted import as_submitted


class StoredObjects(Mapping[str, ImageObjects]):
    """The objects of a prediction store by image id, post-processed when they are asked for.

    Args:
        store: pre-NMS candidates.
        settings: thresholds and rules.
        categories: of the store. Where they are the competition's, an image without an object has
            its filler row, which is scored as a prediction.
        use_attributes: class keys carry a set of attributes, here always the empty one.
        ids: image ids to go by where they name an image of the store in another spelling.
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
        self.store = store
        self.settings = settings
        self.categories = categories
        self._left: dict[str, tuple[int, Mapping[str, int]]] = {}
        self.use_attributes = use_attributes
        own = store.image_ids
        self._own_id = dict(zip(match_ids(own, ids), own, strict=True))

    def __len__(self) -> int:
        return len(self._own_id)

    def __iter__(self) -> Iterator[str]:
        return iter(self._own_id)

    def __contains__(self, image_id: object) -> bool:
        return image_id in self._own_id

    def __getitem__(self, image_id: str) -> ImageObjects:
        own_id = self._own_id[image_id]
        detections = next(postprocess_store(self.store, self.settings, [own_id]))
        objects = as_submitted(
            detections,
            with_filler=self.categories.is_competition,
            use_attributes=self.use_attributes,
        )
        self._left[image_id] = len(detections), detections.taken
        return replace(objects, image_id=image_id)

    @property
    def step_warnings(self) -> list[str]:
        """A sentence for each step that took all or most, of the images asked for so far."""
        steps = StepCounts()
        for left, taken in self._left.values():
            steps.add(left, taken)
        return steps.warnings(self.settings, self.categories, self.store.category_ids)
