"""Packed masks against bitmaps."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from numpy.testing import assert_array_equal

from src.rle import bitmasks as pm
from src.rle import encode, resize_nearest
from tests.helpers.masks import bitmaps, many_examples, runs_by_pixel_loop

packable_hw = st.tuples(st.integers(1, 20), st.integers(1, 20)).filter(
    lambda size: size[0] * size[1] % 8 == 0
)


@st.composite
def stacks(draw) -> tuple[np.ndarray, np.ndarray]:
    """Two stacks of bitmaps of one size that packs into whole bytes."""
    size = draw(packable_hw)
    both = [[draw(bitmaps(size_hw=size)) for _ in range(draw(st.integers(0, 4)))] for _ in range(2)]
    first, second = (np.array(stack, dtype=bool).reshape(-1, *size) for stack in both)
    return first, second


def test_the_literal_mask_packs_column_by_column_lowest_bit_first():
    # fmt: off
    mask = np.array([[1, 0, 0, 0],
                     [0, 1, 0, 0],
                     [0, 1, 0, 0],
                     [0, 0, 0, 1]], dtype=bool)
    # fmt: on
    packed = pm.pack(mask[None])
    assert packed.dtype == np.uint8
    assert_array_equal(packed, [[0b01100001, 0b10000000]])
    assert_array_equal(pm.unpack(packed, (4, 4)), mask[None])
    assert_array_equal(pm.areas_px(packed), [4])
    assert_array_equal(pm.to_runs(packed[0], (4, 4)), [[0, 1], [5, 2], [15, 1]])


@many_examples
@given(stacks())
def test_packing_areas_and_runs_agree_with_bitmaps(pair):
    masks, _ = pair
    size_hw = masks.shape[1:]
    packed = pm.pack(masks)
    assert packed.shape == (len(masks), size_hw[0] * size_hw[1] // 8)
    columns = masks.transpose(0, 2, 1).reshape(len(masks), size_hw[0] * size_hw[1])
    assert_array_equal(packed, np.packbits(columns, axis=1, bitorder="little"))
    unpacked = pm.unpack(packed, size_hw)
    assert unpacked.dtype == np.bool_
    assert_array_equal(unpacked, masks)
    assert_array_equal(pm.areas_px(packed), masks.sum(axis=(1, 2)))
    runs = [runs_by_pixel_loop(mask) for mask in masks]
    assert_array_equal(pm.pack_runs(runs, size_hw), packed)
    for row, wanted in zip(packed, runs, strict=True):
        assert_array_equal(pm.to_runs(row, size_hw), wanted)


@many_examples
@given(stacks())
def test_intersections_agree_with_bitmaps(pair):
    a, b = pair
    shared = pm.intersections_px(pm.pack(a), pm.pack(b))
    assert shared.dtype == np.int64
    assert_array_equal(shared, (a[:, None] & b[None]).sum(axis=(2, 3)))
    rows, columns = np.nonzero(np.ones((len(a), len(b)), dtype=bool))
    paired = pm.paired_intersections_px(pm.pack(a), pm.pack(b), rows, columns)
    assert_array_equal(paired, shared.ravel())


def test_the_competition_raster_frame_filling_and_empty_masks():
    rng = np.random.default_rng(1)
    masks = np.stack(
        [
            np.ones((512, 512), dtype=bool),
            np.zeros((512, 512), dtype=bool),
            rng.random((512, 512)) < 0.5,
            np.kron(rng.random((8, 8)) < 0.5, np.ones((64, 64))).astype(bool),
        ]
    )
    packed = pm.pack(masks)
    assert packed.shape == (4, 32768)
    assert_array_equal(pm.areas_px(packed), masks.sum(axis=(1, 2)))
    flat = masks.reshape(4, -1).astype(np.float64)
    assert_array_equal(pm.intersections_px(packed, packed), flat @ flat.T)
    assert_array_equal(pm.pack_runs([encode(mask) for mask in masks], (512, 512)), packed)
    assert_array_equal(pm.to_runs(packed[0], (512, 512)), [[0, 512 * 512]])
    assert len(pm.to_runs(packed[1], (512, 512))) == 0


@given(hnp.arrays(np.uint8, (3, 16)))
def test_rows_of_a_larger_array_need_no_copy_by_the_caller(store):
    sliced = store[::2, :8]
    assert_array_equal(pm.areas_px(sliced), np.bitwise_count(sliced).sum(axis=1))
    assert_array_equal(pm.unpack(sliced, (8, 8)), pm.unpack(np.ascontiguousarray(sliced), (8, 8)))


def test_intersections_of_more_masks_than_a_block():
    rng = np.random.default_rng(4)
    a, b = (rng.random((count, 8, 8)) < 0.3 for count in (3, 2 * pm._BLOCK_MASKS + 1))
    flat_a, flat_b = a.reshape(len(a), -1).astype(int), b.reshape(len(b), -1).astype(int)
    assert_array_equal(pm.intersections_px(pm.pack(a), pm.pack(b)), flat_a @ flat_b.T)
    rows, columns = np.nonzero(np.ones((len(a), len(b)), dtype=bool))
    paired = pm.paired_intersections_px(pm.pack(a), pm.pack(b), rows, columns)
    assert_array_equal(paired, (flat_a @ flat_b.T).ravel())


@many_examples
@given(stacks(), st.sampled_from([(8, 8), (3, 8), (20, 30), (512, 512)]))
def test_packing_resized_is_resizing_and_packing(pair, raster_hw):
    masks, _ = pair
    size_hw = masks.shape[1:]
    runs = [encode(mask) for mask in masks]
    wanted = pm.pack_runs([resize_nearest(mask, size_hw, raster_hw) for mask in runs], raster_hw)
    assert_array_equal(pm.pack_resized(runs, size_hw, raster_hw), wanted)


def test_touching_runs_are_one_mask():
    runs = np.array([[0, 3], [3, 5], [64, 64]], dtype=np.int32)
    packed = pm.pack_runs([runs], (16, 16))
    assert_array_equal(pm.to_runs(packed[0], (16, 16)), [[0, 8], [64, 64]])


def test_a_raster_of_broken_bytes_is_refused():
    message = r"a raster of 3 x 5 pixels is no whole number of bytes"
    with pytest.raises(ValueError, match=message):
        pm.pack(np.zeros((1, 3, 5), dtype=bool))
    with pytest.raises(ValueError, match=message):
        pm.pack_runs([], (3, 5))
    with pytest.raises(ValueError, match=message):
        pm.to_runs(np.zeros(2, dtype=np.uint8), (3, 5))


def test_masks_of_another_raster_are_refused():
    message = r"a raster of 4 x 4 pixels takes 2 bytes a mask, got 8"
    with pytest.raises(ValueError, match=message):
        pm.unpack(np.zeros((1, 8), dtype=np.uint8), (4, 4))
    with pytest.raises(ValueError, match=message):
        pm.to_runs(np.zeros(8, dtype=np.uint8), (4, 4))


@pytest.mark.parametrize("count", [0, 1, 3, 130])
def test_runs_of_many_masks_are_those_of_each(count):
    random = np.random.default_rng(count)
    masks = random.random((count, 24, 17)) < random.random((count, 1, 1))
    masks[::7] = False
    masks[1::5] = True
    packed = pm.pack(masks)
    runs, offsets = pm.to_runs_batch(packed, (24, 17))
    assert runs.dtype == np.int32
    assert len(offsets) == count + 1
    for row, begin, end in zip(packed, offsets, offsets[1:], strict=False):
        assert_array_equal(runs[begin:end], pm.to_runs(row, (24, 17)))
    assert offsets[-1] == len(runs)
    with pytest.raises(ValueError, match="a raster of 8 x 8 pixels takes 8 bytes a mask, got 51"):
        pm.to_runs_batch(packed, (8, 8))
