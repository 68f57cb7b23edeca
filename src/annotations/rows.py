"""What every reader gives: blocks of rows with their masks, and the rows that are wrong."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypeAlias

from src.annotations.categories import LARGEST_ID, LabelDescriptions
from src.annotations.instances import ImageRecord
from src.annotations.run_lengths import RunsBatch

SizeOf: TypeAlias = Callable[[str], tuple[int, int]]
"""Height and width in pixels of the picture of an image id, where the file does not say them."""

NO_OBJECT = -1
"""The category of a row that names an image and no object."""

_LONGEST_LIST = 12  # of ids in a message
_LARGEST_PICTURE_PX = 2**31 - 1  # run lengths are stored as int32


class RowError(ValueError):
    """What is wrong with one row; the message says the bad value and what is legal."""


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
    """What a source says of the masks of N rows beside the masks themselves; None where nothing."""

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
    category_ids: list[int]  # NO_OBJECT where the row only names its image
    attribute_ids: list[tuple[int, ...]]
    is_crowd: list[bool]
    masks: RunsBatch  # N masks; ``problems`` names those that could not be read
    original: Callable[[int], str]  # text of the source by position in this block
    bad_rows: list[BadRow] = field(default_factory=list)  # refused by the reader, not among the N
    hints: MaskHints | None = None


@dataclass(frozen=True, slots=True)
class Source:
    """An annotation file that is open for reading, once."""

    path: Path
    kind: str  # imaterialist_2019, imaterialist_2020 or coco
    labels: LabelDescriptions
    blocks: Iterator[RowBlock]
    reread: Callable[[set[int]], dict[int, str]]  # text of rows by number, for those found bad late
    notes: list[str]  # what a user should know; complete when the blocks are read
    name_key: str = "ImageId"  # the key or column in which images are named, for messages


def parse_whole_number(text: str, name: str, low: int, high: int) -> int:
    """A whole number written as ``12`` or, as spreadsheets do, ``12.0``.

    Raises:
        RowError: anything else, or a number outside low to high (both legal).
    """
    digits = text.strip().removesuffix(".0")
    if not (digits.isascii() and digits.removeprefix("-").isdigit()) or len(digits) > 20:
        raise RowError(f"{name} is {text!r:.60}; a whole number from {low} to {high} is wanted")
    number = int(digits)
    if not low <= number <= high:
        raise RowError(f"{name} is {number}; it must be from {low} to {high}")
    return number


def check_size(
    height: str, width: str, names: tuple[str, str] = ("Height", "Width")
) -> tuple[int, int]:
    """Height and width of a picture in pixels from text, each at least 1.

    Args:
        height: the text.
        width: the text.
        names: the keys or columns that hold them, for messages.

    Raises:
        RowError: not whole numbers, below 1, or more pixels together than 32 bits can count.
    """
    size_hw = (
        parse_whole_number(height, names[0], 1, _LARGEST_PICTURE_PX),
        parse_whole_number(width, names[1], 1, _LARGEST_PICTURE_PX),
    )
    if size_hw[0] * size_hw[1] > _LARGEST_PICTURE_PX:
        raise RowError(
            f"{names[0]} {size_hw[0]} times {names[1]} {size_hw[1]} is over "
            f"{_LARGEST_PICTURE_PX} pixels"
        )
    return size_hw


def parse_category(text: str, known: dict[int, str]) -> int:
    """A category id of the label set.

    Raises:
        RowError: not a whole number, or not in ``known`` (names by id).
    """
    number = parse_whole_number(text, "category", 0, LARGEST_ID)
    if number not in known:
        raise RowError(f"unknown category {number}; {describe_ids(known)} are legal")
    return number


def parse_attributes(texts: list[str], known: dict[int, str]) -> tuple[int, ...]:
    """Attribute ids in the order given; ``known`` may be empty, then any id is legal.

    Raises:
        RowError: not whole numbers, or not in ``known`` (names by id).
    """
    numbers = tuple(parse_whole_number(text, "attribute", 0, LARGEST_ID) for text in texts)
    for number in numbers:
        if known and number not in known:
            raise RowError(f"unknown attribute {number}; {describe_ids(known)} are legal")
    return numbers


def describe_ids(known: dict[int, str]) -> str:
    """The legal ids in a few words."""
    ids = sorted(known)
    if ids == list(range(ids[0], ids[-1] + 1)):
        return f"{ids[0]} to {ids[-1]}"
    if len(ids) <= _LONGEST_LIST:
        return ", ".join(map(str, ids))
    return f"{len(ids)} ids between {ids[0]} and {ids[-1]} with gaps"
