"""Bitmasks against bitmaps."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from numpy.testing import assert_array_equal

from src.rle import Bitmasks, RleBatch, bitmasks, encode, resize_nearest
from tests.helpers.masks import (
    batch,
    bitmaps,
    many_examples,
    rle,
    rle_by_pixel_loop,
)

sizes_hw = st.tuples(st.integers(1, 20), st.integers(1, 20))


@st.composite
def stacks(draw) -> tuple[np.ndarray, np.ndarray]:
    """Two stacks of bitmaps of one size."""
    size = draw(sizes_hw)
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
    packed = Bitmasks.pack(mask[None])
    assert packed.raster_hw == (4, 4)
    assert packed.bits.dtype == np.uint8
    assert_array_equal(packed.bits, [[0b01100001, 0b10000000]])
    assert_array_equal(packed.unpack(), mask[None])
    assert_array_equal(packed.areas_px(), [4])
    assert packed.to_rle() == batch([[[0, 1], [5, 2], [15, 1]]], (4, 4))


@many_examples
@given(stacks())
def test_packing_areas_and_runs_agree_with_bitmaps(pair):
    masks, _ = pair
    size_hw = masks.shape[1:]
    packed = Bitmasks.pack(masks)
    assert packed.bits.shape == (len(masks), -(-size_hw[0] * size_hw[1] // 8))
    columns = masks.transpose(0, 2, 1).reshape(len(masks), size_hw[0] * size_hw[1])
    assert_array_equal(packed.bits, np.packbits(columns, axis=1, bitorder="little"))
    unpacked = packed.unpack()
    assert unpacked.dtype == np.bool_
    assert_array_equal(unpacked, masks)
    assert_array_equal(packed.areas_px(), masks.sum(axis=(1, 2)))
    wanted = [rle_by_pixel_loop(mask) for mask in masks]
    assert Bitmasks.of(wanted, size_hw) == packed
    assert list(packed.to_rle()) == wanted
    assert packed[::2] == Bitmasks.pack(masks[::2])


@many_examples
@given(stacks())
def test_intersections_agree_with_bitmaps(pair):
    a, b = pair
    shared = Bitmasks.pack(a).intersections_px(Bitmasks.pack(b))
    assert shared.dtype == np.int64
    assert_array_equal(shared, (a[:, None] & b[None]).sum(axis=(2, 3)))
    rows, columns = np.nonzero(np.ones((len(a), len(b)), dtype=bool))
    paired = Bitmasks.pack(a).paired_intersections_px(Bitmasks.pack(b), rows, columns)
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
    packed = Bitmasks.pack(masks)
    assert packed.bits.shape == (4, 32768)
    assert_array_equal(packed.areas_px(), masks.sum(axis=(1, 2)))
    flat = masks.reshape(4, -1).astype(np.float64)
    assert_array_equal(packed.intersections_px(packed), flat @ flat.T)
    assert Bitmasks.of([encode(mask) for mask in masks], (512, 512)) == packed
    assert packed.to_rle()[0] == rle([[0, 512 * 512]], (512, 512))
    assert packed.to_rle()[1] == rle([], (512, 512))


@given(hnp.arrays(np.uint8, (3, 16)))
def test_rows_of_a_larger_array_need_no_copy_by_the_caller(store):
    sliced = Bitmasks(store[::2, :8], (8, 8))
    assert_array_equal(sliced.areas_px(), np.bitwise_count(sliced.bits).sum(axis=1))
    whole = Bitmasks(np.ascontiguousarray(sliced.bits), (8, 8))
    assert_array_equal(sliced.unpack(), whole.unpack())


@pytest.mark.parametrize("block_bytes", [1, 64, bitmasks._BLOCK_BYTES])
def test_more_masks_than_a_block(monkeypatch, block_bytes):
    monkeypatch.setattr(bitmasks, "_BLOCK_BYTES", block_bytes)
    rng = np.random.default_rng(4)
    a, b = (rng.random((count, 8, 8)) < 0.3 for count in (3, 17))
    assert Bitmasks.pack(b).to_rle() == RleBatch.of([encode(mask) for mask in b])
    flat_a, flat_b = a.reshape(len(a), -1).astype(int), b.reshape(len(b), -1).astype(int)
    shared = Bitmasks.pack(a).intersections_px(Bitmasks.pack(b))
    assert_array_equal(shared, flat_a @ flat_b.T)
    rows, columns = np.nonzero(np.ones((len(a), len(b)), dtype=bool))
    paired = Bitmasks.pack(a).paired_intersections_px(Bitmasks.pack(b), rows, columns)
    assert_array_equal(paired, (flat_a @ flat_b.T).ravel())


@many_examples
@given(stacks(), st.sampled_from([(8, 8), (3, 8), (3, 5), (20, 30), (31, 17), (512, 512)]))
def test_packing_resized_is_resizing_and_packing(pair, raster_hw):
    masks, _ = pair
    given_masks = [encode(mask) for mask in masks]
    wanted = Bitmasks.of(resize_nearest(given_masks, raster_hw), raster_hw)
    assert Bitmasks.of(given_masks, raster_hw) == wanted
    assert len(wanted) == len(masks)


def test_masks_of_large_images_whose_pixels_together_need_more_than_32_bits():
    size_hw = (8_000, 10_000)  # 27 such masks have 2.2e9 pixels
    bits = np.zeros((30, size_hw[0] * size_hw[1] // 8), dtype=np.uint8)
    bits[[0, 28, 29], [5, 999, -1]] = 0x3C
    masks = Bitmasks(bits, size_hw).to_rle()
    filled = {0: 8 * 5 + 2, 28: 8 * 999 + 2, 29: 80_000_000 - 6}
    assert masks.num_runs.tolist() == [int(row in filled) for row in range(30)]
    for row, start in filled.items():
        assert masks[row] == rle([[start, 4]], size_hw)


def test_touching_runs_are_one_mask():
    packed = Bitmasks.of([rle([[0, 3], [3, 5], [64, 64]], (16, 16))], (16, 16))
    assert packed.to_rle() == batch([[[0, 8], [64, 64]]], (16, 16))


@many_examples
@given(stacks())
def test_the_bits_behind_the_last_pixel_are_clear(pair):
    """So areas, intersections and runs need not know where the last byte's pixels end."""
    masks, others = pair
    size_hw = masks.shape[1:]
    spare = -size_hw[0] * size_hw[1] % 8
    for made in (Bitmasks.pack(masks), Bitmasks.of([encode(mask) for mask in masks], size_hw)):
        assert made.bits.shape == (len(masks), -(-size_hw[0] * size_hw[1] // 8))
        assert not (made.bits[:, -1:] >> (8 - spare)).any() or not spare
    shared = Bitmasks.pack(masks).intersections_px(Bitmasks.pack(others))
    assert shared.tolist() == [[int((a & b).sum()) for b in others] for a in masks]


def test_bits_of_another_raster_are_refused():
    message = "bits must have 2 bytes a mask for a raster of 3 x 5 pixels, got 3"
    with pytest.raises(ValueError, match=message):
        Bitmasks(np.zeros((1, 3), dtype=np.uint8), (3, 5))


def test_masks_of_another_raster_are_refused():
    message = "bits must have 2 bytes a mask for a raster of 4 x 4 pixels, got 8"
    with pytest.raises(ValueError, match=message):
        Bitmasks(np.zeros((1, 8), dtype=np.uint8), (4, 4))


@pytest.mark.parametrize("count", [0, 1, 3, 130])
def test_runs_of_many_masks_are_those_of_each(count):
    random = np.random.default_rng(count)
    masks = random.random((count, 24, 17)) < random.random((count, 1, 1))
    masks[::7] = False
    masks[1::5] = True
    found = Bitmasks.pack(masks).to_rle()
    assert isinstance(found, RleBatch)
    assert found.runs.dtype == np.int32
    assert list(found) == [encode(mask) for mask in masks]
