"""Masks and boxes of an image as it is stored, turned as its EXIF orientation turns the image."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import numpy.typing as npt

from src.annotations.image_headers import SIDEWAYS
from src.annotations.instances import Runs
from src.annotations.run_length_algebra import (
    area_px,
    box_xyxy,
    intersection_px,
    merge_touching,
    split_columns,
)
from src.annotations.run_length_raster import decode, encode

Bitmap = npt.NDArray[np.bool_]
Box = tuple[float, float, float, float]

# EXIF 2.32, section 4.6.4: from the stored rows and columns to those that are displayed.
_TURNS: dict[int, Callable[[Bitmap], Bitmap]] = {
    1: lambda mask: mask,
    2: lambda mask: mask[:, ::-1],
    3: lambda mask: mask[::-1, ::-1],
    4: lambda mask: mask[::-1],
    5: lambda mask: mask.T,
    6: lambda mask: mask[::-1].T,
    7: lambda mask: mask[::-1, ::-1].T,
    8: lambda mask: mask[:, ::-1].T,
}


def turn_runs(runs: Runs, stored_hw: tuple[int, int], orientation: int) -> Runs:
    """Turn a mask of the stored image into that of the displayed one.

    Args:
        runs: Shape (R, 2), valid for the stored image.
        stored_hw: Height and width of the image as stored, in pixels.
        orientation: EXIF, 1 to 8.

    Returns:
        Maximal runs, shape (S, 2), on the image as displayed.
    """
    if len(runs) == 0 or orientation == 1:
        return runs
    height = stored_hw[0]
    x_min, y_min, x_max, y_max = (int(edge) for edge in box_xyxy(runs, height))
    shifted = runs - np.array([x_min * height, 0], dtype=np.int32)
    crop = decode(shifted, (height, x_max - x_min))[y_min:y_max]
    turned = _TURNS[orientation](crop)
    left, top = (
        int(edge) for edge in turn_box((x_min, y_min, x_max, y_max), stored_hw, orientation)[:2]
    )
    crop_height = turned.shape[0]
    pieces = split_columns(encode(turned), crop_height).astype(np.int64)
    columns, rows = np.divmod(pieces[:, 0], crop_height)
    displayed_height = stored_hw[1] if orientation in SIDEWAYS else height
    starts = (columns + left) * displayed_height + rows + top
    return merge_touching(starts, starts + pieces[:, 1])


def turn_points(
    points_xy: npt.NDArray[np.float64], stored_hw: tuple[int, int], orientation: int
) -> npt.NDArray[np.float64]:
    """Turn points of the stored image into those of the displayed one.

    Args:
        points_xy: Shape (N, 2), in pixels, from the outer corner of the first pixel.
        stored_hw: Height and width of the image as stored, in pixels.
        orientation: EXIF, 1 to 8.

    Returns:
        Shape (N, 2).
    """
    x, y = points_xy.T
    if orientation in (2, 3, 7, 8):
        x = stored_hw[1] - x
    if orientation in (3, 4, 6, 7):
        y = stored_hw[0] - y
    return np.stack([y, x] if orientation in SIDEWAYS else [x, y], axis=1)


def turn_box(box_xyxy: Sequence[float], stored_hw: tuple[int, int], orientation: int) -> Box:
    """Turn a box of the stored image into that of the displayed one.

    Args:
        box_xyxy: in pixels, the maxima one past the last pixel.
        stored_hw: Height and width of the image as stored, in pixels.
        orientation: EXIF, 1 to 8.
    """
    corners = np.array(box_xyxy, dtype=np.float64).reshape(2, 2)
    turned = turn_points(corners, stored_hw, orientation)
    (x_min, y_min), (x_max, y_max) = turned.min(axis=0).tolist(), turned.max(axis=0).tolist()
    return x_min, y_min, x_max, y_max


def edges_between_columns(runs: Runs, height_px: int) -> int:
    """Count the pixels whose right neighbour is on the other side of the mask's outline.

    Runs read with another height than they were written with are sheared: few of their columns
    continue the one before.
    """
    shifted = runs + np.array([height_px, 0], dtype=np.int64)
    return 2 * (area_px(runs) - intersection_px(runs, shifted))
