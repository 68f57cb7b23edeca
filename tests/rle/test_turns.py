"""Masks, boxes and points turned as Pillow turns the image."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.testing import assert_array_equal
from PIL import Image, ImageOps

from src.rle import RleBatch, encode
from src.rle.raster import edges_between_columns, turn, turn_box


@pytest.mark.parametrize("orientation", range(1, 9))
def test_turns_are_those_of_pillow(orientation):
    generator = np.random.default_rng(orientation)
    for _ in range(20):
        mask = np.zeros((30, 47), dtype=bool)
        top, left, height, width = generator.integers(1, (20, 35, 12, 13))
        mask[top : top + height, left : left + width] = True
        mask &= generator.random(mask.shape) < 0.8
        image = Image.fromarray(mask.astype(np.uint8))
        image.getexif()[0x0112] = orientation
        turned = np.asarray(ImageOps.exif_transpose(image)).astype(bool)
        found = turn(encode(mask), orientation)
        assert found == encode(turned)
        if mask.any():
            (box,) = RleBatch.of([encode(mask)]).boxes_xyxy().tolist()
            (wanted,) = RleBatch.of([found]).boxes_xyxy()
            assert_array_equal(turn_box(box, mask.shape, orientation), wanted)


def test_edges_between_columns():
    mask = np.array([[0, 1, 1, 0], [1, 1, 0, 0], [1, 0, 1, 1]], dtype=bool)
    padded = np.pad(mask, ((0, 0), (1, 1))).astype(int)
    assert edges_between_columns(encode(mask).runs, 3) == np.abs(np.diff(padded, axis=1)).sum()
