"""Draw masks, boxes and labels on images."""

from __future__ import annotations

import colorsys
from collections.abc import Hashable, Iterable, Sequence
from dataclasses import dataclass
from typing import TypeVar

import cv2
import numpy as np
import numpy.typing as npt
from PIL import Image, ImageDraw, ImageFont

Key = TypeVar("Key", bound=Hashable)
Rgb = tuple[int, int, int]

# Picked far apart in hue and lightness, most different ones first; readable on images.
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
    """Give each class of an image its own colour, 0-255 RGB, in the order of first appearance."""
    return {key: _colour(number) for number, key in enumerate(dict.fromkeys(class_keys))}


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


RgbImage = npt.NDArray[np.uint8]
Box = tuple[float, float, float, float]

_FILL_OPACITY = 0.45
_IMAGE_COLOUR = 0.55  # how much of the image's own colour stays under the masks
_DASH_PX, _GAP_PX = 7, 5
_MARGIN_PX = 10  # between the images of a row
_MARGIN_RGB = (255, 255, 255)


@dataclass(frozen=True, slots=True)
class DrawnInstance:
    """One object to draw."""

    mask: npt.NDArray[np.bool_]  # (h, w) of any size: it is stretched over the image
    label: str  # short text; empty for none
    colour: Rgb
    matched: bool = True  # False: a dashed outline


def fit(image_rgb: RgbImage, edge_px: int) -> RgbImage:
    """Shrink or enlarge an image to a longer edge of ``edge_px``. (H, W, 3) uint8, RGB.

    Small images are enlarged so that outlines and labels drawn on them are fine and legible.
    """
    height, width = image_rgb.shape[:2]
    scale = edge_px / max(height, width)
    size = (max(1, round(width * scale)), max(1, round(height * scale)))
    how = cv2.INTER_AREA if scale < 1 else cv2.INTER_CUBIC
    return np.asarray(cv2.resize(image_rgb, size, interpolation=how), dtype=np.uint8)


def draw_instances(image_rgb: RgbImage, objects: Sequence[DrawnInstance]) -> RgbImage:
    """Draw masks over an image: filled, outlined, with their labels; large ones below small ones.

    Args:
        image_rgb: (H, W, 3) uint8, RGB.
        objects: Whose masks cover the image's frame, whatever their own size. Empty ones are left
            out.

    Returns:
        (H, W, 3) uint8, RGB. The image's colours are muted so that those of the masks speak.
    """
    height, width = image_rgb.shape[:2]
    gray = cv2.cvtColor(image_rgb, cv2.COLOR_RGB2GRAY)[:, :, None].astype(np.float32)
    canvas = _IMAGE_COLOUR * image_rgb + (1 - _IMAGE_COLOUR) * gray
    shown = sorted(
        (drawn for drawn in objects if drawn.mask.any()),
        key=lambda drawn: float(drawn.mask.mean()),
        reverse=True,
    )
    coverage = [_cover(drawn.mask, height, width) for drawn in shown]
    for drawn, cover in zip(shown, coverage, strict=True):
        opacity = _FILL_OPACITY * cover[:, :, None]
        canvas = (1 - opacity) * canvas + opacity * np.array(drawn.colour, dtype=np.float32)
    canvas_rgb = np.ascontiguousarray(canvas.round().clip(0, 255).astype(np.uint8))
    for drawn, cover in zip(shown, coverage, strict=True):
        _draw_outline(canvas_rgb, cover, drawn)
    return _draw_labels(canvas_rgb, list(zip(shown, coverage, strict=True))[::-1])


def draw_side_by_side(
    image_rgb: RgbImage,
    ground_truth: Sequence[DrawnInstance],
    prediction: Sequence[DrawnInstance],
    *,
    edge_px: int = 640,
) -> RgbImage:
    """Draw image, ground truth and detections in a row, as for a file or a logger.

    Args:
        image_rgb: (H, W, 3) uint8, RGB, of any size.
        ground_truth: Ground-truth instances.
        prediction: Detections.
        edge_px: Longer edge of each of the three images.

    Returns:
        (h, 3 w + 20, 3) uint8, RGB, burnt in: nothing depends on a viewer's overlays.
    """
    resized = fit(image_rgb, edge_px)
    margin = np.full((resized.shape[0], _MARGIN_PX, 3), _MARGIN_RGB, dtype=np.uint8)
    drawn = [draw_instances(resized, objects) for objects in (ground_truth, prediction)]
    return np.concatenate([resized, margin, drawn[0], margin, drawn[1]], axis=1)


def _cover(mask: npt.NDArray[np.bool_], height: int, width: int) -> npt.NDArray[np.float32]:
    """Return how much of each pixel of the image a mask covers. (H, W) float32 in [0, 1]."""
    cover = cv2.resize(mask.astype(np.float32), (width, height), interpolation=cv2.INTER_LINEAR)
    return np.asarray(cover, dtype=np.float32)


def _draw_outline(
    canvas_rgb: RgbImage, cover: npt.NDArray[np.float32], drawn: DrawnInstance
) -> None:
    inside = (cover > 0.5).astype(np.uint8)
    contours, _ = cv2.findContours(inside, cv2.RETR_CCOMP, cv2.CHAIN_APPROX_NONE)
    lines = [np.asarray(contour, dtype=np.int32).reshape(-1, 2) for contour in contours]
    dashes = [np.append(line, line[:1], axis=0) for line in lines]
    if not drawn.matched:
        dashes = [dash for line in lines for dash in _dashes(line)]
    cv2.polylines(canvas_rgb, dashes, False, (25, 25, 25), 3, cv2.LINE_AA)
    bright = tuple(round(0.75 * channel + 0.25 * 255) for channel in drawn.colour)
    cv2.polylines(canvas_rgb, dashes, False, bright, 2, cv2.LINE_AA)


def _dashes(line: npt.NDArray[np.int32]) -> list[npt.NDArray[np.int32]]:
    """Cut a contour, whose points are a pixel apart, into dashes."""
    period = _DASH_PX + _GAP_PX
    return [line[start : start + _DASH_PX] for start in range(0, len(line), period)]


def _draw_labels(
    canvas_rgb: RgbImage, objects: Sequence[tuple[DrawnInstance, npt.NDArray[np.float32]]]
) -> RgbImage:
    """Write the labels, in their masks where there is room, else beside them.

    One that would cover another is left out.
    """
    image = Image.fromarray(canvas_rgb)
    pen = ImageDraw.Draw(image)
    font = ImageFont.load_default(size=max(11, round(canvas_rgb.shape[1] / 29)))
    taken: list[Box] = []
    for drawn, cover in objects:
        if not drawn.label:
            continue
        left, top, right, bottom = pen.textbbox((0, 0), drawn.label, font=font)
        width, height = right - left + 8, bottom - top + 6
        boxes = (
            _within(place, width, height, image.width, image.height)
            for place in _label_places(cover, width, height)
        )
        box = next((box for box in boxes if not any(_overlap(box, old) for old in taken)), None)
        if box is None:
            continue
        taken.append(box)
        pen.rounded_rectangle(box, radius=3, fill=drawn.colour)
        place = (box[0] + 4 - left, box[1] + 3 - top)
        pen.text(place, drawn.label, fill=text_colour(drawn.colour), font=font)
    return np.array(image)


def _label_places(
    cover: npt.NDArray[np.float32], width: float, height: float
) -> list[tuple[float, float]]:
    """Return x and y of label centres to try: the mask's deepest place first where it is roomy."""
    inside = np.pad((cover > 0.5).astype(np.uint8), 1)
    if not inside.any():  # smaller than a pixel of this image
        return []
    depth = cv2.distanceTransform(inside, cv2.DIST_L2, 3)[1:-1, 1:-1]
    y, x = (float(place) for place in np.unravel_index(int(np.argmax(depth)), depth.shape))
    rows, columns = (np.flatnonzero(inside.any(axis=axis)) - 1 for axis in (1, 0))
    middle = (columns[0] + columns[-1]) / 2
    beside = [
        (middle, rows[0] - height / 2 - 3),
        (middle, rows[-1] + height / 2 + 3),
        (columns[-1] + width / 2 + 3, y),
        (columns[0] - width / 2 - 3, y),
    ]
    return [(x, y), *beside] if depth.max() > height else [*beside, (x, y)]


def _within(
    centre: tuple[float, float], width: float, height: float, right: int, bottom: int
) -> Box:
    """Return the box (x0, y0, x1, y1) of this size around a place, moved into the image."""
    x = min(max(0.0, centre[0] - width / 2), max(0.0, right - width))
    y = min(max(0.0, centre[1] - height / 2), max(0.0, bottom - height))
    return x, y, x + width, y + height


def _overlap(a: Box, b: Box) -> bool:
    return a[0] < b[2] and b[0] < a[2] and a[1] < b[3] and b[1] < a[3]
