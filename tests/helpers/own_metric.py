"""A metric that a user adds to the evaluator by the configuration alone."""

from __future__ import annotations

from src.annotations.store import AnnotationStore
from src.callbacks.validation_metrics import Metric, MetricResult, ValidationImage


class DetectionsPerImage(Metric[int]):
    """The mean number of detections."""

    def update(self, image: ValidationImage) -> None:
        self.kept[image.image_id] = len(image.submitted)

    def compute(self, store: AnnotationStore) -> MetricResult:
        mean = sum(self.kept.values()) / len(self.kept)
        return MetricResult({"validation/detections_per_image": mean})
