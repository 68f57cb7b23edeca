"""Areas, boxes, set operations, drawing and resizing of RLE against bitmaps."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.testing import assert_array_equal
from pycocotools import mask as coco_mask

from src import rle as rl
from tests.helpers.masks import (
    batch,
    bitmap_by_pixel_loop,
    bitmap_pairs,
    bitmaps,
    many_examples,
    masks,
    resize_by_nearest,
    resized_by_pixel_loop,
    rle,
    rle_by_pixel_loop,
)

# fmt: off
CROSS = np.array([[0, 1, 0, 0],
                  [1, 1, 1, 0],
                  [0, 1, 0, 0],
                  [0, 1, 0, 1]], dtype=bool)
# fmt: on
CROSS_RUNS = [[1, 1], [4, 4], [9, 1], [15, 1]]


def box_of(mask: rl.Rle) -> list[int]:
    boxes = rl.RleBatch.of([mask]).boxes_xyxy()
    assert boxes.dtype == np.int32
    return boxes[0].tolist()


def flipped(mask: rl.Rle) -> rl.Rle:
    return rl.resize_nearest([mask], mask.size_hw, flip_horizontal=True)[0]


def resized(mask: rl.Rle, size_hw: tuple[int, int], flip: bool = False) -> rl.Rle:
    return rl.resize_nearest([mask], size_hw, flip_horizontal=flip)[0]


def test_the_literal_cross_has_these_runs_area_and_box():
    mask = rl.encode(CROSS)
    assert mask.runs.dtype == np.int32
    assert mask == rle(CROSS_RUNS, (4, 4))
    assert_array_equal(rl.decode(mask), CROSS)
    assert mask.area_px == 7
    assert box_of(rle(CROSS_RUNS[:3], (4, 4))) == [0, 0, 3, 4]
    assert box_of(rle(CROSS_RUNS[2:], (4, 4))) == [2, 1, 4, 4]
    assert rl.format_rle([mask]) == ["2 1 5 4 10 1 16 1"]
    assert rl.parse_rle(["2 1 5 4 10 1 16 1"], (4, 4)).masks[0] == mask


def test_a_mask_is_equal_to_one_of_the_same_runs_and_size_alone():
    mask = rle(CROSS_RUNS, (4, 4))
    assert mask != rle(CROSS_RUNS, (2, 8))
    assert mask != rle(CROSS_RUNS[:3], (4, 4))
    assert rl.RleBatch.of([mask, mask]) == batch([CROSS_RUNS, CROSS_RUNS], (4, 4))
    assert rl.RleBatch.of([mask, mask]) != rl.RleBatch.of([mask])


def test_the_literal_cross_flipped():
    assert_array_equal(rl.decode(flipped(rl.encode(CROSS))), CROSS[:, ::-1])
    assert flipped(rle([(3, 2)], (4, 4))) == rle([(8, 1), (15, 1)], (4, 4))


def test_the_literal_cross_at_half_and_double_size():
    # fmt: off
    half = [[0, 0],
            [0, 0]]
    wide = [[0, 0, 1, 1, 0, 0, 0, 0],
            [0, 0, 1, 1, 0, 0, 0, 0]]
    # fmt: on
    mask = rl.encode(CROSS)
    assert_array_equal(rl.decode_resized(mask, (2, 2)), half)
    assert_array_equal(rl.decode_resized(mask, (2, 8)), wide)
    assert resized(mask, (2, 2)) == rle([], (2, 2))
    assert resized(mask, (2, 8)) == rle([[4, 4]], (2, 8))


def test_a_run_over_the_end_of_a_column_makes_a_box_of_full_height():
    assert box_of(rle([(3, 2)], (4, 4))) == [0, 0, 2, 4]
    assert box_of(rle([(3, 1), (4, 1)], (4, 4))) == [0, 0, 2, 4]
    assert box_of(rle([(0, 16)], (4, 4))) == [0, 0, 4, 4]


def test_the_empty_mask_goes_through_everything():
    empty = rle([], (3, 5))
    assert empty.area_px == 0
    assert box_of(empty) == [0, 0, 0, 0]
    assert not rl.decode(empty).any()
    assert not rl.decode_resized(empty, (7, 2), flip_horizontal=True).any()
    one = rle([(0, 3)], (3, 5))
    for mask in (
        rl.encode(np.zeros((3, 5), dtype=bool)),
        resized(empty, (7, 2)),
        flipped(empty),
        rl.subtract(empty, one),
        rl.subtract(one, one),
        rl.union(empty, empty),
    ):
        assert mask.runs.shape == (0, 2)
        assert mask.runs.dtype == np.int32
    assert rl.intersection_px(empty, one) == rl.intersection_px(one, empty) == 0
    assert rl.iou(empty, empty) == 0.0
    assert rl.union(empty, one) == one


@many_examples
@given(bitmaps())
def test_encode_agrees_with_a_pixel_loop_and_pycocotools(bitmap):
    mask = rl.encode(bitmap)
    assert mask == rle_by_pixel_loop(bitmap)
    assert rl.encode(bitmap.astype(np.uint8) * 3) == mask
    assert rl.encode(np.asfortranarray(bitmap)) == mask
    reference = coco_mask.encode(np.asfortranarray(bitmap.astype(np.uint8)))
    assert mask.area_px == coco_mask.area(reference)
    left, top, width, height = coco_mask.toBbox(reference)
    if len(mask.runs):
        assert box_of(mask) == [left, top, left + width, top + height]
    assert rl.RleBatch.of([mask]).problems() == {}


@many_examples
@given(masks())
def test_decode_agrees_with_a_pixel_loop(mask):
    drawn = rl.decode(mask)
    assert drawn.dtype == np.bool_
    assert_array_equal(drawn, bitmap_by_pixel_loop(mask))
    assert mask.area_px == drawn.sum()
    rows, columns = np.nonzero(drawn)
    if len(rows):
        assert box_of(mask) == [columns.min(), rows.min(), columns.max() + 1, rows.max() + 1]


@many_examples
@given(bitmaps(), st.tuples(st.integers(0, 5), st.integers(0, 5)), st.booleans())
def test_a_window_is_encoded_where_it_lies(bitmap, corner_yx, full_height):
    top, left = (0 if full_height else corner_yx[0]), corner_yx[1]
    height, width = bitmap.shape
    whole = np.zeros((height if full_height else height + 7, width + 7), dtype=bool)
    whole[top : top + height, left : left + width] = bitmap
    assert rl.encode_window(bitmap, (top, left), whole.shape) == rle_by_pixel_loop(whole)


@pytest.mark.parametrize(
    ("corner_yx", "window_hw"),
    [((0, 0), (9, 7)), ((3, 2), (4, 5)), ((0, 3), (9, 4)), ((8, 1), (1, 1))],
)
def test_the_runs_of_a_window_are_those_of_the_whole_mask(corner_yx, window_hw):
    rng = np.random.default_rng(1)
    for density in (0.2, 0.8, 1.0):
        window = rng.random(window_hw) < density
        whole = np.zeros((9, 7), dtype=bool)
        y, x = corner_yx
        whole[y : y + window_hw[0], x : x + window_hw[1]] = window
        found = rl.encode_window(window, corner_yx, (9, 7))
        assert found.runs.dtype == np.int32
        assert found == rl.encode(whole)


@many_examples
@given(masks(), st.tuples(st.integers(1, 30), st.integers(1, 30)), st.booleans())
def test_resizing_reads_off_the_runs_what_the_bitmap_would_give(mask, grid_hw, flip):
    wanted = resized_by_pixel_loop(bitmap_by_pixel_loop(mask), grid_hw)
    if flip:
        wanted = wanted[:, ::-1]
    drawn = rl.decode_resized(mask, grid_hw, flip_horizontal=flip)
    assert drawn.dtype == np.bool_
    assert drawn.shape == grid_hw
    assert_array_equal(drawn, wanted)
    assert resized(mask, grid_hw, flip) == rle_by_pixel_loop(wanted)


@many_examples
@given(
    st.lists(bitmaps(size_hw=(7, 5)), max_size=6),
    st.tuples(st.integers(1, 15), st.integers(1, 15)),
    st.booleans(),
)
def test_masks_are_resized_together_as_each_alone(stack, grid_hw, flip):
    given_masks = [rl.encode(bitmap) for bitmap in stack]
    together = rl.resize_nearest(given_masks, grid_hw, flip_horizontal=flip)
    assert list(together) == [resized(mask, grid_hw, flip) for mask in given_masks]


def test_masks_of_two_sizes_are_not_resized_together():
    with pytest.raises(ValueError, match="sizes_hw must be one size for one or more masks"):
        rl.resize_nearest([rle([], (3, 5)), rle([], (5, 3))], (4, 4))


@many_examples
@given(masks())
def test_flipping_flips_the_bitmap_and_twice_gives_the_mask_back(mask):
    bitmap = bitmap_by_pixel_loop(mask)
    twin = flipped(mask)
    assert twin == rle_by_pixel_loop(bitmap[:, ::-1])
    assert flipped(twin) == rle_by_pixel_loop(bitmap)


@many_examples
@given(bitmap_pairs())
def test_set_operations_agree_with_bitmaps(pair):
    a, b = pair
    a_mask, b_mask = rle_by_pixel_loop(a), rle_by_pixel_loop(b)
    shared = int((a & b).sum())
    assert rl.intersection_px(a_mask, b_mask) == rl.intersection_px(b_mask, a_mask) == shared
    covered = int((a | b).sum())
    assert rl.iou(a_mask, b_mask) == (shared / covered if covered else 0.0)
    assert rl.subtract(a_mask, b_mask) == rle_by_pixel_loop(a & ~b)
    assert rl.union(a_mask, b_mask) == rle_by_pixel_loop(a | b)


@many_examples
@given(masks(), masks())
def test_set_operations_take_runs_that_touch(a, b):
    pixels = a.size_hw[0] * a.size_hw[1]
    b = rl.Rle(b.runs[b.runs.sum(axis=1) <= pixels], a.size_hw)
    a_bitmap, b_bitmap = bitmap_by_pixel_loop(a), bitmap_by_pixel_loop(b)
    assert rl.intersection_px(a, b) == (a_bitmap & b_bitmap).sum()
    assert rl.subtract(a, b) == rle_by_pixel_loop(a_bitmap & ~b_bitmap)
    assert rl.union(a, b) == rle_by_pixel_loop(a_bitmap | b_bitmap)


@many_examples
@given(st.lists(masks(), max_size=6))
def test_batches_give_what_single_masks_give(given_masks):
    together = rl.RleBatch.of(given_masks)
    assert rl.RleBatch.of(together) is together
    assert len(together) == len(given_masks)
    assert list(together) == given_masks
    areas, boxes = together.areas_px(), together.boxes_xyxy()
    assert (areas.dtype, boxes.dtype) == (np.int64, np.int32)
    assert areas.tolist() == [mask.area_px for mask in given_masks]
    assert boxes.tolist() == [box_of(mask) for mask in given_masks]
    assert together.num_runs.tolist() == [len(mask.runs) for mask in given_masks]
    assert together.problems() == {}


@many_examples
@given(st.lists(masks(), max_size=6), st.data())
def test_a_choice_of_masks_is_a_batch_of_them(given_masks, data):
    together = rl.RleBatch.of(given_masks)
    last = len(together) - 1
    rows = data.draw(st.lists(st.integers(0, max(last, 0)), max_size=8)) if last >= 0 else []
    assert list(together[rows]) == [given_masks[row] for row in rows]
    kept = np.array([row in rows for row in range(len(together))], dtype=bool)
    assert list(together[kept]) == [given_masks[row] for row in np.flatnonzero(kept)]
    assert list(together[1:]) == given_masks[1:]


@pytest.mark.parametrize("grid_hw", [(512, 512), (1200, 1846), (97, 131), (3001, 64)])
@pytest.mark.parametrize("flip", [False, True])
def test_resizing_a_large_image(grid_hw, flip):
    size_hw = (1499, 2305)
    rng = np.random.default_rng(5)
    rows, columns = np.mgrid[: size_hw[0], : size_hw[1]]
    bitmap = (rows - 700) ** 2 / 9 + (columns - 1300) ** 2 < 200**2
    bitmap |= rng.random(size_hw) < 0.01
    wanted = resize_by_nearest(bitmap, grid_hw)
    wanted = wanted[:, ::-1] if flip else wanted
    mask = rl.encode(bitmap)
    assert_array_equal(rl.decode_resized(mask, grid_hw, flip_horizontal=flip), wanted)
    assert resized(mask, grid_hw, flip) == rl.encode(wanted)


def test_the_largest_images_of_the_data_do_not_overflow():
    size_hw = (6824, 10717)
    pixels = size_hw[0] * size_hw[1]
    mask = rle([(0, pixels - 5), (pixels - 1, 1)], size_hw)
    assert rl.RleBatch.of([mask]).problems() == {}
    assert mask.area_px == pixels - 4
    assert box_of(mask) == [0, 0, 10717, 6824]
    assert resized(mask, (512, 512)) == rle([[0, 512 * 512]], (512, 512))
    assert flipped(mask).area_px == pixels - 4
    assert rl.intersection_px(mask, rle([(1, pixels - 1)], size_hw)) == pixels - 5
    assert rl.parse_rle(rl.format_rle([mask]), size_hw).masks[0] == mask
