"""TIDE-style error analysis: fix one type of error at a time, and score the images again.

After TIDE (Bolya et al. 2020, "TIDE: A General Toolbox for Identifying Object Detection Errors"),
adapted to this metric, which knows no confidences and counts every detection. What is not a true
positive at all ten thresholds belongs to one error:

- ``poor mask``, by bands of IoU: a detection and the ground-truth instance of its class that it
  means, with an IoU above 0.1: a true positive at no threshold up to 0.5, above at some. The fix:
  the mask becomes that of the ground truth.
- ``wrong class``: a detection and an unmatched instance of another class with an IoU above 0.5.
  The fix: class and mask become those of the ground truth.
- ``duplicate``: a detection over an instance that another detection has already found: of its
  class (IoU above 0.1) or of another (above 0.5). The fix: it goes.
- ``background``: any other detection, the filler row too. The fix: it goes.
- ``missed``: an instance that no detection means. The fix: it is found with its mask.

Pairs are made by falling IoU, one to one; those that count as matches come first. With all errors
fixed the score is 1.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from src.metrics.competition import (
    THRESHOLDS,
    Averaging,
    ClassKey,
    ImageCounts,
    ImageInstances,
    ImageMatches,
    image_score,
)

MISSED, DUPLICATE, WRONG_CLASS, BACKGROUND = "missed", "duplicate", "wrong class", "background"
MASK_BANDS = ((0.1, 0.5), (0.5, 0.65), (0.65, 0.8), (0.8, 0.95))  # above, up to
POOR_MASK = "poor mask"


def band_name(band: tuple[float, float]) -> str:
    """Return the name of an IoU band, ``poor mask, IoU 0.50-0.65``."""
    return f"{POOR_MASK}, IoU {band[0]:.2f}-{band[1]:.2f}"


BANDS = tuple(band_name(band) for band in MASK_BANDS)
KINDS = (MISSED, WRONG_CLASS, DUPLICATE, BACKGROUND, *BANDS)
GROUPS = (MISSED, WRONG_CLASS, DUPLICATE, BACKGROUND, POOR_MASK)  # with the bands together
# By pixels of an object's mask on the 512x512 raster; COCO's bounds.
SIZES = (("small", 32**2), ("medium", 96**2), ("large", 512 * 512 + 1))
_MEANT = 0.1  # IoU above which a detection means an instance of its class
_FOUND = THRESHOLDS[0]


@dataclass(frozen=True, slots=True)
class ObjectError:
    """One error of an image."""

    kind: str  # one of KINDS
    class_key: ClassKey  # of the ground-truth instance; of the detection where there is none
    area_px: int  # of the same object
    # how its fix changes the counts: class, detections, true positives by threshold
    changes: tuple[tuple[ClassKey, int, npt.NDArray[np.int64]], ...]

    @property
    def group(self) -> str:
        """Its kind, one of GROUPS."""
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
        ground_truth.bitmasks.areas_px().tolist(),
        prediction.bitmasks.areas_px().tolist(),
    )
    free_ground_truth = matches.ground_truth_iou == 0
    free_prediction = matches.prediction_iou == 0
    errors = [
        ObjectError(
            _band(iou),
            ground_truth.class_keys[row],
            true_px[row],
            ((ground_truth.class_keys[row], 0, _true_positives(1.0) - _true_positives(iou)),),
        )
        for row, iou in enumerate(matches.ground_truth_iou.tolist())
        if 0 < iou <= THRESHOLDS[-1]
    ]
    rows, columns, ious = _overlaps(ground_truth, prediction, free_prediction)
    for pair in np.argsort(-ious, kind="stable").tolist():
        row, column, iou = int(rows[pair]), int(columns[pair]), float(ious[pair])
        if not (free_ground_truth[row] and free_prediction[column]):
            continue
        free_ground_truth[row] = free_prediction[column] = False
        key = ground_truth.class_keys[row]
        if key == prediction.class_keys[column]:  # 0.5 at most, or it were a match
            errors.append(
                ObjectError(_band(iou), key, true_px[row], ((key, 0, _true_positives(1.0)),))
            )
            continue
        changes = (
            (prediction.class_keys[column], -1, _true_positives(0.0)),
            (key, 1, _true_positives(1.0)),
        )
        errors.append(ObjectError(WRONG_CLASS, key, true_px[row], changes))
    over_ground_truth = set(columns.tolist())
    for column in np.flatnonzero(free_prediction).tolist():
        key = prediction.class_keys[column]
        kind = DUPLICATE if column in over_ground_truth else BACKGROUND
        errors.append(
            ObjectError(kind, key, predicted_px[column], ((key, -1, _true_positives(0.0)),))
        )
    for row in np.flatnonzero(free_ground_truth).tolist():
        key = ground_truth.class_keys[row]
        errors.append(ObjectError(MISSED, key, true_px[row], ((key, 1, _true_positives(1.0)),)))
    return errors


def fixed_counts(counts: ImageCounts, errors: Iterable[ObjectError]) -> ImageCounts:
    """Return the counts of an image with these errors fixed."""
    place = {key: number for number, key in enumerate(counts.class_keys)}
    predicted, true_positives = counts.num_detections.copy(), counts.true_positives.copy()
    for error in errors:
        for key, objects, more_true_positives in error.changes:
            predicted[place[key]] += objects
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
    """Cost of the errors of M images: the gain of the score if one type were fixed."""

    score: float
    counts: Mapping[str, int]  # errors by kind, POOR_MASK being all its bands together
    gains: Mapping[str, npt.NDArray[np.float64]]  # (M,) by kind, of each image
    by_class: Mapping[ClassKey, Mapping[str, float]]  # gain of the score by class and GROUPS
    by_size: Mapping[str, Mapping[str, float]]  # and by size and GROUPS

    def gain(self, kind: str) -> float:
        """Return by how much the score would rise, at least 0."""
        return float(self.gains[kind].mean())


@dataclass
class ErrorAccumulator:
    """Takes images one by one, and keeps numbers only."""

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
    ) -> None:
        """Take one image."""
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

    def result(self) -> ErrorReport:
        """Return the report of the images so far, at least one."""
        images = len(self._scores)
        return ErrorReport(
            score=float(np.mean(self._scores)),
            counts={kind: self._counts[kind] for kind in self._gains},
            gains={kind: np.array(gains) for kind, gains in self._gains.items()},
            by_class={
                key: {group: gains[group] / images for group in GROUPS}
                for key, gains in self._by_class.items()
            },
            by_size={
                size: {group: gains[group] / images for group in GROUPS}
                for size, gains in self._by_size.items()
            },
        )


def _overlaps(
    ground_truth: ImageInstances, prediction: ImageInstances, free_prediction: npt.NDArray[np.bool_]
) -> tuple[npt.NDArray[np.intp], npt.NDArray[np.intp], npt.NDArray[np.float64]]:
    """Return both indices and the IoU of the pairs that an error is told from.

    They are of one class with an IoU above 0.1, or of two with one above 0.5.
    """
    same = np.array(
        [[key == other for other in prediction.class_keys] for key in ground_truth.class_keys],
        dtype=bool,
    ).reshape(len(ground_truth), len(prediction))
    rows, columns = np.nonzero(np.broadcast_to(free_prediction, same.shape))
    intersections = ground_truth.bitmasks.paired_intersections_px(
        prediction.bitmasks, rows, columns
    )
    either = (
        ground_truth.bitmasks.areas_px()[rows]
        + prediction.bitmasks.areas_px()[columns]
        - intersections
    )
    ious = intersections / np.maximum(either, 1)
    meant = ious > np.where(same[rows, columns], _MEANT, _FOUND)
    return rows[meant], columns[meant], ious[meant]


def _true_positives(iou: float) -> npt.NDArray[np.int64]:
    """Return whether an IoU is a true positive, by threshold. Shape (10,)."""
    return (iou > np.array(THRESHOLDS)).astype(np.int64)


def _band(iou: float) -> str:
    return next(
        name for name, (low, high) in zip(BANDS, MASK_BANDS, strict=True) if low < iou <= high
    )
