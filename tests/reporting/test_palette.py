"""Colours of categories: the same everywhere, apart from each other, legible."""

from __future__ import annotations

import numpy as np
import pytest

from src.metrics.competition import ImageInstances
from src.reporting.drawing import compare_instances
from src.reporting.palette import category_colour, css_colour, luminance, text_colour
from src.rle import Bitmasks

PAGES = ((0xFB, 0xFA, 0xF7), (0x14, 0x15, 0x17))  # report, light and dark


def contrast(one, other):
    low, high = sorted([luminance(one), luminance(other)])
    return (high + 0.05) / (low + 0.05)


def test_a_category_has_one_colour_whatever_stands_beside_it():
    bits = np.packbits(np.arange(64) < 9, bitorder="little")[None].repeat(3, axis=0)
    names = dict(enumerate(["shirt", "top", "sweater", "cardigan"]))

    def drawn(*categories):
        instances = ImageInstances("a", categories, Bitmasks(bits, (8, 8)))
        sides = compare_instances(instances, instances, names)
        legend = dict(zip(categories, (one.colour for one in sides.classes), strict=True))
        masks = dict(zip(categories, (one.colour for one in sides.prediction), strict=True))
        assert legend == masks
        return masks

    one, other = drawn(3, 1, 2), drawn(0, 2, 3)
    assert {key: one[key] for key in (2, 3)} == {key: other[key] for key in (2, 3)}
    assert one[3] == category_colour(3)


def test_colours_are_distinct():
    assert len({category_colour(number) for number in range(46)}) == 46
    assert len({category_colour(number) for number in range(91)}) == 91  # COCO's ids
    first = np.array([category_colour(number) for number in range(12)])
    distances = np.linalg.norm(first[:, None] - first[None], axis=2)
    assert distances[~np.eye(12, dtype=bool)].min() > 55


@pytest.mark.parametrize("start", [0, 500, 32000])
def test_colours_contrast_with_pages_and_with_their_text(start):
    for number in range(start, start + 300):
        colour = category_colour(number)
        assert min(contrast(colour, page) for page in PAGES) >= 3, number
        assert contrast(colour, text_colour(colour)) >= 4.5, number


def test_css_colour():
    assert css_colour((0, 158, 214)) == "#009ed6"
