"""All images of a report: the numbers by which the page's script finds and orders them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

from src.metrics.competition import ClassKey, ImageInstances, ImageMatches, split_key
from src.metrics.errors import GROUPS, KINDS, POOR_MASK, ObjectError
from src.reporting.drawing import short_name
from src.reporting.palette import category_colour, css_colour, text_colour

NONE = -1  # in place of a class: no instance, no detection; in place of a kind: no error
CONFIDENCE_BINS = 20


@dataclass(frozen=True, slots=True)
class ImageSummary:
    """Numbers of one image, for sorting and filtering."""

    image_id: str
    num_ground_truth: int
    num_detections: int
    # number of objects by kind of error, class of the instance and of the detection, and bin of
    # the confidence; each of them an index, or NONE
    pairs: Mapping[tuple[int, int, int, int], int]
    mean_confidence: float | None


@dataclass
class Gallery:
    """Takes images one by one and keeps their numbers."""

    category_names: Mapping[int, str]
    images: dict[str, ImageSummary] = field(default_factory=dict)
    _index_of: dict[ClassKey, int] = field(default_factory=dict)
    _confidences: list[npt.NDArray[np.floating[Any]]] = field(default_factory=list)
    _of_classes: list[list[int]] = field(default_factory=list)  # classes of the same detections

    def add(
        self,
        ground_truth: ImageInstances,
        prediction: ImageInstances,
        matches: ImageMatches,
        errors: Sequence[ObjectError],
    ) -> None:
        """Add an image that has ground truth."""
        pairs: Counter[tuple[int, int, int, int]] = Counter()
        free = dict(matches.pairs)  # matches without an error
        for error in errors:
            row, column = error.ground_truth, error.detection
            true = NONE if row is None else self._class(ground_truth.class_keys[row])
            predicted = NONE if column is None else self._class(prediction.class_keys[column])
            pairs[KINDS.index(error.kind), true, predicted, NONE] += 1
            if row is not None:
                free.pop(row, None)
        for row, column in free.items():
            keys = ground_truth.class_keys[row], prediction.class_keys[column]
            pairs[NONE, self._class(keys[0]), self._class(keys[1]), NONE] += 1
        self._add(prediction, pairs, num_ground_truth=len(ground_truth))

    def add_prediction(self, prediction: ImageInstances) -> None:
        """Add an image without ground truth."""
        bins: Iterable[int] = len(prediction) * [NONE]
        if prediction.scores is not None:
            bins = confidence_bins(prediction.scores).tolist()
        columns = zip(prediction.class_keys, bins, strict=True)
        pairs = Counter((NONE, NONE, self._class(key), place) for key, place in columns)
        self._add(prediction, pairs, num_ground_truth=0)

    def _add(
        self,
        prediction: ImageInstances,
        pairs: Mapping[tuple[int, int, int, int], int],
        *,
        num_ground_truth: int,
    ) -> None:
        scores, num = prediction.scores, len(prediction)
        if scores is not None:
            self._confidences.append(scores)
            self._of_classes.append([self._class(key) for key in prediction.class_keys])
        mean = None if scores is None or not num else float(np.mean(scores))
        image_id = prediction.image_id
        self.images[image_id] = ImageSummary(image_id, num_ground_truth, num, pairs, mean)

    def _class(self, key: ClassKey) -> int:
        return self._index_of.setdefault(key, len(self._index_of))

    @property
    def class_keys(self) -> tuple[ClassKey, ...]:
        """The classes by their index."""
        return tuple(self._index_of)

    @property
    def confidences(self) -> npt.NDArray[np.floating[Any]]:
        """The confidences of all detections that have one, image by image. Shape (N,)."""
        return np.concatenate(self._confidences) if self._confidences else np.zeros(0)

    def mean_confidence(self, key: ClassKey) -> float | None:
        """Return the mean confidence of a class; None: no detection of it has one."""
        classes = np.array([one for of_image in self._of_classes for one in of_image], dtype=int)
        own = self.confidences[classes == self.index_of(key)]
        return float(own.mean()) if len(own) else None

    @property
    def has_confidences(self) -> bool:
        """Whether any detection has a confidence."""
        return any(image.mean_confidence is not None for image in self.images.values())

    def index_of(self, key: ClassKey) -> int:
        """Return the index of a class, NONE where no image has it."""
        return self._index_of.get(key, NONE)

    def describe(
        self,
        scores: Mapping[str, float] | None,
        drawn: Mapping[str, int],
        problems: Mapping[str, str],
    ) -> dict[str, Any]:
        """Return what the page's script needs of all images, as plain JSON values.

        Args:
            scores: Of each image; None: there is no ground truth.
            drawn: Place of the drawing of each image that has one.
            problems: Why an image could not be read, by image id.
        """
        kinds = list(KINDS)
        return {
            "hasTruth": scores is not None,
            "hasConfidences": self.has_confidences,
            "classes": [self._describe_class(key) for key in self.class_keys],
            "kinds": kinds,
            "groups": {
                group: [
                    index
                    for index, kind in enumerate(kinds)
                    if kind == group or (group == POOR_MASK and kind.startswith(POOR_MASK))
                ]
                for group in dict.fromkeys((*GROUPS, *kinds))
            },
            "images": [
                {
                    "id": image.image_id,
                    "score": None if scores is None else round(scores[image.image_id], 4),
                    "confidence": None
                    if image.mean_confidence is None
                    else round(image.mean_confidence, 3),
                    "counts": [image.num_ground_truth, image.num_detections],
                    "pairs": [[*key, count] for key, count in image.pairs.items()],
                    "drawing": drawn.get(image.image_id, NONE),
                    **({"problem": problems[image.image_id]} if image.image_id in problems else {}),
                }
                for image in self.images.values()
            ],
        }

    def _describe_class(self, key: ClassKey) -> dict[str, Any]:
        category, attributes = split_key(key)
        colour = category_colour(category)
        name = self.category_names.get(category, str(category))
        return {
            "id": "_".join(map(str, (category, *attributes))),
            "name": name,
            "label": " ".join(map(str, (short_name(name), *attributes))),
            "color": css_colour(colour),
            "text": css_colour(text_colour(colour)),
        }


def confidence_bins(scores: npt.NDArray[np.floating[Any]]) -> npt.NDArray[np.int64]:
    """Return the bin of each confidence, 0 to 19; the last one includes 1."""
    bins = np.floor(np.asarray(scores, dtype=np.float64) * CONFIDENCE_BINS + 1e-9)
    return bins.clip(0, CONFIDENCE_BINS - 1).astype(np.int64)
