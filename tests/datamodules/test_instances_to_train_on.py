"""What a training leaves out is counted, and one that would learn nothing is refused."""

from __future__ import annotations

import json
import logging

import numpy as np
import pytest

from src.annotations.store import AnnotationStore
from src.annotations.store_builder import build_store
from src.datamodules.annotations import indices_to_train_on
from src.errors import InputError
from src.rle import encode
from tests.helpers.masks import coco_counts

SIZE_HW = (100, 200)


def rle(*boxes) -> dict:
    """The union of boxes (y, x, height, width), as plain run lengths."""
    mask = np.zeros(SIZE_HW, dtype=bool)
    for y, x, height, width in boxes:
        mask[y : y + height, x : x + width] = True
    return {"size": list(SIZE_HW), "counts": coco_counts(encode(mask))}


SQUARE = {"segmentation": rle((10, 10, 40, 40))}
CROWD = {**SQUARE, "iscrowd": 1}
RECTANGLE = {"segmentation": [], "bbox": [1, 1, 40, 40], "area": 1600}
PIXEL = {"segmentation": rle((1, 1, 1, 1))}
LINE = {"segmentation": rle((0, 41, 100, 1))}  # column 41 of 200: none of 20 that are kept
CORNER = {"segmentation": rle((0, 0, 1, 1))}  # a pixel that is kept


def open_images(tmp_path, *images: list[dict]) -> AnnotationStore:
    """A store of one image for each list of annotations: a.jpg, b.jpg, ..."""
    path = tmp_path / "in.json"
    content = {
        "images": [
            {"id": number, "file_name": f"{chr(97 + number)}.jpg", "height": 100, "width": 200}
            for number in range(len(images))
        ],
        "annotations": [
            {"id": 1, "image_id": number, "category_id": 1} | annotation
            for number, annotations in enumerate(images)
            for annotation in annotations
        ],
        "categories": [{"id": 1, "name": "c"}],
    }
    path.write_text(json.dumps(content))
    build_store(path, tmp_path / "a.store")
    return AnnotationStore(tmp_path / "a.store")


def kept(store: AnnotationStore, *, short_edge_px: int = 10) -> str:
    """Names of the images that are trained on, resized to a tenth of their size."""
    indices = indices_to_train_on(
        store,
        [image.image_id for image in store.images],
        short_edge_px=(5, short_edge_px),
        long_edge_px=1000,
        annotations="in.json",
    )
    return "".join(store.images[index].image_id[0] for index in indices)


@pytest.mark.parametrize(
    ("annotations", "reason"),
    [
        ([CROWD, CROWD], "4 crowd regions (iscrowd=1)"),
        ([RECTANGLE], "2 instances without a mask (an empty segmentation, such as that of a rect"),
        ([PIXEL], "2 instances too small, without a pixel left at datamodule.train_short_edge_px="),
        ([LINE], "2 instances too small"),
        ([], "2 images that keep no instance (the first: a.jpg)"),
        ([CROWD, PIXEL], "2 crowd regions (iscrowd=1); 2 instances too small"),
    ],
)
def test_a_training_on_nothing_is_refused(tmp_path, annotations, reason):
    store = open_images(tmp_path, annotations, annotations)
    with pytest.raises(
        InputError, match=r"in\.json: at least one training image must keep"
    ) as info:
        kept(store)
    assert "got none of 2: left out are " + reason in str(info.value)


def test_what_is_left_out_is_counted(tmp_path, caplog):
    store = open_images(
        tmp_path, [SQUARE, CROWD, PIXEL], [CROWD], [RECTANGLE, LINE], [CORNER], [PIXEL], [SQUARE]
    )
    with caplog.at_level(logging.WARNING):
        assert kept(store) == "adf"
    assert caplog.messages == [
        "left out of training: 2 crowd regions (iscrowd=1); 1 instances without a mask (an empty "
        "segmentation, such as that of a rectangle); 3 instances too small, without a pixel left "
        "at datamodule.train_short_edge_px=10, train_long_edge_px=1000; 3 images that keep no "
        "instance (the first: b.jpg)"
    ]


def test_nothing_is_too_small_where_images_are_enlarged(tmp_path, caplog):
    store = open_images(tmp_path, [PIXEL], [LINE])
    assert kept(store, short_edge_px=100) == "ab"
    assert kept(store, short_edge_px=170) == "ab"
    assert not caplog.messages


def test_categories_to_train_on_are_those_of_masks_that_count(tmp_path):
    store = open_images(tmp_path, [CROWD], [RECTANGLE], [SQUARE, CROWD], [])
    assert store.category_sets() == [{1}, {1}, {1}, set()]
    assert store.category_sets(to_train_on=True) == [set(), set(), {1}, set()]
