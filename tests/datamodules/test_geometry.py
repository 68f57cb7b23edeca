"""Transforms that move instances: image, masks and boxes stay together."""

from __future__ import annotations

import math
from dataclasses import replace

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from src.datamodules.geometry import (
    GeometricAugmentation,
    Geometry,
    LabelledImage,
    crop,
    rotate,
    turn_and_flip,
)
from src.errors import InputError
from tests.helpers.datasets import CATEGORY_IDS, training_dataset
from tests.helpers.images import COLOURS, Data, DrawnImage, save_image, write_rows

sizes = st.tuples(st.integers(1, 40), st.integers(1, 40))


def striped(size_hw: tuple[int, int], seed: int, num: int = 3) -> LabelledImage:
    """An image whose channel c is 200 where mask c is set, so that each pixel says where it was."""
    generator = np.random.default_rng(seed)
    masks = (generator.random((num, *size_hw)) < 0.4).astype(np.uint8)
    image = np.zeros((*size_hw, 3), dtype=np.uint8)
    for channel in range(3):
        image[..., channel] = 200 * masks[channel]
    return LabelledImage(image, np.arange(num), masks)


def blocks(size_hw: tuple[int, int], seed: int, num: int = 4) -> LabelledImage:
    """Rectangles on a random image."""
    generator = np.random.default_rng(seed)
    masks = np.zeros((num, *size_hw), dtype=np.uint8)
    for mask in masks:
        top, left = generator.integers(size_hw[0]), generator.integers(size_hw[1])
        mask[top : top + generator.integers(1, 20), left : left + generator.integers(1, 20)] = 1
    image = generator.integers(0, 256, (*size_hw, 3), dtype=np.uint8)
    return LabelledImage(image, np.arange(10, 10 + num), masks)


def whole(size_hw: tuple[int, int], **changes: object) -> Geometry:
    plain = Geometry(
        scaled_hw=size_hw,
        crop_yx=(0, 0),
        size_hw=size_hw,
        rotation_degrees=0.0,
        quarter_turns=0,
        vertical_flip=False,
    )
    return replace(plain, **changes)


def box_by_loop(mask: np.ndarray) -> list[int]:
    rows, columns = np.nonzero(mask)
    if not len(rows):
        return [0, 0, 0, 0]
    return [columns.min(), rows.min(), columns.max() + 1, rows.max() + 1]


@given(size_hw=sizes, seed=st.integers(0, 2**31))
def test_boxes_are_those_of_the_masks(size_hw, seed):
    view = striped(size_hw, seed)
    view = replace(view, masks=np.concatenate([view.masks, np.zeros((1, *size_hw), np.uint8)]))
    expected = [box_by_loop(mask) for mask in view.masks]
    np.testing.assert_array_equal(view.boxes_xyxy(), np.array(expected, dtype=np.float32))
    assert view.areas_px().tolist() == [int(mask.sum()) for mask in view.masks]


@given(
    size_hw=sizes,
    seed=st.integers(0, 2**31),
    turns=st.integers(0, 3),
    vertical=st.booleans(),
    flip=st.booleans(),
)
def test_turns_and_flips_move_masks_as_pixels(size_hw, seed, turns, vertical, flip):
    view = striped(size_hw, seed)
    geometry = whole(size_hw, quarter_turns=turns, vertical_flip=vertical)
    moved = turn_and_flip(view, geometry, flip=flip)
    assert moved.size_hw == (size_hw if turns % 2 == 0 else size_hw[::-1])
    for channel in range(3):
        np.testing.assert_array_equal(moved.image[..., channel], 200 * moved.masks[channel])
    # four quarter turns, or two equal flips, are nothing
    back = turn_and_flip(moved, whole(moved.size_hw), flip=flip)
    back = turn_and_flip(back, whole(moved.size_hw, vertical_flip=vertical), flip=False)
    back = turn_and_flip(back, whole(moved.size_hw, quarter_turns=-turns % 4), flip=False)
    np.testing.assert_array_equal(back.image, view.image)
    np.testing.assert_array_equal(back.masks, view.masks)


def test_a_quarter_turn_is_counter_clockwise_as_a_rotation_by_90_degrees():
    view = striped((31, 31), 5)
    turned = turn_and_flip(view, whole((31, 31), quarter_turns=1), flip=False)
    rotated = rotate(view, 90.0)
    np.testing.assert_array_equal(turned.masks, rotated.masks)
    assert np.abs(turned.image.astype(int) - rotated.image.astype(int)).max() <= 1


@given(
    size_hw=st.tuples(st.integers(4, 40), st.integers(4, 40)),
    seed=st.integers(0, 2**31),
    degrees=st.floats(-180, 180),
)
@settings(deadline=None)
def test_rotation_takes_each_pixel_from_where_it_was(size_hw, seed, degrees):
    view = blocks(size_hw, seed)
    rotated = rotate(view, degrees)
    height, width = size_hw
    # the pixel at (y, x) comes from the point that the inverse rotation about the centre gives
    radians = math.radians(degrees)
    y, x = np.mgrid[:height, :width].astype(np.float64)
    x, y = x - (width - 1) / 2, y - (height - 1) / 2
    from_x = math.cos(radians) * x - math.sin(radians) * y + (width - 1) / 2
    from_y = math.sin(radians) * x + math.cos(radians) * y + (height - 1) / 2
    # OpenCV rounds the point to 1/32 px: those near the border of two pixels can be either's
    certain = np.minimum(np.abs(from_x % 1 - 0.5), np.abs(from_y % 1 - 0.5)) > 0.05
    rows, columns = np.rint(from_y).astype(int), np.rint(from_x).astype(int)
    inside = (rows >= 0) & (rows < height) & (columns >= 0) & (columns < width)
    expected = np.zeros_like(view.masks)
    expected[:, inside] = view.masks[:, rows[inside], columns[inside]]
    np.testing.assert_array_equal(rotated.masks[:, certain], expected[:, certain])


def test_rotation_moves_image_and_masks_together():
    """The colour under a rotated mask is that of its instance, and the corners have the mean's."""
    image = np.full((60, 80, 3), 30, dtype=np.uint8)
    masks = np.zeros((2, 60, 80), dtype=np.uint8)
    masks[0, 10:30, 20:40] = masks[1, 25:50, 50:70] = 1
    image[masks[0] > 0], image[masks[1] > 0] = (220, 0, 0), (0, 220, 0)
    for degrees in (-75.0, -10.0, 33.0, 120.0):
        rotated = rotate(LabelledImage(image, np.arange(2), masks), degrees)
        for mask, colour in zip(rotated.masks, ((220, 0, 0), (0, 220, 0)), strict=True):
            inner = cv2.erode(mask, np.ones((5, 5), np.uint8)).astype(bool)
            assert inner.sum() > 100
            assert np.abs(rotated.image[inner].astype(int) - colour).max() <= 2
        assert rotated.image[0, 0].tolist() == [124, 116, 104]


@given(
    size_hw=st.tuples(st.integers(40, 300), st.integers(40, 300)),
    low=st.floats(0.1, 3),
    span=st.floats(0, 2),
    seed=st.integers(0, 2**31),
)
def test_scale_and_crop_stay_inside(size_hw, low, span, seed):
    augmentation = GeometricAugmentation(scale_jitter=(low, low + span))
    drawn = augmentation.draw(size_hw, least_edge_px=32, generator=np.random.default_rng(seed))
    assert min(drawn.scaled_hw) >= 32
    for scaled, view, cropped, first in zip(
        drawn.scaled_hw, size_hw, drawn.size_hw, drawn.crop_yx, strict=True
    ):
        assert 0.1 * view - 1 <= scaled <= 5 * view + 1
        assert cropped == min(view, scaled)
        assert 0 <= first <= scaled - cropped
    pixels = np.arange(drawn.scaled_hw[0] * drawn.scaled_hw[1]).reshape(drawn.scaled_hw)
    assert crop(pixels, drawn)[0, 0] == drawn.crop_yx[0] * drawn.scaled_hw[1] + drawn.crop_yx[1]


@given(
    size_hw=st.tuples(st.integers(8, 40), st.integers(8, 40)),
    other_hw=st.tuples(st.integers(8, 40), st.integers(8, 40)),
    seed=st.integers(0, 2**31),
    num=st.integers(0, 6),
    share=st.sampled_from([0.0, 0.1, 0.6]),
)
def test_pasted_instances_cover_what_lies_below(size_hw, other_hw, seed, num, share):
    view, other = blocks(size_hw, seed), blocks(other_hw, seed + 1)
    other = replace(other, labels=other.labels + 100)
    before_image, before_masks = view.image.copy(), view.masks.copy()
    augmentation = GeometricAugmentation(min_visible_share=share)
    result = augmentation.paste(view, other, generator=np.random.default_rng(seed), num=num)
    np.testing.assert_array_equal(view.image, before_image)
    np.testing.assert_array_equal(view.masks, before_masks)
    assert len(result.labels) == len(result.masks)
    assert result.areas_px().min(initial=1) > 0
    pasted = result.labels >= 100
    assert pasted.sum() <= num
    covered = result.masks[pasted].any(axis=0)
    rows, columns = min(size_hw[0], other_hw[0]), min(size_hw[1], other_hw[1])
    for label, mask in zip(result.labels[pasted], result.masks[pasted], strict=True):
        source = other.masks[other.labels == label][0]
        np.testing.assert_array_equal(mask[:rows, :columns], source[:rows, :columns])
        assert mask.sum() >= share * source.sum()
    for label, mask in zip(result.labels[~pasted], result.masks[~pasted], strict=True):
        source = view.masks[view.labels == label][0]
        np.testing.assert_array_equal(mask, source * ~covered)
        assert mask.sum() >= share * source.sum()
    np.testing.assert_array_equal(result.image[~covered], view.image[~covered])
    np.testing.assert_array_equal(
        result.image[:rows, :columns][covered[:rows, :columns]],
        other.image[:rows, :columns][covered[:rows, :columns]],
    )


EVERYTHING = {
    "vertical_flip_probability": 0.5,
    "quarter_turn_probability": 0.5,
    "rotation_degrees": 40,
    "scale_jitter": (0.6, 2.0),
    "copy_paste_probability": 0.7,
}


@pytest.mark.parametrize(
    "chosen",
    [
        {"vertical_flip_probability": 1.0},
        {"quarter_turn_probability": 1.0},
        {"rotation_degrees": 40},
        {"scale_jitter": (0.6, 2.0)},
        {"copy_paste_probability": 1.0},
        EVERYTHING,
    ],
    ids=lambda chosen: next(iter(chosen)) if len(chosen) == 1 else "everything",
)
def test_samples_keep_masks_on_their_instances(data: Data, chosen):
    """The colour under each mask of a sample is that of its class, and its box is the mask's."""
    dataset = training_dataset(
        data.directory, geometric_augmentation=GeometricAugmentation(**chosen)
    )
    plain = training_dataset(data.directory)
    differ = seen = 0
    for epoch in range(3):
        for number in range(4):
            sample = dataset[epoch, number]
            image = sample["inputs"].permute(1, 2, 0).numpy()
            found = sample["data_samples"].gt_instances
            masks = found.masks.masks
            assert masks.shape[1:] == image.shape[:2]
            expected = [box_by_loop(mask) for mask in masks]
            assert found.bboxes.numpy().tolist() == expected
            for label, mask in zip(found.labels.tolist(), masks, strict=True):
                inner = cv2.erode(np.pad(mask, 1), np.ones((5, 5), np.uint8))[1:-1, 1:-1] > 0
                if inner.any():
                    seen += 1
                    colour = image[inner].astype(int)
                    assert (
                        np.abs(np.median(colour, axis=0) - COLOURS[CATEGORY_IDS[label]]).max() < 25
                    )
            other = plain[epoch, number]["inputs"].permute(1, 2, 0).numpy()
            differ += other.shape != image.shape or not np.array_equal(other, image)
            again = dataset[epoch, number]
            np.testing.assert_array_equal(again["inputs"].numpy(), sample["inputs"].numpy())
            np.testing.assert_array_equal(again["data_samples"].gt_instances.masks.masks, masks)
    assert seen > 5
    assert differ > 5


def test_off_is_the_recipe_to_the_bit(data: Data):
    """With everything off no random number is drawn, and the samples are those of before."""
    off = training_dataset(data.directory, geometric_augmentation=GeometricAugmentation())
    plain = training_dataset(data.directory)
    for number in range(4):
        one, other = off[0, number], plain[0, number]
        np.testing.assert_array_equal(one["inputs"].numpy(), other["inputs"].numpy())
    assert GeometricAugmentation(rotation_degrees=30, rotation_probability=0).is_off
    assert GeometricAugmentation(copy_paste_probability=1, copy_paste_max_instances=0).is_off


def test_an_instance_that_a_crop_leaves_a_sliver_of_is_left_out(tmp_path):
    mask = np.zeros((60, 60), dtype=bool)
    mask[:, :30] = True
    image = np.full((60, 60, 3), 90, dtype=np.uint8)
    (tmp_path / "train").mkdir()
    drawn = DrawnImage("a.png", image, [(3, mask)])
    save_image(drawn, tmp_path / "train" / drawn.image_id)
    write_rows([drawn], tmp_path / "train.csv")

    def shares(min_visible_share: float) -> list[float]:
        dataset = training_dataset(
            tmp_path,
            short_edge_px=(60, 60),
            flip_probability=0.0,
            geometric_augmentation=GeometricAugmentation(
                scale_jitter=(4, 4), min_visible_share=min_visible_share
            ),
        )
        found = [dataset[epoch, 0]["data_samples"].gt_instances.masks.masks for epoch in range(40)]
        return [masks[0].sum() / (240 * 120) for masks in found if len(masks)]

    assert 0 < min(shares(0.0)) < 0.03
    assert min(shares(0.05)) >= 0.05
    assert len(shares(0.05)) < len(shares(0.0)) < 40


@pytest.mark.parametrize(
    ("values", "message"),
    [
        (
            {"vertical_flip_probability": 1.5},
            "datamodule.geometric_augmentation.vertical_flip_probability must be a number from 0 "
            "to 1, got 1.5",
        ),
        (
            {"rotation_degrees": 200},
            "datamodule.geometric_augmentation.rotation_degrees must be a number from 0 to 180, "
            "got 200",
        ),
        (
            {"scale_jitter": (2, 1)},
            r"datamodule.geometric_augmentation.scale_jitter must be null or two factors from 0.1 "
            r"to 10, the least first, got \[2, 1\]",
        ),
        (
            {"copy_paste_max_instances": -1},
            "datamodule.geometric_augmentation.copy_paste_max_instances must be a whole number of "
            "at least 0, got -1",
        ),
    ],
)
def test_illegal_values_are_named(values, message):
    with pytest.raises(InputError, match=f"^{message}$"):
        GeometricAugmentation(**values)
