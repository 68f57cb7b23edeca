from __future__ import annotations

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from mmcv.image import rescale_size

from src.datamodules.sizes import resized_hw
from src.datamodules.transforms import (
    draw_masks,
    draw_view,
    flip_image,
    resize_image,
)
from src.rle import RleBatch, encode, resize_nearest
from tests.helpers.masks import resize_by_nearest

sizes = st.tuples(st.integers(1, 60), st.integers(1, 60))


def box_by_loop(mask: np.ndarray) -> list[int]:
    rows, columns = np.nonzero(mask)
    if len(rows) == 0:
        return [0, 0, 0, 0]
    return [columns.min(), rows.min(), columns.max() + 1, rows.max() + 1]


def random_masks(size_hw: tuple[int, int], seed: int) -> np.ndarray:
    """Masks (5, H, W): blocky, speckled, a single pixel, everything, nothing."""
    generator = np.random.default_rng(seed)
    blocks = generator.random((2, 1 + size_hw[0] // 9, 1 + size_hw[1] // 9)) < 0.4
    masks = np.zeros((5, *size_hw), dtype=bool)
    masks[0] = resize_by_nearest(blocks[0], size_hw)
    masks[1] = generator.random(size_hw) < 0.3
    masks[2, generator.integers(size_hw[0]), generator.integers(size_hw[1])] = True
    masks[3] = True
    return masks


@given(
    size=st.tuples(st.integers(20, 9000), st.integers(20, 9000)),
    short=st.integers(100, 1400),
    extra=st.integers(0, 1000),
)
def test_size_is_that_of_mmdetection(size, short, extra):
    found = resized_hw(size, short_edge_px=short, long_edge_px=short + extra)
    width, height = rescale_size((size[1], size[0]), (short + extra, short))
    assert found == (max(height, 1), max(width, 1))
    assert min(found) <= short
    assert max(found) <= short + extra


@pytest.mark.parametrize(
    ("size_hw", "expected"),
    [
        ((3000, 2000), (1800, 1200)),  # the short edge decides
        ((6000, 1500), (1900, 475)),  # the long edge decides
        ((5792, 8688), (1200, 1800)),  # the competition's largest image
        ((151, 499), (575, 1900)),  # its smallest is enlarged
        ((1, 5000), (1, 1900)),  # never without pixels
    ],
)
def test_size_by_hand(size_hw, expected):
    assert resized_hw(size_hw, short_edge_px=1200, long_edge_px=1900) == expected


def test_views_cover_the_range_evenly():
    generator = np.random.default_rng(0)
    views = [
        draw_view(
            (100, 100),
            short_edge_px=(60, 63),
            long_edge_px=190,
            flip_probability=0.25,
            generator=generator,
        )
        for _ in range(4000)
    ]
    shorts, counts = np.unique([view.size_hw[0] for view in views], return_counts=True)
    assert shorts.tolist() == [60, 61, 62, 63]
    assert counts.min() > 900
    assert 0.22 < np.mean([view.flip for view in views]) < 0.28
    assert len({view.pixel_seed for view in views}) == 4000


@pytest.mark.parametrize(("probability", "flipped"), [(0.0, {False}), (1.0, {True})])
def test_flip_probability_ends(probability, flipped):
    generator = np.random.default_rng(0)
    found = {
        draw_view(
            (10, 10),
            short_edge_px=(5, 5),
            long_edge_px=9,
            flip_probability=probability,
            generator=generator,
        ).flip
        for _ in range(50)
    }
    assert found == flipped


@settings(deadline=None)
@given(source=sizes, target=sizes, flip=st.booleans(), seed=st.integers(0, 2**31))
def test_masks_are_nearest_resized_bitmaps_and_boxes_fit_them(source, target, flip, seed):
    bitmaps = random_masks(source, seed)
    resized = resize_nearest([encode(bitmap) for bitmap in bitmaps], target, flip_horizontal=flip)
    masks = draw_masks(resized, target)
    assert masks.dtype == np.uint8
    assert (resized.num_runs > 0).tolist() == masks.any(axis=(1, 2)).tolist()
    boxes = resized.boxes_xyxy()
    for bitmap, mask, box in zip(bitmaps, masks, boxes, strict=True):
        expected = resize_by_nearest(bitmap, target)
        expected = expected[:, ::-1] if flip else expected
        np.testing.assert_array_equal(mask, expected)
        assert box.tolist() == box_by_loop(expected)


def flipped(masks: RleBatch) -> RleBatch:
    """The masks of the flipped image."""
    return resize_nearest(masks, masks.size_hw, flip_horizontal=True)


@settings(deadline=None)
@given(size=sizes, seed=st.integers(0, 2**31))
def test_mirrored_twin_gives_mirrored_masks_and_boxes(size, seed):
    masks = RleBatch.of([encode(bitmap) for bitmap in random_masks(size, seed)])
    twins = flipped(masks)
    assert resize_nearest(twins, size, flip_horizontal=True) == resize_nearest(masks, size)
    boxes = masks.boxes_xyxy()
    mirrored = twins.boxes_xyxy()
    filled = boxes[:, 2] > 0
    np.testing.assert_array_equal(mirrored[filled, 0], size[1] - boxes[filled, 2])
    np.testing.assert_array_equal(mirrored[filled, 2], size[1] - boxes[filled, 0])
    np.testing.assert_array_equal(mirrored[:, 1::2], boxes[:, 1::2])


@settings(deadline=None)
@given(source=sizes, target=sizes, seed=st.integers(0, 2**31))
def test_mirrored_twin_at_every_size(source, target, seed):
    """Nearest resizing takes the first source column of the span that a target column covers
    (floor(i * source / target)); that of a mirrored twin, mirrored again, the last. These are the
    same where no span holds two columns: at the source's width and whole multiples of it.
    """
    bitmaps = random_masks(source, seed)
    masks = RleBatch.of([encode(bitmap) for bitmap in bitmaps])
    twins = flipped(masks)
    found = draw_masks(resize_nearest(twins, target, flip_horizontal=True), target)
    rows = np.arange(target[0]) * source[0] // target[0]
    last_columns = -(-np.arange(1, target[1] + 1) * source[1] // target[1]) - 1
    np.testing.assert_array_equal(found, bitmaps[:, rows][:, :, last_columns])
    if target[1] % source[1] == 0:
        plain = draw_masks(resize_nearest(masks, target), target)
        np.testing.assert_array_equal(found, plain)


def test_no_masks():
    masks = resize_nearest([], (4, 5), flip_horizontal=True)
    assert len(masks) == 0
    assert draw_masks(masks, (4, 5)).shape == (0, 4, 5)
    assert masks.boxes_xyxy().shape == (0, 4)


def test_image_is_resized_bilinearly_and_mirrored():
    image = np.random.default_rng(0).integers(0, 256, (40, 30, 3), dtype=np.uint8)
    resized = resize_image(image, (20, 17))
    np.testing.assert_array_equal(resized, cv2.resize(image, (17, 20)))
    assert resize_image(image, (40, 30)) is image
    flipped = flip_image(image)
    np.testing.assert_array_equal(flipped, image[:, ::-1])
    assert flipped.flags.c_contiguous
    twin = resize_image(flipped, (20, 17))
    assert np.abs(twin.astype(int) - resized[:, ::-1]).max() <= 1  # rounding of cv2's weights
