"""Masks as COCO writes them: counts, compressed counts, polygons; one name for all of it.

The batch forms take and give the masks of many rows at once, as ``run_lengths`` does.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from pycocotools import mask as coco_mask

from src.annotations.coco_compressed import (
    from_coco_compressed,
    from_coco_compressed_batch,
    to_coco_compressed,
    to_coco_compressed_batch,
)
from src.annotations.coco_counts import from_coco_counts, to_coco_counts
from src.annotations.instances import Runs
from src.annotations.run_length_checks import RunLengthError

__all__ = [
    "from_coco_compressed",
    "from_coco_compressed_batch",
    "from_coco_counts",
    "from_polygons",
    "to_coco_compressed",
    "to_coco_compressed_batch",
    "to_coco_counts",
]

_FARTHEST_PX = 100_000  # pycocotools walks along every edge, also where no picture is


LEAST_COORDINATES = 6  # of a polygon: three points


def from_polygons(polygons: Sequence[Sequence[float]], size_hw: tuple[int, int]) -> Runs:
    """Maximal runs of the union of polygons, rasterised by pycocotools as in every COCO tool.

    Args:
        polygons: Each ``[x1, y1, x2, y2, ...]`` in pixels. One of fewer than three points has no
            area and is left out where another one has three.
        size_hw: Height and width of the picture.

    Raises:
        RunLengthError: a polygon that is no list of numbers or of an odd number of them, none of
            three points, or a coordinate that is not finite or far beyond any picture; or all
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
            raise RunLengthError(
                f"{name} holds a coordinate that is no number: {str(polygon)[:60]}"
            ) from None
        if coordinates.ndim != 1:
            raise RunLengthError(f"{name} is not one list of coordinates: {str(polygon)[:60]}")
        is_short = len(coordinates) < LEAST_COORDINATES
        if len(coordinates) % 2 or is_short:
            problem = (
                f"{name} has {len(coordinates)} coordinates; legal are x1, y1, x2, y2, ... of at "
                "least 3 points"
            )
            if len(coordinates) % 2:
                raise RunLengthError(problem)
            too_short = too_short or problem
        outside = np.flatnonzero(~(np.abs(coordinates) <= _FARTHEST_PX))
        if len(outside):
            raise RunLengthError(
                f"{name}: coordinate {outside[0] + 1} is {coordinates[outside[0]]:g}; legal are "
                f"-{_FARTHEST_PX} to {_FARTHEST_PX}"
            )
        if not is_short:
            checked.append(coordinates.tolist())
    if not checked:
        if too_short is not None:
            raise RunLengthError(too_short)
        return np.zeros((0, 2), dtype=np.int32)
    if all(0 <= coordinate <= 1 for polygon in checked for coordinate in polygon):
        raise RunLengthError(
            "coordinates must be in pixels, got none outside of 0 to 1 "
            f"({str(checked[0][:4])[1:-1]}, ...): multiply x by the image's width and y by its "
            "height"
        )
    merged = coco_mask.merge(coco_mask.frPyObjects(checked, height_px, width_px))
    return from_coco_compressed(merged["counts"], size_hw)
