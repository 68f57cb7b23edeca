"""Read and write the CSV files of iMaterialist (Fashion) 2019 and 2020.

2019: ``ImageId,EncodedPixels,Height,Width,ClassId``. ``ClassId`` is a category and its attributes,
joined by underscores in an order of their own (``6_13_24``); ``ImageId`` is the file name.

2020: as 2019, with a column ``AttributesIds``. ``ClassId`` is the category alone; ``AttributesIds``
are joined by commas in ascending order, empty for none; ``ImageId`` is the file name without
``.jpg``. The categories are those of 2019, the attribute ids are not: 2020 has 294 with gaps, and
converting keeps the numbers as they are.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path, PurePosixPath
from typing import IO

from src.annotations.categories import IMATERIALIST_2019_LABELS, LabelDescriptions
from src.annotations.image_files import read_size_hw
from src.annotations.image_names import ImageIds, list_images
from src.annotations.instances import ImageRecord
from src.annotations.rows import (
    BLOCK_BYTES,
    NO_INSTANCE,
    BadRow,
    GivenSize,
    Lines,
    ProgressCallback,
    RowBlock,
    RowError,
    StoredBlock,
    check_size,
    iterate_lines,
    parse_attributes,
    parse_category,
    split_fields,
)
from src.errors import InputError
from src.io import printable
from src.rle import format_rle, parse_rle

SIZE_COLUMNS = ("Height", "Width")
# The row of an image without instances, as in sample_submission.csv (S12).
FILLER_CATEGORY, FILLER_TEXT = 23, "1 1"
_LONGEST_HEADER_BYTES = 1 << 16


@dataclass(frozen=True, slots=True)
class CsvEdition:
    """The CSV of one year: its columns, and the form of category and attributes in them."""

    name: str
    columns: tuple[str, ...]  # as written: image, mask, Height, Width, then the label columns
    label_columns: tuple[str, ...]
    split_label: Callable[..., tuple[str, list[str]]]  # texts of the label columns to the ids
    join_label: Callable[[int, tuple[int, ...]], tuple[str, ...]]  # the reverse
    image_id_of: Callable[[ImageRecord], str]


def read_header(path: Path) -> list[str]:
    """Read the column names of a CSV file.

    The category's column may be named CategoryId, as a competition's submission may name it; it is
    ClassId in what is returned.

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
            f"columns must be different, got {printable(repeated[0])} twice or more ({path}, row 1)"
        )
    if "ClassId" in header:
        return header
    return ["ClassId" if name == "CategoryId" else name for name in header]


def read_csv_blocks(
    path: Path,
    *,
    edition: CsvEdition,
    labels: LabelDescriptions,
    notes: list[str],
    size_hw: GivenSize = None,
    on_progress: ProgressCallback | None = None,
) -> Iterator[RowBlock]:
    """Read the rows of a CSV file, a block of ``BLOCK_BYTES`` at a time.

    Columns may come in any order; others are ignored. A row with empty label columns and no mask
    names an image without an instance, and so does the competition's filler row where the labels
    have no category 23.

    Args:
        path: The file.
        edition: Its columns.
        labels: The legal categories and, where it lists any, attributes.
        notes: Takes notes for the user, after the last block.
        size_hw: Size in pixels of every image, or of the image of an image id, used if the file
            has no columns Height and Width (a submission).
        on_progress: Called with the number of bytes read and their total.

    Raises:
        InputError: No such file, not UTF-8, a missing column, no rows.
    """
    header = read_header(path)
    optional = SIZE_COLUMNS if size_hw is not None else ()
    missing = [name for name in edition.columns if name not in (*header, *optional)]
    shown = printable(", ".join(header))
    if missing:
        raise InputError(
            f"columns must be {', '.join(edition.columns)}, got {shown} without {missing[0]} "
            f"({path}, row 1)"
        )
    if not edition.label_columns and len(labels.categories) != 1:
        raise InputError(
            f"columns must have ClassId for {len(labels.categories)} categories, got {shown} "
            f"({path}, row 1)"
        )
    parser = _RowParser(header, edition, labels, size_hw)
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
    """Return how many filler rows do not count, in words."""
    return (
        f"filler rows ({FILLER_TEXT} of class {FILLER_CATEGORY}), which are predictions only in "
        f"the competition, left out: {count}"
    )


def reread_lines(path: Path, numbers: set[int]) -> dict[int, str]:
    """Read the text of some rows by their number in the file."""
    rows = itertools.chain.from_iterable(iterate_lines(path))
    return {number: _shown(line) for number, line in rows if number in numbers}


class _RowParser:
    """Turns lines into blocks; remembers what repeats from row to row (labels, sizes, images)."""

    def __init__(
        self, header: list[str], edition: CsvEdition, labels: LabelDescriptions, size_hw: GivenSize
    ) -> None:
        self.num_columns, self.num_fillers = len(header), 0
        self.id_at, self.runs_at = header.index("ImageId"), header.index("EncodedPixels")
        self.label_at = [header.index(name) for name in edition.label_columns]
        is_sized = all(name in header for name in SIZE_COLUMNS)
        self.size_at = [header.index(name) for name in SIZE_COLUMNS] if is_sized else []
        categories, attributes = labels.category_names, labels.attribute_names
        self.image_ids = ImageIds(key="ImageId", add_suffix=True)
        filler_label = tuple(text.encode() for text in edition.join_label(FILLER_CATEGORY, ()))
        is_filler_legal = bool(edition.label_columns) and FILLER_CATEGORY not in categories
        self.filler_label = filler_label if is_filler_legal else None
        self.only_category = min(categories)

        @cache
        def parse_label(*texts: bytes) -> tuple[int, tuple[int, ...]]:
            if not texts:  # a competition of one class
                return self.only_category, ()
            category, attribute_texts = edition.split_label(*(text.decode() for text in texts))
            if not category and not attribute_texts:
                return NO_INSTANCE, ()
            category_id = parse_category(category, categories)
            return category_id, parse_attributes(attribute_texts, attributes)

        @cache
        def parse_image(name: bytes, *size: bytes) -> ImageRecord:
            image_id, file_name = self.image_ids.identify(name.decode())
            if size:
                height, width = check_size(size[0].decode(), size[1].decode())
            else:
                assert size_hw is not None  # checked by read_csv_blocks
                height, width = size_hw(image_id) if callable(size_hw) else size_hw
            if isinstance(size_hw, SizesOfFiles):
                file_name = size_hw.file_of(image_id)
            return ImageRecord(image_id, file_name, height, width)

        self.parse_label, self.parse_image = parse_label, parse_image

    def parse(self, lines: Lines) -> RowBlock:
        kept: list[tuple[int, bytes, bytes, ImageRecord, tuple[int, tuple[int, ...]]]] = []
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
                if not self.label_at and not fields[self.runs_at].strip():
                    label = NO_INSTANCE, ()
                if label[0] == NO_INSTANCE and fields[self.runs_at].strip():
                    raise RowError(
                        "the category must be given where EncodedPixels is, got an empty one"
                    )
            except RowError as error:
                name = _shown(fields[self.id_at]) if fields else ""
                name = name if image is None else image.image_id
                bad_rows.append(BadRow(number, f"row {number}", name, str(error), _shown(line)))
            else:
                kept.append((number, line, fields[self.runs_at], image, label))
        images = [image for _, _, _, image, _ in kept]
        texts = [text for _, _, text, _, _ in kept]
        return RowBlock(
            place_format="row {}",
            mask_field="EncodedPixels",
            numbers=[number for number, *_ in kept],
            images=images,
            category_ids=[category for *_, (category, _) in kept],
            attribute_ids=[attributes for *_, (_, attributes) in kept],
            is_crowd=[False] * len(kept),
            masks=parse_rle(texts, [image.size_hw for image in images]),
            original=lambda index: _shown(kept[index][1]),
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
                byte = f"byte {line[error.start]:#x} at position {error.start}"
                raise RowError(f"the row must be UTF-8 text, got {byte}") from error
        fields = split_fields(line)
        if fields is None:
            raise RowError("quotes must enclose a value, got one misplaced or not closed")
        if len(fields) != self.num_columns:
            raise RowError(f"the row must have {self.num_columns} values, got {len(fields)}")
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
    """Write a CSV: the instances, then a row without mask and label for each image without."""
    file.write((",".join(edition.columns) + "\n").encode())

    def line(image: ImageRecord, mask_text: str, label: tuple[str, ...]) -> bytes:
        image_id = _quoted(edition.image_id_of(image))
        tail = ",".join(map(_quoted, label))
        return f"{image_id},{mask_text},{image.height_px},{image.width_px},{tail}\n".encode()

    for block in blocks:
        labels = map(edition.join_label, block.category_ids, block.attribute_ids)
        file.writelines(map(line, block.images, format_rle(block.masks), labels))
    empty_label = ("",) * len(edition.label_columns)
    file.writelines(line(image, "", empty_label) for image in images_without_instances)


def _quoted(text: str) -> str:
    if "," in text or '"' in text:
        return '"' + text.replace('"', '""') + '"'
    return text


def _split_label_2019(class_id: str) -> tuple[str, list[str]]:
    category, *attributes = class_id.strip().split("_")
    return category, attributes


IMATERIALIST_2019 = CsvEdition(
    name="imaterialist_2019",
    columns=("ImageId", "EncodedPixels", "Height", "Width", "ClassId"),
    label_columns=("ClassId",),
    split_label=_split_label_2019,
    join_label=lambda category_id, ids: ("_".join(map(str, (category_id, *ids))),),
    image_id_of=lambda image: image.file_name,
)


def is_competition(category_names: Mapping[int, str]) -> bool:
    """Return whether categories, names by id, are of the competition's 46, with 23 as the shoe.

    Only there is the filler row a prediction, and do the competition's rules for a submission hold.
    """
    known = IMATERIALIST_2019_LABELS.category_names
    shoe = category_names.get(FILLER_CATEGORY, "").strip().casefold()
    return category_names.keys() <= known.keys() and shoe == known[FILLER_CATEGORY].casefold()


DSB_2018 = CsvEdition(
    name="dsb_2018",
    columns=("ImageId", "EncodedPixels", "Height", "Width"),
    label_columns=(),
    split_label=lambda: ("", []),
    join_label=lambda _category, _attributes: (),
    image_id_of=lambda image: image.file_name,
)
"""Of the Data Science Bowl 2018 and others of one class: no column has the category."""


class SizesOfFiles:
    """Sizes of images that are named without suffix, from the files of a folder.

    Args:
        directory: The folder of the images.
    """

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._file_of: dict[str, str] = {}
        for name in list_images(directory).names:
            self._file_of.setdefault(str(PurePosixPath(name).with_suffix("")), name)
            self._file_of.setdefault(name, name)

    def __call__(self, image_id: str) -> tuple[int, int]:
        """Return height and width of an image.

        Raises:
            RowError: The folder has no such image, or it cannot be read.
        """
        try:
            return read_size_hw(self._directory / self.file_of(image_id))
        except InputError as error:
            raise RowError(str(error)) from error

    def file_of(self, image_id: str) -> str:
        """Return the file of an image.

        Raises:
            RowError: The folder has no such image.
        """
        if image_id not in self._file_of:
            raise RowError(f"ImageId must be an image in {self._directory}, got {image_id!r:.100}")
        return self._file_of[image_id]


def _split_label_2020(class_id: str, attributes_ids: str) -> tuple[str, list[str]]:
    return class_id.strip(), attributes_ids.split(",") if attributes_ids.strip() else []


IMATERIALIST_2020 = CsvEdition(
    name="imaterialist_2020",
    columns=("ImageId", "EncodedPixels", "Height", "Width", "ClassId", "AttributesIds"),
    label_columns=("ClassId", "AttributesIds"),
    split_label=_split_label_2020,
    join_label=lambda category_id, ids: (str(category_id), ",".join(map(str, sorted(ids)))),
    image_id_of=lambda image: image.file_name.removesuffix(".jpg"),
)
