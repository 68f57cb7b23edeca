"""COCO's average precision of masks and boxes over all images.

Source: the COCO API (Lin et al., ECCV 2014; cocodataset.org, "Detection Evaluation"): precision at
101 recalls, averaged over ten IoU thresholds and over the classes of the ground truth; at most 100
detections of an image and class; crowd regions are ignored. Computed by faster-coco-eval, whose
results are equal to those of pycocotools.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from faster_coco_eval import COCO, COCOeval_faster

from src.annotations.store import AnnotationStore
from src.errors import InputError
from src.rle import resize_nearest, to_coco

log = logging.getLogger(__name__)

ALL_IOUS = slice(None)
IOU_50, IOU_75 = slice(0, 1), slice(5, 6)
# COCO's area ranges: all; under 32 x 32 px; up to 96 x 96 px; above
ALL_AREAS, SMALL, MEDIUM, LARGE = range(4)


@dataclass(frozen=True, slots=True)
class AveragePrecision:
    """Average precisions, each in [0, 1]; None where the ground truth has no such instance."""

    map: float | None  # mean over IoU thresholds 0.50, 0.55, ..., 0.95
    map_50: float | None
    map_75: float | None
    map_small: float | None  # of instances under 32 x 32 image pixels
    map_medium: float | None  # up to 96 x 96
    map_large: float | None

    def values(self) -> dict[str, float | None]:
        """Return the six by name."""
        return {name: getattr(self, name) for name in self.__slots__}


@dataclass(frozen=True, slots=True)
class CocoScore:
    """The average precision of M images."""

    images: int  # M
    masks: AveragePrecision
    boxes: AveragePrecision
    masks_by_class: Mapping[int, AveragePrecision]  # every category, including absent ones
    boxes_by_class: Mapping[int, AveragePrecision]


@dataclass(frozen=True, slots=True)
class CocoImage:
    """Instances and detections of one image, in COCO's form; plain values."""

    number: int  # COCO's id of the image
    size_hw: tuple[int, int]  # of all masks
    annotations: Sequence[Mapping[str, Any]]  # without ``id``
    results: Sequence[Mapping[str, Any]]  # bbox xywh, category_id, score, segmentation


def image_number(store: AnnotationStore, image_id: str) -> int:
    """Return COCO's id of an image: its position in the store, counted from 1."""
    return store.index_of(image_id) + 1


def coco_annotations(
    store: AnnotationStore, image_id: str, *, size_hw: tuple[int, int]
) -> list[dict[str, Any]]:
    """Return the ground-truth instances of an image as COCO annotations, without ``id``.

    Instances without a pixel, which cannot be found, are left out.

    Args:
        store: The ground truth.
        image_id: The image.
        size_hw: Height and width of the predicted image. Masks that are annotated at another size
            are resized by nearest neighbour.
    """
    index = store.index_of(image_id)
    instances = store.instances(index)
    masks = instances.masks
    if store.images[index].size_hw != size_hw:
        masks = resize_nearest(masks, size_hw)
    boxes_xywh = masks.boxes_xyxy()
    boxes_xywh[:, 2:] -= boxes_xywh[:, :2]
    categories, boxes = instances.category_ids.tolist(), boxes_xywh.tolist()
    areas, are_crowds = masks.areas_px().tolist(), store.is_crowd(index).tolist()
    columns = zip(categories, boxes, areas, are_crowds, to_coco(masks), strict=True)
    return [
        {
            "image_id": index + 1,
            "category_id": category,
            "bbox": box,
            "area": area,
            "iscrowd": int(is_crowd),
            "segmentation": {"size": list(size_hw), "counts": counts},
        }
        for category, box, area, is_crowd, counts in columns
        if area
    ]


def coco_score(images: Iterable[CocoImage], *, category_ids: Sequence[int]) -> CocoScore:
    """Score all images together.

    Args:
        images: Each image once, including those without instances.
        category_ids: Categories that are scored; all others are ignored.

    Raises:
        InputError: There is no image.
    """
    images = list(images)
    if not images:
        raise InputError("there is no image to score")
    entries = [entry for image in images for entry in image.annotations]
    ground_truth = {
        "images": [
            {"id": image.number, "height": image.size_hw[0], "width": image.size_hw[1]}
            for image in images
        ],
        "categories": [{"id": category, "name": str(category)} for category in category_ids],
        # pycocotools takes the id 0 for "no match", so they start at 1
        "annotations": [{**entry, "id": number} for number, entry in enumerate(entries, start=1)],
    }
    results = [result for image in images for result in image.results]
    masks = _precision(ground_truth, results, kind="segm")
    boxes = _precision(ground_truth, results, kind="bbox")
    order = sorted(category_ids)
    return CocoScore(
        images=len(images),
        masks=_summary(masks),
        boxes=_summary(boxes),
        masks_by_class=_by_class(masks, order),
        boxes_by_class=_by_class(boxes, order),
    )


def _precision(
    ground_truth: dict[str, Any], results: Sequence[Mapping[str, Any]], *, kind: str
) -> npt.NDArray[np.float64]:
    """Return the interpolated precision, shape (10 IoUs, 101 recalls, K categories, 4 areas).

    -1 is undefined. The API modifies its arguments, and computes an instance's area from its box if
    there is one, so each kind gets copies with only what it needs.
    """
    geometry = "bbox" if kind == "bbox" else "segmentation"
    keys = ("image_id", "category_id", "score", geometry)
    reference = COCO(
        {**ground_truth, "annotations": [dict(entry) for entry in ground_truth["annotations"]]}
    )
    found = reference.loadRes([{key: result[key] for key in keys} for result in results])
    evaluation = COCOeval_faster(reference, found, kind, print_function=log.debug)
    evaluation.evaluate()
    evaluation.accumulate()
    precision: npt.NDArray[np.float64] = evaluation.eval["precision"][..., -1]
    return precision


def _by_class(
    precision: npt.NDArray[np.float64], category_ids: Sequence[int]
) -> dict[int, AveragePrecision]:
    return {
        category: _summary(precision[:, :, place : place + 1])
        for place, category in enumerate(category_ids)
    }


def _summary(precision: npt.NDArray[np.float64]) -> AveragePrecision:
    def mean(ious: slice, area: int) -> float | None:
        values = precision[ious, :, :, area]
        defined = values[values > -1]
        return float(defined.mean()) if len(defined) else None

    return AveragePrecision(
        map=mean(ALL_IOUS, ALL_AREAS),
        map_50=mean(IOU_50, ALL_AREAS),
        map_75=mean(IOU_75, ALL_AREAS),
        map_small=mean(ALL_IOUS, SMALL),
        map_medium=mean(ALL_IOUS, MEDIUM),
        map_large=mean(ALL_IOUS, LARGE),
    )
