"""Masks of COCO's polygons."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from pycocotools import mask as coco_mask

from src.rle import Rle, RleError, from_coco
from src.rle.masks import NO_RUNS

MIN_COORDINATES = 6  # of a polygon: three points
_FARTHEST_PX = 100_000  # pycocotools walks along every edge, also where no image is


def from_polygons(polygons: Sequence[Sequence[float]], size_hw: tuple[int, int]) -> Rle:
    """Return the union of polygons, rasterised by pycocotools as in every COCO tool.

    Args:
        polygons: Each ``[x1, y1, x2, y2, ...]`` in pixels. One of fewer than three points has no
            area and is left out where another one has three.
        size_hw: Height and width of the image.

    Raises:
        RleError: A polygon that is no list of numbers or of an odd number of them, none of
            three points, or a coordinate that is not finite or far beyond any image; or all
            coordinates lie within 0 and 1, as those divided by width and height do.
    """
    height_px, width_px = size_hw
    checked = []
    too_short: str | None = None
    for index, polygon in enumerate(polygons):
        name = f"polygon {index + 1} of {len(polygons)}"
        try:
            coordinates = np.asarray(polygon, dtype=np.float64)
        except (TypeError, ValueError):
            raise RleError(f"{name} must hold numbers, got {str(polygon)[:60]}") from None
        if coordinates.ndim != 1:
            raise RleError(f"{name} must be one list of coordinates, got {str(polygon)[:60]}")
        is_short = len(coordinates) < MIN_COORDINATES
        if len(coordinates) % 2 or is_short:
            problem = (
                f"{name} must be x1, y1, x2, y2, ... of at least 3 points, got {len(coordinates)} "
                "coordinates"
            )
            if len(coordinates) % 2:
                raise RleError(problem)
            too_short = too_short or problem
        outside = np.flatnonzero(~(np.abs(coordinates) <= _FARTHEST_PX))
        if len(outside):
            raise RleError(
                f"{name}: coordinate {outside[0] + 1} must be from -{_FARTHEST_PX} to "
                f"{_FARTHEST_PX}, got {coordinates[outside[0]]:g}"
            )
        if not is_short:
            checked.append(coordinates.tolist())
    if not checked:
        if too_short is not None:
            raise RleError(too_short)
        return Rle(NO_RUNS, size_hw)
    if all(0 <= coordinate <= 1 for polygon in checked for coordinate in polygon):
        raise RleError(
            "coordinates must be in pixels, got none outside of 0 to 1 "
            f"({str(checked[0][:4])[1:-1]}, ...): multiply x by the image's width and y by its "
            "height"
        )
    merged = coco_mask.merge(coco_mask.frPyObjects(checked, height_px, width_px))
    return from_coco([merged["counts"]], size_hw).masks[0]
