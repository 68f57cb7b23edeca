"""Drawings: masks, boxes and labels over an image, and the comparison with its ground truth."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

import cv2
import numpy as np
import numpy.typing as npt
from PIL import Image, ImageDraw, ImageFont

from src.annotations.competition import MatchRule
from src.metrics.competition import (
    COMPETITION_RULE,
    ClassKey,
    ImageInstances,
    match_instances,
    split_key,
)
from src.reporting.palette import Rgb, category_colour, text_colour
from src.rle import Bitmasks, decode_resized

RgbImage = npt.NDArray[np.uint8]
Cover = npt.NDArray[np.float32]
"""Share of each pixel of the image that a mask covers, (H, W)."""
Box = tuple[float, float, float, float]

_FILL_OPACITY = 0.45
_IMAGE_COLOUR = 0.55  # share of the image's own colour that stays under the masks
_DASH_PX, _GAP_PX = 7, 5
_MARGIN_PX = 10  # between the images of a row
_MARGIN_RGB = (255, 255, 255)
_MASK_EDGE_PX = 1024  # a drawing is smaller, and the masks of a large image would fill the memory
_MAX_LABELS = 24  # more than these hide the masks


@dataclass(frozen=True, slots=True)
class DrawnInstance:
    """An instance or detection to draw."""

    mask: npt.NDArray[np.bool_]  # (h, w) of any size, stretched over the image
    label: str  # short text; empty for none
    colour: Rgb
    matched: bool = True  # False: a dashed outline


def fit(image_rgb: RgbImage, edge_px: int) -> RgbImage:
    """Resize an image, (H, W, 3) uint8 RGB, to a longer edge of ``edge_px``.

    Small images are enlarged so that outlines and labels drawn on them are fine and legible.
    """
    height, width = fitting_hw(image_rgb.shape[:2], edge_px)
    how = cv2.INTER_AREA if edge_px < max(image_rgb.shape[:2]) else cv2.INTER_CUBIC
    return np.asarray(cv2.resize(image_rgb, (width, height), interpolation=how), dtype=np.uint8)


def fitting_hw(size_hw: tuple[int, ...], edge_px: int) -> tuple[int, int]:
    """Return height and width in the proportions of an image, the longer edge ``edge_px``."""
    height, width = (max(1, round(edge * (edge_px / max(size_hw)))) for edge in size_hw)
    return height, width


def draw_instances(image_rgb: RgbImage, objects: Sequence[DrawnInstance]) -> RgbImage:
    """Draw masks over an image, filled, outlined and labelled, the small ones on top.

    Args:
        image_rgb: (H, W, 3) uint8, RGB.
        objects: Their masks cover the whole image, whatever their own size; empty ones are skipped.

    Returns:
        (H, W, 3) uint8, RGB. The image's colours are muted so that those of the masks stand out.
    """
    height, width = image_rgb.shape[:2]
    gray = cv2.cvtColor(image_rgb, cv2.COLOR_RGB2GRAY)[:, :, None].astype(np.float32)
    canvas = _IMAGE_COLOUR * image_rgb + (1 - _IMAGE_COLOUR) * gray
    visible = [drawn for drawn in objects if drawn.mask.any()]
    visible.sort(key=lambda drawn: float(drawn.mask.mean()), reverse=True)
    covers = [cv2.resize(drawn.mask.astype(np.float32), (width, height)) for drawn in visible]
    shown = list(zip(visible, np.array(covers, dtype=np.float32), strict=True))
    for drawn, cover in shown:
        opacity = _FILL_OPACITY * cover[:, :, None]
        canvas = (1 - opacity) * canvas + opacity * np.array(drawn.colour, dtype=np.float32)
    canvas_rgb = np.ascontiguousarray(canvas.round().clip(0, 255).astype(np.uint8))
    for drawn, cover in shown:
        _draw_outline(canvas_rgb, cover, drawn)
    return _draw_labels(canvas_rgb, shown[::-1])


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
        edge_px: Longer edge of each of the three images.

    Returns:
        (h, 3 w + 20, 3) uint8, RGB.
    """
    resized = fit(image_rgb, edge_px)
    margin = np.full((resized.shape[0], _MARGIN_PX, 3), _MARGIN_RGB, dtype=np.uint8)
    drawn = [draw_instances(resized, objects) for objects in (ground_truth, prediction)]
    return np.concatenate([resized, margin, drawn[0], margin, drawn[1]], axis=1)


def _draw_outline(canvas_rgb: RgbImage, cover: Cover, drawn: DrawnInstance) -> None:
    inside = (cover > 0.5).astype(np.uint8)
    contours, _ = cv2.findContours(inside, cv2.RETR_CCOMP, cv2.CHAIN_APPROX_NONE)
    lines = [np.asarray(contour, dtype=np.int32).reshape(-1, 2) for contour in contours]
    dashes = [np.append(line, line[:1], axis=0) for line in lines]
    if not drawn.matched:  # a contour's points are a pixel apart
        period = _DASH_PX + _GAP_PX
        starts = [(line, start) for line in lines for start in range(0, len(line), period)]
        dashes = [line[start : start + _DASH_PX] for line, start in starts]
    cv2.polylines(canvas_rgb, dashes, False, (25, 25, 25), 3, cv2.LINE_AA)
    bright = tuple(round(0.75 * channel + 0.25 * 255) for channel in drawn.colour)
    cv2.polylines(canvas_rgb, dashes, False, bright, 2, cv2.LINE_AA)


def _draw_labels(canvas_rgb: RgbImage, objects: list[tuple[DrawnInstance, Cover]]) -> RgbImage:
    """Write the labels, in their masks if there is room, else beside.

    One that would cover another, or most of a mask, is left out.
    """
    if not any(drawn.label for drawn, _ in objects):
        return canvas_rgb
    image = Image.fromarray(canvas_rgb)
    insides = [cover > 0.5 for _, cover in objects]
    areas = [int(np.count_nonzero(inside)) for inside in insides]
    pen = ImageDraw.Draw(image)
    font = ImageFont.load_default(size=max(11, round(canvas_rgb.shape[1] / 29)))
    taken: list[Box] = []
    for drawn, cover in objects:
        if not drawn.label:
            continue
        left, top, right, bottom = pen.textbbox((0, 0), drawn.label, font=font)
        width, height = right - left + 8, bottom - top + 6
        small = [
            (inside, area)
            for inside, area in zip(insides, areas, strict=True)
            if area < 2 * width * height
        ]
        for box in _label_boxes(cover, width, height):
            if not any(_overlap(box, other) for other in taken) and not _hides_any(box, small):
                break
        else:
            continue
        taken.append(box)
        pen.rounded_rectangle(box, radius=3, fill=drawn.colour)
        place = (box[0] + 4 - left, box[1] + 3 - top)
        pen.text(place, drawn.label, fill=text_colour(drawn.colour), font=font)
    return np.array(image)


def _label_boxes(cover: Cover, width: float, height: float) -> list[Box]:
    """Return the places for a label, xyxy in the image: the mask's deepest first if it is roomy."""
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
    centres = [(x, y), *beside] if depth.max() > height else [*beside, (x, y)]
    most_x, most_y = max(0.0, cover.shape[1] - width), max(0.0, cover.shape[0] - height)
    corners = [(max(0.0, x - width / 2), max(0.0, y - height / 2)) for x, y in centres]
    corners = [(min(x, most_x), min(y, most_y)) for x, y in corners]
    return [(x, y, x + width, y + height) for x, y in corners]


def _hides_any(box: Box, masks: Iterable[tuple[npt.NDArray[np.bool_], int]]) -> bool:
    """Return whether a box covers more than half of a mask, given with its area."""
    left, top, right, bottom = map(round, box)
    return any(
        2 * np.count_nonzero(inside[top:bottom, left:right]) > area for inside, area in masks
    )


def _overlap(a: Box, b: Box) -> bool:
    return a[0] < b[2] and b[0] < a[2] and a[1] < b[3] and b[1] < a[3]


@dataclass(frozen=True, slots=True)
class ClassInImage:
    """Result of one class in one image."""

    name: str  # short
    attributes: tuple[int, ...]  # if they are part of the class
    colour: Rgb
    num_ground_truth: int
    num_detections: int
    value: float  # mean over thresholds of TP / (TP + FP + FN), in [0, 1]


@dataclass(frozen=True, slots=True)
class DrawnComparison:
    """Ground truth and detections of one image, ready to be drawn."""

    ground_truth: tuple[DrawnInstance, ...]
    prediction: tuple[DrawnInstance, ...]
    classes: tuple[ClassInImage, ...]
    matched: int  # pairs with IoU > 0.5


def compare_instances(
    ground_truth: ImageInstances,
    prediction: ImageInstances,
    category_names: Mapping[int, str],
    rule: MatchRule = COMPETITION_RULE,
) -> DrawnComparison:
    """Match the detections of one image with its ground truth; give each a label and a colour.

    A category has the same colour on both sides and on every image. A detection's label has its
    confidence, where that is known, and the IoU of its match; what has no match gets a dashed
    outline. Data of one class needs no name on each label, and a side of more than 24 instances
    has no labels.
    """
    matches = match_instances(ground_truth, prediction, rule)
    names = {key: _name_of(key, category_names) for key in matches.class_keys}
    labels = names if len(category_names) > 1 else dict.fromkeys(names, "")
    counts = (matches.num_ground_truth(), matches.num_detections())
    columns = (*counts, matches.class_values().mean(axis=1))
    return DrawnComparison(
        ground_truth=_drawn(ground_truth, matches.ground_truth_iou, labels, has_facts=False),
        prediction=_drawn(prediction, matches.prediction_iou, labels, has_facts=True),
        classes=tuple(
            ClassInImage(
                names[key],
                split_key(key)[1],
                category_colour(split_key(key)[0]),
                true,
                predicted,
                value,
            )
            for key, true, predicted, value in zip(
                matches.class_keys, *(column.tolist() for column in columns), strict=True
            )
        ),
        matched=int(np.count_nonzero(matches.ground_truth_iou)),
    )


def draw_alone(prediction: ImageInstances, category_names: Mapping[int, str]) -> DrawnComparison:
    """Give each detection of an image without ground truth a label and a colour."""
    names = {key: _name_of(key, category_names) for key in prediction.class_keys}
    labels = names if len(category_names) != 1 else dict.fromkeys(names, "")
    drawn = _drawn(prediction, np.zeros(len(prediction)), labels, has_facts=True)
    counts = Counter(prediction.class_keys)
    return DrawnComparison(
        ground_truth=(),
        prediction=tuple(replace(one, matched=True) for one in drawn),
        classes=tuple(
            ClassInImage(
                names[key], split_key(key)[1], category_colour(split_key(key)[0]), 0, number, 0.0
            )
            for key, number in counts.items()
        ),
        matched=0,
    )


def _name_of(key: ClassKey, category_names: Mapping[int, str]) -> str:
    category = split_key(key)[0]
    return short_name(category_names.get(category, str(category)))


def short_name(name: str) -> str:
    """Return the part of a name that fits on a drawing: ``headband`` of ``headband, hat``."""
    return name.split(",")[0]


def _drawn(
    objects: ImageInstances,
    ious: npt.NDArray[np.float64],
    labels: Mapping[ClassKey, str],
    has_facts: bool,
) -> tuple[DrawnInstance, ...]:
    known = len(objects) * [None] if objects.scores is None else objects.scores.tolist()

    def label(key: ClassKey, iou: float, confidence: float | None) -> str:
        if len(objects) > _MAX_LABELS:
            return ""
        facts = describe_match(confidence, iou) if has_facts else ""
        return f"{labels[key]} {facts}".strip()

    return tuple(
        DrawnInstance(
            mask=mask,
            label=label(key, iou, confidence),
            colour=category_colour(split_key(key)[0]),
            matched=bool(iou),
        )
        for key, mask, iou, confidence in zip(
            objects.class_keys, drawable_masks(objects.bitmasks), ious.tolist(), known, strict=True
        )
    )


def drawable_masks(
    masks: Bitmasks, *, edge_px: int = _MASK_EDGE_PX
) -> Iterable[npt.NDArray[np.bool_]]:
    """Return masks as bitmaps, each (h, w) bool; those of a raster with a longer edge, reduced."""
    if max(masks.raster_hw) <= edge_px:
        return masks.unpack()
    grid_hw = fitting_hw(masks.raster_hw, edge_px)
    return [decode_resized(mask, grid_hw) for mask in masks.to_rle()]


def describe_match(confidence: float | None, iou: float) -> str:
    """Return a detection's confidence and the IoU of its match: ``0.93 IoU 0.81``."""
    parts = ["" if confidence is None else f"{confidence:.2f}", f"IoU {iou:.2f}" if iou else ""]
    return " ".join(filter(None, parts))
