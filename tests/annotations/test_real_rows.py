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
from src.rle import coco as coco_runs
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
    runs = rl.parse_runs(row["EncodedPixels"])
    assert rl.area_px(runs) == 14640
    assert_array_equal(rl.box_xyxy(runs, int(row["Height"])), [2063, 1916, 2204, 2132])


def test_every_row_against_pycocotools(rows):
    texts = [row["EncodedPixels"] for row in rows]
    sizes_hw = np.array([(int(row["Height"]), int(row["Width"])) for row in rows])
    batch = rl.parse_runs_batch(texts)
    assert batch.problems == {}
    assert rl.check_runs_batch(batch.runs, batch.offsets, sizes_hw) == {}
    assert rl.format_runs_batch(batch.runs, batch.offsets).to_pylist() == texts
    areas = rl.areas_px_batch(batch.runs, batch.offsets)
    boxes = rl.boxes_xyxy_batch(batch.runs, batch.offsets, heights_px=sizes_hw[:, 0])
    compressed = coco_runs.to_coco_compressed_batch(batch.runs, batch.offsets, sizes_hw)
    for index in range(0, len(rows), 5):  # bitmaps of 20 megapixels are slow
        size_hw = (int(sizes_hw[index, 0]), int(sizes_hw[index, 1]))
        runs = batch.runs[batch.offsets[index] : batch.offsets[index + 1]]
        bitmap = np.zeros(size_hw[0] * size_hw[1], dtype=np.uint8)
        for start, length in runs.tolist():
            bitmap[start : start + length] = 1
        bitmap = bitmap.reshape(size_hw, order="F")
        reference = coco_mask.encode(bitmap)
        assert compressed[index] == reference["counts"].decode("ascii")
        assert areas[index] == coco_mask.area(reference)
        left, top, width, height = coco_mask.toBbox(reference)
        assert_array_equal(boxes[index], [left, top, left + width, top + height])
        assert_array_equal(rl.encode(bitmap.astype(bool)), runs)
        chosen_rows = np.arange(512) * size_hw[0] // 512
        chosen_columns = np.arange(512) * size_hw[1] // 512
        assert_array_equal(
            rl.decode_resized(runs, size_hw, (512, 512)),
            bitmap[np.ix_(chosen_rows, chosen_columns)],
        )
