"""Overlapping masks of one category: the competition takes disjoint ones only (S13)."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt


def suppress_overlaps(
    category_ids: npt.NDArray[np.integer], packed: npt.NDArray[np.uint8]
) -> npt.NDArray[np.uint8]:
    """Take from each mask the pixels of all masks of its class that stand before it.

    The winner's hard suppression (S13). The order given decides: masks stand by falling score, and
    equal scores as NMS leaves them, the earlier (proposal, class) pair first. Afterwards masks of a
    class are disjoint and together cover what they covered; each class's first is untouched. Masks
    of different classes may overlap, as in the ground truth (a pocket in a jacket).

    Args:
        category_ids: Shape (N,).
        packed: Shape (N, B) uint8, bits of masks, by falling score.

    Returns:
        Shape (N, B) uint8; masks may have become empty.
    """
    result = packed.copy()
    covered: dict[int, npt.NDArray[np.uint8]] = {}
    for mask, category in enumerate(category_ids.tolist()):
        if category in covered:
            result[mask] &= ~covered[category]
            covered[category] |= packed[mask]
        else:
            covered[category] = packed[mask].copy()
    return result


def has_overlaps(category_ids: npt.NDArray[np.integer], packed: npt.NDArray[np.uint8]) -> bool:
    """Whether two masks of one class share a pixel. Arguments as in ``suppress_overlaps``."""
    covered: dict[int, npt.NDArray[np.uint8]] = {}
    for mask, category in zip(packed, category_ids.tolist(), strict=True):
        if category not in covered:
            covered[category] = mask.copy()
        elif (covered[category] & mask).any():
            return True
        else:
            covered[category] |= mask
    return False
