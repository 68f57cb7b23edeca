"""Colours that tell the classes of one picture apart."""

from __future__ import annotations

import colorsys
from collections.abc import Hashable, Iterable
from typing import TypeVar

Key = TypeVar("Key", bound=Hashable)
Rgb = tuple[int, int, int]

# Picked far apart in hue and lightness, most different ones first; readable on photos.
_PALETTE: tuple[Rgb, ...] = (
    (0, 158, 214),
    (240, 110, 60),
    (38, 166, 91),
    (214, 72, 150),
    (242, 183, 5),
    (124, 92, 214),
    (0, 112, 104),
    (214, 55, 55),
    (140, 190, 40),
    (255, 145, 178),
    (176, 112, 48),
    (90, 130, 255),
)
_GOLDEN_TURN = 0.61803398875  # successive hues never come close to an earlier one


def class_colours(class_keys: Iterable[Key]) -> dict[Key, Rgb]:
    """Give each class of a picture its own colour, 0-255 RGB, in the order of first appearance."""
    colours: dict[Key, Rgb] = {}
    for key in class_keys:
        if key not in colours:
            colours[key] = _colour(len(colours))
    return colours


def _colour(index: int) -> Rgb:
    if index < len(_PALETTE):
        return _PALETTE[index]
    later = index - len(_PALETTE)
    lightness = (0.55, 0.4, 0.7)[later % 3]
    red, green, blue = colorsys.hls_to_rgb(later * _GOLDEN_TURN % 1, lightness, 0.75)
    return round(red * 255), round(green * 255), round(blue * 255)


def text_colour(background: Rgb) -> Rgb:
    """Return near-black or white, whichever contrasts more (WCAG 2.2, relative luminance)."""
    linear = (
        value / 12.92 if value <= 0.04045 else ((value + 0.055) / 1.055) ** 2.4
        for value in (channel / 255 for channel in background)
    )
    luminance = sum(
        weight * value for weight, value in zip((0.2126, 0.7152, 0.0722), linear, strict=True)
    )
    return (20, 20, 20) if (luminance + 0.05) ** 2 > 1.05 * 0.056 else (255, 255, 255)


def css_colour(colour: Rgb) -> str:
    """Return ``#rrggbb``."""
    return "#{:02x}{:02x}{:02x}".format(*colour)
