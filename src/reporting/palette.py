"""The colour of a category: one function of its id, for drawings, report and lab alike.

A colour depends on the id alone, so that a category looks the same on every image, page and run,
whatever else is shown beside it. Every colour contrasts at least 3:1 with white and with a dark
page (WCAG 2.2, 1.4.11), and the text on it at least 4.5:1 (1.4.3): its relative luminance is
between 0.13 and 0.285, without the narrow band in which neither black nor white text is legible.
"""

from __future__ import annotations

import colorsys
from functools import cache

Rgb = tuple[int, int, int]

# Far apart in hue and lightness, the most different ones first; readable on images.
_PALETTE = "008ad5 f36224 1b9b46 d61f89 b78900 764cd9 007771 cf222a 6c9d16 fb527c 8e5c29 4b75ff"
_COLOURS: list[Rgb] = [(rgb[0], rgb[1], rgb[2]) for rgb in map(bytes.fromhex, _PALETTE.split())]
_GOLDEN_TURN = 0.61803398875  # keeps each further hue away from the earlier ones
_FURTHER = ((0.85, 0.15), (0.6, 0.275), (0.5, 0.22))  # saturation and luminance, in turn
_DARK_TEXT, _LIGHT_TEXT = (20, 20, 20), (255, 255, 255)
_EQUAL_LUMINANCE = 0.193  # of a background on which both texts contrast alike


@cache
def category_colour(category_id: int) -> Rgb:
    """Return the colour of a category, 0-255 RGB."""
    if category_id < len(_COLOURS):
        return _COLOURS[category_id]
    number = category_id - len(_COLOURS)
    saturation, wanted = _FURTHER[number % len(_FURTHER)]
    low, high = 0.0, 1.0
    for _ in range(12):  # lightness, to less than a step of a channel
        middle = (low + high) / 2
        colour = _from_hls(number * _GOLDEN_TURN % 1, middle, saturation)
        low, high = (middle, high) if luminance(colour) < wanted else (low, middle)
    return _from_hls(number * _GOLDEN_TURN % 1, low, saturation)


def _from_hls(hue: float, lightness: float, saturation: float) -> Rgb:
    red, green, blue = colorsys.hls_to_rgb(hue, lightness, saturation)
    return round(red * 255), round(green * 255), round(blue * 255)


def luminance(colour: Rgb) -> float:
    """Return the relative luminance of WCAG 2.2, in [0, 1]."""
    linear = [
        value / 12.92 if value <= 0.04045 else ((value + 0.055) / 1.055) ** 2.4
        for value in (channel / 255 for channel in colour)
    ]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


def text_colour(background: Rgb) -> Rgb:
    """Return near-black or white, whichever contrasts more."""
    return _DARK_TEXT if luminance(background) > _EQUAL_LUMINANCE else _LIGHT_TEXT


def css_colour(colour: Rgb) -> str:
    """Return ``#rrggbb``."""
    return "#" + bytes(colour).hex()
