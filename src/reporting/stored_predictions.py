"""Predictions straight from a prediction store, as their submission would have them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from src.metrics.matching import ImageObjects
from src.postprocess.pipeline import postprocess_store
from src.postprocess.prediction_store import PredictionStore
from src.postprocess.settings import PostprocessSettings
from src.tuning.submitted import as_submitted


class StoredObjects(Mapping[str, ImageObjects]):
    """The objects of a prediction store by image id, post-processed when they are asked for.

    Args:
        store: pre-NMS candidates.
        settings: thresholds and rules.
        with_filler: an image without an object has the competition's filler row, which is scored
            as a prediction; see ``src.annotations.imaterialist_2019``.
        use_attributes: class keys carry a set of attributes, here always the empty one.
    """

    def __init__(
        self,
        store: PredictionStore,
        settings: PostprocessSettings,
        *,
        with_filler: bool,
        use_attributes: bool = False,
    ) -> None:
        self.store = store
        self.settings = settings
        self.with_filler = with_filler
        self.use_attributes = use_attributes
        self._image_ids = frozenset(store.image_ids)

    def __len__(self) -> int:
        return len(self._image_ids)

    def __iter__(self) -> Iterator[str]:
        return iter(self.store.image_ids)

    def __contains__(self, image_id: object) -> bool:
        return image_id in self._image_ids

    def __getitem__(self, image_id: str) -> ImageObjects:
        if image_id not in self._image_ids:
            raise KeyError(image_id)
        detections = next(postprocess_store(self.store, self.settings, [image_id]))
        return as_submitted(
            detections, with_filler=self.with_filler, use_attributes=self.use_attributes
        )
