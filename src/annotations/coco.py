"""Read and write COCO annotation files: polygons, RLE, attributes, Fashionpedia's dialect included.

Source: the COCO data format (cocodataset.org/#format-data, "Object detection"); Fashionpedia adds
``attribute_ids`` to annotations and a list ``attributes``. An image is known by its ``file_name``.
Boxes and areas are computed from the masks; those of the file are compared with them.
"""

from __future__ import annotations

import contextlib
import itertools
import json
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import IO, Any

from src.annotations.categories import (
    LARGEST_ID,
    LabelDescriptions,
    label_descriptions_from_json,
    label_descriptions_to_json,
)
from src.annotations.image_names import ImageIds, image_path
from src.annotations.instances import ImageRecord
from src.annotations.json_stream import iterate_members, starts_with_list
from src.annotations.rows import (
    NO_INSTANCE,
    BadRow,
    MaskHints,
    ProgressCallback,
    RowBlock,
    RowError,
    Source,
    StoredBlock,
    check_attributes,
    check_size,
    describe_ids,
)
from src.errors import InputError
from src.rle import ParsedRle, RleBatch, RleError, Runs, from_coco, from_coco_counts, to_coco
from src.rle.coco import MIN_COORDINATES, compress_polygons
from src.rle.masks import NO_RUNS

COCO = "coco"
_BLOCK_ROWS = 128
_LARGEST = 1e15  # of a number that says anything of a mask


def open_coco(
    path: Path,
    *,
    labels: LabelDescriptions | None = None,
    on_progress: ProgressCallback | None = None,
) -> Source:
    """Open a COCO JSON file. It is read twice, because images may follow annotations.

    Args:
        path: The file.
        labels: Categories and attributes to use instead of the file's own.
        on_progress: Called with the bytes read and their total, in the second reading.

    Raises:
        InputError: Not a JSON object with the lists images, annotations and categories, or these
            are malformed.
    """
    _refuse_results(path)
    members = iterate_members(path, streamed="annotations")
    parts = {name: value for name, position, value in members if position < 0}
    for name in ("images", "annotations"):
        if not isinstance(parts.get(name), list):
            raise InputError(f"{name} must be a list in COCO annotations, got none ({path})")
    if labels is None:
        labels = label_descriptions_from_json(parts, where=str(path))
    notes: list[str] = []
    return Source(
        kind=COCO,
        labels=labels,
        blocks=_read_blocks(path, parts["images"], labels, notes, on_progress),
        reread=lambda _numbers: {},
        notes=notes,
        name_key="file_name",
    )


def _refuse_results(path: Path) -> None:
    if starts_with_list(path):
        raise InputError(
            "annotations must be a JSON object with images and annotations, got a JSON list, as "
            f"COCO results are: predictions ({path}); src.score submission=, src.report "
            "submission=, src.compare a= and src.import_predictions input= take them"
        )


def read_coco_images(
    path: Path, *, on_progress: ProgressCallback | None = None
) -> tuple[dict[int | str, ImageRecord], LabelDescriptions]:
    """Read the images of a COCO JSON file by their id, and its labels; no mask is decoded.

    The file needs no annotations, as those of the images of a test set.

    Raises:
        InputError: Not a JSON object with the lists images and categories, or these are malformed.
    """
    _refuse_results(path)
    members = iterate_members(path, streamed="annotations", on_progress=on_progress)
    parts = {name: value for name, position, value in members if position < 0}
    if not isinstance(parts.get("images"), list):
        raise InputError(f"images must be a list in COCO annotations, got none ({path})")
    labels = label_descriptions_from_json(parts, where=str(path))
    images = _Images()
    for row in images.block(parts["images"]).bad_rows:
        raise InputError(f"{path}, {row.place}: {row.reason}")
    return images.by_id, labels


def _read_blocks(
    path: Path,
    image_entries: list[Any],
    labels: LabelDescriptions,
    notes: list[str],
    on_progress: ProgressCallback | None,
) -> Iterator[RowBlock]:
    images = _Images()
    yield images.block(image_entries)
    notes += images.notes()
    reader = _AnnotationReader(images, labels)
    members = iterate_members(path, streamed="annotations", on_progress=on_progress)
    rows = ((position, value) for _, position, value in members if position >= 0)
    while block := list(itertools.islice(rows, _BLOCK_ROWS)):
        yield reader.block(block)
    if reader.short_polygons:
        notes.append(
            "polygons of fewer than three points, left out of instances that have others: "
            f"{reader.short_polygons}"
        )
    if reader.repeated_ids:
        notes.append(
            f"{reader.repeated_ids} annotation ids had occurred before; "
            "instances are numbered again when written"
        )


class _Images:
    """The list of images, by id."""

    def __init__(self) -> None:
        self.by_id: dict[int | str, ImageRecord] = {}
        self.bad_ids: dict[int | str, str] = {}  # file names of images that cannot be used
        self.ambiguous: dict[int | str, str] = {}  # two of the images that share an id, in words
        self._names = ImageIds(key="file_name", add_suffix=False)
        self._repeated = 0

    def block(self, entries: list[Any]) -> RowBlock:
        """Return the images as rows without an instance, the malformed ones as bad rows."""
        self._find_ambiguous(entries)
        numbers, records, bad_rows = [], [], []
        for number, entry in enumerate(entries):
            try:
                record = self._record(entry)
            except RowError as error:
                name = str(name_of_image(entry)[1] or "") if isinstance(entry, dict) else ""
                if isinstance(entry, dict) and isinstance(entry.get("id"), int | str):
                    self.bad_ids.setdefault(entry["id"], name)
                place, original = f"images[{number}]", json.dumps(entry)
                bad_rows.append(BadRow(number, place, name, str(error), original))
                continue
            self._repeated += entry["id"] in self.by_id
            self.by_id[entry["id"]] = record
            numbers.append(number)
            records.append(record)
        runs = [NO_RUNS] * len(records)
        return RowBlock(
            place_format="images[{}]",
            mask_field="segmentation",
            numbers=numbers,
            images=records,
            category_ids=[NO_INSTANCE] * len(records),
            attribute_ids=[()] * len(records),
            is_crowd=[False] * len(records),
            masks=ParsedRle(RleBatch.join(runs, [image.size_hw for image in records]), {}),
            original=lambda index: json.dumps(entries[numbers[index]]),
            bad_rows=bad_rows,
        )

    def notes(self) -> list[str]:
        """Return notes on the list for the user, a sentence each."""
        notes = self._names.notes()
        if self._repeated:
            notes.append(f"images listed again with the same id, name and size: {self._repeated}")
        return notes

    def _find_ambiguous(self, entries: list[Any]) -> None:
        """Find the ids of two different images: they name no image for an annotation."""
        first: dict[int | str, tuple[Any, ...]] = {}
        for entry in entries:
            number: Any = entry.get("id") if isinstance(entry, dict) else None
            if type(number) not in (int, str):
                continue
            name = name_of_image(entry)[1]
            with contextlib.suppress(RowError):
                name = image_path(name, key="file_name") if isinstance(name, str) else repr(name)
            image = name, entry.get("height"), entry.get("width")
            if first.setdefault(number, image) != image:
                both = "{!r:.120} of {!r:.20} x {!r:.20} px and {!r:.120} of {!r:.20} x {!r:.20} px"
                self.ambiguous.setdefault(number, both.format(*first[number], *image))

    def _record(self, entry: Any) -> ImageRecord:
        if not isinstance(entry, dict):
            legal = "an object with id, file_name, height and width"
            raise RowError(f"must be {legal}, got {entry!r:.60}")
        number = entry.get("id")
        if type(number) not in (int, str):
            raise RowError(f"id must be a whole number, got {number!r:.60}")
        if number in self.ambiguous:
            raise RowError(
                f"id {number!r:.60} must be that of one image, got it for {self.ambiguous[number]}"
            )
        key, name = name_of_image(entry)
        if not isinstance(name, str):
            raise RowError(f"file_name must be a text, got {name!r:.60}")
        image_id, file_name = self._names.identify(name, key=key)
        texts = str(entry.get("height")), str(entry.get("width"))
        return ImageRecord(image_id, file_name, *check_size(*texts, ("height", "width")))


def name_of_image(entry: dict[str, Any]) -> tuple[str, Any]:
    """Return the key that names an image's file, and its value; LVIS has the COCO image's address.

    Of an address the folder and the file count (``train2017/000000391895.jpg``), as in LVIS's API.
    """
    url = entry.get("coco_url")
    if entry.get("file_name") is None and isinstance(url, str):
        return "coco_url", "/".join(url.partition("?")[0].split("/")[-2:])
    return "file_name", entry.get("file_name")


class _AnnotationReader:
    """Turns annotations into blocks."""

    def __init__(self, images: _Images, labels: LabelDescriptions) -> None:
        self._images = images
        self._categories, self._attributes = labels.category_names, labels.attribute_names
        self._seen_ids: set[Any] = set()
        self.repeated_ids = self.short_polygons = 0

    def block(self, rows: list[tuple[int, Any]]) -> RowBlock:
        kept: list[tuple[int, Any, ImageRecord]] = []
        bad_rows: list[BadRow] = []
        for number, entry in rows:
            try:
                kept.append((number, entry, self._check(entry)))
            except RowError as error:
                place, image_id = f"annotations[{number}]", self._image_name(entry)
                bad_rows.append(BadRow(number, place, image_id, str(error), json.dumps(entry)))
        entries, images = [entry for _, entry, _ in kept], [image for _, _, image in kept]
        segmentations = [entry.get("segmentation") for entry in entries]
        masks = read_segmentations(segmentations, [image.size_hw for image in images])
        self.short_polygons += sum(
            len(part) < MIN_COORDINATES
            for at, segmentation in enumerate(segmentations)
            if at not in masks.problems and isinstance(segmentation, list)
            for part in segmentation
        )
        return RowBlock(
            place_format="annotations[{}]",
            mask_field="segmentation",
            numbers=[number for number, _, _ in kept],
            images=images,
            category_ids=[entry["category_id"] for entry in entries],
            attribute_ids=[tuple(entry.get("attribute_ids") or ()) for entry in entries],
            is_crowd=[bool(entry.get("iscrowd")) for entry in entries],
            masks=masks,
            original=lambda index: json.dumps(entries[index]),
            bad_rows=bad_rows,
            hints=_hints(entries, segmentations),
        )

    def _image_name(self, entry: Any) -> str:
        number = entry.get("image_id") if isinstance(entry, dict) else None
        if not isinstance(number, int | str):
            return ""
        image = self._images.by_id.get(number)
        return image.image_id if image else self._images.bad_ids.get(number, str(number))

    def _check(self, entry: Any) -> ImageRecord:
        if not isinstance(entry, dict):
            raise RowError(f"must be an object, got {entry!r:.60}")
        number = entry.get("id")
        if isinstance(number, int | str):
            self.repeated_ids += number in self._seen_ids
            self._seen_ids.add(number)
        image_id = entry.get("image_id")
        if isinstance(image_id, int | str) and image_id in self._images.ambiguous:
            names = self._images.ambiguous[image_id]
            raise RowError(
                f"image_id {image_id!r:.60} must be that of one image, got that of {names}"
            )
        if type(image_id) not in (int, str) or image_id not in self._images.by_id:
            raise RowError(f"image_id must be that of a usable image, got {image_id!r:.60}")
        category = entry.get("category_id")
        if type(category) is not int or category not in self._categories:
            legal = describe_ids(self._categories)
            raise RowError(f"category must be {legal}, got {category!r:.60}")
        attributes = entry.get("attribute_ids") or []
        if not isinstance(attributes, list):
            raise RowError(f"attribute_ids must be a list, got {attributes!r:.60}")
        for number in attributes:
            if type(number) is not int or not 0 <= number <= LARGEST_ID:
                legal = f"a whole number from 0 to {LARGEST_ID}"
                raise RowError(f"attribute must be {legal}, got {number!r:.60}")
        check_attributes(attributes, self._attributes)
        if entry.get("iscrowd", 0) not in (0, 1):
            raise RowError(f"iscrowd must be 0 or 1, got {entry['iscrowd']!r:.60}")
        return self._images.by_id[image_id]


def _hints(entries: list[dict[str, Any]], segmentations: list[Any]) -> MaskHints:
    return MaskHints(
        polygons=[value if isinstance(value, list) else None for value in segmentations],
        sizes_hw=[
            _numbers(value.get("size"), 2) if isinstance(value, dict) else None
            for value in segmentations
        ],
        boxes_xywh=[_numbers(entry.get("bbox"), 4) for entry in entries],
        areas_px=[(_numbers([entry.get("area")], 1) or (None,))[0] for entry in entries],
    )


def _numbers(value: Any, count: int) -> tuple[Any, ...] | None:
    """Return a list of so many finite numbers as a tuple; None for anything else."""
    if not isinstance(value, list) or len(value) != count:
        return None
    are_finite = all(type(n) in (int, float) and abs(n) < _LARGEST for n in value)
    return tuple(value) if are_finite else None


def read_segmentations(
    segmentations: Sequence[Any], sizes_hw: Sequence[tuple[int, int]]
) -> ParsedRle:
    """Read COCO ``segmentation`` values: lists of polygons, or RLE, compressed or not.

    Args:
        segmentations: N parsed JSON values, of any kinds.
        sizes_hw: N heights and widths of their images in pixels, which RLE may name exchanged.

    Returns:
        N masks; ``problems`` names those that are neither, or of another size.
    """
    masks: list[Runs] = [NO_RUNS] * len(segmentations)
    problems: dict[int, str] = {}
    compressed: dict[int, str | bytes] = {}
    for index, (segmentation, size_hw) in enumerate(zip(segmentations, sizes_hw, strict=True)):
        try:
            if isinstance(segmentation, list):
                if polygons := compress_polygons(segmentation, size_hw):
                    compressed[index] = polygons
                continue
            counts = _counts_of(segmentation, size_hw)
            if isinstance(counts, str):
                compressed[index] = counts
            else:
                masks[index] = from_coco_counts(counts, size_hw).runs
        except RleError as error:
            problems[index] = str(error)
    compressed_hw = [sizes_hw[index] for index in compressed]
    expanded, faults = from_coco(list(compressed.values()), compressed_hw)
    for position, index in enumerate(compressed):
        masks[index] = expanded[position].runs
        if position in faults:
            problems[index] = faults[position]
    return ParsedRle(RleBatch.join(masks, sizes_hw), problems)


def _counts_of(segmentation: Any, size_hw: tuple[int, int]) -> str | list[int]:
    if not isinstance(segmentation, dict):
        legal = "a list of polygons, or an object with size and counts"
        raise RleError(f"must be {legal}, got {segmentation!r:.60}")
    size, counts = segmentation.get("size"), segmentation.get("counts")
    if size != list(size_hw) and size != list(size_hw[::-1]):
        raise RleError(f"size must be that of the image, {list(size_hw)}, got {size!r:.60}")
    if not isinstance(counts, str | list):
        raise RleError(f"counts must be a list or a text, got {counts!r:.60}")
    return counts


def write_coco(
    images: Sequence[ImageRecord],
    blocks: Iterable[StoredBlock],
    *,
    labels: LabelDescriptions,
    file: IO[bytes],
) -> None:
    """Write a COCO JSON file: images numbered from 1 in their order, annotations in theirs.

    ``images`` are all, including those without an instance; ``image_indices`` count in them.
    """
    info = {"description": "converted annotations", "version": "1.0"}
    file.write(f'{{"info": {json.dumps(info)},\n"images": [\n'.encode())
    entries = (
        {"id": number, "file_name": image.file_name, "height": height, "width": width}
        for number, image in enumerate(images, start=1)
        for height, width in (image.size_hw,)
    )
    file.write(",\n".join(json.dumps(entry, ensure_ascii=False) for entry in entries).encode())
    for name, value in label_descriptions_to_json(labels).items():
        file.write(f'],\n"{name}": [\n'.encode())
        file.write(",\n".join(json.dumps(entry, ensure_ascii=False) for entry in value).encode())
    file.write(b'],\n"annotations": [')
    number = 0
    for block in blocks:
        lines = _annotations(block, first_number=number + 1)
        file.write((",\n" if number else "\n").encode() + ",\n".join(lines).encode())
        number += len(lines)
    file.write(b"\n]}\n")


def _annotations(block: StoredBlock, first_number: int) -> list[str]:
    boxes_xywh = block.boxes_xyxy.copy()
    boxes_xywh[:, 2:] -= boxes_xywh[:, :2]
    columns = zip(
        block.image_indices,
        block.category_ids,
        block.attribute_ids,
        block.masks.sizes_hw.tolist(),
        to_coco(block.masks),
        block.areas_px.tolist(),
        boxes_xywh.tolist(),
        block.is_crowd,
        strict=True,
    )
    return [
        f'{{"id": {number}, "image_id": {image + 1}, "category_id": {category}, '
        f'"attribute_ids": {list(attributes)}, "segmentation": {{"size": {size}, '
        f'"counts": {json.dumps(text)}}}, "area": {area}, "bbox": {box}, "iscrowd": {int(crowd)}}}'
        for number, (image, category, attributes, size, text, area, box, crowd) in enumerate(
            columns, start=first_number
        )
    ]
