"""Detections as a submission has them."""

from __future__ import annotations

from src.annotations.imaterialist_csv import FILLER_CATEGORY, FILLER_TEXT
from src.annotations.instances import RASTER_HW
from src.metrics.competition import ImageObjects
from src.metrics.inputs import class_keys
from src.postprocess.detections import Detections
from src.rle import parse_runs
from src.rle.bitmasks import pack_runs

_FILLER_MASK = pack_runs([parse_runs(FILLER_TEXT)], RASTER_HW)


def as_submitted(
    objects: Detections, *, with_filler: bool, use_attributes: bool = False
) -> ImageObjects:
    """Return an image's objects on the 512 x 512 raster as they are scored.

    Args:
        objects: After post-processing.
        with_filler: Whether an image without an object has the competition's filler row, which
            counts as a prediction there; see ``is_competition``.
        use_attributes: Whether class keys carry a set of attributes, here always the empty one.
    """
    if with_filler and not len(objects):
        return filler(objects.image_id, use_attributes=use_attributes)
    categories = objects.category_ids.tolist()
    keys = class_keys(categories, [()] * len(categories), use_attributes)
    return ImageObjects(objects.image_id, tuple(keys), objects.packed)


def filler(image_id: str, *, use_attributes: bool = False) -> ImageObjects:
    """Return the row of an image without a detection."""
    keys = class_keys([FILLER_CATEGORY], [()], use_attributes)
    return ImageObjects(image_id, tuple(keys), _FILLER_MASK)
