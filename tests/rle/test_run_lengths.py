"""Areas, boxes, set operations, drawing and resizing of run lengths against bitmaps."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.testing import assert_array_equal
from pycocotools import mask as coco_mask

from src import rle as rl
from tests.helpers.masks import (
    bitmap_by_pixel_loop,
    bitmap_pairs,
    bitmaps,
    concatenated,
    many_examples,
    resized_by_pixel_loop,
    runs_by_pixel_loop,
    runs_with_size,
)

# fmt: off
CROSS = np.array([[0, 1, 0, 0],
                  [1, 1, 1, 0],
                  [0, 1, 0, 0],
                  [0, 1, 0, 1]], dtype=bool)
# fmt: on
CROSS_RUNS = [[1, 1], [4, 4], [9, 1], [15, 1]]
EMPTY = np.zeros((0, 2), dtype=np.int32)


def runs_of(*pairs: tuple[int, int]) -> np.ndarray:
    return np.array(pairs, dtype=np.int32).reshape(-1, 2)


def test_the_literal_cross_has_these_runs_area_and_box():
    runs = rl.encode(CROSS)
    assert runs.dtype == np.int32
    assert_array_equal(runs, CROSS_RUNS)
    assert_array_equal(rl.decode(runs, (4, 4)), CROSS)
    assert rl.area_px(runs) == 7
    assert_array_equal(rl.box_xyxy(runs[:3], 4), [0, 0, 3, 4])
    assert_array_equal(rl.box_xyxy(runs[2:], 4), [2, 1, 4, 4])
    assert rl.box_xyxy(runs, 4).dtype == np.int32
    assert rl.format_runs(runs) == "2 1 5 4 10 1 16 1"
    assert_array_equal(rl.parse_runs("2 1 5 4 10 1 16 1"), runs)


def test_the_literal_cross_mirrored():
    assert_array_equal(rl.decode(rl.mirror(rl.encode(CROSS), (4, 4)), (4, 4)), CROSS[:, ::-1])
    assert_array_equal(rl.mirror(runs_of((3, 2)), (4, 4)), runs_of((8, 1), (15, 1)))


def test_the_literal_cross_at_half_and_double_size():
    # fmt: off
    half = [[0, 0],
            [0, 0]]
    wide = [[0, 0, 1, 1, 0, 0, 0, 0],
            [0, 0, 1, 1, 0, 0, 0, 0]]
    # fmt: on
    runs = rl.encode(CROSS)
    assert_array_equal(rl.decode_resized(runs, (4, 4), (2, 2)), half)
    assert_array_equal(rl.decode_resized(runs, (4, 4), (2, 8)), wide)
    assert len(rl.resize_nearest(runs, (4, 4), (2, 2))) == 0
    assert_array_equal(rl.resize_nearest(runs, (4, 4), (2, 8)), [[4, 4]])


def test_a_run_over_the_end_of_a_column_makes_a_box_of_full_height():
    assert_array_equal(rl.box_xyxy(runs_of((3, 2)), 4), [0, 0, 2, 4])
    assert_array_equal(rl.box_xyxy(runs_of((3, 1), (4, 1)), 4), [0, 0, 2, 4])
    assert_array_equal(rl.box_xyxy(runs_of((0, 16)), 4), [0, 0, 4, 4])


def test_the_empty_mask_goes_through_everything():
    assert rl.area_px(EMPTY) == 0
    assert_array_equal(rl.box_xyxy(EMPTY, 4), [0, 0, 0, 0])
    assert not rl.decode(EMPTY, (3, 5)).any()
    assert not rl.decode_resized(EMPTY, (3, 5), (7, 2), flip_horizontal=True).any()
    one = runs_of((0, 3))
    for runs in (
        rl.encode(np.zeros((3, 5), dtype=bool)),
        rl.resize_nearest(EMPTY, (3, 5), (7, 2)),
        rl.mirror(EMPTY, (3, 5)),
        rl.subtract(EMPTY, one),
        rl.subtract(one, one),
        rl.union(EMPTY, EMPTY),
    ):
        assert runs.shape == (0, 2)
        assert runs.dtype == np.int32
    assert rl.intersection_px(EMPTY, one) == rl.intersection_px(one, EMPTY) == 0
    assert rl.iou(EMPTY, EMPTY) == 0.0
    assert_array_equal(rl.union(EMPTY, one), one)


@many_examples
@given(bitmaps())
def test_encode_agrees_with_a_pixel_loop_and_pycocotools(bitmap):
    runs = rl.encode(bitmap)
    size_hw = bitmap.shape
    assert_array_equal(runs, runs_by_pixel_loop(bitmap))
    assert_array_equal(rl.encode(bitmap.astype(np.uint8) * 3), runs)
    assert_array_equal(rl.encode(np.asfortranarray(bitmap)), runs)
    reference = coco_mask.encode(np.asfortranarray(bitmap.astype(np.uint8)))
    assert rl.area_px(runs) == coco_mask.area(reference)
    left, top, width, height = coco_mask.toBbox(reference)
    if len(runs):
        assert_array_equal(rl.box_xyxy(runs, size_hw[0]), [left, top, left + width, top + height])
    rl.check_runs(runs, size_hw)


@many_examples
@given(runs_with_size())
def test_decode_agrees_with_a_pixel_loop(case):
    runs, size_hw = case
    drawn = rl.decode(runs, size_hw)
    assert drawn.dtype == np.bool_
    assert_array_equal(drawn, bitmap_by_pixel_loop(runs, size_hw))
    assert rl.area_px(runs) == drawn.sum()
    rows, columns = np.nonzero(drawn)
    if len(rows):
        box = [columns.min(), rows.min(), columns.max() + 1, rows.max() + 1]
        assert_array_equal(rl.box_xyxy(runs, size_hw[0]), box)


@many_examples
@given(runs_with_size(), st.tuples(st.integers(1, 30), st.integers(1, 30)), st.booleans())
def test_resizing_reads_off_the_runs_what_the_bitmap_would_give(case, grid_hw, flip):
    runs, size_hw = case
    wanted = resized_by_pixel_loop(bitmap_by_pixel_loop(runs, size_hw), grid_hw)
    if flip:
        wanted = wanted[:, ::-1]
    drawn = rl.decode_resized(runs, size_hw, grid_hw, flip_horizontal=flip)
    assert drawn.dtype == np.bool_
    assert drawn.shape == grid_hw
    assert_array_equal(drawn, wanted)
    resized = rl.resize_nearest(runs, size_hw, grid_hw, flip_horizontal=flip)
    assert_array_equal(resized, runs_by_pixel_loop(wanted))


@many_examples
@given(runs_with_size())
def test_mirroring_flips_the_bitmap_and_twice_gives_the_mask_back(case):
    runs, size_hw = case
    bitmap = bitmap_by_pixel_loop(runs, size_hw)
    mirrored = rl.mirror(runs, size_hw)
    assert_array_equal(mirrored, runs_by_pixel_loop(bitmap[:, ::-1]))
    assert_array_equal(rl.mirror(mirrored, size_hw), runs_by_pixel_loop(bitmap))


@many_examples
@given(bitmap_pairs())
def test_set_operations_agree_with_bitmaps(pair):
    a, b = pair
    a_runs, b_runs = runs_by_pixel_loop(a), runs_by_pixel_loop(b)
    shared = int((a & b).sum())
    assert rl.intersection_px(a_runs, b_runs) == rl.intersection_px(b_runs, a_runs) == shared
    covered = int((a | b).sum())
    assert rl.iou(a_runs, b_runs) == (shared / covered if covered else 0.0)
    assert_array_equal(rl.subtract(a_runs, b_runs), runs_by_pixel_loop(a & ~b))
    assert_array_equal(rl.union(a_runs, b_runs), runs_by_pixel_loop(a | b))


@many_examples
@given(runs_with_size(), runs_with_size())
def test_set_operations_take_runs_that_touch(a_case, b_case):
    (a, size_hw), (b, _) = a_case, b_case
    b = b[(b.sum(axis=1) <= size_hw[0] * size_hw[1])]
    a_bitmap, b_bitmap = bitmap_by_pixel_loop(a, size_hw), bitmap_by_pixel_loop(b, size_hw)
    assert rl.intersection_px(a, b) == (a_bitmap & b_bitmap).sum()
    assert_array_equal(rl.subtract(a, b), runs_by_pixel_loop(a_bitmap & ~b_bitmap))
    assert_array_equal(rl.union(a, b), runs_by_pixel_loop(a_bitmap | b_bitmap))


@many_examples
@given(st.lists(runs_with_size(), max_size=6))
def test_batches_give_what_single_masks_give(cases):
    masks = [runs for runs, _ in cases]
    sizes_hw = np.array([size for _, size in cases], dtype=np.int64).reshape(-1, 2)
    runs, offsets = concatenated(masks)
    areas = rl.areas_px_batch(runs, offsets)
    boxes = rl.boxes_xyxy_batch(runs, offsets, heights_px=sizes_hw[:, 0])
    assert (areas.dtype, boxes.dtype) == (np.int64, np.int32)
    assert areas.tolist() == [rl.area_px(mask) for mask in masks]
    assert boxes.tolist() == [
        rl.box_xyxy(mask, int(height)).tolist()
        for mask, height in zip(masks, sizes_hw[:, 0], strict=True)
    ]
    assert rl.check_runs_batch(runs, offsets, sizes_hw) == {}


@pytest.mark.parametrize("grid_hw", [(512, 512), (1200, 1846), (97, 131), (3001, 64)])
@pytest.mark.parametrize("flip", [False, True])
def test_resizing_a_large_image(grid_hw, flip):
    size_hw = (1499, 2305)
    rng = np.random.default_rng(5)
    rows, columns = np.mgrid[: size_hw[0], : size_hw[1]]
    bitmap = (rows - 700) ** 2 / 9 + (columns - 1300) ** 2 < 200**2
    bitmap |= rng.random(size_hw) < 0.01
    chosen_rows = np.arange(grid_hw[0]) * size_hw[0] // grid_hw[0]
    chosen_columns = np.arange(grid_hw[1]) * size_hw[1] // grid_hw[1]
    wanted = bitmap[np.ix_(chosen_rows, chosen_columns)]
    wanted = wanted[:, ::-1] if flip else wanted
    runs = rl.encode(bitmap)
    drawn = rl.decode_resized(runs, size_hw, grid_hw, flip_horizontal=flip)
    assert_array_equal(drawn, wanted)
    assert_array_equal(
        rl.resize_nearest(runs, size_hw, grid_hw, flip_horizontal=flip), rl.encode(wanted)
    )


def test_the_largest_images_of_the_data_do_not_overflow():
    size_hw = (6824, 10717)
    pixels = size_hw[0] * size_hw[1]
    runs = runs_of((0, pixels - 5), (pixels - 1, 1))
    rl.check_runs(runs, size_hw)
    assert rl.area_px(runs) == pixels - 4
    assert_array_equal(rl.box_xyxy(runs, size_hw[0]), [0, 0, 10717, 6824])
    assert_array_equal(rl.resize_nearest(runs, size_hw, (512, 512)), [[0, 512 * 512]])
    assert rl.area_px(rl.mirror(runs, size_hw)) == pixels - 4
    assert rl.intersection_px(runs, runs_of((1, pixels - 1))) == pixels - 5
    assert_array_equal(rl.parse_runs(rl.format_runs(runs)), runs)
