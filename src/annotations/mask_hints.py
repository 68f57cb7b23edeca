"""What a COCO file says of its masks, box and area, compared with the masks that were read."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from src.annotations.exif_readings import (
    AS_STORED,
    BOX_TOLERANCE_PX,
    ExifReadings,
    Frame,
    box_distance_px,
)
from src.annotations.rows import RowBlock
from src.annotations.run_length_turns import turn_box


class HintComparison:
    """Counts the boxes and areas of a file that are not those of the masks.

    They are not used, but where they differ the masks are not what the file's author saw: read in
    another unit or on another image.

    Args:
        readings: how the masks are read; a box of a mask that is turned is turned, too.
    """

    def __init__(self, readings: ExifReadings) -> None:
        self._readings = readings
        self._compared = {"bbox": 0, "area": 0}
        self._differing = {"bbox": 0, "area": 0}
        self._first: dict[str, str] = {}

    def add(
        self,
        block: RowBlock,
        rows: Sequence[int],
        frames: Sequence[Frame | str],
        *,
        boxes_xyxy: npt.NDArray[np.int32],
        areas_px: npt.NDArray[np.int64],
        num_runs: npt.NDArray[np.int64],
    ) -> None:
        """Compare some rows of a block; an empty list of polygons has nothing to compare with.

        Args:
            block: the rows.
            rows: N positions in it.
            frames: of all rows of the block.
            boxes_xyxy: Shape (N, 4), of the masks that were read.
            areas_px: Shape (N,).
            num_runs: Shape (N,).
        """
        hints = block.hints
        if hints is None:
            return
        outlines_px = 2 * (num_runs + boxes_xyxy[:, 3] - boxes_xyxy[:, 1])  # at least
        columns = boxes_xyxy.tolist(), areas_px.tolist(), outlines_px.tolist()
        for index, of_mask, area_of_mask, outline_px in zip(rows, *columns, strict=True):
            frame, polygons = frames[index], hints.polygons[index]
            if polygons == [] or isinstance(frame, str):
                continue
            box, area = hints.boxes_xywh[index], hints.areas_px[index]
            place = block.place_format, block.numbers[index], frame.record.image_id
            if box is not None:
                box = self._displayed(box, frame, is_polygon=polygons is not None)
                self._compared["bbox"] += 1
                if box_distance_px(box, of_mask) > BOX_TOLERANCE_PX:
                    x, y, right, bottom = of_mask
                    self._differ("bbox", place, [*box], [x, y, right - x, bottom - y])
            if area is not None:
                self._compared["area"] += 1
                if abs(area - area_of_mask) > BOX_TOLERANCE_PX * outline_px:
                    self._differ("area", place, area, area_of_mask)

    def notes(self) -> list[str]:
        """Say how many differ, a sentence each."""
        sentences = {
            "bbox": "is more than 2 px from the box of the mask",
            "area": "differs from the mask's by more than 2 px along its outline",
        }
        return [
            f"{key} {sentence}: {self._differing[key]} of {self._compared[key]} annotations "
            f"(the first: {self._first[key]})"
            for key, sentence in sentences.items()
            if self._differing[key]
        ]

    def _displayed(
        self, box_xywh: tuple[float, ...], frame: Frame, *, is_polygon: bool
    ) -> tuple[float, ...]:
        """Return a box of the file as it lies on the displayed image."""
        reading = self._readings.reading(frame.record.image_id, is_polygon)
        if reading != AS_STORED or AS_STORED not in frame.grids:
            return box_xywh
        x, y, width, height = box_xywh
        stored = (x, y, x + width, y + height)
        x, y, right, bottom = turn_box(stored, frame.grids[AS_STORED], frame.orientation)
        return x, y, right - x, bottom - y

    def _differ(self, key: str, place: tuple[str, int, str], named: object, found: object) -> None:
        place_format, number, image_id = place
        self._differing[key] += 1
        self._first.setdefault(
            key,
            f"{place_format.format(number)}, image {image_id!r:.120}: {named}, the mask's {found}",
        )
