"""TIDE-style error analysis: fix one type of error at a time, and score the images again.

After TIDE (Bolya et al. 2020, "TIDE: A General Toolbox for Identifying Object Detection Errors"),
adapted to this metric, which ignores confidences and counts every detection. Every instance and
detection that is not a true positive at all ten thresholds belongs to one error:

- ``poor mask``, by bands of IoU: a detection paired with an instance of its class with an IoU above
  0.1: a true positive at no threshold if the IoU is at most 0.5, else at some. Fixed, it has the
  mask of the ground truth.
- ``wrong class``: a detection and an unmatched instance of another class with an IoU above 0.5.
  Fixed, it has the class and mask of the ground truth.
- ``duplicate``: a detection of an instance that another detection has already found: of its class
  (IoU above 0.1) or of another (above 0.5). Fixed, it is removed.
- ``background``: any other detection, including the filler row. Fixed, it is removed.
- ``missed``: an instance without a detection. Fixed, it is found with its mask.

Pairs are made by falling IoU, one to one; those that count as matches come first. With all errors
fixed the score is 1.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from src.annotations.competition import Averaging, MatchRule
from src.metrics.competition import (
    ClassKey,
    ImageCounts,
    ImageInstances,
    ImageMatches,
    image_score,
)

MISSED, DUPLICATE, WRONG_CLASS, BACKGROUND = "missed", "duplicate", "wrong class", "background"
MASK_BANDS = ((0.1, 0.5), (0.5, 0.65), (0.65, 0.8), (0.8, 0.95))  # above, up to
POOR_MASK = "poor mask"


BANDS = tuple(f"{POOR_MASK}, IoU {low:.2f}-{high:.2f}" for low, high in MASK_BANDS)
KINDS = (MISSED, WRONG_CLASS, DUPLICATE, BACKGROUND, *BANDS)
GROUPS = (MISSED, WRONG_CLASS, DUPLICATE, BACKGROUND, POOR_MASK)  # all bands as one
# by pixels of the mask on the raster of the score; COCO's bounds
SIZES = (("small", 32**2), ("medium", 96**2), ("large", math.inf))
_MEANT = 0.1  # IoU above which a detection is paired with an instance of its class
_FOUND = 0.5


@dataclass(frozen=True, slots=True)
class ObjectError:
    """One error of an image."""

    kind: str  # one of KINDS
    class_key: ClassKey  # of the ground-truth instance, else of the detection
    area_px: int  # of the same mask
    # changes of the counts when it is fixed: class, detections, true positives by threshold
    changes: tuple[tuple[ClassKey, int, npt.NDArray[np.int64]], ...]
    ground_truth: int | None = None  # position of the instance that is concerned
    detection: int | None = None  # position of the detection
    iou: float = 0.0  # of the two masks; 0 where there is one alone

    @property
    def group(self) -> str:
        """The group of its kind, one of GROUPS."""
        return POOR_MASK if self.kind in BANDS else self.kind

    @property
    def size(self) -> str:
        """The name of its size, one of SIZES."""
        return next(name for name, below in SIZES if self.area_px < below)


def find_errors(
    ground_truth: ImageInstances, prediction: ImageInstances, matches: ImageMatches
) -> list[ObjectError]:
    """Return the errors of one image, from both sides and their matches."""
    true_px, predicted_px = (
        side.bitmasks.areas_px().tolist() for side in (ground_truth, prediction)
    )
    free_ground_truth = matches.ground_truth_iou == 0
    free_prediction = matches.prediction_iou == 0
    rule = matches.rule
    detection_of = dict(matches.pairs)
    found, nothing = _true_positives(1.0, rule), _true_positives(0.0, rule)
    errors = []
    for row, iou in enumerate(matches.ground_truth_iou.tolist()):
        missing = found - _true_positives(iou, rule)
        if iou > 0 and missing.any():
            key = ground_truth.class_keys[row]
            change = (key, 0, missing)
            at = row, detection_of.get(row), iou
            errors.append(ObjectError(_band(iou), key, true_px[row], (change,), *at))
    rows, columns, ious = _overlaps(ground_truth, prediction, free_prediction)
    for pair in np.argsort(-ious, kind="stable").tolist():
        row, column, iou = int(rows[pair]), int(columns[pair]), float(ious[pair])
        if not (free_ground_truth[row] and free_prediction[column]):
            continue
        free_ground_truth[row] = free_prediction[column] = False
        key, predicted = ground_truth.class_keys[row], prediction.class_keys[column]
        if key == predicted:  # an IoU of at most 0.5, else they would match
            change = (key, 0, found)
            errors.append(ObjectError(_band(iou), key, true_px[row], (change,), row, column, iou))
        else:
            changes = ((predicted, -1, nothing), (key, 1, found))
            at = row, column, iou
            errors.append(ObjectError(WRONG_CLASS, key, true_px[row], changes, *at))
    over_ground_truth = set(columns.tolist())
    for column in np.flatnonzero(free_prediction).tolist():
        key = prediction.class_keys[column]
        kind = DUPLICATE if column in over_ground_truth else BACKGROUND
        change = (key, -1, nothing)
        error = ObjectError(kind, key, predicted_px[column], (change,), detection=column)
        errors.append(error)
    for row in np.flatnonzero(free_ground_truth).tolist():
        key = ground_truth.class_keys[row]
        change = (key, 1, found)
        errors.append(ObjectError(MISSED, key, true_px[row], (change,), ground_truth=row))
    return errors


def fixed_counts(counts: ImageCounts, errors: Iterable[ObjectError]) -> ImageCounts:
    """Return the counts of an image with these errors fixed."""
    place = {key: number for number, key in enumerate(counts.class_keys)}
    predicted, true_positives = counts.num_detections.copy(), counts.true_positives.copy()
    for error in errors:
        for key, more_detections, more_true_positives in error.changes:
            predicted[place[key]] += more_detections
            true_positives[place[key]] += more_true_positives
    left = counts.num_ground_truth + predicted > 0
    return ImageCounts(
        class_keys=tuple(key for key, keep in zip(counts.class_keys, left, strict=True) if keep),
        num_ground_truth=counts.num_ground_truth[left],
        num_detections=predicted[left],
        true_positives=true_positives[left],
    )


@dataclass(frozen=True)
class ErrorReport:
    """Cost of the errors of M images: the gain of the score if one kind were fixed."""

    score: float
    counts: Mapping[str, int]  # errors by kind, POOR_MASK being all bands
    gains: Mapping[str, npt.NDArray[np.float64]]  # (M,) by kind, of each image
    by_class: Mapping[ClassKey, Mapping[str, float]]  # gain of the score by class and group
    by_size: Mapping[str, Mapping[str, float]]  # gain of the score by size and group

    def gain(self, kind: str) -> float:
        """Return the gain of the score if a kind were fixed, at least 0."""
        return float(self.gains[kind].mean())


@dataclass
class ErrorAccumulator:
    """Takes images one by one and keeps only numbers."""

    averaging: Averaging
    _scores: list[float] = field(default_factory=list)
    _counts: Counter[str] = field(default_factory=Counter)
    _gains: dict[str, list[float]] = field(
        default_factory=lambda: {kind: [] for kind in (*KINDS, POOR_MASK)}
    )
    _by_class: dict[ClassKey, Counter[str]] = field(default_factory=dict)
    _by_size: dict[str, Counter[str]] = field(
        default_factory=lambda: {name: Counter() for name, _ in SIZES}
    )

    def add(
        self, ground_truth: ImageInstances, prediction: ImageInstances, matches: ImageMatches
    ) -> list[ObjectError]:
        """Add one image, and return its errors."""
        counts = matches.counts()
        score = image_score(counts, self.averaging)
        errors = find_errors(ground_truth, prediction, matches)
        self._scores.append(score)

        def gain(chosen: list[ObjectError]) -> float:
            return image_score(fixed_counts(counts, chosen), self.averaging) - score

        of_kinds: dict[str, list[ObjectError]] = {kind: [] for kind in self._gains}
        of_class: dict[tuple[ClassKey, str], list[ObjectError]] = {}
        of_size: dict[tuple[str, str], list[ObjectError]] = {}
        for error in errors:
            for kind in {error.kind, error.group}:
                of_kinds[kind].append(error)
            of_class.setdefault((error.class_key, error.group), []).append(error)
            of_size.setdefault((error.size, error.group), []).append(error)
        for kind, own in of_kinds.items():
            self._counts[kind] += len(own)
            self._gains[kind].append(gain(own) if own else 0.0)
        for (key, group), own in of_class.items():
            self._by_class.setdefault(key, Counter())[group] += gain(own)  # type: ignore[assignment]
        for (size, group), own in of_size.items():
            self._by_size[size][group] += gain(own)  # type: ignore[assignment]
        return errors

    def result(self) -> ErrorReport:
        """Return the report of the images so far, at least one."""

        def mean(gains: Counter[str]) -> dict[str, float]:
            return {group: gains[group] / len(self._scores) for group in GROUPS}

        return ErrorReport(
            score=float(np.mean(self._scores)),
            counts={kind: self._counts[kind] for kind in self._gains},
            gains={kind: np.array(gains) for kind, gains in self._gains.items()},
            by_class={key: mean(gains) for key, gains in self._by_class.items()},
            by_size={size: mean(gains) for size, gains in self._by_size.items()},
        )


def _overlaps(
    ground_truth: ImageInstances, prediction: ImageInstances, free_prediction: npt.NDArray[np.bool_]
) -> tuple[npt.NDArray[np.intp], npt.NDArray[np.intp], npt.NDArray[np.float64]]:
    """Return both indices and the IoU of the pairs that make an error.

    That is, pairs of the same class with an IoU above 0.1, or of two classes above 0.5.
    """
    same = np.array(
        [[key == other for other in prediction.class_keys] for key in ground_truth.class_keys],
        dtype=bool,
    ).reshape(len(ground_truth), len(prediction))
    least_iou = np.where(same, _MEANT, _FOUND)
    true_px = ground_truth.bitmasks.areas_px()[:, None]
    predicted_px = prediction.bitmasks.areas_px()[None]
    # An IoU is at most the smaller area over the larger, so most pairs need no intersection.
    can_mean = np.minimum(true_px, predicted_px) >= least_iou * np.maximum(true_px, predicted_px)
    rows, columns = np.nonzero(free_prediction & can_mean)
    shared = ground_truth.bitmasks.paired_intersections_px(prediction.bitmasks, rows, columns)
    areas = (true_px + predicted_px)[rows, columns]
    ious = shared / np.maximum(areas - shared, 1)
    meant = ious > least_iou[rows, columns]
    return rows[meant], columns[meant], ious[meant]


def _true_positives(iou: float, rule: MatchRule) -> npt.NDArray[np.int64]:
    """Return whether an IoU is a true positive, by threshold. Shape (T,)."""
    passed = rule.num_passed(np.array([iou]))[0]
    found: npt.NDArray[np.int64] = (np.arange(len(rule.thresholds)) < passed).astype(np.int64)
    return found


def _band(iou: float) -> str:
    return next(
        (name for name, (_, high) in zip(BANDS, MASK_BANDS, strict=True) if iou <= high), BANDS[-1]
    )
