"""Which objects are left out, whatever their score. Each function gives a mask of those to keep."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from src.annotations.packed_masks import areas_px


def of_other_categories(
    category_ids: npt.NDArray[np.integer], remove_categories: Sequence[int]
) -> npt.NDArray[np.bool_]:
    """Objects whose category is not removed (S12). Shapes (N,) and (N,) bool."""
    return ~np.isin(category_ids, np.asarray(remove_categories, dtype=np.int64))


def of_enough_pixels(packed: npt.NDArray[np.uint8], min_area_px: int) -> npt.NDArray[np.bool_]:
    """Objects with at least ``min_area_px`` pixels on the raster (S14), and never an empty one.

    Args:
        packed: Shape (N, B) uint8, packed masks.
        min_area_px: The winner deleted objects under 20 pixels.

    Returns:
        Shape (N,) bool.
    """
    return areas_px(packed) >= max(min_area_px, 1)
