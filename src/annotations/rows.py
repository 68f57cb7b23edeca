"""Rows of annotation files: their lines, their values, and their errors."""

from __future__ import annotations

import csv
import os
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import IO, Any, TypeAlias

import numpy as np
import numpy.typing as npt

from src.annotations.categories import LARGEST_ID, LabelDescriptions
from src.annotations.instances import ImageRecord
from src.errors import InputError, naming_disk_errors
from src.io import check_output_file, partial_path, refuse_special_file, remove_partial_files
from src.rle import ParsedRle, RleBatch

BLOCK_BYTES = 1 << 20  # about a hundred rows: their arrays fit in a core's cache
LONGEST_LINE_BYTES = 8 << 20  # a mask of half a million runs
_BYTE_ORDER_MARK = b"\xef\xbb\xbf"
# A field in quotes (a quote within is doubled) or without any, and the comma or end behind it.
_FIELD = re.compile(rb'(?:"([^"]*(?:""[^"]*)*)"|([^",]*))(,|\Z)')

Lines = list[tuple[int, bytes]]
ProgressCallback = Callable[[int, int], None]
"""Called with the number of bytes of the source read so far, and its size in bytes."""


def iterate_lines(
    path: Path,
    *,
    block_bytes: int = BLOCK_BYTES,
    longest_line_bytes: int = LONGEST_LINE_BYTES,
    on_progress: ProgressCallback | None = None,
) -> Iterator[Lines]:
    r"""Read a file as blocks of (line number, line).

    Lines end with ``\n`` or ``\r\n``, which is removed, and are numbered from 1; blank lines are
    left out but counted. A byte order mark is removed. Only a block is in memory at a time.

    Raises:
        InputError: The file cannot be read, or a line is longer than ``longest_line_bytes``.
    """
    refuse_special_file(path)
    number, done = 1, 0
    unended: list[bytes] = []  # pieces of a line whose end was not read yet
    try:
        with path.open("rb") as file:
            while chunk := file.read(block_bytes):
                if done == 0:
                    chunk = chunk.removeprefix(_BYTE_ORDER_MARK)
                done = file.tell()
                head, newline, tail = chunk.rpartition(b"\n")
                if not newline:
                    unended.append(chunk)
                    if len(unended) * block_bytes > longest_line_bytes:
                        legal = f"a line of at most {longest_line_bytes} bytes"
                        raise InputError(
                            f"a row must be {legal}, got a longer one ({path}, row {number})"
                        )
                    continue
                lines = b"".join((*unended, head)).split(b"\n")
                unended = [tail]
                yield _numbered(lines, number)
                number += len(lines)
                if on_progress is not None:
                    on_progress(done, os.fstat(file.fileno()).st_size)
            if last := b"".join(unended):
                yield _numbered([last], number)
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror})") from error


def _numbered(lines: list[bytes], first: int) -> Lines:
    stripped = (line[:-1] if line.endswith(b"\r") else line for line in lines)
    return [(number, line) for number, line in enumerate(stripped, start=first) if line]


def split_fields(line: bytes) -> list[bytes] | None:
    """Return the fields of a CSV line without quotes; None where a quote is misplaced or open.

    A row is a line: no field of the formats read here can hold a line break.
    """
    if b'"' not in line:
        return line.split(b",")
    fields, position = [], 0
    while match := _FIELD.match(line, position):
        quoted, plain, separator = match.groups()
        fields.append(plain if quoted is None else quoted.replace(b'""', b'"'))
        if not separator:
            return fields
        position = match.end()
    return None


SizeOf: TypeAlias = Callable[[str], tuple[int, int]]
"""Height and width in pixels of the image of an image id, where the file has none."""

GivenSize: TypeAlias = tuple[int, int] | SizeOf | None
"""Height and width of all images, or of each, for a file without them."""

NO_INSTANCE = -1
"""The category of a row that names an image and no instance."""

_LONGEST_LIST = 12  # of ids in a message
_LARGEST_IMAGE_PX = 2**31 - 1  # starts and lengths of runs are int32


class RowError(ValueError):
    """An error of one row; the message gives the bad value and what is legal."""


@dataclass(frozen=True, slots=True)
class BadRow:
    """A row that was refused."""

    number: int  # orders the rows of a block
    place: str  # "row 17" or "annotations[3]"
    image_id: str  # as the source spells it, as far as it could be read
    reason: str
    original: str  # the row as it stood in the source


@dataclass(frozen=True, slots=True)
class MaskHints:
    """Values beside the masks of N rows in the source; None where there is none."""

    polygons: list[list[list[float]] | None]  # where the mask was drawn from polygons
    sizes_hw: list[tuple[int, int] | None]  # that the mask itself names, height and width
    boxes_xywh: list[tuple[float, ...] | None]  # pixels
    areas_px: list[float | None]


@dataclass(frozen=True, slots=True)
class RowBlock:
    """N rows of a source. Lists have N entries, in the order of the source."""

    place_format: str  # "row {}" or "annotations[{}]", filled with the row's number
    mask_field: str  # where the source keeps the mask, for messages
    numbers: list[int]
    images: list[ImageRecord]
    category_ids: list[int]  # NO_INSTANCE where the row only names its image
    attribute_ids: list[tuple[int, ...]]
    is_crowd: list[bool]
    masks: ParsedRle  # N masks; ``problems`` names those that could not be read
    original: Callable[[int], str]  # text of the source by position in this block
    bad_rows: list[BadRow] = field(default_factory=list)  # refused by the reader, not among the N
    hints: MaskHints | None = None
    places: Sequence[str] | None = None  # names in place of ``place_format``, of N rows

    def place(self, index: int) -> str:
        """Return the name of a row in the source, by its position in the block."""
        if self.places is not None:
            return self.places[index]
        return self.place_format.format(self.numbers[index])

    def refuse(self, index: int, reason: str) -> BadRow:
        """Return a row, by its position in the block, as one that is refused."""
        number, image_id = self.numbers[index], self.images[index].image_id
        return BadRow(number, self.place(index), image_id, reason, self.original(index))


@dataclass(frozen=True, slots=True)
class StoredBlock:
    """N instances, in the order of the source."""

    images: list[ImageRecord]  # N, the image of each instance
    image_indices: list[int]  # N, its position in the store's ``images``
    category_ids: list[int]  # N
    attribute_ids: list[tuple[int, ...]]  # N
    boxes_xyxy: npt.NDArray[np.int32]  # (N, 4) pixels, half-open
    areas_px: npt.NDArray[np.int64]  # (N,)
    is_crowd: list[bool]  # N
    masks: RleBatch  # N


@dataclass(frozen=True, slots=True)
class Source:
    """An annotation file that is open for reading, once."""

    kind: str  # imaterialist_2019, imaterialist_2020, coco or mask_images
    labels: LabelDescriptions
    blocks: Iterator[RowBlock]
    reread: Callable[[set[int]], dict[int, str]]  # text of rows by number, for those found bad late
    notes: list[str]  # for the user; complete when the blocks are read
    name_key: str = "ImageId"  # the key or column in which images are named, for messages


def parse_whole_number(text: str, name: str, low: int, high: int) -> int:
    """Parse a whole number written as ``12`` or, as spreadsheets do, ``12.0``.

    Raises:
        RowError: Anything else, or a number outside low to high (both legal).
    """
    digits = text.strip().removesuffix(".0")
    is_number = digits.isascii() and digits.removeprefix("-").isdigit() and len(digits) <= 20
    number = int(digits) if is_number else None
    if number is None or not low <= number <= high:
        got = f"{text!r:.60}" if number is None else number
        raise RowError(f"{name} must be a whole number from {low} to {high}, got {got}")
    return number


def check_size(
    height: str, width: str, names: tuple[str, str] = ("Height", "Width")
) -> tuple[int, int]:
    """Parse height and width of an image in pixels, each at least 1.

    Args:
        height: As text.
        width: As text.
        names: The keys or columns that hold them, for messages.

    Raises:
        RowError: Not whole numbers, below 1, or more pixels together than 32 bits can count.
    """
    height_px = parse_whole_number(height, names[0], 1, _LARGEST_IMAGE_PX)
    width_px = parse_whole_number(width, names[1], 1, _LARGEST_IMAGE_PX)
    if height_px * width_px > _LARGEST_IMAGE_PX:
        raise RowError(
            f"{names[0]} times {names[1]} must be at most {_LARGEST_IMAGE_PX} pixels, got "
            f"{height_px} x {width_px}"
        )
    return height_px, width_px


def parse_category(text: str, known: dict[int, str]) -> int:
    """Parse a category id, one of ``known`` (names by id)."""
    number = parse_whole_number(text, "category", 0, LARGEST_ID)
    if number not in known:
        raise RowError(f"category must be {describe_ids(known)}, got {number}")
    return number


def parse_attributes(texts: list[str], known: dict[int, str]) -> tuple[int, ...]:
    """Parse attribute ids, in the order given, of ``known``; if that is empty, any id is legal."""
    numbers = tuple(parse_whole_number(text, "attribute", 0, LARGEST_ID) for text in texts)
    check_attributes(numbers, known)
    return numbers


def check_attributes(numbers: Iterable[int], known: dict[int, str]) -> None:
    """Check that attribute ids are among ``known``; if that is empty, any id is legal."""
    for number in numbers:
        if known and number not in known:
            raise RowError(f"attribute must be {describe_ids(known)}, got {number}")


def describe_ids(known: Mapping[int, str]) -> str:
    """Return the legal ids in a few words."""
    ids = sorted(known)
    if len(ids) > 1 and ids == list(range(ids[0], ids[-1] + 1)):
        return f"{ids[0]} to {ids[-1]}"
    if len(ids) <= _LONGEST_LIST:
        return ", ".join(map(str, ids))
    return f"{len(ids)} ids between {ids[0]} and {ids[-1]} with gaps"


class BadRowHandler:
    """Takes the bad rows of one source. A context: its file appears if the block succeeds.

    Args:
        source: The file, for messages.
        skip: Whether to write each bad row to ``skipped_file``; the first is an error otherwise.
        skipped_file: A CSV with the columns place, image, reason, original. Written only where a
            row was skipped; one left by an earlier run is removed otherwise.
    """

    def __init__(self, *, source: Path, skip: bool, skipped_file: Path) -> None:
        self._source, self._skip = source, skip
        self.skipped_file = skipped_file
        self._partial = partial_path(skipped_file)
        self._file: IO[str] | None = None
        self._writer: Any = None
        self.count = 0

    def take(self, rows: Iterable[BadRow]) -> None:
        """Write bad rows, lowest first; unless they are skipped, the first is an InputError."""
        for row in sorted(rows, key=lambda row: row.number):
            if not self._skip:
                image = f", image {row.image_id!r:.120}" if row.image_id else ""
                raise InputError(f"{self._source}, {row.place}{image}: {row.reason}")
            with naming_disk_errors(self.skipped_file, partial=self._partial):
                if self._file is None:
                    check_output_file(self.skipped_file)
                    self._partial.parent.mkdir(parents=True, exist_ok=True)
                    remove_partial_files(self.skipped_file)
                    self._file = self._partial.open("w", encoding="utf-8", newline="")
                    self._writer = csv.writer(self._file)
                    self._writer.writerow(("place", "image", "reason", "original"))
                self._writer.writerow((row.place, row.image_id, row.reason, row.original))
            self.count += 1

    def __enter__(self) -> BadRowHandler:
        return self

    def __exit__(
        self,
        error_type: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        if self._file is not None:
            try:
                with naming_disk_errors(self.skipped_file, partial=self._partial):
                    self._file.close()
                    if error_type is None:
                        self._partial.replace(self.skipped_file)
            finally:
                self._partial.unlink(missing_ok=True)
        elif self._skip and error_type is None:
            self.skipped_file.unlink(missing_ok=True)
