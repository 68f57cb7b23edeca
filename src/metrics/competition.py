"""The competition's metric: match detections with ground truth, and score them.

Mean average precision over T IoU thresholds, averaged over images. Source: the evaluation rule of
iMaterialist (Fashion) 2019, with T = 10. For each threshold t a detection is a true positive if it
matches a ground-truth instance of the same class with an IoU strictly greater than t (see
``MatchRule``), on the competition's raster; value(t) = TP / (TP + FP + FN); an image's score is the
mean over t; the result is the mean over images. Public sources disagree on one point:

- ``per_class``: within an image, value(t) of each class in ground truth or detections, then the
  mean over those classes (the winner's own validation metric);
- ``pooled``: TP, FP and FN summed over the image's classes, then one value (the wording of the
  competition's page).

In both, an image without instances and detections scores 1, and one with only either scores 0.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal, get_args

import numpy as np
import numpy.typing as npt

from src.annotations.competition import Averaging, MatchRule
from src.errors import InputError
from src.metrics.intervals import Interval, bootstrap_interval
from src.rle import Bitmasks
from src.validation import check_value, one_of

if TYPE_CHECKING:
    import pandas as pd

COMPETITION_RULE = MatchRule()
"""Ten thresholds from 0.50 to 0.95, to be exceeded."""

ClassKey = int | tuple[int, ...]
"""What must be equal for a match: the category, or the category and its attributes in order."""


def split_key(key: ClassKey) -> tuple[int, tuple[int, ...]]:
    """Return the category and the attributes of a class key."""
    return (key[0], key[1:]) if isinstance(key, tuple) else (key, ())


@dataclass(frozen=True, slots=True)
class ImageInstances:
    """The N ground-truth instances or detections of one image, on the raster."""

    image_id: str
    class_keys: tuple[ClassKey, ...]  # N; only equal keys match
    bitmasks: Bitmasks  # N
    scores: npt.NDArray[np.floating[Any]] | None = None  # (N,) confidences in [0, 1], if known

    def __len__(self) -> int:
        return len(self.class_keys)


def no_instances(like: ImageInstances) -> ImageInstances:
    """Return an empty counterpart of ``like``: the same image without detections or instances."""
    return ImageInstances(image_id=like.image_id, class_keys=(), bitmasks=like.bitmasks[:0])


@dataclass(frozen=True, slots=True)
class ImageCounts:
    """Instances, detections and true positives of one image, K classes on either side."""

    class_keys: tuple[ClassKey, ...]  # K
    num_ground_truth: npt.NDArray[np.int64]  # (K,)
    num_detections: npt.NDArray[np.int64]  # (K,)
    true_positives: npt.NDArray[np.int64]  # (K, T) TP by class and threshold

    def class_values(self) -> npt.NDArray[np.float64]:
        """Return TP / (TP + FP + FN) by class and threshold. Shape (K, T), in [0, 1]."""
        return self.true_positives / (
            (self.num_ground_truth + self.num_detections)[:, None] - self.true_positives
        )


@dataclass(frozen=True, slots=True)
class ImageMatches:
    """Matches of one image: T ground-truth instances, P detections, K classes on either side."""

    class_keys: tuple[ClassKey, ...]  # K, in order of appearance: ground truth first
    ground_truth_classes: npt.NDArray[np.int64]  # (T,) indices into class_keys
    prediction_classes: npt.NDArray[np.int64]  # (P,)
    ground_truth_iou: npt.NDArray[np.float64]  # (T,) of the match in (0.5, 1]; 0: no match
    prediction_iou: npt.NDArray[np.float64]  # (P,)
    rule: MatchRule = COMPETITION_RULE
    pairs: tuple[tuple[int, int], ...] = ()  # instance and detection of each match

    def true_positives(self) -> npt.NDArray[np.int64]:
        """Return the true positives by class and threshold. Shape (K, T)."""
        passed = self.rule.num_passed(self.prediction_iou)
        steps = len(self.rule.thresholds) + 1
        places = self.prediction_classes * steps + passed
        counts = np.bincount(places, minlength=len(self.class_keys) * steps).reshape(-1, steps)
        return np.cumsum(counts[:, :0:-1], axis=1)[:, ::-1]

    def num_ground_truth(self) -> npt.NDArray[np.int64]:
        """Return the number of ground-truth instances by class. Shape (K,)."""
        return np.bincount(self.ground_truth_classes, minlength=len(self.class_keys))

    def num_detections(self) -> npt.NDArray[np.int64]:
        """Return the number of detections by class. Shape (K,)."""
        return np.bincount(self.prediction_classes, minlength=len(self.class_keys))

    def counts(self) -> ImageCounts:
        """Return the counts on which the score depends."""
        return ImageCounts(
            self.class_keys, self.num_ground_truth(), self.num_detections(), self.true_positives()
        )

    def class_values(self) -> npt.NDArray[np.float64]:
        """Return TP / (TP + FP + FN) by class and threshold. Shape (K, T), in [0, 1]."""
        return self.counts().class_values()


def match_instances(
    ground_truth: ImageInstances, prediction: ImageInstances, rule: MatchRule = COMPETITION_RULE
) -> ImageMatches:
    """Match instances and detections of equal class greedily by falling IoU, one to one.

    Pairs that do not pass the lowest threshold never match. Greedy matching at a threshold t is the
    beginning of greedy matching at the lowest, so one matching serves all thresholds. Where masks
    of a class are disjoint, no mask has two pairs above 0.5 and the matching is unique from there.
    Of equal IoUs, the earlier instance comes first, then the earlier detection. A mask without a
    pixel matches nothing.
    """
    hw, predicted_hw = ground_truth.bitmasks.raster_hw, prediction.bitmasks.raster_hw
    if hw != predicted_hw and len(ground_truth) and len(prediction):
        raise InputError(
            f"masks must be on the ground truth's raster of {hw[0]}x{hw[1]} px, got "
            f"{predicted_hw[0]}x{predicted_hw[1]} ({ground_truth.image_id}); on the raster native "
            "the predicted image has the size of the annotated one"
        )
    keys = dict.fromkeys(ground_truth.class_keys + prediction.class_keys)
    index_of = {key: index for index, key in enumerate(keys)}
    ground_truth_classes, prediction_classes = (
        np.array([index_of[key] for key in side.class_keys], dtype=np.int64)
        for side in (ground_truth, prediction)
    )
    rows, columns = np.nonzero(ground_truth_classes[:, None] == prediction_classes[None])
    own, others = ground_truth.bitmasks, prediction.bitmasks
    ground_truth_iou, prediction_iou, pairs = match_pairs(
        rows,
        columns,
        true_px=_areas_px(own, is_needed=len(rows) > 0),
        predicted_px=_areas_px(others, is_needed=len(rows) > 0),
        shared_px=lambda rows, columns: own.paired_intersections_px(others, rows, columns),
        rule=rule,
    )
    return ImageMatches(
        class_keys=tuple(index_of),
        ground_truth_classes=ground_truth_classes,
        prediction_classes=prediction_classes,
        ground_truth_iou=ground_truth_iou,
        prediction_iou=prediction_iou,
        rule=rule,
        pairs=pairs,
    )


def _areas_px(masks: Bitmasks, *, is_needed: bool) -> npt.NDArray[np.int64]:
    return masks.areas_px() if is_needed else np.zeros(len(masks), dtype=np.int64)


def match_pairs(
    rows: npt.NDArray[np.intp],
    columns: npt.NDArray[np.intp],
    *,
    true_px: npt.NDArray[np.integer],
    predicted_px: npt.NDArray[np.integer],
    shared_px: Callable[[npt.NDArray[np.intp], npt.NDArray[np.intp]], npt.NDArray[np.integer]],
    rule: MatchRule,
) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64], tuple[tuple[int, int], ...]]:
    """Match instances and detections greedily by falling IoU, as ``match_instances`` does.

    Args:
        rows: Positions of the instances of pairs of equal class, in row-major order.
        columns: Positions of their detections.
        true_px: (T,) areas of all instances.
        predicted_px: (P,) areas of all detections.
        shared_px: Returns the pixels that each of some pairs shares.
        rule: When a pair matches.

    Returns:
        The IoU of the match of each instance, (T,), and of each detection, (P,); 0: it has none.
        The position of the instance and of the detection of each match.
    """
    ground_truth_iou, prediction_iou = np.zeros(len(true_px)), np.zeros(len(predicted_px))
    if not len(rows):
        return ground_truth_iou, prediction_iou, ()
    rows, columns, ious = _possible_pairs(rows, columns, true_px, predicted_px, shared_px, rule)
    pairs = []
    for pair in np.argsort(-ious, kind="stable").tolist():
        row, column = int(rows[pair]), int(columns[pair])
        if ground_truth_iou[row] == 0 and prediction_iou[column] == 0:
            ground_truth_iou[row] = prediction_iou[column] = ious[pair]
            pairs.append((row, column))
    return ground_truth_iou, prediction_iou, tuple(pairs)


def _possible_pairs(
    rows: npt.NDArray[np.intp],
    columns: npt.NDArray[np.intp],
    true_px: npt.NDArray[np.integer],
    predicted_px: npt.NDArray[np.integer],
    shared_px: Callable[[npt.NDArray[np.intp], npt.NDArray[np.intp]], npt.NDArray[np.integer]],
    rule: MatchRule,
) -> tuple[npt.NDArray[np.intp], npt.NDArray[np.intp], npt.NDArray[np.float64]]:
    """Return both indices and the IoU of the pairs that can match, in the same order."""
    areas = true_px[rows], predicted_px[columns]
    # An IoU is at most the smaller area over the larger, so most pairs need no intersection.
    least, most = np.minimum(*areas), np.maximum(*areas)
    possible = (least > 0) & (least >= rule.thresholds[0] * most)
    rows, columns = rows[possible], columns[possible]
    shared = shared_px(rows, columns)
    ious = shared / (areas[0][possible] + areas[1][possible] - shared)
    passing = rule.num_passed(ious) > 0
    return rows[passing], columns[passing], ious[passing]


AVERAGINGS: tuple[str, ...] = get_args(Averaging)


def check_averaging(averaging: str) -> None:
    """Raise ``InputError`` unless ``averaging`` is legal."""
    check_value("averaging", averaging, one_of(*AVERAGINGS))


@dataclass(slots=True)
class ClassResult:
    """Result of one class over the images that have it in ground truth or detections."""

    images: int = 0
    num_ground_truth: int = 0
    num_detections: int = 0
    value_sum: float = 0.0

    @property
    def value(self) -> float:
        """Mean of TP / (TP + FP + FN) over those images and the thresholds, in [0, 1]."""
        return self.value_sum / self.images


@dataclass(frozen=True)
class CompetitionScore:
    """The score of M images.

    Example:
        >>> import numpy as np
        >>> from src import CompetitionScore
        >>> values = np.array([[1.0] * 10, [1.0] * 5 + [0.0] * 5])
        >>> score = CompetitionScore("per_class", ("a.jpg", "b.jpg"), values, classes={})
        >>> score.competition_map, score.to_frame("image").score.tolist()
        (0.75, [1.0, 0.5])
    """

    averaging: Averaging
    image_ids: tuple[str, ...]  # M
    values: npt.NDArray[np.float64]  # (M, T) value(t) of each image
    classes: Mapping[ClassKey, ClassResult]  # every class in ground truth or detections
    category_names: Mapping[int, str] = field(default_factory=dict)  # if they are known
    notes: tuple[str, ...] = ()  # sentences on images and masks that do not count
    rule: MatchRule = COMPETITION_RULE
    raster: str = "512x512"  # on which masks were compared, see raster_hw

    @property
    def competition_map(self) -> float:
        """The result, in [0, 1]."""
        return float(self.per_image.mean())

    @property
    def images(self) -> int:
        """Number of scored images."""
        return len(self.image_ids)

    @property
    def per_image(self) -> npt.NDArray[np.float64]:
        """Score of each image: the mean over thresholds. Shape (M,)."""
        result: npt.NDArray[np.float64] = self.values.mean(axis=1)
        return result

    @property
    def per_threshold(self) -> npt.NDArray[np.float64]:
        """Mean over images of value(t). Shape (T,)."""
        result: npt.NDArray[np.float64] = self.values.mean(axis=0)
        return result

    @property
    def per_class(self) -> dict[ClassKey, float]:
        """Mean value of each class over the images that have it on either side."""
        return {key: result.value for key, result in self.classes.items()}

    def interval(
        self, *, num_resamples: int = 10_000, confidence: float = 0.95, seed: int = 0
    ) -> Interval:
        """Return the percentile bootstrap interval over images, see ``bootstrap_interval``."""
        return bootstrap_interval(self.per_image, num_resamples, confidence, seed)

    def to_frame(self, by: Literal["category", "image"] = "category") -> pd.DataFrame:
        """Return a row for each category (with its attributes, if they count) or each image."""
        import pandas as pd

        if by == "image":
            return pd.DataFrame({"image_id": self.image_ids, "score": self.per_image})
        if by != "category":
            raise InputError(f"by must be one of category, image, got {by!r}")
        rows = []
        for key, result in self.classes.items():
            category, attributes = split_key(key)
            rows.append(
                {"category_id": category, "category": self.category_names.get(category)}
                | ({"attribute_ids": attributes} if isinstance(key, tuple) else {})
                | {"images": result.images, "ground_truth": result.num_ground_truth}
                | {"detections": result.num_detections, "score": result.value}
            )
        return pd.DataFrame(rows)


def image_score(counts: ImageCounts, averaging: Averaging) -> float:
    """Return the score of one image, in [0, 1]."""
    return float(image_values(counts, averaging).mean())


def image_values(
    counts: ImageCounts,
    averaging: Averaging,
    class_values: npt.NDArray[np.float64] | None = None,
) -> npt.NDArray[np.float64]:
    """Return value(t) of one image. Shape (T,), in [0, 1]; all ones for an empty image.

    ``class_values`` are those of the counts, where they are already known.
    """
    if not counts.class_keys:
        return np.ones(counts.true_positives.shape[1])
    if averaging == "per_class":
        values = counts.class_values() if class_values is None else class_values
        mean: npt.NDArray[np.float64] = values.mean(axis=0)
        return mean
    positives = counts.true_positives.sum(axis=0)
    either = counts.num_ground_truth.sum() + counts.num_detections.sum() - positives
    value: npt.NDArray[np.float64] = positives / either
    return value


@dataclass
class ScoreAccumulator:
    """Running score: keeps a few numbers for each image, so memory does not depend on masks.

    Raises:
        InputError: An unknown ``averaging``.
    """

    averaging: Averaging = "per_class"
    rule: MatchRule = COMPETITION_RULE
    raster: str = "512x512"
    _image_ids: list[str] = field(default_factory=list)
    _values: list[npt.NDArray[np.float64]] = field(default_factory=list)
    _classes: dict[ClassKey, ClassResult] = field(default_factory=dict)

    def __post_init__(self) -> None:
        check_averaging(self.averaging)

    def add(self, ground_truth: ImageInstances, prediction: ImageInstances) -> ImageMatches:
        """Score one image and return its matches."""
        matches = match_instances(ground_truth, prediction, self.rule)
        self.add_counts(ground_truth.image_id, matches.counts())
        return matches

    def add_counts(self, image_id: str, counts: ImageCounts) -> None:
        """Score one image whose true positives are already counted."""
        class_values = counts.class_values()
        self._image_ids.append(image_id)
        self._values.append(image_values(counts, self.averaging, class_values))
        columns = (
            counts.class_keys,
            counts.num_ground_truth.tolist(),
            counts.num_detections.tolist(),
            class_values.mean(axis=1).tolist(),
        )
        for key, num_ground_truth, num_detections, value in zip(*columns, strict=True):
            result = self._classes.setdefault(key, ClassResult())
            result.images += 1
            result.num_ground_truth += num_ground_truth
            result.num_detections += num_detections
            result.value_sum += value

    def result(self) -> CompetitionScore:
        """Return the score of the images so far.

        Raises:
            InputError: There is no image.
        """
        if not self._image_ids:
            raise InputError("there is no image to score")
        return CompetitionScore(
            averaging=self.averaging,
            image_ids=tuple(self._image_ids),
            values=np.stack(self._values),
            classes=dict(sorted(self._classes.items(), key=lambda item: split_key(item[0]))),
            rule=self.rule,
            raster=self.raster,
        )


def score_images(
    ground_truth: Iterable[ImageInstances],
    prediction: Mapping[str, ImageInstances],
    averaging: Averaging = "per_class",
) -> CompetitionScore:
    """Score the images of ``ground_truth``.

    An image that ``prediction`` lacks has no detections. Only one image of each side is held at a
    time, so both may be lazy.

    Args:
        ground_truth: Instances of each image; images without instances count, too.
        prediction: Detections by image id. Ids that the ground truth lacks are ignored.
        averaging: ``per_class`` or ``pooled``; see the module's docstring.

    Raises:
        InputError: Unknown averaging, or no image.
    """
    accumulator = ScoreAccumulator(averaging=averaging)
    for instances in ground_truth:
        detections = prediction.get(instances.image_id)
        accumulator.add(instances, no_instances(instances) if detections is None else detections)
    return accumulator.result()
