"""Sizes of images against those that the annotations give, and what the masks say of them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from src.annotations.exif import (
    AS_DISPLAYED,
    AS_STORED,
    BOX_TOLERANCE_PX,
    ExifReadings,
    Frame,
    box_distance_px,
    make_frame,
)
from src.annotations.image_files import ImageHeader, read_header
from src.annotations.image_names import find_image
from src.annotations.instances import ImageRecord
from src.annotations.rows import RowBlock
from src.errors import InputError
from src.rle.raster import turn_box


class HintComparison:
    """Counts the boxes and areas of a file that are not those of the masks.

    They are not used, but where they differ the masks are not what the file's author saw: read in
    another unit or on another image.

    Args:
        readings: How the masks are read; a box of a mask that is turned is turned, too.
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
            block: The rows.
            rows: N positions in it.
            frames: Of all rows of the block.
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


_READERS = 16  # headers are read side by side, because a cold disk answers in milliseconds


@dataclass(frozen=True, slots=True)
class SizeFinding:
    """An image whose annotated size is not that of its image, or whose masks were turned."""

    image_id: str
    annotated_hw: tuple[int, int]  # pixels
    image_hw: tuple[int, int]  # pixels, EXIF rotation applied
    repaired: bool  # Height and Width were exchanged; otherwise the annotated size was kept
    reading: str = AS_DISPLAYED  # which image the masks were made on, as_displayed or as_stored


def outcome_in_words(finding: SizeFinding, *, repaired: str) -> str:
    """Say what was done about a finding; ``repaired`` says it of exchanged sizes."""
    if finding.reading == AS_STORED:
        return "masks of the stored image, turned"
    return repaired if finding.repaired else "kept as annotated"


class ImageSizes:
    """Compares annotated sizes with image headers, each image once.

    How the annotated size and the image's go together: ``exif_readings.make_frame``.

    Args:
        images_directory: Where the images are, or None to take every size as annotated.
        name_key: The key or column in which the source names images, for messages.
        missing_are_kept: Take the size as annotated, too, where an image is missing or damaged.

    Raises:
        InputError: No such folder.
    """

    def __init__(
        self,
        images_directory: str | Path | None,
        *,
        name_key: str = "file_name",
        missing_are_kept: bool = False,
    ) -> None:
        self._name_key, self._missing_are_kept = name_key, missing_are_kept
        self._directory = None if images_directory is None else Path(images_directory)
        if self._directory is not None and not self._directory.is_dir():
            raise InputError(f"{self._directory}: no such image folder")
        self._images: dict[str, ImageHeader | str] = {}
        self._settled: dict[ImageRecord, Frame | str] = {}

    def resolve_sizes(self, images: Sequence[ImageRecord]) -> list[Frame | str]:
        """Return the frame of each image's masks, with the record of the size that is right for it.

        Returns:
            As many entries; a text where the image is missing or damaged, saying so.
        """
        new = dict.fromkeys(image for image in images if image not in self._settled)
        if new and self._directory is not None:
            with ThreadPoolExecutor(_READERS) as pool:
                found = pool.map(self._read_header, [image.file_name for image in new])
                for image, header in zip(new, found, strict=True):
                    self._images[image.image_id] = header
        for image in new:
            found_header = self._images.get(image.image_id)
            if isinstance(found_header, ImageHeader):
                self._settled[image] = make_frame(image, found_header)
            elif found_header is None or self._missing_are_kept:
                self._settled[image] = Frame(image, image.size_hw)
            else:
                self._settled[image] = found_header
        return [self._settled[image] for image in images]

    def image_hw(self, image_id: str) -> tuple[int, int] | None:
        """Return the size of the image as displayed, in pixels; None where it was not read."""
        header = self._images.get(image_id)
        return header.displayed_hw if isinstance(header, ImageHeader) else None

    @property
    def num_missing(self) -> int:
        """Number of images, of those settled so far, whose image is missing or damaged."""
        return sum(isinstance(header, str) for header in self._images.values())

    def findings(self, readings: Mapping[str, str]) -> list[SizeFinding]:
        """Return the images of which a user should know, in the order in which they came.

        Args:
            readings: ``as_displayed`` or ``as_stored`` by image id.
        """
        findings = []
        for frame in self._settled.values():
            if isinstance(frame, str):
                continue
            image_id = frame.record.image_id
            reading = readings.get(image_id, AS_DISPLAYED)
            image_hw = self.image_hw(image_id) or frame.annotated_hw
            if image_hw != frame.annotated_hw or reading == AS_STORED:
                repaired = reading != AS_STORED and frame.record.size_hw != frame.annotated_hw
                findings.append(
                    SizeFinding(image_id, frame.annotated_hw, image_hw, repaired, reading)
                )
        return findings

    def _read_header(self, file_name: str) -> ImageHeader | str:
        assert self._directory is not None
        try:
            return read_header(find_image(self._directory, file_name, key=self._name_key))
        except InputError as error:
            return str(error)
