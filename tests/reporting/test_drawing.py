"""Drawings: what is coloured, what is left alone, and in which order."""

from __future__ import annotations

from dataclasses import replace

import cv2
import numpy as np
import pytest

from src.reporting.drawing import (
    DrawnInstance,
    draw_instances,
    draw_side_by_side,
    drawable_masks,
    fit,
)
from src.reporting.palette import category_colour
from src.rle import Bitmasks

RED, BLUE = (220, 0, 0), (0, 0, 220)


def gray_image(height=120, width=80):
    return np.full((height, width, 3), 128, dtype=np.uint8)


def box(y0, x0, y1, x1, size_hw=(120, 80)):
    mask = np.zeros(size_hw, dtype=bool)
    mask[y0:y1, x0:x1] = True
    return mask


def test_inside_is_tinted_and_outside_is_the_image_muted():
    image = np.zeros((120, 80, 3), dtype=np.uint8)
    image[:, :, 1] = 200
    drawn = draw_instances(image, [DrawnInstance(box(20, 20, 60, 60), "", RED)])
    plain = draw_instances(image, [])
    assert drawn.shape == image.shape
    assert drawn.dtype == np.uint8
    changed = (drawn != plain).any(axis=2)
    assert changed[22:58, 22:58].all()
    assert not changed[:16].any()
    assert not changed[64:].any()
    assert not changed[:, :16].any()
    assert drawn[40, 40, 0] > plain[40, 40, 0] + 50
    assert image[0, 0].tolist() == [0, 200, 0], "the image itself is not drawn on"
    assert plain[0, 0, 1] > plain[0, 0, 0] > 0, "green still, but paler"


def test_masks_of_any_size_are_stretched_over_the_image():
    on_raster = DrawnInstance(box(0, 0, 512, 256, (512, 512)), "", RED)
    drawn = draw_instances(gray_image(), [on_raster])
    assert drawn[60, 20, 0] > drawn[60, 20, 2]
    assert drawn[60, 60, 0] == drawn[60, 60, 2]


@pytest.mark.parametrize("order", [(0, 1), (1, 0)])
def test_a_small_object_lies_over_a_large_one(order):
    objects = [
        DrawnInstance(box(10, 10, 110, 70), "", RED),
        DrawnInstance(box(40, 30, 60, 50), "", BLUE),
    ]
    drawn = draw_instances(gray_image(), [objects[number] for number in order])
    assert drawn[50, 40, 2] > drawn[50, 40, 0]
    assert drawn[90, 40, 0] > drawn[90, 40, 2]


def test_outline_of_an_object_without_match_is_dashed():
    def outlined(matched):
        drawn = draw_instances(
            gray_image(), [DrawnInstance(box(20, 20, 100, 60), "", RED, matched=matched)]
        )
        edge = drawn[30:90, 19:22].astype(int)
        return (edge[:, :, 0] - edge[:, :, 1]).max(axis=1)

    solid, dashed = outlined(True), outlined(False)
    assert (solid > 100).all()
    assert 0.3 < (dashed > 100).mean() < 0.9


def test_empty_masks_and_masks_below_a_pixel_are_left_out():
    image = gray_image()
    empty = DrawnInstance(np.zeros((512, 512), dtype=bool), "nothing", RED)
    assert (draw_instances(image, [empty]) == draw_instances(image, [])).all()
    speck = np.zeros((512, 512), dtype=bool)
    speck[256, 256] = True
    draw_instances(gray_image(40, 30), [DrawnInstance(speck, "speck", RED)])


def test_labels_do_not_cover_each_other():
    """Ten objects in one place: each label is drawn once at most, in its own solid box."""
    image = gray_image(300, 300)
    colours = [category_colour(number) for number in range(10)]
    mask = box(140, 140, 160, 160, (300, 300))
    objects = [DrawnInstance(mask, f"label {number}", c) for number, c in enumerate(colours)]
    drawn = draw_instances(image, objects)
    boxes = []
    for colour in colours:
        exact = (drawn == np.array(colour)).all(axis=2).astype(np.uint8)
        opened = cv2.morphologyEx(exact, cv2.MORPH_OPEN, np.ones((3, 9), dtype=np.uint8))
        if opened.any():
            ys, xs = np.nonzero(opened)
            boxes.append((xs.min(), ys.min(), xs.max(), ys.max()))
    assert len(boxes) >= 3
    for i, a in enumerate(boxes):
        for b in boxes[:i]:
            assert a[0] > b[2] or b[0] > a[2] or a[1] > b[3] or b[1] > a[3]


def test_a_label_hides_no_small_mask():
    """Of a grid of small objects, where any label covers a neighbour, each is seen."""
    corners = [(x, y) for x in range(20, 280, 24) for y in range(20, 280, 24)]
    objects = [
        DrawnInstance(box(x, y, x + 16, y + 16, (300, 300)), "0.93 IoU 0.81", RED)
        for x, y in corners
    ]
    image = gray_image(300, 300)
    plain = [replace(one, label="") for one in objects]
    same = (draw_instances(image, objects) == draw_instances(image, plain)).all(axis=2)
    assert not same.all()  # there is room for some, outside of the grid
    for x, y in corners:
        assert same[y : y + 16, x : x + 16].mean() > 0.4


@pytest.mark.parametrize("label", ["a", "a label much wider than the image is", "été ✕ 服"])
def test_any_label_fits_any_image(label):
    for size in ((1, 1), (7, 300), (300, 7)):
        image = gray_image(*size)
        drawn = draw_instances(image, [DrawnInstance(np.ones((4, 4), dtype=bool), label, RED)])
        assert drawn.shape == image.shape


def test_side_by_side_is_image_truth_prediction():
    image = np.random.default_rng(0).integers(0, 255, (300, 200, 3), dtype=np.uint8)
    ground_truth = [DrawnInstance(box(0, 0, 512, 256, (512, 512)), "", RED)]
    prediction = [DrawnInstance(box(0, 256, 512, 512, (512, 512)), "", BLUE)]
    row = draw_side_by_side(image, ground_truth, prediction, edge_px=150)
    assert row.shape == (150, 3 * 100 + 20, 3)
    small = fit(image, 150)
    assert (row[:, :100] == small).all()
    assert (row[:, 100:110] == 255).all()
    assert (row[:, 110:210] == draw_instances(small, ground_truth)).all()
    assert (row[:, 220:] == draw_instances(small, prediction)).all()


@pytest.mark.parametrize(
    ("size", "expected"),
    [((4000, 1000), (640, 160)), ((300, 200), (640, 427)), ((9000, 2), (640, 1))],
)
def test_fit_keeps_proportions(size, expected):
    assert fit(gray_image(*size), 640).shape[:2] == expected


def test_masks_of_a_large_raster_are_reduced_before_they_are_unpacked():
    large = box(500, 1000, 1500, 3000, (2000, 4000))
    masks = Bitmasks.pack(np.stack([large, ~large]))
    first, second = drawable_masks(masks)
    assert first.shape == (512, 1024)
    assert (first == large[(np.arange(512) * 2000 // 512)][:, np.arange(1024) * 4000 // 1024]).all()
    assert (second == ~first).all()
    (same, _) = drawable_masks(masks, edge_px=4000)
    assert (same == large).all()
