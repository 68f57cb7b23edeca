"""COCO's average precision is pycocotools', but for the rounding of a mean."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from pycocotools import mask as coco_mask

from src.errors import InputError
from src.metrics.coco_average_precision import (
    CocoImage,
    coco_score,
)
from tests.helpers.scoring import CATEGORIES, by_pycocotools, defined


def segmentation(mask: np.ndarray) -> dict[str, Any]:
    encoded = coco_mask.encode(np.asfortranarray(mask.astype(np.uint8)))
    return {"size": list(mask.shape), "counts": encoded["counts"].decode()}


def draw_rectangle(random: np.random.Generator, size_hw: tuple[int, int]) -> np.ndarray:
    """A rectangle with a bite; from a few pixels to most of the image, so all sizes of COCO."""
    mask = np.zeros(size_hw, dtype=bool)
    extent = random.choice([8, 40, 160]) * random.uniform(0.7, 1, 2)
    y, x = (int(random.integers(0, edge)) for edge in size_hw)
    mask[y : y + int(extent[0]), x : x + int(extent[1])] = True
    mask[y : y + 2, x : x + 3] = False
    return mask


def full_image(*, crowds: bool) -> CocoImage:
    """An image with several ground-truth instances and predictions."""
    random = np.random.default_rng(3)
    while True:
        image = random_image(random, 4, crowds=crowds)
        if len(image.annotations) > 3 and len(image.results) > 3:
            return image


def box_of(mask: np.ndarray) -> list[float]:
    if not mask.any():
        return [0.0, 0.0, 0.0, 0.0]
    (y, x) = np.nonzero(mask)
    return [float(v) for v in (x.min(), y.min(), np.ptp(x) + 1, np.ptp(y) + 1)]


def random_image(random: np.random.Generator, number: int, *, crowds: bool = True) -> CocoImage:
    """Up to 6 instances, predictions near and far from them, equal scores among them."""
    size_hw = (int(random.integers(150, 260)), int(random.integers(150, 260)))
    annotations, results = [], []
    for _ in range(random.integers(0, 7)):
        mask = draw_rectangle(random, size_hw)
        annotations.append(
            {
                "image_id": number,
                "category_id": int(random.choice(CATEGORIES[:-2])),
                "bbox": box_of(mask),
                "area": int(mask.sum()),
                "iscrowd": int(crowds and random.random() < 0.2),
                "segmentation": segmentation(mask),
            }
        )
        for _ in range(random.integers(0, 4)):
            moved = np.roll(mask, tuple(random.integers(-2, 3, 2)), axis=(0, 1))
            results.append((moved, annotations[-1]["category_id"]))
    for _ in range(random.integers(0, 5)):
        results.append((draw_rectangle(random, size_hw), int(random.choice(CATEGORIES[:-1]))))
    return CocoImage(
        number=number,
        size_hw=size_hw,
        annotations=annotations,
        results=[
            {
                "image_id": number,
                "category_id": category,
                "bbox": [v + float(random.uniform(0, 0.5)) for v in box_of(mask)],
                "score": float(np.float32(random.choice([0.3, random.random()]))),
                "segmentation": segmentation(mask),
            }
            for mask, category in results
        ],
    )


@pytest.mark.parametrize("seed", range(6))
def test_equal_to_pycocotools_on_random_images(seed: int) -> None:
    random = np.random.default_rng(seed)
    images = [random_image(random, number) for number in range(1, 25)]
    found = coco_score(images, category_ids=CATEGORIES)
    assert found.images == 24
    for kind, result, by_class in (
        ("segm", found.masks, found.masks_by_class),
        ("bbox", found.boxes, found.boxes_by_class),
    ):
        expected = by_pycocotools(images, kind)
        assert list(result.values().values()) == [defined(value) for value in expected.stats[:6]]
        assert list(by_class) == CATEGORIES
        for place, category in enumerate(CATEGORIES):
            for name, precision in (
                ("map", expected.eval["precision"][:, :, place, 0, 2]),
                ("map_50", expected.eval["precision"][0, :, place, 0, 2]),
                ("map_75", expected.eval["precision"][5, :, place, 0, 2]),
                ("map_large", expected.eval["precision"][:, :, place, 3, 2]),
            ):
                values = precision[precision > -1]
                wanted = defined(values.mean() if values.size else -1)
                assert by_class[category].values()[name] == wanted
        assert result.map is not None
        assert 0.05 < result.map < 0.9
        assert None not in (result.map_small, result.map_medium, result.map_large)
        assert by_class[13].map is None  # predicted, but nowhere in the ground truth
        assert by_class[21].map is None


def test_more_than_a_hundred_predictions_of_a_class() -> None:
    random = np.random.default_rng(7)
    image = full_image(crowds=False)
    chosen = image.annotations[0]
    results = [
        {
            "image_id": image.number,
            "category_id": chosen["category_id"],
            "bbox": chosen["bbox"],
            "score": float(score),
            "segmentation": segmentation(draw_rectangle(random, image.size_hw)),
        }
        for score in random.random(150)
    ]
    images = [replace(image, results=results)]
    expected = by_pycocotools(images, "segm").stats[0]
    assert coco_score(images, category_ids=CATEGORIES).masks.map == defined(expected)


def test_images_without_predictions_or_without_anything() -> None:
    image = full_image(crowds=False)
    nothing_found = coco_score([replace(image, results=[])], category_ids=CATEGORIES)
    assert nothing_found.masks.map == nothing_found.boxes.map == 0.0
    empty = coco_score([CocoImage(1, (50, 60), [], [])], category_ids=CATEGORIES)
    assert set(empty.masks.values().values()) == {None}
    no_truth = coco_score([replace(image, annotations=[])], category_ids=CATEGORIES)
    assert no_truth.boxes.map is None


def test_a_perfect_prediction_scores_one_and_an_empty_mask_is_wrong() -> None:
    image = full_image(crowds=False)
    perfect = [{**annotation, "score": 0.5} for annotation in image.annotations]
    score = coco_score([replace(image, results=perfect)], category_ids=CATEGORIES)
    assert score.masks.map == score.boxes.map == 1.0
    nothing = segmentation(np.zeros(image.size_hw, dtype=bool))
    first = [{**entry, "score": 0.9, "segmentation": nothing} for entry in perfect]
    worse = [replace(image, results=[*first, *perfect])]
    expected = by_pycocotools(worse, "segm").stats[0]
    found = coco_score(worse, category_ids=CATEGORIES).masks.map
    assert found == defined(expected)
    assert found < 0.6


def test_what_is_given_is_not_changed() -> None:
    image = full_image(crowds=True)
    keys = [set(entry) for entry in (*image.annotations, *image.results)]
    first = coco_score([image], category_ids=CATEGORIES)
    assert [set(entry) for entry in (*image.annotations, *image.results)] == keys
    assert coco_score([image], category_ids=CATEGORIES) == first


def test_no_image_is_an_error() -> None:
    with pytest.raises(InputError, match="there is no image to score"):
        coco_score([], category_ids=CATEGORIES)
