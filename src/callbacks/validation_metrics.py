"""Metrics of a validation: updated image by image, computed over all images.

A new metric is a subclass of ``Metric`` in a file of its own, and an entry of
``callbacks.evaluator.metrics`` in the configuration.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, Generic, TypeVar

from src.annotations.competition import Averaging, Competition
from src.annotations.store import AnnotationStore
from src.metrics import coco_average_precision as coco
from src.metrics.coco_average_precision import CocoImage
from src.metrics.competition import (
    ImageCounts,
    ImageInstances,
    ScoreAccumulator,
    check_averaging,
    match_instances,
    split_key,
)
from src.metrics.inputs import RasterInstances
from src.postprocess.category_names import CategoryNames
from src.postprocess.pipeline import coco_results, postprocess
from src.postprocess.settings import PostprocessSettings, named_settings, plain_settings
from src.predictions.candidates import Candidates
from src.tuning.evaluated_image import as_submitted

Kept = TypeVar("Kept")


@dataclass
class ValidationImage:
    """One image: its candidates, and its detections and ground truth, each made once."""

    candidates: Candidates  # before NMS
    instances: RasterInstances  # ground truth of all images
    settings: PostprocessSettings
    category_ids: Sequence[int]  # the data's id of each class of the model

    def __post_init__(self) -> None:
        self.image_id, self.store = self.candidates.image_id, self.instances.store

    @property
    def competition(self) -> Competition:
        """The rules of the score."""
        return self.instances.competition

    @cached_property
    def ground_truth(self) -> ImageInstances:
        """Ground-truth instances on the raster on which they are scored."""
        return self.instances[self.image_id]

    @cached_property
    def submitted(self) -> ImageInstances:
        """Detections on the raster on which they are scored, as in a submission."""
        rules = self.competition
        detections = postprocess(
            self.candidates,
            self.settings,
            category_ids=self.category_ids,
            raster=rules.scored_on,
        )
        return as_submitted(detections, filler=rules.filler)


@dataclass(frozen=True, slots=True)
class MetricResult:
    """Values of a metric over all images."""

    values: Mapping[str, float]  # by logged name; an undefined one is left out
    # columns of the table of classes, by category id
    by_class: Mapping[int, Mapping[str, float | int | None]] = field(default_factory=dict)


class Metric(ABC, Generic[Kept]):
    """Base of metrics: keeps something small of each image, by image id.

    Each process updates its own metric. The first process merges what all of them keep, so an image
    that a sampler repeats counts once, and computes the values.
    """

    in_progress_bar = False  # whether the progress bar shows the values

    def __init__(self) -> None:
        self.kept: dict[str, Kept] = {}  # pickled for other processes

    def setup(self, categories: CategoryNames) -> None:
        """Resolve categories that the settings name, before anything is trained."""

    def reset(self) -> None:
        """Forget all images."""
        self.kept = {}

    @abstractmethod
    def update(self, image: ValidationImage) -> None:
        """Keep what the score needs of an image."""

    def merge(self, kept: Mapping[str, Kept]) -> None:
        """Add what another process keeps."""
        self.kept |= kept

    @abstractmethod
    def compute(self, store: AnnotationStore) -> MetricResult:
        """Return the values over all images; ``store`` holds the ground truth."""


class CompetitionScoreMetric(Metric[ImageCounts]):
    """The competition's score, equal to that of ``src.score`` on the submission.

    Args:
        averaging: ``per_class`` or ``pooled``; see ``src.metrics.competition``.

    Raises:
        InputError: ``averaging`` is not legal.
    """

    in_progress_bar = True

    def __init__(self, *, averaging: Averaging = "per_class") -> None:
        super().__init__()
        check_averaging(averaging)
        self.averaging = averaging

    def update(self, image: ValidationImage) -> None:
        """Keep the counts of true positives, instances and detections."""
        self.kept[image.image_id] = match_instances(
            image.ground_truth, image.submitted, image.competition.rule
        ).counts()

    def compute(self, store: AnnotationStore) -> MetricResult:
        """Return ``validation/competition_map``."""
        accumulator = ScoreAccumulator(averaging=self.averaging)
        for image_id, counts in sorted(self.kept.items()):
            accumulator.add_counts(image_id, counts)
        score = accumulator.result()
        return MetricResult(
            values={"validation/competition_map": score.competition_map},
            by_class={
                split_key(key)[0]: {
                    "true_objects": result.num_ground_truth,
                    "predicted_objects": result.num_detections,
                    "competition_score": result.value,
                }
                for key, result in score.classes.items()
            },
        )


class CocoAveragePrecisionMetric(Metric[CocoImage]):
    """COCO's average precision at the size of the images; keeps about a kilobyte an instance.

    Args:
        settings: The values of ``PostprocessSettings``. The metric needs many detections with
            their scores (``postprocess=default``), so these are not the evaluator's.
    """

    def __init__(self, *, settings: Mapping[str, Any]) -> None:
        super().__init__()
        plain_settings(settings)
        self._values = settings

    def setup(self, categories: CategoryNames) -> None:
        """Resolve categories that the settings name."""
        self.settings = named_settings(self._values, categories)

    def update(self, image: ValidationImage) -> None:
        """Keep instances and detections as RLE."""
        number, size_hw = coco.image_number(image.store, image.image_id), image.candidates.size_hw
        annotations = coco.coco_annotations(image.store, image.image_id, size_hw=size_hw)
        ids, candidates = image.category_ids, image.candidates
        results = coco_results(candidates, self.settings, image_number=number, category_ids=ids)
        self.kept[image.image_id] = CocoImage(number, size_hw, annotations, results)

    def compute(self, store: AnnotationStore) -> MetricResult:
        """Return ``validation/coco_map`` and its kin."""
        images = [image for _, image in sorted(self.kept.items())]
        score = coco.coco_score(images, category_ids=store.category_ids)
        boxes = score.boxes_by_class
        return MetricResult(
            values={
                f"validation/coco_{kind}{name}": value
                for kind, summary in (("", score.masks), ("box_", score.boxes))
                for name, value in summary.values().items()
                if value is not None
            },
            by_class={
                category: {
                    **{"mask_ap": mask.map, "mask_ap_50": mask.map_50, "mask_ap_75": mask.map_75},
                    **{"box_ap": boxes[category].map, "box_ap_50": boxes[category].map_50},
                }
                for category, mask in score.masks_by_class.items()
            },
        )
