"""Types that every layer shares: an image, and the instances annotated on it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from src.rle import RleBatch

RASTER_HW = (512, 512)
"""Height and width of the raster on which the competition compares masks, in pixels."""


def box_columns(boxes_xyxy: npt.NDArray[Any]) -> dict[str, npt.NDArray[Any]]:
    """Return the columns of a table of boxes, (N, 4)."""
    return dict(zip(("x_min", "y_min", "x_max", "y_max"), boxes_xyxy.T, strict=True))


@dataclass(frozen=True, slots=True)
class ImageRecord:
    """One image of a data set, with the size it has after its EXIF rotation is applied."""

    image_id: str  # as the annotation file spells it
    file_name: str  # of the image, relative to the image directory
    height_px: int
    width_px: int

    @property
    def size_hw(self) -> tuple[int, int]:
        """(height, width) in pixels."""
        return self.height_px, self.width_px


@dataclass(frozen=True, slots=True)
class Instances:
    """Instances of one image, N of them, in the order of the source file."""

    category_ids: npt.NDArray[np.int16]  # (N,)
    attribute_ids: tuple[tuple[int, ...], ...]  # N tuples, each in the order of the source
    # (N, 4) pixels, half-open: x_max and y_max are one past the last pixel
    boxes_xyxy: npt.NDArray[np.int32]
    areas_px: npt.NDArray[np.int64]  # (N,)
    masks: RleBatch  # N, on the image as displayed

    def __len__(self) -> int:
        return len(self.category_ids)
