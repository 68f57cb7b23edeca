"""Which objects are left out, whatever NMS says. Each function gives a mask of those to keep."""

from __future__ import annotations

from collections.abc import Collection, Mapping

import numpy as np
import numpy.typing as npt

from src.rle.bitmasks import areas_px


def above_score(
    scores: npt.NDArray[np.float32], score_threshold: float | npt.NDArray[np.float32]
) -> npt.NDArray[np.bool_]:
    """Pairs with a score strictly above the threshold, one for all or shape (N,). Shape (N,) bool.

    Both are compared as float32, as torch does.
    """
    return scores > np.asarray(score_threshold, dtype=np.float32)


def by_category(
    category_ids: npt.NDArray[np.integer], everywhere: float, per_class: Mapping[int, float]
) -> npt.NDArray[np.float32]:
    """The threshold of each pair: its category's own, or the one for all. Shape (N,) float32."""
    values = np.full(len(category_ids), everywhere, dtype=np.float32)
    for category, value in per_class.items():
        values[category_ids == category] = value
    return values


def of_other_categories(
    category_ids: npt.NDArray[np.integer], remove_categories: Collection[int]
) -> npt.NDArray[np.bool_]:
    """Objects whose category is not removed (S12). Shapes (N,) and (N,) bool."""
    return ~np.isin(category_ids, np.array(sorted(remove_categories), dtype=np.int64))


def first_of_each_category(
    category_ids: npt.NDArray[np.integer], max_per_class: int
) -> npt.NDArray[np.bool_]:
    """The first ``max_per_class`` objects of each category, in the order given.

    By falling score these are the best; of equal scores the earlier ones. Shapes (N,) and (N,)
    bool.
    """
    kept = np.zeros(len(category_ids), dtype=bool)
    for category in np.unique(category_ids):
        kept[np.flatnonzero(category_ids == category)[:max_per_class]] = True
    return kept


def of_enough_pixels(packed: npt.NDArray[np.uint8], min_area_px: int) -> npt.NDArray[np.bool_]:
    """Objects with at least ``min_area_px`` pixels on the raster (S14), and never an empty one.

    Args:
        packed: Shape (N, B) uint8, packed masks.
        min_area_px: The winner deleted objects under 20 pixels.

    Returns:
        Shape (N,) bool.
    """
    return areas_px(packed) >= max(min_area_px, 1)
