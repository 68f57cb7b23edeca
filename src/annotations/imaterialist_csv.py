"""The CSV files of iMaterialist 2019 and 2020.

The CSV of iMaterialist (Fashion) 2019: ``ImageId,EncodedPixels,Height,Width,ClassId``.
``ClassId`` is a category and its attributes, joined by underscores in an order of their own
(``6_13_24``); ``ImageId`` is the file name of the image.

The CSV of iMaterialist (Fashion) 2020: as 2019, with a column ``AttributesIds`` of its own.
``ClassId`` is the category alone; ``AttributesIds`` are joined by commas in ascending order, empty
for none; ``ImageId`` is the file name of the image without ``.jpg``. The categories are those of
2019. The attribute ids are not: 2020 has 294 with gaps, and converting keeps the numbers as they
are.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import IO

from src.annotations.categories import IMATERIALIST_2019_LABELS, LabelDescriptions
from src.annotations.image_names import ImageIds
from src.annotations.instances import ImageRecord
from src.annotations.rows import (
    BLOCK_BYTES,
    NO_INSTANCE,
    BadRow,
    Lines,
    ProgressCallback,
    RowBlock,
    RowError,
    SizeOf,
    StoredBlock,
    check_size,
    iterate_lines,
    parse_attributes,
    parse_category,
    split_fields,
)
from src.errors import InputError
from src.rle import format_rle, parse_rle

SIZE_COLUMNS = ("Height", "Width")
# The row of an image without objects, as in sample_submission.csv (S12).
FILLER_CATEGORY, FILLER_TEXT = 23, "1 1"
_LONGEST_HEADER_BYTES = 1 << 16


@dataclass(frozen=True, slots=True)
class CsvEdition:
    """What distinguishes the CSV of one year.

    ``label_columns`` hold category and attributes: ``split_label`` cuts their texts into the
    category and the attributes, ``join_label`` does the reverse.
    """

    name: str
    columns: tuple[str, ...]  # as written: image, mask, Height, Width, then the label columns
    label_columns: tuple[str, ...]
    split_label: Callable[..., tuple[str, list[str]]]
    join_label: Callable[[int, tuple[int, ...]], tuple[str, ...]]
    image_id_of: Callable[[ImageRecord], str]


def read_header(path: Path) -> list[str]:
    """Read the column names of a CSV file.

    Raises:
        InputError: The file is missing, empty or not UTF-8 text, or its first line is no header of
            annotations.
    """
    blocks = iterate_lines(path, block_bytes=1 << 12, longest_line_bytes=_LONGEST_HEADER_BYTES)
    lines = next((lines for lines in blocks if lines), None)
    if lines is None:
        raise InputError(f"annotations must be a CSV or COCO JSON, got an empty file ({path})")
    try:
        header = [name.decode("utf-8").strip() for name in split_fields(lines[0][1]) or []]
    except UnicodeDecodeError as error:
        raise InputError(f"{path}: not UTF-8 text ({error})") from error
    if "ImageId" not in header:
        raise InputError(
            "the first line must be the header of a CSV with the column ImageId, or a COCO JSON "
            f"object, got {lines[0][1][:60]!r} ({path}, row 1)"
        )
    repeated = sorted({name for name in header if header.count(name) > 1})
    if repeated:
        raise InputError(
            f"columns must be different, got {repeated[0]} twice or more ({path}, row 1)"
        )
    return header


def read_csv_blocks(
    path: Path,
    *,
    edition: CsvEdition,
    labels: LabelDescriptions,
    notes: list[str],
    size_hw: tuple[int, int] | SizeOf | None = None,
    on_progress: ProgressCallback | None = None,
) -> Iterator[RowBlock]:
    """Read the rows of a CSV file, a block of ``BLOCK_BYTES`` at a time.

    Columns may come in any order; others are ignored. A row with empty label columns and no mask
    names an image without an instance, and so does the competition's filler row where the labels
    have no category 23.

    Args:
        path: The file.
        edition: Which columns it has.
        labels: The legal categories and, where it lists any, attributes.
        notes: Takes what a user should know, after the last block.
        size_hw: Size in pixels of every image, or of the image of an image id, for a file
            without the columns Height and Width (a submission). Where the file has them, they
            count.
        on_progress: Called with the number of bytes read and their total.

    Raises:
        InputError: No such file, not UTF-8, a missing column, no rows.
    """
    header = read_header(path)
    optional = SIZE_COLUMNS if size_hw is not None else ()
    missing = [name for name in edition.columns if name not in (*header, *optional)]
    if missing:
        raise InputError(
            f"columns must be {', '.join(edition.columns)}, got {', '.join(header)} without "
            f"{missing[0]} ({path}, row 1)"
        )
    parser = _RowParser(header=header, edition=edition, labels=labels, size_hw=size_hw)
    any_rows, header_is_next = False, True
    for lines in iterate_lines(path, block_bytes=BLOCK_BYTES, on_progress=on_progress):
        body = lines[1:] if header_is_next and lines else lines
        header_is_next = header_is_next and not lines
        any_rows = any_rows or bool(body)
        yield parser.parse(body)
    if not any_rows:
        raise InputError(f"annotations must hold at least one row, got only a header ({path})")
    notes += parser.image_ids.notes()
    if parser.num_fillers:
        notes.append(describe_fillers(parser.num_fillers))


def describe_fillers(count: int) -> str:
    """Say how many filler rows do not count."""
    return (
        f"filler rows ({FILLER_TEXT} of class {FILLER_CATEGORY}), which are no predictions but in "
        f"the competition, left out: {count}"
    )


def reread_lines(path: Path, numbers: set[int]) -> dict[int, str]:
    """Read the text of some rows by their number in the file."""
    return {
        number: _shown(line)
        for lines in iterate_lines(path)
        for number, line in lines
        if number in numbers
    }


class _RowParser:
    """Turns lines into blocks; remembers what repeats from row to row (labels, sizes, images)."""

    def __init__(
        self,
        *,
        header: list[str],
        edition: CsvEdition,
        labels: LabelDescriptions,
        size_hw: tuple[int, int] | SizeOf | None,
    ) -> None:
        self.header = header
        self.id_at, self.runs_at = header.index("ImageId"), header.index("EncodedPixels")
        self.label_at = [header.index(name) for name in edition.label_columns]
        sized = all(name in header for name in SIZE_COLUMNS)
        self.size_at = [header.index(name) for name in SIZE_COLUMNS] if sized else []
        categories, attributes = labels.category_names, labels.attribute_names
        self.image_ids = ImageIds(key="ImageId", add_suffix=True)
        self.num_fillers = 0
        filler_label = tuple(text.encode() for text in edition.join_label(FILLER_CATEGORY, ()))
        self.filler_label = None if FILLER_CATEGORY in categories else filler_label

        @cache
        def parse_label(*texts: bytes) -> tuple[int, tuple[int, ...]]:
            category, attribute_texts = edition.split_label(*(text.decode() for text in texts))
            if not category and not attribute_texts:
                return NO_INSTANCE, ()
            return parse_category(category, categories), parse_attributes(
                attribute_texts, attributes
            )

        @cache
        def parse_image(name: bytes, *size: bytes) -> ImageRecord:
            image_id, file_name = self.image_ids.identify(name.decode())
            if size:
                height, width = check_size(size[0].decode(), size[1].decode())
            else:
                assert size_hw is not None  # read_csv_blocks saw to it
                height, width = size_hw(image_id) if callable(size_hw) else size_hw
            return ImageRecord(image_id, file_name, height, width)

        self.parse_label, self.parse_image = parse_label, parse_image

    def parse(self, lines: Lines) -> RowBlock:
        kept: list[bytes] = []
        mask_texts: list[bytes] = []
        numbers: list[int] = []
        images: list[ImageRecord] = []
        categories: list[int] = []
        attributes: list[tuple[int, ...]] = []
        bad_rows: list[BadRow] = []
        for number, line in lines:
            fields: list[bytes] = []
            image: ImageRecord | None = None
            try:
                fields = self._fields(line)
                image = self.parse_image(fields[self.id_at], *(fields[i] for i in self.size_at))
                if self._is_filler(fields):
                    self.num_fillers += 1
                    for column in (self.runs_at, *self.label_at):
                        fields[column] = b""
                label = self.parse_label(*(fields[i] for i in self.label_at))
                if label[0] == NO_INSTANCE and fields[self.runs_at].strip():
                    raise RowError(
                        "the category must be given where EncodedPixels is, got an empty one"
                    )
            except RowError as error:
                name = _shown(fields[self.id_at]) if fields else ""
                name = name if image is None else image.image_id
                bad_rows.append(BadRow(number, f"row {number}", name, str(error), _shown(line)))
                continue
            kept.append(line)
            mask_texts.append(fields[self.runs_at])
            numbers.append(number)
            images.append(image)
            categories.append(label[0])
            attributes.append(label[1])
        return RowBlock(
            place_format="row {}",
            mask_field="EncodedPixels",
            numbers=numbers,
            images=images,
            category_ids=categories,
            attribute_ids=attributes,
            is_crowd=[False] * len(kept),
            masks=parse_rle(mask_texts, [image.size_hw for image in images]),
            original=lambda index: _shown(kept[index]),
            bad_rows=bad_rows,
        )

    def _is_filler(self, fields: list[bytes]) -> bool:
        if self.filler_label is None or fields[self.runs_at].strip() != FILLER_TEXT.encode():
            return False
        return tuple(fields[column].strip() for column in self.label_at) == self.filler_label

    def _fields(self, line: bytes) -> list[bytes]:
        if not line.isascii():
            try:
                line.decode("utf-8")
            except UnicodeDecodeError as error:
                raise RowError(
                    f"not UTF-8 text: byte {line[error.start]:#x} at position {error.start}"
                ) from error
        fields = split_fields(line)
        if fields is None:
            raise RowError("a quote is misplaced or not closed")
        if len(fields) != len(self.header):
            raise RowError(f"{len(fields)} values; the header has {len(self.header)} columns")
        return fields


def _shown(data: bytes) -> str:
    return data.decode("utf-8", errors="backslashreplace")


def write_csv(
    blocks: Iterable[StoredBlock],
    images_without_instances: Iterable[ImageRecord],
    *,
    edition: CsvEdition,
    file: IO[bytes],
) -> None:
    """Write a CSV: objects in the order given, then a row without mask and label for each image."""
    file.write((",".join(edition.columns) + "\n").encode())

    def line(image: ImageRecord, mask_text: str, label: tuple[str, ...]) -> str:
        image_id = _quoted(edition.image_id_of(image))
        tail = ",".join(map(_quoted, label))
        return f"{image_id},{mask_text},{image.height_px},{image.width_px},{tail}\n"

    for block in blocks:
        texts = format_rle(block.masks)
        objects = zip(block.images, texts, block.category_ids, block.attribute_ids, strict=True)
        file.write(
            "".join(
                line(image, text, edition.join_label(category, attributes))
                for image, text, category, attributes in objects
            ).encode()
        )
    empty_label = ("",) * len(edition.label_columns)
    file.write("".join(line(image, "", empty_label) for image in images_without_instances).encode())


def _quoted(text: str) -> str:
    if "," in text or '"' in text:
        return '"' + text.replace('"', '""') + '"'
    return text


def _split_label_2019(class_id: str) -> tuple[str, list[str]]:
    category, *attributes = class_id.strip().split("_")
    return category, attributes


def _join_label_2019(category_id: int, attribute_ids: tuple[int, ...]) -> tuple[str]:
    return ("_".join(map(str, (category_id, *attribute_ids))),)


IMATERIALIST_2019 = CsvEdition(
    name="imaterialist_2019",
    columns=("ImageId", "EncodedPixels", "Height", "Width", "ClassId"),
    label_columns=("ClassId",),
    split_label=_split_label_2019,
    join_label=_join_label_2019,
    image_id_of=lambda image: image.file_name,
)


def is_competition(category_names: Mapping[int, str]) -> bool:
    """Return whether categories are the competition's: of its 46 ids, with 23 as the shoe.

    Only there is the filler row a prediction, and do the competition's rules for a submission hold.

    Args:
        category_names: Name by category id.
    """
    known = IMATERIALIST_2019_LABELS.category_names
    shoe = category_names.get(FILLER_CATEGORY, "")
    return (
        category_names.keys() <= known.keys()
        and shoe.strip().casefold() == known[FILLER_CATEGORY].casefold()
    )


def _split_label_2020(class_id: str, attributes_ids: str) -> tuple[str, list[str]]:
    attributes = attributes_ids.strip()
    return class_id.strip(), attributes.split(",") if attributes else []


def _join_label_2020(category_id: int, attribute_ids: tuple[int, ...]) -> tuple[str, str]:
    return str(category_id), ",".join(map(str, sorted(attribute_ids)))


IMATERIALIST_2020 = CsvEdition(
    name="imaterialist_2020",
    columns=("ImageId", "EncodedPixels", "Height", "Width", "ClassId", "AttributesIds"),
    label_columns=("ClassId", "AttributesIds"),
    split_label=_split_label_2020,
    join_label=_join_label_2020,
    image_id_of=lambda image: image.file_name.removesuffix(".jpg"),
)
