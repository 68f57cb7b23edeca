"""Read folders of mask images: a file for each instance, files of instance ids, label maps.

The files of one image are read together, in one pass over the pixels of each. Masks come out as
runs; the pixels of a few images only are in memory at a time.
"""

from __future__ import annotations

import os
from collections import Counter, deque
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path

from src.annotations.categories import LabelDescriptions
from src.annotations.instances import ImageRecord
from src.annotations.mask_folders import MASK_IMAGES, MaskedImage, MaskFolder, find_masks
from src.annotations.mask_readers import MasksOfImage, Reader, make_reader
from src.annotations.mask_settings import MaskImageSettings
from src.annotations.rows import (
    NO_INSTANCE,
    BadRow,
    ProgressCallback,
    RowBlock,
    Source,
    describe_ids,
)
from src.errors import InputError
from src.rle import ParsedRle, Rle, RleBatch
from src.rle.masks import NO_RUNS

_MOST_READERS = 4  # side by side; each holds the pixels of an image
_BLOCK_ROWS = 128
_PLACE = "mask image {}"  # for what is found later than here; the number is that of the file


def open_mask_images(
    directory: Path,
    settings: MaskImageSettings,
    *,
    labels: LabelDescriptions | None = None,
    images_directory: Path | None = None,
    on_progress: ProgressCallback | None = None,
) -> Source:
    """Open a folder of mask images for reading.

    An image is known by its file name, relative to ``images_directory``.

    Args:
        directory: The folder.
        settings: Its layout and its classes.
        labels: The legal categories, to use instead of those of ``settings``.
        images_directory: The images; without, masks are not compared with them in size, but for
            ``instance_files``, which has them beside the masks.
        on_progress: Called with the bytes read and their total.

    Raises:
        InputError: No mask images are there, or settings are missing that their layout needs.
    """
    folder = find_masks(directory, settings, images_directory=images_directory)
    reader = make_reader(folder.layout, settings)
    own_labels = settings.labels()
    if labels is not None:
        names = labels.category_names
        for category in own_labels.categories:
            if category.id not in names:
                raise InputError(
                    f"a key of mask_images.classes must be {describe_ids(names)}, the categories "
                    f"of the label descriptions, got {category.id}"
                )
    notes = list(folder.notes)
    return Source(
        kind=MASK_IMAGES,
        labels=labels or own_labels,
        blocks=_read_blocks(folder, reader, notes, on_progress),
        reread=lambda _numbers: {},
        notes=notes,
        name_key="mask image",
    )


def _read_blocks(
    folder: MaskFolder, reader: Reader, notes: list[str], on_progress: ProgressCallback | None
) -> Iterator[RowBlock]:
    sizes = [_num_bytes(folder.directory, image) for image in folder.images]
    block, done, number = _Block(), 0, 0
    counts: Counter[str] = Counter()
    first: dict[str, str] = {}
    for image, found, num_bytes in zip(
        folder.images, _read_all(folder, reader), sizes, strict=True
    ):
        block.add(image, found, first_number=number)
        number += max(1, len(image.masks))
        counts += found.counts
        first = {**found.first, **first}
        done += num_bytes
        if len(block) >= _BLOCK_ROWS:
            yield block.as_rows()
            block = _Block()
            if on_progress is not None:
                on_progress(done, sum(sizes))
    if len(block):
        yield block.as_rows()
    if on_progress is not None:
        on_progress(done, done)
    notes += [f"{what}: {count} (the first: {first[what]})" for what, count in counts.items()]


def _num_bytes(root: Path, image: MaskedImage) -> int:
    try:
        return sum((root / name).stat().st_size for name in image.masks)
    except OSError:
        return 0  # reading says what is wrong


def _read_all(folder: MaskFolder, reader: Reader) -> Iterator[MasksOfImage]:
    """Yield what each image has, in order, a few being read at a time."""

    def read(image: MaskedImage) -> MasksOfImage:
        found = MasksOfImage()
        if image.problem:
            found.bad.append((image.place, image.problem))
        else:
            reader(folder.directory, image, found)
        return found

    readers = min(_MOST_READERS, os.cpu_count() or 1)
    with ThreadPoolExecutor(readers) as pool:
        waiting: deque[Future[MasksOfImage]] = deque()
        try:
            for image in folder.images:
                waiting.append(pool.submit(read, image))
                if len(waiting) > 2 * readers:
                    yield waiting.popleft().result()
            while waiting:
                yield waiting.popleft().result()
        finally:
            pool.shutdown(wait=False, cancel_futures=True)


class _Block:
    """Rows of some images: one that names the image, and one for each instance."""

    def __init__(self) -> None:
        self._numbers: list[int] = []
        self._images: list[ImageRecord] = []
        self._places: list[str] = []
        self._category_ids: list[int] = []
        self._is_crowd: list[bool] = []
        self._masks: list[Rle] = []
        self._bad_rows: list[BadRow] = []

    def __len__(self) -> int:
        return len(self._numbers) + len(self._bad_rows)

    def add(self, image: MaskedImage, found: MasksOfImage, *, first_number: int) -> None:
        """Take the rows of an image; files are numbered from ``first_number`` + 1."""
        number_of = {name: first_number + at for at, name in enumerate(image.masks, start=1)}
        number = first_number + 1
        self._bad_rows += [
            BadRow(
                number=number_of.get(place, number),
                place=place,
                image_id=image.file_name,
                reason=reason,
                original=place,
            )
            for place, reason in found.bad
        ]
        if found.size_hw is None:
            return
        record = ImageRecord(image.file_name, image.file_name, *found.size_hw)
        count = len(found.masks)
        self._numbers += [number, *(number_of[place] for place in found.places)]
        self._images += [record] * (count + 1)
        self._places += [image.place, *found.places]
        self._category_ids += [NO_INSTANCE, *found.category_ids]
        self._is_crowd += [False, *found.is_crowd]
        self._masks += [Rle(NO_RUNS, found.size_hw), *found.masks]

    def as_rows(self) -> RowBlock:
        """Return the rows as every reader does."""
        places = self._places
        return RowBlock(
            place_format=_PLACE,
            mask_field="mask",
            numbers=self._numbers,
            images=self._images,
            category_ids=self._category_ids,
            attribute_ids=[()] * len(self._numbers),
            is_crowd=self._is_crowd,
            masks=ParsedRle(RleBatch.of(self._masks), {}),
            original=lambda index: places[index],
            bad_rows=self._bad_rows,
            places=places,
        )
