"""Which predicted object hit which true one, in one image.

Source: the evaluation rule of iMaterialist (Fashion) 2019: a predicted object is a hit at threshold
t when it matches one true object of the same class with an IoU strictly greater than t, on the
512x512 raster.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from src.annotations.packed_masks import areas_px, paired_intersections_px

# Ten literals: arange(0.5, 1, 0.05) drifts off them. An IoU is one correctly rounded division of
# integers, so where the exact ratio equals a threshold (11/20 and 0.55) both are the same double,
# and ``>`` is as strict as in exact arithmetic.
THRESHOLDS = (0.50, 0.55, 0.60, 0.65, 0.70, 0.75, 0.80, 0.85, 0.90, 0.95)
_THRESHOLD_ARRAY = np.array(THRESHOLDS)

ClassKey = int | tuple[int, ...]
"""What objects must share to match: a category, or a category and its attributes in order."""


def split_key(key: ClassKey) -> tuple[int, tuple[int, ...]]:
    """Return the category and the attributes of a class key."""
    return (key[0], key[1:]) if isinstance(key, tuple) else (key, ())


@dataclass(frozen=True, slots=True)
class ImageObjects:
    """The objects of one image on the raster, N of them, true or predicted."""

    image_id: str
    class_keys: tuple[ClassKey, ...]  # N; objects match only where their keys are equal
    packed: npt.NDArray[np.uint8]  # (N, H*W//8): see src.annotations.packed_masks

    def __len__(self) -> int:
        return len(self.class_keys)


def no_objects(like: ImageObjects) -> ImageObjects:
    """Return an image without objects: the other side of ``like`` where nothing was found."""
    return ImageObjects(image_id=like.image_id, class_keys=(), packed=like.packed[:0])


@dataclass(frozen=True, slots=True)
class ImageCounts:
    """True objects, predicted objects and hits of one image, K classes on either side."""

    class_keys: tuple[ClassKey, ...]  # K
    truth_objects: npt.NDArray[np.int64]  # (K,)
    predicted_objects: npt.NDArray[np.int64]  # (K,)
    hits: npt.NDArray[np.int64]  # (K, 10) TP by class and threshold

    def class_values(self) -> npt.NDArray[np.float64]:
        """value(t) = TP / (TP + FP + FN) by class and threshold. Shape (K, 10), in [0, 1]."""
        return self.hits / ((self.truth_objects + self.predicted_objects)[:, None] - self.hits)


@dataclass(frozen=True, slots=True)
class ImageMatches:
    """Which objects of one image found each other, T true and P predicted, K classes on either
    side."""

    class_keys: tuple[ClassKey, ...]  # K, in order of appearance: truth first
    truth_classes: npt.NDArray[np.int64]  # (T,) indices into class_keys
    prediction_classes: npt.NDArray[np.int64]  # (P,)
    truth_iou: npt.NDArray[np.float64]  # (T,) IoU of the match in (0.5, 1]; 0 where there is none
    prediction_iou: npt.NDArray[np.float64]  # (P,)

    def hits(self) -> npt.NDArray[np.int64]:
        """TP by class and threshold. Shape (K, 10)."""
        # an IoU passes the first so many thresholds, those below it
        passed = np.searchsorted(_THRESHOLD_ARRAY, self.prediction_iou)
        steps = len(THRESHOLDS) + 1
        counts = np.bincount(
            self.prediction_classes * steps + passed, minlength=len(self.class_keys) * steps
        ).reshape(-1, steps)
        return np.cumsum(counts[:, :0:-1], axis=1)[:, ::-1]

    def truth_objects(self) -> npt.NDArray[np.int64]:
        """True objects by class. Shape (K,)."""
        return np.bincount(self.truth_classes, minlength=len(self.class_keys))

    def predicted_objects(self) -> npt.NDArray[np.int64]:
        """Predicted objects by class. Shape (K,)."""
        return np.bincount(self.prediction_classes, minlength=len(self.class_keys))

    def counts(self) -> ImageCounts:
        """What the score is made of."""
        return ImageCounts(
            self.class_keys, self.truth_objects(), self.predicted_objects(), self.hits()
        )

    def class_values(self) -> npt.NDArray[np.float64]:
        """value(t) = TP / (TP + FP + FN) by class and threshold. Shape (K, 10), in [0, 1]."""
        return self.counts().class_values()


def match_objects(truth: ImageObjects, prediction: ImageObjects) -> ImageMatches:
    """Match objects of equal class greedily by falling IoU, one to one; pairs of IoU 0.5 or less
    never match.

    Greedy matching at a threshold t is the beginning of greedy matching at 0.5, so one matching
    serves all thresholds. Where masks of a class are disjoint, as they must be in a submission, no
    object has two pairs above 0.5 and the matching is the only one. Between equal IoUs the earlier
    true object goes first, then the earlier predicted one. A mask without a pixel matches nothing.
    """
    index_of: dict[ClassKey, int] = {}
    for key in truth.class_keys + prediction.class_keys:
        index_of.setdefault(key, len(index_of))
    truth_classes = np.array([index_of[key] for key in truth.class_keys], dtype=np.int64)
    prediction_classes = np.array([index_of[key] for key in prediction.class_keys], dtype=np.int64)
    truth_iou = np.zeros(len(truth))
    prediction_iou = np.zeros(len(prediction))
    rows, columns, ious = _pairs_above_half(truth, prediction, truth_classes, prediction_classes)
    for pair in np.argsort(-ious, kind="stable").tolist():
        row, column = rows[pair], columns[pair]
        if truth_iou[row] == 0 and prediction_iou[column] == 0:
            truth_iou[row] = prediction_iou[column] = ious[pair]
    return ImageMatches(
        class_keys=tuple(index_of),
        truth_classes=truth_classes,
        prediction_classes=prediction_classes,
        truth_iou=truth_iou,
        prediction_iou=prediction_iou,
    )


def _pairs_above_half(
    truth: ImageObjects,
    prediction: ImageObjects,
    truth_classes: npt.NDArray[np.int64],
    prediction_classes: npt.NDArray[np.int64],
) -> tuple[npt.NDArray[np.intp], npt.NDArray[np.intp], npt.NDArray[np.float64]]:
    """Return true index, predicted index and IoU of the same-class pairs with IoU > 0.5, in
    row-major order."""
    rows, columns = np.nonzero(truth_classes[:, None] == prediction_classes[None])
    truth_px, prediction_px = areas_px(truth.packed)[rows], areas_px(prediction.packed)[columns]
    # An IoU is at most the smaller area over the larger, so most pairs need no intersection.
    possible = 2 * np.minimum(truth_px, prediction_px) > np.maximum(truth_px, prediction_px)
    rows, columns = rows[possible], columns[possible]
    intersections = paired_intersections_px(truth.packed, prediction.packed, rows, columns)
    ious = intersections / (truth_px[possible] + prediction_px[possible] - intersections)
    above = ious > THRESHOLDS[0]
    return rows[above], columns[above], ious[above]
