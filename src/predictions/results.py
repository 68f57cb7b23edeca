"""Read COCO's results, as every framework writes them: a JSON list of detections, in any order.

An entry has ``image_id``, ``category_id``, ``score``, ``segmentation`` (RLE of the image's size, as
text or as a list, or polygons) and perhaps ``bbox`` (x, y, width, height). Source: cocodataset.org,
"Results Format". The list is read a block at a time, so its length takes no memory.
"""

from __future__ import annotations

import itertools
import json
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np
import numpy.typing as npt

from src.annotations.categories import LabelDescriptions
from src.annotations.coco import read_segmentations
from src.annotations.image_names import image_path
from src.annotations.instances import ImageRecord
from src.annotations.json_stream import iterate_list
from src.annotations.rows import ProgressCallback, RowError, describe_ids
from src.errors import InputError
from src.rle import RleBatch, to_coco
from src.validation import shown

BLOCK_ENTRIES = 256
MAX_OF_IMAGE = 100_000  # entries; those of an image are in memory together
AUTO, NUMBER, NAME = IMAGE_IDS = ("auto", "number", "name")
"""What ``image_id`` is: a number is the annotations' id, a text is a file name; or always one."""
_LARGEST_PX = 1e9  # of a coordinate of a box
_LARGEST_EDGE = 1 << 15  # of an image of unknown size, in pixels


class ResultImages:
    """The images that entries may name.

    Args:
        images: N records.
        numbers: Position in ``images`` by the id of an image in the annotations.
        source: The annotations, for messages.
        kind: One of ``IMAGE_IDS``.

    Raises:
        InputError: ``kind`` is none of them.
    """

    def __init__(
        self,
        images: Sequence[ImageRecord],
        numbers: Mapping[int | str, int],
        *,
        source: str,
        kind: str = AUTO,
    ) -> None:
        if kind not in IMAGE_IDS:
            raise InputError(f"image_ids must be one of {', '.join(IMAGE_IDS)}, got {shown(kind)}")
        self.images, self._numbers, self._kind, self._source = images, numbers, kind, source
        self._by_name = _by_name(images)
        # a framework that takes the id from the file's name makes 139 of 000000000139.jpg
        stems = [PurePosixPath(image.file_name).stem for image in images]
        numeric = {at: int(stem) for at, stem in enumerate(stems) if _is_number(stem)}
        count = Counter(numeric.values())
        self._by_stem = {number: at for at, number in numeric.items() if count[number] == 1}

    def find(self, entry: Mapping[str, Any]) -> int:
        """Return the position of an entry's image.

        Raises:
            RowError: It has none, or ``file_name`` beside the id is that of another one.
        """
        image_id, found = entry.get("image_id"), None
        if type(image_id) not in (int, str):
            raise RowError(f"image_id must be a whole number or a text, got {shown(image_id)}")
        if self._kind != NAME:
            found = self._numbers.get(image_id)  # type: ignore[arg-type]
        if found is None and self._kind != NUMBER and isinstance(image_id, str):
            found = self._by_name.get(_spelling(image_id))
        if found is None and self._kind == NAME and isinstance(image_id, int):
            found = self._by_stem.get(image_id)
        by_stem = self._kind == AUTO and isinstance(image_id, int) and image_id in self._by_stem
        hint = (
            "; it is the name of a file: src.import_predictions image_ids=name" if by_stem else ""
        )
        if found is None:
            raise RowError(
                f"image_id must be the id or the file name of an image of {self._source}, got "
                f"{shown(image_id)}{hint}"
            )
        name = entry.get("file_name")
        own = self._by_name.get(_spelling(name)) if isinstance(name, str) else None
        if own is not None and own != found:
            raise RowError(
                f"file_name must be that of the image of image_id {shown(image_id)}, "
                f"{self.images[found].file_name!r:.100}, got {name!r:.100}{hint}"
            )
        return found


def _is_number(stem: str) -> bool:
    return stem.isascii() and stem.isdecimal() and len(stem) < 20


def _by_name(images: Sequence[ImageRecord]) -> dict[str, int]:
    """Return the position of each image by its file name, or a part of it that no other has."""
    names: dict[str, int] = {}
    paths = [PurePosixPath(image.file_name) for image in images]
    for shortened in (
        [path.stem for path in paths],
        [path.name for path in paths],
        [str(path.with_suffix("")) for path in paths],
        [image.image_id for image in images],
        list(map(str, paths)),
    ):
        count = Counter(shortened)
        names |= {name: at for at, name in enumerate(shortened) if count[name] == 1}
    return names


def _spelling(name: str) -> str:
    try:
        return image_path(name, key="image_id")
    except RowError:
        return name


@dataclass(frozen=True, slots=True, eq=False)
class ResultBlock:
    """N detections, in the order of the file."""

    places: npt.NDArray[np.int32]  # (N,) positions of their images
    category_ids: npt.NDArray[np.int16]  # (N,)
    scores: npt.NDArray[np.float64]  # (N,) in [0, 1]
    boxes_xyxy: npt.NDArray[np.float32]  # (N, 4) as given, else of the masks
    masks: RleBatch  # N

    def take(self, chosen: npt.NDArray[np.integer] | npt.NDArray[np.bool_]) -> ResultBlock:
        """Return the detections that indices or a boolean mask select."""
        return ResultBlock(
            self.places[chosen],
            self.category_ids[chosen],
            self.scores[chosen],
            self.boxes_xyxy[chosen],
            self.masks[chosen],
        )


class ResultReader:
    """Reads the entries of a file of results.

    Args:
        path: The file.
        images: The images that entries may name.
        labels: The legal categories.
        category_offset: Added to each ``category_id``, where the file counts from another number.
        needs_score: Whether an entry without a score is refused; else it has score 1.
    """

    def __init__(
        self,
        path: Path,
        images: ResultImages,
        labels: LabelDescriptions,
        *,
        category_offset: int = 0,
        needs_score: bool = True,
    ) -> None:
        self._path, self._images = path, images
        self._categories, self._offset = labels.category_names, category_offset
        self._needs_score = needs_score
        self.num_entries = self.num_empty = 0  # read so far; of these, with a mask without a pixel
        self.counts = np.zeros(len(images.images), dtype=np.int64)  # of entries, by image

    def blocks(self, on_progress: ProgressCallback | None = None) -> Iterator[ResultBlock]:
        """Yield the entries, a block at a time.

        Raises:
            InputError: The file is no JSON list of results; names the entry, key and value.
        """
        entries = iterate_list(self._path, on_progress=on_progress)
        while block := list(itertools.islice(entries, BLOCK_ENTRIES)):
            yield self._block([entry for _, entry in block])

    def _block(self, entries: list[Any]) -> ResultBlock:
        places, categories, scores = [], [], []
        boxes = np.full((len(entries), 4), np.nan)
        for row, entry in enumerate(entries):
            try:
                if not isinstance(entry, dict):
                    raise RowError(f"an entry must be an object, got {shown(entry)}")
                places.append(self._images.find(entry))
                categories.append(self._category(entry))
                scores.append(self._score(entry))
                if entry.get("bbox") is not None:
                    boxes[row] = _box(entry["bbox"])
                _check_mask(entry, self._images.images[places[-1]])
            except RowError as error:
                raise self._error(row, str(error)) from None
        sizes_hw = [self._images.images[place].size_hw for place in places]
        read = read_segmentations([entry["segmentation"] for entry in entries], sizes_hw)
        if read.problems:
            row = min(read.problems)
            raise self._error(row, f"segmentation: {read.problems[row]}")
        no_box = np.isnan(boxes[:, 0])
        boxes[no_box] = read.masks.boxes_xyxy()[no_box]
        self._count(places)
        self.num_entries += len(entries)
        self.num_empty += int((read.masks.num_runs == 0).sum())
        return ResultBlock(
            places=np.array(places, dtype=np.int32),
            category_ids=np.array(categories, dtype=np.int16),
            scores=np.array(scores, dtype=np.float64),
            boxes_xyxy=boxes.astype(np.float32),
            masks=read.masks,
        )

    def _count(self, places: list[int]) -> None:
        np.add.at(self.counts, places, 1)
        if self.counts[places].max() > MAX_OF_IMAGE:
            most = int(self.counts.argmax())
            raise InputError(
                f"an image must have at most {MAX_OF_IMAGE} results, got more for "
                f"{self._images.images[most].image_id!r:.100} ({self._path})"
            )

    def _error(self, row: int, problem: str) -> InputError:
        return InputError(f"{problem} ({self._path}, entry {self.num_entries + row + 1})")

    def _category(self, entry: Mapping[str, Any]) -> int:
        given = entry.get("category_id")
        if type(given) is int and given + self._offset in self._categories:
            return given + self._offset
        legal = describe_ids(self._categories)
        offset = f" after category_offset={self._offset}" if self._offset else ""
        hint = ""
        if type(given) is int and not self._offset:
            near = [offset for offset in (1, -1) if given + offset in self._categories]
            hint = f"; src.import_predictions category_offset={near[0]} adds to it" if near else ""
        raise RowError(f"category_id must be {legal}{offset}, got {shown(given)}{hint}")

    def _score(self, entry: Mapping[str, Any]) -> float:
        is_absent = entry.get("score") is None and not self._needs_score
        return 1.0 if is_absent else _score(entry)


def entry_problems(entry: Any) -> list[str]:
    """Return what is wrong with an entry by itself, whatever the images and categories are."""
    if not isinstance(entry, dict):
        return [f"an entry must be an object, got {shown(entry)}"]
    problems = []
    if type(image_id := entry.get("image_id")) not in (int, str):
        problems.append(f"image_id must be a whole number or a text, got {shown(image_id)}")
    if type(category := entry.get("category_id")) is not int:
        problems.append(f"category_id must be a whole number, got {shown(category)}")
    for check in (_score, lambda entry: entry.get("bbox") is None or _box(entry["bbox"]), _mask):
        try:
            check(entry)
        except RowError as error:
            problems.append(str(error))
    return problems


def _mask(entry: Mapping[str, Any]) -> None:
    """Check a mask against the size that it names; polygons name none."""
    mask = entry.get("segmentation")
    size: Any = mask.get("size") if isinstance(mask, dict) else [_LARGEST_EDGE, _LARGEST_EDGE]
    is_pair = isinstance(size, list) and len(size) == 2
    if not is_pair or any(type(one) is not int or not 0 < one <= _LARGEST_EDGE for one in size):
        raise RowError(f"segmentation.size must be height and width, got {shown(size)}")
    size_hw = size[0], size[1]
    _check_mask(entry, ImageRecord("", "", *size_hw))
    for problem in read_segmentations([mask], [size_hw]).problems.values():
        raise RowError(f"segmentation: {problem}")


def _score(entry: Mapping[str, Any]) -> float:
    score: Any = entry.get("score")
    if type(score) not in (int, float) or not 0 <= score <= 1:
        raise RowError(f"score must be a number from 0 to 1, got {shown(score)}")
    return float(score)


def _box(value: Any) -> list[float]:
    legal = "bbox must be x, y, width and height in pixels, width and height at least 0"
    if not isinstance(value, list) or len(value) != 4:
        raise RowError(f"{legal}, got {shown(value)}")
    are_numbers = all(type(one) in (int, float) and abs(one) <= _LARGEST_PX for one in value)
    if not are_numbers or value[2] < 0 or value[3] < 0:
        raise RowError(f"{legal}, got {shown(value)}")
    x, y, width, height = value
    return [x, y, x + width, y + height]


def _check_mask(entry: Mapping[str, Any], image: ImageRecord) -> None:
    mask = entry.get("segmentation")
    if mask is None:
        bbox = ": it has a box alone" if entry.get("bbox") is not None else ""
        raise RowError(f"segmentation must be RLE or polygons, got none{bbox}")
    size = mask.get("size") if isinstance(mask, dict) else None
    if size is not None and size != list(image.size_hw):
        hint = ", exchanged: images=FOLDER repairs such annotations"
        raise RowError(
            f"segmentation.size must be {list(image.size_hw)}, the height and width of "
            f"{image.image_id!r:.100}, got {shown(size)}"
            f"{hint if size == list(image.size_hw[::-1]) else ''}"
        )


def write_as_annotations(reader: ResultReader, images: Sequence[ImageRecord], output: Path) -> None:
    """Write results as a COCO annotation file, to be read as the annotations are.

    Raises:
        InputError: As ``ResultReader.blocks``.
    """
    listed = [
        {"id": place, "file_name": image.file_name, "height": image.height_px}
        | {"width": image.width_px}
        for place, image in enumerate(images)
    ]
    with output.open("w", encoding="utf-8") as file:
        file.write(f'{{"images": {json.dumps(listed)}, "annotations": [')
        number = 0
        for block in reader.blocks():
            sizes = block.masks.sizes_hw.tolist()
            columns = block.places.tolist(), block.category_ids.tolist(), to_coco(block.masks)
            for place, category, counts, size in zip(*columns, sizes, strict=True):
                entry = {"id": number, "image_id": place, "category_id": category, "iscrowd": 0}
                mask = {"size": size, "counts": counts}
                comma = "," if number else ""
                file.write(f"{comma}\n{json.dumps({**entry, 'segmentation': mask})}")
                number += 1
        file.write("]}")
