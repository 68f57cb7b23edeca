"""Single images of a report: which ones, and how truth and prediction are drawn."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from src.annotations.instances import RASTER_HW
from src.annotations.packed_masks import unpack
from src.metrics.competition import CompetitionScore
from src.metrics.matching import ClassKey, ImageMatches, ImageObjects, match_objects, split_key
from src.reporting.colours import Rgb, class_colours
from src.reporting.drawing import DrawnObject


@dataclass(frozen=True, slots=True)
class ClassInImage:
    """What one class did in one image."""

    name: str  # short
    attributes: tuple[int, ...]  # where they are part of the class
    colour: Rgb
    truth_objects: int
    predicted_objects: int
    value: float  # mean over thresholds of TP / (TP + FP + FN), in [0, 1]


@dataclass(frozen=True, slots=True)
class DrawnComparison:
    """One image's truth and prediction, ready to be drawn."""

    truth: tuple[DrawnObject, ...]
    prediction: tuple[DrawnObject, ...]
    classes: tuple[ClassInImage, ...]
    matched: int  # pairs with IoU > 0.5


def choose_examples(
    score: CompetitionScore, worst: int, best: int
) -> tuple[list[tuple[str, float]], list[tuple[str, float]]]:
    """Choose the worst images, worst first, and of the others the best ones, best first.

    Equal scores are ordered by image id.

    Returns:
        Two lists of (image id, score).
    """
    ranked = sorted(zip(score.per_image.tolist(), score.image_ids, strict=True))
    low = ranked[:worst]
    rest = sorted(ranked[worst:], key=lambda item: (-item[0], item[1]))
    return [(name, value) for value, name in low], [(name, value) for value, name in rest[:best]]


def compare_objects(
    truth: ImageObjects, prediction: ImageObjects, category_names: Mapping[int, str]
) -> DrawnComparison:
    """Match the objects of one image and give each its label, colour and outline.

    A class has the same colour on both sides. A predicted object's label ends with the IoU of its
    match; objects without a match get a dashed outline.

    Args:
        truth: true objects.
        prediction: predicted objects.
        category_names: name of each category id.
    """
    matches = match_objects(truth, prediction)
    colours = class_colours(matches.class_keys)
    names = {key: short_name(category_names[split_key(key)[0]]) for key in matches.class_keys}
    values = matches.class_values().mean(axis=1).tolist()
    counts = zip(
        matches.class_keys,
        matches.truth_objects().tolist(),
        matches.predicted_objects().tolist(),
        values,
        strict=True,
    )
    return DrawnComparison(
        truth=_drawn(truth, matches.truth_iou, colours, names, show_iou=False),
        prediction=_drawn(prediction, matches.prediction_iou, colours, names, show_iou=True),
        classes=tuple(
            ClassInImage(names[key], split_key(key)[1], colours[key], true, predicted, value)
            for key, true, predicted, value in counts
        ),
        matched=_pairs(matches),
    )


def short_name(name: str) -> str:
    """Return what fits on a drawing: ``headband`` of ``headband, head covering``."""
    return name.split(",")[0]


def _pairs(matches: ImageMatches) -> int:
    return int(np.count_nonzero(matches.truth_iou))


def _drawn(
    objects: ImageObjects,
    ious: npt.NDArray[np.float64],
    colours: Mapping[ClassKey, Rgb],
    names: Mapping[ClassKey, str],
    show_iou: bool,
) -> tuple[DrawnObject, ...]:
    masks = unpack(objects.packed, RASTER_HW)
    return tuple(
        DrawnObject(
            mask=mask,
            label=f"{names[key]} {iou:.2f}" if show_iou and iou else names[key],
            colour=colours[key],
            matched=bool(iou),
        )
        for key, mask, iou in zip(objects.class_keys, masks, ious.tolist(), strict=True)
    )
