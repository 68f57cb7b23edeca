"""Small drawings of a report's images: a JPEG of each and the outlines of its masks.

The page's script draws them, so that masks, boxes and labels can be switched on and off. Their
number and size are limited; images past the limits are in the page without a drawing.
"""

from __future__ import annotations

import base64
import io
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import cv2
import numpy as np
import numpy.typing as npt
from markupsafe import Markup
from PIL import Image

from src.annotations.competition import MatchRule
from src.annotations.image_files import read_image_rgb
from src.annotations.image_names import find_image
from src.annotations.instances import ImageRecord
from src.errors import InputError
from src.metrics.competition import ImageInstances, ImageMatches, match_instances
from src.metrics.errors import KINDS, ObjectError, find_errors
from src.reporting.drawing import RgbImage, fit, fitting_hw
from src.reporting.gallery import NONE, Gallery
from src.rle import decode_resized

_GRID_PX = 512  # longer edge of the grid of the outlines
_TOLERANCE_PX = 0.6  # of the outlines, on that grid
_QUALITY = 70


class PageImages(Protocol):
    """The images of a report."""

    @property
    def rule(self) -> MatchRule:
        """When a detection is a true positive."""

    def record(self, image_id: str) -> ImageRecord:
        """Return the file's name and the size of an image."""

    def pair(self, image_id: str) -> tuple[ImageInstances | None, ImageInstances]:
        """Return the ground truth of an image, None where there is none, and its detections."""


@dataclass(frozen=True, slots=True)
class Limits:
    """How much of the images a page may hold."""

    max_images: int  # images with a drawing
    max_size_mb: float  # of all drawings
    image_px: int  # longer edge of an image


@dataclass(frozen=True, slots=True)
class Drawings:
    """The drawings of a page."""

    texts: Sequence[Markup]  # JSON of each
    place_of: Mapping[str, int]  # of the drawing of an image, by image id
    problems: Mapping[str, str]  # why an image could not be read, by image id
    limit: str | None  # the key whose value left images out


def draw_images(
    image_ids: Iterable[str],
    images: PageImages,
    gallery: Gallery,
    *,
    images_directory: str | Path | None,
    limits: Limits,
) -> Drawings:
    """Draw images in an order until a limit is reached; the rest stays without a drawing.

    Args:
        image_ids: The images, the most wanted first.
        images: Their ground truth and detections.
        gallery: Gives a class its index.
        images_directory: Folder of the images; None: a plain surface in place of each.
        limits: How many, and how large.
    """
    texts: list[Markup] = []
    place_of: dict[str, int] = {}
    problems: dict[str, str] = {}
    left_bytes, limit = limits.max_size_mb * 1e6, None
    for image_id in image_ids:
        if len(texts) == limits.max_images:
            limit = f"max_images={limits.max_images}"
            break
        record = images.record(image_id)
        image, problem = read_small(images_directory, record, limits.image_px)
        if problem is not None:
            problems[image_id] = problem
        sides = _sides(images, image_id, record.size_hw, gallery)
        text = drawing_text(image, record.size_hw, sides, image_px=limits.image_px)
        left_bytes -= len(text)
        if left_bytes < 0:
            limit = f"max_size_mb={limits.max_size_mb:g}"
            break
        place_of[image_id] = len(texts)
        texts.append(text)
    return Drawings(texts, place_of, problems, limit)


def read_small(
    images_directory: str | Path | None, record: ImageRecord, edge_px: int
) -> tuple[RgbImage | None, str | None]:
    """Return an image of at least the edge where it has as much, or why it cannot be read."""
    if images_directory is None:
        return None, None
    try:
        path = find_image(images_directory, record.file_name)
        return read_image_rgb(path, at_least_hw=fitting_hw(record.size_hw, edge_px)), None
    except InputError as error:
        return None, str(error)


def _sides(
    images: PageImages, image_id: str, size_hw: tuple[int, int], gallery: Gallery
) -> dict[str, list[list[Any]]]:
    ground_truth, prediction = images.pair(image_id)
    if ground_truth is None:
        num = len(prediction)
        alone = [ObjectFacts(0.0, NONE, is_matched=True)] * num
        found = describe_objects(prediction, size_hw, gallery, alone)
        return {"truth": [], "detections": found}
    matches = match_instances(ground_truth, prediction, images.rule)
    errors = find_errors(ground_truth, prediction, matches)
    described = [
        describe_objects(side, size_hw, gallery, facts)
        for side, facts in zip(
            (ground_truth, prediction), match_facts(matches, errors), strict=True
        )
    ]
    return dict(zip(("truth", "detections"), described, strict=True))


def drawing_text(
    image_rgb: RgbImage | None,
    size_hw: tuple[int, int],
    sides: Mapping[str, list[list[Any]]],
    *,
    image_px: int,
) -> Markup:
    """Return the drawing of an image as JSON that may stand in a page.

    Args:
        image_rgb: (H, W, 3) uint8; None: a plain surface.
        size_hw: Of the image, for its proportions.
        sides: The objects of ``truth`` and ``detections``, see ``describe_objects``.
        image_px: Longer edge of the JPEG; a smaller image stays as it is.
    """
    height, width = fitting_hw(size_hw, _GRID_PX)
    jpeg = ""
    if image_rgb is not None:
        small = fit(image_rgb, min(image_px, max(image_rgb.shape[:2])))
        jpeg = base64.b64encode(encode_jpeg(small, _QUALITY)).decode("ascii")
    return json_for_page({"size": [width, height], "jpeg": jpeg, **sides})


def encode_jpeg(image_rgb: RgbImage, quality: int) -> bytes:
    """Return an image, (H, W, 3) uint8 RGB, as a JPEG file."""
    buffer = io.BytesIO()
    Image.fromarray(image_rgb).save(buffer, "JPEG", quality=quality, optimize=True)
    return buffer.getvalue()


@dataclass(frozen=True, slots=True)
class ObjectFacts:
    """How an instance or a detection is matched."""

    iou: float  # of the match, else of the error's pair; 0: neither
    kind: int  # index into ``KINDS``, NONE: no error
    is_matched: bool


def describe_objects(
    objects: ImageInstances,
    size_hw: tuple[int, int],
    gallery: Gallery,
    facts: Sequence[ObjectFacts],
) -> list[list[Any]]:
    """Return each object as class, confidence, IoU, kind of error, box, outline, and if it matches.

    Args:
        objects: On any raster.
        size_hw: Of the image, for its proportions.
        gallery: Gives a class its index.
        facts: Of each object.
    """
    known = len(objects) * [None] if objects.scores is None else objects.scores.tolist()
    outlines = [
        outline(decode_resized(mask, fitting_hw(size_hw, _GRID_PX)))
        for mask in objects.bitmasks.to_rle()
    ]
    return [
        [
            gallery.index_of(key),
            None if confidence is None else round(confidence, 3),
            round(fact.iou, 3),
            fact.kind,
            box,
            path,
            int(fact.is_matched),
        ]
        for key, confidence, fact, (box, path) in zip(
            objects.class_keys, known, facts, outlines, strict=True
        )
    ]


def outline(mask: npt.NDArray[np.bool_]) -> tuple[list[int], str]:
    """Return the box (x0, y0, x1, y1) of a mask and its outline as an SVG path, holes included."""
    contours, _ = cv2.findContours(mask.astype(np.uint8), cv2.RETR_CCOMP, cv2.CHAIN_APPROX_SIMPLE)
    parts, points = [], []
    for contour in contours:
        line = np.asarray(cv2.approxPolyDP(contour, _TOLERANCE_PX, True)).reshape(-1, 2)
        points.append(line)
        (x, y), steps = line[0], np.diff(line, axis=0)
        moves = " ".join(f"{dx} {dy}" for dx, dy in steps.tolist())
        parts.append(f"M{x} {y}{f'l{moves}' if moves else 'h0'}z")
    if not points:
        return [0, 0, 0, 0], ""
    every = np.concatenate(points)
    low, high = every.min(axis=0).tolist(), every.max(axis=0).tolist()
    return [*low, high[0] + 1, high[1] + 1], "".join(parts)


def match_facts(
    matches: ImageMatches, errors: Sequence[ObjectError]
) -> tuple[list[ObjectFacts], list[ObjectFacts]]:
    """Return how the instances are matched, and how the detections."""
    sides: tuple[list[ObjectFacts], list[ObjectFacts]] = ([], [])
    for side, ious in zip(sides, (matches.ground_truth_iou, matches.prediction_iou), strict=True):
        side += [ObjectFacts(iou, NONE, iou > 0) for iou in ious.tolist()]
    for error in errors:
        for side, place in zip(sides, (error.ground_truth, error.detection), strict=True):
            if place is not None:
                known = side[place]
                side[place] = ObjectFacts(
                    known.iou or error.iou, KINDS.index(error.kind), known.is_matched
                )
    return sides


def json_for_page(value: Any) -> Markup:
    """Return JSON that is safe inside of a ``script`` element: no character of it is markup."""
    text = json.dumps(value, separators=(",", ":"), allow_nan=False)
    for character in "<>&":
        text = text.replace(character, f"\\u{ord(character):04x}")
    return Markup(text)
