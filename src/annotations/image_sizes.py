"""The size of each annotated image, compared with its picture's own where pictures are given."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from src.annotations.exif_readings import AS_DISPLAYED, AS_STORED, Frame, make_frame
from src.annotations.image_headers import ImageHeader, read_header
from src.annotations.image_names import find_image
from src.annotations.instances import ImageRecord
from src.errors import InputError

_READERS = 16  # headers are read side by side, because a cold disk answers in milliseconds


@dataclass(frozen=True, slots=True)
class SizeFinding:
    """An image whose annotated size is not that of its picture, or whose masks were turned."""

    image_id: str
    annotated_hw: tuple[int, int]  # pixels
    picture_hw: tuple[int, int]  # pixels, EXIF rotation applied
    repaired: bool  # Height and Width were exchanged; otherwise the annotated size was kept
    reading: str = AS_DISPLAYED  # which image the masks were made on, as_displayed or as_stored


def outcome_in_words(finding: SizeFinding, *, repaired: str) -> str:
    """Say what was done about a finding; ``repaired`` says it of exchanged sizes."""
    if finding.reading == AS_STORED:
        return "masks of the stored image, turned"
    return repaired if finding.repaired else "kept as annotated"


class ImageSizes:
    """Compares annotated sizes with picture headers, each picture once.

    How the annotated size and the picture's go together: ``exif_readings.make_frame``.

    Args:
        images_directory: where the pictures are, or None to take every size as annotated.
        name_key: the key or column in which the source names images, for messages.
        missing_are_kept: take the size as annotated, too, where a picture is missing or damaged.

    Raises:
        InputError: no such folder.
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
        self._pictures: dict[str, ImageHeader | str] = {}
        self._settled: dict[ImageRecord, Frame | str] = {}

    def settle(self, images: Sequence[ImageRecord]) -> list[Frame | str]:
        """For each image, the frame of its masks and the record with the size that is right for it.

        Returns:
            As many entries; a text where the picture is missing or damaged, saying so.
        """
        new = dict.fromkeys(image for image in images if image not in self._settled)
        if new and self._directory is not None:
            with ThreadPoolExecutor(_READERS) as pool:
                found = pool.map(self._read_header, [image.file_name for image in new])
                for image, header in zip(new, found, strict=True):
                    self._pictures[image.image_id] = header
        for image in new:
            found_header = self._pictures.get(image.image_id)
            if isinstance(found_header, ImageHeader):
                self._settled[image] = make_frame(image, found_header)
            elif found_header is None or self._missing_are_kept:
                self._settled[image] = Frame(image, image.size_hw)
            else:
                self._settled[image] = found_header
        return [self._settled[image] for image in images]

    def picture_hw(self, image_id: str) -> tuple[int, int] | None:
        """Size of the picture as displayed in pixels, None where it was not read."""
        header = self._pictures.get(image_id)
        return header.displayed_hw if isinstance(header, ImageHeader) else None

    @property
    def num_missing(self) -> int:
        """Number of images, of those settled so far, whose picture is missing or damaged."""
        return sum(isinstance(header, str) for header in self._pictures.values())

    def findings(self, readings: Mapping[str, str]) -> list[SizeFinding]:
        """Images of which a user should know, in the order in which they came.

        Args:
            readings: ``as_displayed`` or ``as_stored`` by image id.
        """
        findings = []
        for frame in self._settled.values():
            if isinstance(frame, str):
                continue
            image_id = frame.record.image_id
            reading = readings.get(image_id, AS_DISPLAYED)
            picture_hw = self.picture_hw(image_id) or frame.annotated_hw
            if picture_hw != frame.annotated_hw or reading == AS_STORED:
                repaired = reading != AS_STORED and frame.record.size_hw != frame.annotated_hw
                findings.append(
                    SizeFinding(image_id, frame.annotated_hw, picture_hw, repaired, reading)
                )
        return findings

    def _read_header(self, file_name: str) -> ImageHeader | str:
        assert self._directory is not None
        try:
            return read_header(find_image(self._directory, file_name, key=self._name_key))
        except InputError as error:
            return str(error)
