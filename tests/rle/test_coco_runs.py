"""COCO counts, compressed counts and polygons against pycocotools."""

from __future__ import annotations

import re

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.testing import assert_array_equal
from pycocotools import mask as coco_mask

from src.rle import RunLengthError, decode
from src.rle import coco as coco_compressed
from src.rle import coco as coco_runs
from src.rle import text as run_length_blocks
from tests.helpers.masks import (
    bitmap_by_pixel_loop,
    bitmaps,
    concatenated,
    many_examples,
    outcome,
    runs_by_pixel_loop,
    runs_with_size,
)


def test_the_literal_counts():
    runs = np.array([[1, 1], [4, 4], [15, 1]], dtype=np.int32)
    assert coco_runs.to_coco_counts(runs, (4, 4)) == [1, 1, 2, 4, 7, 1]
    assert coco_runs.to_coco_counts(runs[:2], (4, 4)) == [1, 1, 2, 4, 8]
    assert coco_runs.to_coco_counts(runs[:0], (4, 4)) == [16]
    assert coco_runs.to_coco_compressed(runs, (4, 4)) == "11235M"
    assert_array_equal(coco_runs.from_coco_compressed("11235M", (4, 4)), runs)
    assert_array_equal(coco_runs.from_coco_counts([1, 1, 2, 4, 7, 1], (4, 4)), runs)


@many_examples
@given(bitmaps())
def test_counts_agree_with_pycocotools(bitmap):
    size_hw = bitmap.shape
    runs = runs_by_pixel_loop(bitmap)
    reference = coco_mask.encode(np.asfortranarray(bitmap.astype(np.uint8)))
    assert coco_runs.to_coco_compressed(runs, size_hw) == reference["counts"].decode("ascii")
    for text in (reference["counts"], reference["counts"].decode("ascii")):
        assert_array_equal(coco_runs.from_coco_compressed(text, size_hw), runs)
    uncompressed = {"size": list(size_hw), "counts": coco_runs.to_coco_counts(runs, size_hw)}
    assert coco_mask.frPyObjects(uncompressed, *size_hw) == reference


@many_examples
@given(runs_with_size())
def test_touching_runs_come_back_as_they_were(case):
    runs, size_hw = case
    counts = coco_runs.to_coco_counts(runs, size_hw)
    assert sum(counts) == size_hw[0] * size_hw[1]
    assert_array_equal(coco_runs.from_coco_counts(counts, size_hw), runs)
    text = coco_runs.to_coco_compressed(runs, size_hw)
    assert_array_equal(coco_runs.from_coco_compressed(text, size_hw), runs)
    drawn = coco_mask.decode({"size": list(size_hw), "counts": text.encode("ascii")})
    assert_array_equal(drawn, bitmap_by_pixel_loop(runs, size_hw))
    uncompressed = coco_mask.frPyObjects({"size": list(size_hw), "counts": counts}, *size_hw)
    assert uncompressed["counts"].decode("ascii") == text


@many_examples
@given(st.lists(runs_with_size(), max_size=8), st.integers(1, 30))
def test_batches_agree_with_single_masks_at_any_block_size(cases, block):
    masks = [runs for runs, _ in cases]
    sizes_hw = np.array([size for _, size in cases]).reshape(-1, 2)
    runs, offsets = concatenated(masks)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(run_length_blocks, "BLOCK_BYTES", block)
        patch.setattr(coco_compressed, "BLOCK_RUNS", block)
        texts = coco_runs.to_coco_compressed_batch(runs, offsets, sizes_hw)
        batch = coco_runs.from_coco_compressed_batch(texts, sizes_hw)
    assert texts == [coco_runs.to_coco_compressed(mask, size) for mask, size in cases]
    assert batch.problems == {}
    assert_array_equal(batch.runs, runs)
    assert_array_equal(batch.offsets, offsets)


def test_counts_of_large_images_take_up_to_seven_characters():
    size_hw = (46_000, 46_000)
    pixels = size_hw[0] * size_hw[1]
    runs = np.array([[1, 1], [4, pixels - 100], [pixels - 9, 3]], dtype=np.int32)
    text = coco_runs.to_coco_compressed(runs, size_hw)
    reference = coco_mask.frPyObjects(
        {"size": list(size_hw), "counts": coco_runs.to_coco_counts(runs, size_hw)}, *size_hw
    )
    assert text == reference["counts"].decode("ascii")
    assert_array_equal(coco_runs.from_coco_compressed(text, size_hw), runs)
    batch = coco_runs.from_coco_compressed_batch([text, text], np.array([size_hw] * 2))
    assert batch.problems == {}
    assert_array_equal(batch.runs, np.concatenate([runs, runs]))


BAD_COMPRESSED = [
    ("", "counts sum to 0, an image of height 4 and width 4 has 16"),
    ("11235M8", "counts sum to 31, an image of height 4 and width 4 has 16"),
    ("11 35M", "compressed counts: character 3 is ' ', legal are '0' to 'o'"),
    ("1123~M", "compressed counts: character 5 is '~', legal are '0' to 'o'"),
    ("112é", "compressed counts: character 4 is 'é', legal are '0' to 'o'"),
    ("11235m", "compressed counts: the text of 6 characters ends within a count"),
    ("O", "count 1 of 1 is negative: -1"),
    ("oooooooo0", "compressed counts: count 1 has more than 31 bits"),
]


@pytest.mark.parametrize(("text", "message"), BAD_COMPRESSED)
def test_bad_compressed_counts_are_named(text, message):
    with pytest.raises(RunLengthError, match=f"^{re.escape(message)}$"):
        coco_runs.from_coco_compressed(text, (4, 4))


def test_one_bad_text_costs_no_other():
    texts = []
    for text, _ in BAD_COMPRESSED:
        texts += ["11235M", text, "`0"]
    sizes_hw = np.full((len(texts), 2), 4)
    batch = coco_runs.from_coco_compressed_batch(pa.array(texts), sizes_hw)
    assert batch.problems == {
        3 * index + 1: message for index, (_, message) in enumerate(BAD_COMPRESSED)
    }
    for row in range(0, len(texts), 3):
        runs = batch.runs[batch.offsets[row] : batch.offsets[row + 1]]
        assert_array_equal(runs, [[1, 1], [4, 4], [15, 1]])


@many_examples
@given(st.lists(st.text(alphabet="0123456789@NOPXo`", max_size=6), max_size=6))
def test_any_text_gives_in_a_batch_what_it_gives_alone(texts):
    sizes_hw = np.full((len(texts), 2), 3)
    batch = coco_runs.from_coco_compressed_batch(texts, sizes_hw)
    for row, text in enumerate(texts):
        runs = batch.runs[batch.offsets[row] : batch.offsets[row + 1]]
        wanted, message = outcome(coco_runs.from_coco_compressed, text, (3, 3))
        assert batch.problems.get(row) == message
        assert_array_equal(runs, wanted)


def test_object_runs_of_length_zero_are_dropped():
    assert_array_equal(coco_runs.from_coco_counts([3, 0, 2, 4, 7, 0], (4, 4)), [[5, 4]])
    reference = coco_mask.frPyObjects({"size": [4, 4], "counts": [3, 0, 2, 4, 7, 0]}, 4, 4)
    batch = coco_runs.from_coco_compressed_batch([reference["counts"]] * 2, np.full((2, 2), 4))
    assert batch.problems == {}
    assert_array_equal(batch.runs, [[5, 4], [5, 4]])


@pytest.mark.parametrize(
    ("counts", "message"),
    [
        ([], "counts sum to 0, an image of height 4 and width 4 has 16"),
        ([3, 4], "counts sum to 7, an image of height 4 and width 4 has 16"),
        ([20, -4], "count 2 of 2 is negative: -4"),
        ([3.5, 12.5], "counts must be a list of whole numbers, got [3.5, 12.5]"),
        (["3", "13"], "counts must be a list of whole numbers, got ['3', '13']"),
        ([3, [13]], "counts must be a list of whole numbers, got [3, [13]]"),
        ([3, None], "counts must be a list of whole numbers, got [3, None]"),
        ([[3, 13]], "counts must be a list of whole numbers, got [[3, 13]]"),
        ([10**30, 3], "counts must be a list of whole numbers, got [1000000"),
    ],
)
def test_bad_counts_are_named(counts, message):
    with pytest.raises(RunLengthError, match=f"^{re.escape(message)}"):
        coco_runs.from_coco_counts(counts, (4, 4))


def test_polygons_are_those_of_pycocotools():
    rng = np.random.default_rng(2)
    for _ in range(50):
        polygons = [(rng.random(2 * points) * 60 - 5).tolist() for points in (3, 4, 7)]
        runs = coco_runs.from_polygons(polygons, (40, 50))
        reference = coco_mask.merge(coco_mask.frPyObjects(polygons, 40, 50))
        assert_array_equal(decode(runs, (40, 50)), coco_mask.decode(reference))
    assert coco_runs.from_polygons([], (40, 50)).shape == (0, 2)


def test_a_square_polygon():
    runs = coco_runs.from_polygons([[1, 1, 3, 1, 3, 3, 1, 3]], (4, 4))
    assert_array_equal(runs, [[5, 2], [9, 2]])


@pytest.mark.parametrize(
    ("polygon", "message"),
    [
        ([1, 2, 3], "polygon 2 of 2 has 3 coordinates"),
        ([1, 2, 3, 4, 5, 6, 7], "polygon 2 of 2 has 7 coordinates"),
        ([[1, 2, 3, 4, 5, 6]], "polygon 2 of 2 is not one list of coordinates: [[1, 2"),
        ([1, 2, 3, 4, 5, float("nan")], "polygon 2 of 2: coordinate 6 is nan; legal are -100000"),
        ([1, 2, 3, 4, 5, "x"], "polygon 2 of 2 holds a coordinate that is no number"),
        ([1, 2, 3, 4, 5, None], "polygon 2 of 2: coordinate 6 is nan"),
        ([1, 2, 1e12, 4, 5, 6], "polygon 2 of 2: coordinate 3 is 1e+12"),
        ([1, 2, [3], 4, 5, 6], "polygon 2 of 2 holds a coordinate that is no number"),
        (7, "polygon 2 of 2 is not one list of coordinates: 7"),
    ],
)
def test_bad_polygons_are_named(polygon, message):
    with pytest.raises(RunLengthError, match=re.escape(message)):
        coco_runs.from_polygons([[1, 1, 3, 1, 3, 3], polygon], (4, 4))
