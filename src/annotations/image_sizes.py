"""The size of each annotated image, compared with its picture's own where pictures are given."""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path

from src.annotations.image_headers import read_size_hw
from src.annotations.image_names import find_image
from src.annotations.instances import ImageRecord
from src.errors import InputError

_READERS = 16  # headers are read side by side, because a cold disk answers in milliseconds


@dataclass(frozen=True, slots=True)
class SizeFinding:
    """An image whose annotated size is not that of its picture."""

    image_id: str
    annotated_hw: tuple[int, int]  # pixels
    picture_hw: tuple[int, int]  # pixels, EXIF rotation applied
    repaired: bool  # Height and Width were exchanged; otherwise the annotated size was kept


class ImageSizes:
    """Compares annotated sizes with picture headers, each picture once.

    Where the picture has Height and Width exchanged (annotated as if an EXIF rotation did not
    apply), the picture is right and the runs stay as they are. Where it has another size altogether
    (masks of the 2020 edition are smaller than its photos), the annotation's size stays.

    Args:
        images_directory: where the pictures are, or None to take every size as annotated.
        name_key: the key or column in which the source names images, for messages.

    Raises:
        InputError: no such folder.
    """

    def __init__(self, images_directory: str | Path | None, *, name_key: str = "file_name") -> None:
        self._name_key = name_key
        self._directory = None if images_directory is None else Path(images_directory)
        if self._directory is not None and not self._directory.is_dir():
            raise InputError(f"{self._directory}: no such image folder")
        self._pictures: dict[str, tuple[int, int] | str] = {}
        self._settled: dict[ImageRecord, ImageRecord | str] = {}
        self.findings: list[SizeFinding] = []

    def settle(self, images: Sequence[ImageRecord]) -> list[ImageRecord | str]:
        """For each image, the record with the size that is right for it.

        Returns:
            As many entries; a text where the picture is missing or damaged, saying so.
        """
        if self._directory is None:
            return list(images)
        new = dict.fromkeys(image for image in images if image not in self._settled)
        if new:
            with ThreadPoolExecutor(_READERS) as pool:
                found = pool.map(self._picture_size, [image.file_name for image in new])
                for image, picture_hw in zip(new, found, strict=True):
                    self._pictures[image.image_id] = picture_hw
        for image in new:
            self._settled[image] = self._compare(image)
        return [self._settled[image] for image in images]

    def picture_hw(self, image_id: str) -> tuple[int, int] | None:
        """Size of the picture in pixels, None where it was not read."""
        size = self._pictures.get(image_id)
        return None if isinstance(size, str) else size

    def _picture_size(self, file_name: str) -> tuple[int, int] | str:
        assert self._directory is not None
        try:
            return read_size_hw(find_image(self._directory, file_name, key=self._name_key))
        except InputError as error:
            return str(error)

    def _compare(self, image: ImageRecord) -> ImageRecord | str:
        picture_hw = self._pictures.get(image.image_id, image.size_hw)
        if isinstance(picture_hw, str) or picture_hw == image.size_hw:
            return picture_hw if isinstance(picture_hw, str) else image
        repaired = picture_hw == image.size_hw[::-1]
        self.findings.append(SizeFinding(image.image_id, image.size_hw, picture_hw, repaired))
        if not repaired:
            return image
        return replace(image, height_px=picture_hw[0], width_px=picture_hw[1])
