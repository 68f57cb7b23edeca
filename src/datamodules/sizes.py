"""Sizes of views: the rule of resizing, and checks of its limits; without torch."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from src.errors import InputError

LEAST_VIEW_PX = 32  # edge of a cell of the coarsest level that boxes and masks are pooled from


def resized_hw(
    size_hw: tuple[int, int], *, short_edge_px: int, long_edge_px: int
) -> tuple[int, int]:
    """Return the largest size of the same aspect within both limits.

    mmdetection's rule for a scale of two numbers (``mmcv.rescale_size``): the smaller of both
    factors, sizes rounded half up; here at least 1 px.

    Args:
        size_hw: Height and width in pixels.
        short_edge_px: Upper limit of the shorter edge.
        long_edge_px: Upper limit of the longer edge.
    """
    height, width = size_hw
    factor = min(long_edge_px / max(height, width), short_edge_px / min(height, width))
    return max(1, int(height * factor + 0.5)), max(1, int(width * factor + 0.5))


def rgb_bytes(short_edge_px: int, long_edge_px: int) -> int:
    """Return the bytes of the largest RGB image within both limits."""
    return 3 * short_edge_px * long_edge_px


def check_limits(prefix: str, short_edge_px: Sequence[int], long_edge_px: int) -> None:
    """Check the limits of an image's edges in px, ``short_edge_px`` one limit or a range of it."""
    limits = [*short_edge_px]
    are_whole = all(type(limit) is int for limit in limits)
    if len(limits) not in (1, 2) or not are_whole or not 1 <= limits[0] <= limits[-1]:
        raise InputError(
            f"{prefix}_short_edge_px must be one or two whole numbers of pixels from 1 up, the "
            f"least first, got {limits}"
        )
    if long_edge_px < limits[-1]:
        raise InputError(
            f"{prefix}_long_edge_px must be at least {prefix}_short_edge_px={limits[-1]}, got "
            f"{long_edge_px}"
        )


def check_scales(key: str, scales: Sequence[Any] | None) -> None:
    """Check the scales of the views; None is legal.

    Raises:
        InputError: There are none, or one is not a pair (shorter, longer) of legal limits.
    """
    if scales is None:
        return
    for scale in scales or [None]:
        match scale:
            case [int(short), int(long)] if LEAST_VIEW_PX <= short <= long:
                continue
        raise InputError(
            f"{key} must be null or at least one pair [SHORT,LONG], limits of the shorter and of "
            f"the longer edge in px, whole numbers with {LEAST_VIEW_PX} <= SHORT <= LONG, got "
            f"{scale or list(scales)}"
        )
