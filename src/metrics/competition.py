"""The competition's score: mean average precision over ten IoU thresholds, averaged over images.

Source: the evaluation rule of iMaterialist (Fashion) 2019. For each threshold t a predicted object
is a hit when it matches one true object of the same class with an IoU strictly greater than t;
value(t) = TP / (TP + FP + FN); an image's score is the mean over t; the result is the mean over
images. Public sources disagree on one point:

- ``per_class``: within an image, value(t) for each class in truth or prediction, then the mean over
  those classes (the winner's own validation metric);
- ``pooled``: TP, FP and FN summed over the image's classes, then one value (the competition page's
  wording).

In both, an image with neither truth nor prediction scores 1, and what is on one side only scores 0.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Literal, get_args

import numpy as np
import numpy.typing as npt

from src.errors import InputError
from src.metrics.matching import (
    THRESHOLDS,
    ClassKey,
    ImageCounts,
    ImageMatches,
    ImageObjects,
    match_objects,
    no_objects,
)

Averaging = Literal["per_class", "pooled"]
AVERAGINGS: tuple[str, ...] = get_args(Averaging)


def check_averaging(averaging: str) -> None:
    """Refuse what is no averaging.

    Raises:
        InputError: names the value and the legal ones.
    """
    if averaging not in AVERAGINGS:
        raise InputError(f"averaging={averaging}: legal are {', '.join(AVERAGINGS)}")


@dataclass(slots=True)
class ClassResult:
    """What one class did, over the images that have it in truth or prediction."""

    images: int = 0
    truth_objects: int = 0
    predicted_objects: int = 0
    value_sum: float = 0.0

    @property
    def value(self) -> float:
        """Mean over those images of the mean over thresholds of value(t), in [0, 1]."""
        return self.value_sum / self.images


@dataclass(frozen=True)
class CompetitionScore:
    """The score of M images."""

    averaging: Averaging
    image_ids: tuple[str, ...]  # M
    values: npt.NDArray[np.float64]  # (M, 10) value(t) of each image
    classes: Mapping[ClassKey, ClassResult]  # every class that occurs in truth or prediction

    @property
    def competition_map(self) -> float:
        """The result, in [0, 1]."""
        return float(self.per_image.mean())

    @property
    def images(self) -> int:
        """How many images were scored."""
        return len(self.image_ids)

    @property
    def per_image(self) -> npt.NDArray[np.float64]:
        """Score of each image: the mean over thresholds. Shape (M,)."""
        return self.values.mean(axis=1)

    @property
    def per_threshold(self) -> npt.NDArray[np.float64]:
        """Mean over images of value(t). Shape (10,)."""
        return self.values.mean(axis=0)

    @property
    def per_class(self) -> dict[ClassKey, float]:
        """For each class the mean of its value over the images where it occurs in truth or
        prediction."""
        return {key: result.value for key, result in self.classes.items()}


def image_values(matches: ImageMatches, averaging: Averaging) -> npt.NDArray[np.float64]:
    """Return value(t) of one image. Shape (10,), in [0, 1]; all ones where there is no object."""
    counts = matches.counts()
    return _image_values(counts, counts.class_values(), averaging)


def image_score(counts: ImageCounts, averaging: Averaging) -> float:
    """Return the score of one image whose hits are counted, in [0, 1]."""
    return float(_image_values(counts, counts.class_values(), averaging).mean())


def _image_values(
    counts: ImageCounts, class_values: npt.NDArray[np.float64], averaging: Averaging
) -> npt.NDArray[np.float64]:
    if not counts.class_keys:
        return np.ones(len(THRESHOLDS))
    if averaging == "per_class":
        return class_values.mean(axis=0)
    hits = counts.hits.sum(axis=0)
    return hits / (counts.truth_objects.sum() + counts.predicted_objects.sum() - hits)


@dataclass
class ScoreAccumulator:
    """Takes images one by one and keeps ten numbers of each, so that memory does not depend on
    masks.

    Raises:
        InputError: an unknown ``averaging``.
    """

    averaging: Averaging = "per_class"
    _image_ids: list[str] = field(default_factory=list)
    _values: list[npt.NDArray[np.float64]] = field(default_factory=list)
    _classes: dict[ClassKey, ClassResult] = field(default_factory=dict)

    def __post_init__(self) -> None:
        check_averaging(self.averaging)

    def add(self, truth: ImageObjects, prediction: ImageObjects) -> ImageMatches:
        """Score one image and return its matches."""
        matches = match_objects(truth, prediction)
        self.add_matches(truth.image_id, matches)
        return matches

    def add_matches(self, image_id: str, matches: ImageMatches) -> None:
        """Score one image whose objects are matched already."""
        self.add_counts(image_id, matches.counts())

    def add_counts(self, image_id: str, counts: ImageCounts) -> None:
        """Score one image whose hits are counted already."""
        class_values = counts.class_values()
        self._image_ids.append(image_id)
        self._values.append(_image_values(counts, class_values, self.averaging))
        columns = (
            counts.class_keys,
            counts.truth_objects.tolist(),
            counts.predicted_objects.tolist(),
            class_values.mean(axis=1).tolist(),
        )
        for key, truth_objects, predicted_objects, value in zip(*columns, strict=True):
            result = self._classes.setdefault(key, ClassResult())
            result.images += 1
            result.truth_objects += truth_objects
            result.predicted_objects += predicted_objects
            result.value_sum += value

    def result(self) -> CompetitionScore:
        """Return the score of the images so far.

        Raises:
            InputError: there is no image.
        """
        if not self._image_ids:
            raise InputError("there is no image to score")
        return CompetitionScore(
            averaging=self.averaging,
            image_ids=tuple(self._image_ids),
            values=np.stack(self._values),
            classes=dict(sorted(self._classes.items(), key=_class_order)),
        )


def _class_order(item: tuple[ClassKey, ClassResult]) -> tuple[int, ...]:
    key = item[0]
    return key if isinstance(key, tuple) else (key,)


def score_images(
    truth: Iterable[ImageObjects],
    prediction: Mapping[str, ImageObjects],
    averaging: Averaging = "per_class",
) -> CompetitionScore:
    """Score the images of ``truth``; one that ``prediction`` lacks counts as having no predicted
    object.

    Only one image of each side is held at a time, so both may be made as they are asked for.

    Args:
        truth: true objects of each image; every image counts, those without objects too.
        prediction: predicted objects by image id. Ids that the truth lacks are not looked at.
        averaging: ``per_class`` or ``pooled``; see the module's docstring.

    Raises:
        InputError: unknown averaging, or no image at all.
    """
    accumulator = ScoreAccumulator(averaging=averaging)
    for true_objects in truth:
        predicted_objects = prediction.get(true_objects.image_id)
        if predicted_objects is None:
            predicted_objects = no_objects(true_objects)
        accumulator.add(true_objects, predicted_objects)
    return accumulator.result()
