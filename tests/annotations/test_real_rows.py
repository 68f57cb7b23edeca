"""The real rows of the competition, where they are at hand (they are not part of the
repository).
"""

from __future__ import annotations

import csv

import numpy as np
import pytest
from numpy.testing import assert_array_equal
from pycocotools import mask as coco_mask

from src import rle as rl
from tests.helpers.masks import resize_by_nearest
from tests.helpers.real_data import real_data


@pytest.fixture(scope="module")
def rows() -> list[dict[str, str]]:
    with real_data("real_rows.csv").open(newline="") as file:
        return list(csv.DictReader(file))


def test_the_known_row(rows):
    (row,) = [
        row
        for row in rows
        if row["ImageId"].startswith("9c9a106f")
        and row["ClassId"] == "32"
        and row["EncodedPixels"].count(" ") == 2 * 141 - 1
    ]
    masks, problems = rl.parse_rle([row["EncodedPixels"]], (int(row["Height"]), int(row["Width"])))
    assert problems == {}
    assert masks.areas_px().tolist() == [14640]
    assert masks.boxes_xyxy().tolist() == [[2063, 1916, 2204, 2132]]


def test_every_row_against_pycocotools(rows):
    texts = [row["EncodedPixels"] for row in rows]
    sizes_hw = np.array([(int(row["Height"]), int(row["Width"])) for row in rows])
    masks, problems = rl.parse_rle(texts, sizes_hw)
    assert problems == {}
    assert rl.format_rle(masks) == texts
    areas, boxes, compressed = masks.areas_px(), masks.boxes_xyxy(), rl.to_coco(masks)
    for index in range(0, len(rows), 5):  # bitmaps of 20 megapixels are slow
        mask = masks[index]
        size_hw = mask.size_hw
        bitmap = np.zeros(size_hw[0] * size_hw[1], dtype=np.uint8)
        for start, length in mask.runs.tolist():
            bitmap[start : start + length] = 1
        bitmap = bitmap.reshape(size_hw, order="F")
        reference = coco_mask.encode(bitmap)
        assert compressed[index] == reference["counts"].decode("ascii")
        assert areas[index] == coco_mask.area(reference)
        left, top, width, height = coco_mask.toBbox(reference)
        assert_array_equal(boxes[index], [left, top, left + width, top + height])
        assert rl.encode(bitmap.astype(bool)) == mask
        assert_array_equal(
            rl.decode_resized(mask, (512, 512)), resize_by_nearest(bitmap, (512, 512))
        )
