"""COCO counts, compressed counts and polygons against pycocotools."""

from __future__ import annotations

import re

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.testing import assert_array_equal
from pycocotools import mask as coco_mask

from src.annotations.coco import read_segmentations
from src.rle import (
    RleBatch,
    RleError,
    decode,
    from_coco,
    from_coco_counts,
    to_coco,
)
from src.rle import coco as rle_coco
from src.rle import text as rle_text
from src.rle.coco import from_polygons
from tests.helpers.masks import (
    batch,
    bitmap_by_pixel_loop,
    bitmaps,
    coco_counts,
    many_examples,
    masks,
    rle,
    rle_by_pixel_loop,
)


def test_the_literal_counts():
    mask = rle([[1, 1], [4, 4], [15, 1]], (4, 4))
    assert to_coco([mask]) == ["11235M"]
    assert from_coco(["11235M"], (4, 4)) == (RleBatch.of([mask]), {})
    assert from_coco_counts([1, 1, 2, 4, 7, 1], (4, 4)) == mask
    assert to_coco([rle([], (4, 4))]) == ["`0"]


@many_examples
@given(bitmaps())
def test_counts_agree_with_pycocotools(bitmap):
    mask = rle_by_pixel_loop(bitmap)
    reference = coco_mask.encode(np.asfortranarray(bitmap.astype(np.uint8)))
    assert to_coco([mask]) == [reference["counts"].decode("ascii")]
    for text in (reference["counts"], reference["counts"].decode("ascii")):
        assert from_coco([text], mask.size_hw) == (RleBatch.of([mask]), {})
    uncompressed = {"size": list(mask.size_hw), "counts": coco_counts(mask)}
    assert coco_mask.frPyObjects(uncompressed, *mask.size_hw) == reference


@many_examples
@given(masks())
def test_touching_runs_come_back_as_they_were(mask):
    size_hw, counts = mask.size_hw, coco_counts(mask)
    assert from_coco_counts(counts, size_hw) == mask
    (text,) = to_coco([mask])
    assert from_coco([text], size_hw).masks[0] == mask
    drawn = coco_mask.decode({"size": list(size_hw), "counts": text.encode("ascii")})
    assert_array_equal(drawn, bitmap_by_pixel_loop(mask))
    uncompressed = coco_mask.frPyObjects({"size": list(size_hw), "counts": counts}, *size_hw)
    assert uncompressed["counts"].decode("ascii") == text


@many_examples
@given(st.lists(masks(), max_size=8), st.integers(1, 30))
def test_batches_agree_with_single_masks_at_any_block_size(given_masks, block):
    together = RleBatch.of(given_masks)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(rle_text, "BLOCK_BYTES", block)
        patch.setattr(rle_coco, "BLOCK_RUNS", block)
        texts = to_coco(together)
        found = from_coco(texts, together.sizes_hw)
    assert texts == [to_coco([mask])[0] for mask in given_masks]
    assert found == (together, {})


def test_counts_of_large_images_take_up_to_seven_characters():
    size_hw = (46_000, 46_000)
    pixels = size_hw[0] * size_hw[1]
    mask = rle([[1, 1], [4, pixels - 100], [pixels - 9, 3]], size_hw)
    (text,) = to_coco([mask])
    uncompressed = {"size": list(size_hw), "counts": coco_counts(mask)}
    reference = coco_mask.frPyObjects(uncompressed, *size_hw)
    assert text == reference["counts"].decode("ascii")
    assert from_coco([text, text], size_hw) == (RleBatch.of([mask, mask]), {})


BAD_COMPRESSED = [
    ("", "counts must sum to 16 for an image of height 4 and width 4, got 0"),
    ("11235M8", "counts must sum to 16 for an image of height 4 and width 4, got 31"),
    ("11 35M", "compressed counts: character 3 must be one of '0' to 'o', got ' '"),
    ("1123~M", "compressed counts: character 5 must be one of '0' to 'o', got '~'"),
    ("112é", "compressed counts: character 4 must be one of '0' to 'o', got 'é'"),
    (
        "11235m",
        "compressed counts must end with a whole count, got 6 characters that end within one",
    ),
    ("O", "count 1 of 1 must be 0 or more, got -1"),
    ("oooooooo0", "compressed counts: count 1 must have at most 31 bits, got more"),
]


@pytest.mark.parametrize(("text", "message"), BAD_COMPRESSED)
def test_bad_compressed_counts_are_named(text, message):
    assert from_coco([text], (4, 4)) == (batch([[]], (4, 4)), {0: message})


def test_one_bad_text_costs_no_other():
    texts = []
    for text, _ in BAD_COMPRESSED:
        texts += ["11235M", text, "`0"]
    found, problems = from_coco(texts, (4, 4))
    assert problems == {3 * index + 1: message for index, (_, message) in enumerate(BAD_COMPRESSED)}
    for row in range(0, len(texts), 3):
        assert found[row] == rle([[1, 1], [4, 4], [15, 1]], (4, 4))


@many_examples
@given(st.lists(st.text(alphabet="0123456789@NOPXo`", max_size=6), max_size=6))
def test_any_text_gives_in_a_batch_what_it_gives_alone(texts):
    found, problems = from_coco(texts, (3, 3))
    for row, text in enumerate(texts):
        alone, problem = from_coco([text], (3, 3))
        assert problems.get(row) == problem.get(0)
        assert found[row] == alone[0]


def test_runs_of_length_zero_are_dropped():
    assert from_coco_counts([3, 0, 2, 4, 7, 0], (4, 4)) == rle([[5, 4]], (4, 4))
    reference = coco_mask.frPyObjects({"size": [4, 4], "counts": [3, 0, 2, 4, 7, 0]}, 4, 4)
    found = from_coco([reference["counts"]] * 2, (4, 4))
    assert found == (batch([[[5, 4]], [[5, 4]]], (4, 4)), {})


@pytest.mark.parametrize(
    ("counts", "message"),
    [
        ([], "counts must sum to 16 for an image of height 4 and width 4, got 0"),
        ([3, 4], "counts must sum to 16 for an image of height 4 and width 4, got 7"),
        ([20, -4], "count 2 of 2 must be 0 or more, got -4"),
        ([3.5, 12.5], "counts must be a list of whole numbers, got [3.5, 12.5]"),
        (["3", "13"], "counts must be a list of whole numbers, got ['3', '13']"),
        ([3, [13]], "counts must be a list of whole numbers, got [3, [13]]"),
        ([3, None], "counts must be a list of whole numbers, got [3, None]"),
        ([[3, 13]], "counts must be a list of whole numbers, got [[3, 13]]"),
        ([10**30, 3], "counts must be a list of whole numbers, got [1000000"),
    ],
)
def test_bad_counts_are_named(counts, message):
    with pytest.raises(RleError, match=f"^{re.escape(message)}"):
        from_coco_counts(counts, (4, 4))


def test_polygons_are_those_of_pycocotools():
    rng = np.random.default_rng(2)
    for _ in range(50):
        polygons = [(rng.random(2 * points) * 60 - 5).tolist() for points in (3, 4, 7)]
        mask = from_polygons(polygons, (40, 50))
        reference = coco_mask.merge(coco_mask.frPyObjects(polygons, 40, 50))
        assert_array_equal(decode(mask), coco_mask.decode(reference))
    assert from_polygons([], (40, 50)) == rle([], (40, 50))


def test_polygons_that_are_read_together_are_those_read_alone():
    rng = np.random.default_rng(3)
    segmentations = [
        [(rng.random(2 * points) * 90 - 20).tolist() for points in rng.integers(3, 9, count)]
        for count in rng.integers(0, 4, 200)
    ]
    sizes_hw = [(40 + number % 3, 50) for number in range(200)]
    mixed = [
        {"size": list(size), "counts": [size[0] * size[1]]} if number % 7 == 0 else polygons
        for number, (polygons, size) in enumerate(zip(segmentations, sizes_hw, strict=True))
    ]
    mixed[5] = [[1, 2, 3]]
    found = read_segmentations(mixed, sizes_hw)
    assert list(found.problems) == [5]
    for number, (polygons, size_hw) in enumerate(zip(segmentations, sizes_hw, strict=True)):
        is_other = number == 5 or number % 7 == 0
        assert found.masks[number] == from_polygons([] if is_other else polygons, size_hw)


def test_a_square_polygon():
    mask = from_polygons([[1, 1, 3, 1, 3, 3, 1, 3]], (4, 4))
    assert mask == rle([[5, 2], [9, 2]], (4, 4))


@pytest.mark.parametrize(
    ("polygon", "message"),
    [
        (
            [1, 2, 3],
            "polygon 2 of 2 must be x1, y1, x2, y2, ... of at least 3 points, got 3 coordinates",
        ),
        (
            [1, 2, 3, 4, 5, 6, 7],
            "polygon 2 of 2 must be x1, y1, x2, y2, ... of at least 3 points, got 7 coordinates",
        ),
        ([[1, 2, 3, 4, 5, 6]], "polygon 2 of 2 must be one list of coordinates, got [[1, 2"),
        (
            [1, 2, 3, 4, 5, float("nan")],
            "polygon 2 of 2: coordinate 6 must be from -100000 to 100000, got nan",
        ),
        ([1, 2, 3, 4, 5, "x"], "polygon 2 of 2 must hold numbers, got [1, 2"),
        ([1, 2, 3, 4, 5, None], "polygon 2 of 2: coordinate 6 must be"),
        (
            [1, 2, 1e12, 4, 5, 6],
            "polygon 2 of 2: coordinate 3 must be from -100000 to 100000, got 1e+12",
        ),
        ([1, 2, [3], 4, 5, 6], "polygon 2 of 2 must hold numbers, got [1, 2"),
        (7, "polygon 2 of 2 must be one list of coordinates, got 7"),
    ],
)
def test_bad_polygons_are_named(polygon, message):
    with pytest.raises(RleError, match=re.escape(message)):
        from_polygons([[1, 1, 3, 1, 3, 3], polygon], (4, 4))
