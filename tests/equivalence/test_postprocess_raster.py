"""Masks sampled at the raster's pixels are mmdet's full-size masks, shrunk by nearest resizing."""

from __future__ import annotations

import numpy as np
import pytest
import torch
import torch.nn.functional

from src.annotations.competition import raster_hw as hw_of_raster
from src.annotations.instances import RASTER_HW
from src.postprocess.raster import sample_masks
from src.rle import Bitmasks
from tests.helpers.candidates import make_boxes, make_masks
from tests.helpers.mmdet_results import paste, paste_and_shrink

UNDECIDED = 1e-6


def check_equal(
    masks: np.ndarray, boxes: np.ndarray, size_hw: tuple[int, int], threshold: float
) -> int:
    """Compare all pixels; returns how many belong to a mask."""
    packed = sample_masks(masks, boxes, size_hw, mask_threshold=threshold)
    found = Bitmasks(packed, RASTER_HW).unpack()
    pixels = 0
    for mask, box, drawn in zip(masks, boxes, found, strict=True):
        probabilities = paste_and_shrink(mask, box, size_hw)
        different = drawn != (probabilities >= np.float32(threshold))
        assert (np.abs(probabilities[different] - threshold) <= UNDECIDED).all()
        pixels += int(drawn.sum())
    return pixels


@pytest.mark.parametrize("size_hw", [(37, 53), (64, 64), (151, 499), (801, 1333), (7, 3)], ids=str)
def test_native_raster_is_full_size_pasting(size_hw: tuple[int, int]) -> None:
    random = np.random.default_rng(sum(size_hw))
    masks = make_masks(random, 12)
    boxes = make_boxes(random, 12, size_hw, relative_size=0.5)
    packed = sample_masks(
        masks, boxes, size_hw, mask_threshold=0.5, raster_hw=hw_of_raster("native", size_hw)
    )
    pixels = 0
    for mask, box, drawn in zip(masks, boxes, Bitmasks(packed, size_hw).unpack(), strict=True):
        probabilities = paste(mask, box, size_hw)
        different = drawn != (probabilities >= np.float32(0.5))
        assert (np.abs(probabilities[different] - 0.5) <= UNDECIDED).all()
        pixels += int(drawn.sum())
    assert pixels > 5


@pytest.mark.parametrize("threshold", [0.3, 0.45, 0.5])
@pytest.mark.parametrize(
    "size_hw",
    [(512, 512), (331, 296), (151, 499), (800, 1333), (1201, 1799), (3024, 2017), (7, 3)],
    ids=str,
)
def test_equal_to_full_size_pasting(size_hw: tuple[int, int], threshold: float) -> None:
    random = np.random.default_rng(sum(size_hw))
    masks = make_masks(random, 12)
    boxes = make_boxes(random, 12, size_hw, relative_size=0.5)
    assert check_equal(masks, boxes, size_hw, threshold) > 1000


def test_equal_on_hundreds_of_small_images() -> None:
    random = np.random.default_rng(0)
    for _ in range(150):
        size_hw = (int(random.integers(20, 700)), int(random.integers(20, 700)))
        boxes = make_boxes(random, 4, size_hw, relative_size=random.choice([0.02, 0.2, 1.5]))
        check_equal(make_masks(random, 4), boxes, size_hw, random.choice([0.3, 0.45, 0.5, 0.9]))


def test_equal_where_boxes_cross_the_images_edge() -> None:
    random = np.random.default_rng(1)
    size_hw = (900, 700)
    boxes = np.array(
        [
            [-50.25, -80.5, 200.75, 300.125],
            [600.5, 800.25, 950.0, 1300.5],
            [-100.0, -100.0, 800.0, 1000.0],
            [650.0, -20.0, 700.5, 40.0],
        ],
        dtype=np.float32,
    )
    assert check_equal(make_masks(random, 4), boxes, size_hw, 0.45) > 10_000


@pytest.mark.parametrize("size_hw", [(512, 512), (2048, 1536), (100, 60)], ids=str)
def test_equal_for_boxes_below_a_pixel_or_without_area(size_hw: tuple[int, int]) -> None:
    masks = np.full((6, 28, 28), 0.9, dtype=np.float32)
    boxes = np.array(
        [
            [20.1, 30.2, 20.4, 30.9],
            [20.6, 30.6, 21.4, 31.3],
            [20.0, 30.0, 20.0, 50.0],  # no width: mmdet samples the mask's middle column
            [20.5, 30.0, 20.5, 50.0],  # no width, on a pixel's centre: 0 / 0
            [20.0, 30.0, 40.0, 30.0],
            [20.5, 30.5, 20.5, 30.5],
        ],
        dtype=np.float32,
    )
    check_equal(masks, boxes, size_hw, 0.5)


def test_equal_on_probabilities_at_the_threshold() -> None:
    """A flat mask lies at its threshold everywhere inside; its edges decide to the bit."""
    random = np.random.default_rng(2)
    masks = np.full((4, 28, 28), np.float32(0.45), dtype=np.float32)
    masks[1:] = 1.0
    check_equal(masks, make_boxes(random, 4, (1000, 1500), relative_size=0.6), (1000, 1500), 0.45)


def test_half_precision_masks_are_sampled_as_the_float32_they_mean() -> None:
    random = np.random.default_rng(3)
    masks = make_masks(random, 5).astype(np.float16)
    boxes = make_boxes(random, 5, (640, 480), relative_size=0.5)
    found = sample_masks(masks, boxes, (640, 480), mask_threshold=0.5)
    wanted = sample_masks(masks.astype(np.float32), boxes, (640, 480), mask_threshold=0.5)
    assert np.array_equal(found, wanted)


def test_other_mask_sizes() -> None:
    random = np.random.default_rng(4)
    for size_px in (7, 14, 56):
        boxes = make_boxes(random, 3, (700, 500), relative_size=0.5)
        check_equal(make_masks(random, 3, size_px=size_px), boxes, (700, 500), 0.5)


def sampled_by_torch(
    mask: np.ndarray, box_xyxy: np.ndarray, size_hw: tuple[int, int], raster_hw: tuple[int, int]
) -> np.ndarray:
    """Probabilities by torch's ``grid_sample``, which pasting asks for all pixels of the image, at
    the raster's alone; zero beyond the box grown by a pixel, where pasting stops."""
    grids, inside = [], []
    for axis in (0, 1):
        pixels = torch.arange(raster_hw[axis]) * size_hw[axis] // raster_hw[axis]
        low, high = (torch.from_numpy(box_xyxy)[[1 - axis, 3 - axis]]).unbind()
        grids.append((pixels.to(torch.float32) + 0.5 - low) / (high - low) * 2 - 1)
        inside.append((pixels >= (low.floor() - 1).clamp(min=0)) & (pixels < high.ceil() + 1))
    grid = torch.stack(torch.meshgrid(grids[1], grids[0], indexing="xy"), dim=-1)
    sampled = torch.nn.functional.grid_sample(
        torch.from_numpy(mask)[None, None], grid[None], align_corners=False
    )[0, 0]
    return (sampled * (inside[0][:, None] & inside[1][None])).numpy()


LARGE = [(10_000, 7000), (10_000, 480), (320, 10_000), (6824, 10_717), (10_000, 10_000)]


@pytest.mark.parametrize("threshold", [0.3, 0.45])
@pytest.mark.parametrize("size_hw", LARGE, ids=str)
def test_equal_to_torchs_sampling_on_images_of_10_000_pixels(
    size_hw: tuple[int, int], threshold: float
) -> None:
    random = np.random.default_rng(7)
    masks = make_masks(random, 8)
    boxes = make_boxes(random, 8, size_hw, relative_size=0.3)
    boxes[0] = 0, 0, size_hw[1], size_hw[0]
    boxes[1] = -30.5, -20.25, size_hw[1] + 17, size_hw[0] / 3
    found = sample_masks(masks, boxes, size_hw, mask_threshold=threshold)
    found = Bitmasks(found, RASTER_HW).unpack()
    assert found.sum() > 10_000
    for mask, box, drawn in zip(masks, boxes, found, strict=True):
        probabilities = sampled_by_torch(mask, box, size_hw, RASTER_HW)
        different = drawn != (probabilities >= np.float32(threshold))
        assert (np.abs(probabilities[different] - threshold) <= UNDECIDED).all()


@pytest.mark.parametrize(
    ("size_hw", "raster_hw"),
    [
        ((4000, 3000), (1024, 768)),
        ((3000, 4001), (768, 1024)),
        ((5792, 8688), (683, 1024)),
        ((331, 296), (1024, 916)),
        ((1024, 1024), (1024, 1024)),
        ((10_000, 3), (1024, 1)),
        ((2048, 3), (1024, 2)),  # 1.5: a half goes up
    ],
    ids=str,
)
def test_raster_of_2020(size_hw: tuple[int, int], raster_hw: tuple[int, int]) -> None:
    assert hw_of_raster("long_edge_1024", size_hw) == raster_hw
    random = np.random.default_rng(8)
    masks = make_masks(random, 4)
    boxes = make_boxes(random, 4, size_hw, relative_size=0.6)
    packed = sample_masks(masks, boxes, size_hw, mask_threshold=0.5, raster_hw=raster_hw)
    assert packed.shape == (4, raster_hw[0] * raster_hw[1] // 8)
    for mask, box, drawn in zip(masks, boxes, Bitmasks(packed, raster_hw).unpack(), strict=True):
        probabilities = sampled_by_torch(mask, box, size_hw, raster_hw)
        different = drawn != (probabilities >= np.float32(0.5))
        assert (np.abs(probabilities[different] - 0.5) <= UNDECIDED).all()


def test_several_thresholds_and_one_for_each_mask() -> None:
    random = np.random.default_rng(9)
    masks, boxes = make_masks(random, 5), make_boxes(random, 5, (700, 500), relative_size=0.5)
    thresholds = np.array([0.3, 0.45, 0.6], dtype=np.float32)
    found = sample_masks(masks, boxes, (700, 500), mask_threshold=thresholds[:, None])
    alone = [sample_masks(masks, boxes, (700, 500), mask_threshold=value) for value in thresholds]
    assert np.array_equal(found, np.stack(alone))
    own = np.array([0.3, 0.6, 0.45, 0.3, 0.6], dtype=np.float32)
    mixed = sample_masks(masks, boxes, (700, 500), mask_threshold=own)
    assert np.array_equal(mixed, found[[0, 2, 1, 0, 2], np.arange(5)])


@pytest.mark.slow
@pytest.mark.parametrize("size_hw", [(8688, 5792), *LARGE], ids=str)
def test_equal_on_the_largest_images(size_hw: tuple[int, int]) -> None:
    random = np.random.default_rng(5)
    boxes = make_boxes(random, 6, size_hw, relative_size=0.3)
    boxes[0] = 0, 0, size_hw[1], size_hw[0]
    assert check_equal(make_masks(random, 6), boxes, size_hw, 0.45) > 10_000
