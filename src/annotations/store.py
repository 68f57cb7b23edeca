"""The annotation store: every mask, box and label of a data set, memory-mapped from Arrow files.

A store is a folder, written whole or not at all by ``store_builder``:

- ``images.arrow``: a row an image, by image_id: image_id, file_name, height_px, width_px,
  instances (their number), digest (CRC-32 of what is annotated, see ``image_digests``).
- ``instances.arrow``: a row an instance, by image, then in the order of the source: image_index,
  category_id, attribute_ids, box_xyxy, area_px, is_crowd, runs_row.
- ``runs.arrow``: the runs of an instance's RLE a row, in the order of the source (the row's number
  is ``runs_row``), in record batches.
- ``store.json``: format version, source, fingerprint, labels, notes of the reader, and the size and
  checksum of each file; it carries a checksum of its own.

The pages are shared by every process that opens the store, so loader workers cost no extra memory.
"""

from __future__ import annotations

import itertools
import zlib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from src.annotations.categories import LARGEST_ID, LabelDescriptions, label_descriptions_from_json
from src.annotations.image_files import IMAGE_FILES, ImageFile, read_image_files
from src.annotations.image_names import image_path
from src.annotations.instances import ImageRecord, Instances
from src.annotations.rows import RowError, check_size, describe_ids
from src.errors import InputError
from src.io import check_input_file, check_seal, printable, read_json_object, refuse_special_file
from src.rle import RleBatch, Runs
from src.rle.masks import as_sizes

FORMAT_VERSION = 2
STORE = "store"
_CHUNK_BYTES = 1 << 22
_LONGEST_PATH, _LONGEST_NOTE = 4096, 1000
_KEYS = {"source": str, "labels": dict, "files": dict, "made_from": dict, "runs_batch_starts": list}

IMAGES_SCHEMA = pa.schema(
    dict.fromkeys(("image_id", "file_name"), pa.string())
    | dict.fromkeys(("height_px", "width_px", "instances"), pa.int32())
    | {"digest": pa.uint32()}
)
INSTANCES_SCHEMA = pa.schema(
    {"image_index": pa.int32(), "category_id": pa.int16(), "attribute_ids": pa.list_(pa.int32())}
    | {"box_xyxy": pa.list_(pa.int32(), 4), "area_px": pa.int64(), "is_crowd": pa.uint8()}
    | {"runs_row": pa.int64()}
)
RUNS_SCHEMA = pa.schema({"runs": pa.list_(pa.list_(pa.int32(), 2))})
TABLES = {
    "images.arrow": IMAGES_SCHEMA,
    "instances.arrow": INSTANCES_SCHEMA,
    "runs.arrow": RUNS_SCHEMA,
}


class AnnotationStore:
    """Read access to a store folder. Pickles as its path and reopens there.

    Args:
        directory: A folder made by ``build_store``.
        check_files: Whether to compare the files' checksums, which reads them once: before Arrow
            sees a byte, because damaged ones can end the interpreter.

    Raises:
        InputError: The folder is missing, incomplete, damaged, or of another format version.
    """

    def __init__(self, directory: str | Path, check_files: bool = True) -> None:
        self.directory = Path(directory)
        self.description = read_description(self.directory)
        if check_files:
            _check_files(self.directory, self.description.get("files"))
        images = _open_single_batch(self.directory / "images.arrow", check=check_files)
        records = (images[name].to_pylist() for name in IMAGES_SCHEMA.names[:4])
        self.images: Sequence[ImageRecord] = tuple(map(ImageRecord, *records))
        """Every image, ascending by image_id."""
        self.instance_counts: npt.NDArray[np.int32] = view(images["instances"], np.int32)
        self.digests: npt.NDArray[np.uint32] = view(images["digest"], np.uint32)
        counts = np.cumsum(self.instance_counts, dtype=np.int64)
        self._first_instance = np.concatenate([[0], counts])
        self.table = _open_single_batch(self.directory / "instances.arrow", check=check_files)
        self._categories: npt.NDArray[np.int16] = view(self.table["category_id"], np.int16)
        boxes = view(self.table["box_xyxy"].values, np.int32)
        self._boxes: npt.NDArray[np.int32] = boxes.reshape(-1, 4)
        self._areas: npt.NDArray[np.int64] = view(self.table["area_px"], np.int64)
        self._runs_rows: npt.NDArray[np.int64] = view(self.table["runs_row"], np.int64)
        self._crowd: npt.NDArray[np.uint8] = view(self.table["is_crowd"], np.uint8)
        self._runs_file = open_table(self.directory / "runs.arrow")
        self._first_row_of_batch = np.array(self.description["runs_batch_starts"], dtype=np.int64)
        self._open_batches: dict[int, tuple[npt.NDArray[np.int32], Runs]] = {}

    def __len__(self) -> int:
        """Return the number of images, including those without an instance."""
        return len(self.images)

    def __reduce__(self) -> tuple[type[AnnotationStore], tuple[Path, bool]]:
        return AnnotationStore, (self.directory, False)

    @property
    def num_instances(self) -> int:
        """Number of instances on all images."""
        return len(self._categories)

    @cached_property
    def num_crowd_regions(self) -> int:
        """Number of instances that are COCO crowd regions."""
        return int(self._crowd.sum())

    @cached_property
    def labels(self) -> LabelDescriptions:
        """The categories and attributes of the data."""
        return label_descriptions_from_json(self.description["labels"], where=str(self.directory))

    @property
    def notes(self) -> tuple[str, ...]:
        """Notes of reading the source, a sentence each."""
        notes = self.description.get("notes") or ()
        return tuple(printable(note, limit=_LONGEST_NOTE) for note in notes)

    @property
    def category_ids(self) -> tuple[int, ...]:
        """Every category id of the labels, ascending; a model's label index is a position here."""
        return self.labels.category_ids

    @cached_property
    def _index_by_id(self) -> dict[str, int]:
        return {image.image_id: index for index, image in enumerate(self.images)}

    def image_files(self) -> dict[str, ImageFile]:
        """Read the image files by name, as they were when last looked at; empty if never."""
        return read_image_files(self.directory / IMAGE_FILES)

    def index_of(self, image_id: str) -> int:
        """Return the position of an image in ``images``.

        Raises:
            InputError: No image has this id.
        """
        if image_id not in self._index_by_id:
            raise InputError(f"{self.description['source']}: no image has the id {image_id!r}")
        return self._index_by_id[image_id]

    def instances(self, index: int) -> Instances:
        """Return the instances of one image; boxes and areas are read-only views of the files.

        Args:
            index: Position in ``images``, 0 to len - 1.
        """
        rows = self._rows_of(index)
        return Instances(
            category_ids=self._categories[rows],
            attribute_ids=tuple(map(tuple, self.table["attribute_ids"][rows].to_pylist())),
            boxes_xyxy=self._boxes[rows],
            areas_px=self._areas[rows],
            masks=RleBatch.join(self._runs(self._runs_rows[rows]), self.images[index].size_hw),
        )

    def is_crowd(self, index: int) -> npt.NDArray[np.bool_]:
        """Return whether each instance of an image is a COCO crowd region, shape (N,) bool."""
        return self._crowd[self._rows_of(index)].astype(bool)

    def instances_by_category(self) -> dict[int, int]:
        """Return the number of instances of each category that has some, by id."""
        categories, counts = np.unique(self._categories, return_counts=True)
        return dict(zip(categories.tolist(), counts.tolist(), strict=True))

    def small_instances(
        self, index: int, *, largest_area_px: float, longest_edge_px: float
    ) -> npt.NDArray[np.int64]:
        """Return the positions of an image's instances with a small mask or a narrow box.

        Those have an area below ``largest_area_px``, or a shorter edge below ``longest_edge_px``;
        an instance without a pixel is left out.
        """
        rows = self._rows_of(index)
        areas, boxes = self._areas[rows], self._boxes[rows]
        edges = (boxes[:, 2:] - boxes[:, :2]).min(axis=1, initial=np.iinfo(np.int32).max)
        is_small = (areas < largest_area_px) | (edges < longest_edge_px)
        return np.flatnonzero(is_small & (areas > 0))

    def _rows_of(self, index: int) -> slice:
        return slice(int(self._first_instance[index]), int(self._first_instance[index + 1]))

    def counts_without_mask(self, index: int) -> tuple[int, int]:
        """Return how many instances of an image are crowd regions, and how many others empty."""
        crowd, is_empty = self.is_crowd(index), self._areas[self._rows_of(index)] == 0
        return int(crowd.sum()), int((is_empty & ~crowd).sum())

    def category_sets(self, *, to_train_on: bool = False) -> list[frozenset[int]]:
        """Return the set of category ids of each image's instances, in the order of the images.

        Args:
            to_train_on: Whether to leave out crowd regions and instances without a pixel.
        """
        is_counted = ((self._crowd == 0) & (self._areas > 0)) | (not to_train_on)
        before = np.concatenate([[0], np.cumsum(is_counted)])
        categories = self._categories[is_counted].tolist()
        starts = before[self._first_instance].tolist()
        return [frozenset(categories[start:end]) for start, end in itertools.pairwise(starts)]

    def _runs(self, rows: npt.NDArray[np.int64]) -> Iterator[Runs]:
        batches = self._first_row_of_batch.searchsorted(rows, side="right") - 1
        positions = rows - self._first_row_of_batch[batches]
        for batch, position in zip(batches.tolist(), positions.tolist(), strict=True):
            if batch not in self._open_batches:
                self._open_batches[batch] = runs_views(self._runs_file.get_batch(batch))
            offsets, flat = self._open_batches[batch]
            yield flat[offsets[position] : offsets[position + 1]]


def view(column: pa.Array, kind: type[np.generic]) -> npt.NDArray[Any]:
    """View a numeric column without nulls as a read-only array, shape (N,), without a copy.

    As ``to_numpy`` does, which imports pandas: more than a second in each loader worker.
    """
    values = np.frombuffer(column.buffers()[1], dtype=kind)
    return values[column.offset : column.offset + len(column)]


def runs_views(batch: pa.RecordBatch) -> tuple[npt.NDArray[np.int32], Runs]:
    """View a record batch of ``runs.arrow`` without a copy: offsets (N + 1,) and runs (R, 2)."""
    column = batch["runs"]
    return view(column.offsets, np.int32), view(column.values.values, np.int32).reshape(-1, 2)


def masks_of(
    batch: pa.RecordBatch, sizes_hw: npt.NDArray[np.integer] | Sequence[tuple[int, int]]
) -> RleBatch:
    """Return the N masks of a record batch of ``runs.arrow``, of images of these sizes."""
    offsets, runs = runs_views(batch)
    runs, offsets = runs[offsets[0] : offsets[-1]], offsets - offsets[0]
    return RleBatch(runs, offsets.astype(np.int64), as_sizes(sizes_hw, len(offsets) - 1))


def mask_digests(masks: RleBatch) -> npt.NDArray[np.uint32]:
    """Return the CRC-32 of the runs of each of N masks."""
    data = memoryview(masks.runs.astype(np.int32, copy=False).tobytes())
    places = (8 * masks.offsets).tolist()  # a run is two numbers of four bytes
    crcs = [zlib.crc32(data[start:end]) for start, end in itertools.pairwise(places)]
    return np.array(crcs, dtype=np.uint32)


def image_digests(
    images: Sequence[ImageRecord],
    counts: npt.NDArray[np.integer],
    columns: Sequence[npt.NDArray[Any]],
    attribute_ids: Sequence[Sequence[int]],
) -> npt.NDArray[np.uint32]:
    """Return a CRC-32 of everything that is annotated on each image; of no place or time.

    Args:
        images: N records.
        counts: Shape (N,), the number of instances on each.
        columns: Of the M instances in the order of the images, each of shape (M,) or (M, K).
        attribute_ids: Of the M instances.
    """
    table = np.column_stack([column.astype(np.int64) for column in columns])
    ends = np.cumsum(counts).tolist()
    digests = []
    for image, (start, end) in zip(images, itertools.pairwise([0, *ends]), strict=True):
        frame = (image.image_id, image.file_name, *image.size_hw)
        attributes = [tuple(ids) for ids in attribute_ids[start:end]]
        value = zlib.crc32(repr((frame, attributes)).encode(errors="surrogatepass"))
        digests.append(zlib.crc32(np.ascontiguousarray(table[start:end]).data, value))
    return np.array(digests, dtype=np.uint32)


def read_description(directory: Path) -> dict[str, Any]:
    """Read the ``store.json`` of a store folder, and check its format version and kinds."""
    path = directory / "store.json"
    try:
        description = read_json_object(path)
    except InputError as error:
        raise InputError(f"{directory}: not an annotation store ({error})") from error
    version = description.get("format_version")
    if version != FORMAT_VERSION:
        raise InputError(
            f"{directory}: annotation store of format version {version!r}; "
            f"this program reads version {FORMAT_VERSION}, build the store again"
        )
    description = check_seal(description, path)
    for key, kind in _KEYS.items():
        if not isinstance(value := description.get(key), kind):
            raise InputError(
                f"{path}: key {key!r} must hold a {kind.__name__}, got {type(value).__name__}"
            )
    if any(type(row) is not int for row in description["runs_batch_starts"]):
        raise InputError(f"{path}: key 'runs_batch_starts' must hold a list of row numbers")
    return description | {"source": printable(description["source"], limit=_LONGEST_PATH)}


def describe_files(directory: Path) -> dict[str, dict[str, int]]:
    """Return size in bytes and CRC-32 of each table of a store, by file name."""
    return {
        name: {"bytes": (directory / name).stat().st_size, "crc32": _crc32(directory / name)}
        for name in TABLES
    }


@contextmanager
def _naming_damage(path: Path, place: str = "") -> Iterator[None]:
    """Turn every error of reading a file of a store into one that names the file."""
    try:
        yield
    except (OSError, pa.ArrowException, ValueError, LookupError, TypeError) as error:
        raise InputError(f"{path}: damaged{place} ({error}); build the store again") from error


def _check_files(directory: Path, wanted: Any) -> None:
    for name in TABLES:
        path = directory / name
        with _naming_damage(path):
            check_input_file(path)
            size = path.stat().st_size
            if size != wanted[name]["bytes"]:
                raise ValueError(f"{size} bytes, {wanted[name]['bytes']} were written")
            if _crc32(path) != wanted[name]["crc32"]:
                raise ValueError("its checksum does not match")


def _crc32(path: Path) -> int:
    value = 0
    with path.open("rb") as file:
        while chunk := file.read(_CHUNK_BYTES):
            value = zlib.crc32(chunk, value)
    return value


def open_table(path: Path) -> pa.ipc.RecordBatchFileReader:
    """Memory-map one of the tables of a store; an InputError where its columns are others."""
    refuse_special_file(path)
    with _naming_damage(path):
        reader = pa.ipc.open_file(pa.memory_map(str(path)))
        if not reader.schema.equals(TABLES[path.name]):
            raise ValueError("its columns are others")
        return reader


def _open_single_batch(path: Path, *, check: bool) -> pa.RecordBatch:
    reader = open_table(path)
    with _naming_damage(path):
        batch = reader.get_batch(0)
        if check:
            check_batch(batch)
        return batch


def check_batch(batch: pa.RecordBatch) -> None:
    """Check that a record batch can be viewed as arrays: offsets in order, no nulls."""
    batch.validate(full=True)
    for name, column in zip(batch.schema.names, batch.columns, strict=True):
        inner = column
        while inner is not None:
            if inner.null_count:
                raise ValueError(f"{name} has an empty value")
            inner = inner.values if hasattr(inner, "values") else None


def open_store(directory: str | Path) -> AnnotationStore:
    """Open a store that a user gives, and check all of it.

    Its checksums show only that it is as it was written, whoever wrote it.

    Raises:
        InputError: Not a store, damaged, or with a value that no annotation file may have; names
            file, row and value.
    """
    store = AnnotationStore(directory)
    _check_images(store)
    _check_instances(store)
    _check_runs(store)
    return store


def _check_images(store: AnnotationStore) -> None:
    path = store.directory / "images.arrow"
    previous = ""
    for row, image in enumerate(store.images, start=1):
        try:
            for key in ("image_id", "file_name"):
                text = getattr(image, key)
                if image_path(text, key=key) != text:
                    raise RowError(f"{key} must be in its one spelling, got {text!r:.120}")
            check_size(str(image.height_px), str(image.width_px), ("height_px", "width_px"))
        except RowError as error:
            raise InputError(f"{error} ({path}, row {row})") from error
        if row > 1 and image.image_id <= previous:
            raise InputError(
                f"image_id must ascend, got {image.image_id!r:.120} after {previous!r:.120} "
                f"({path}, row {row})"
            )
        previous = image.image_id
    if (store.instance_counts < 0).any():
        raise InputError(f"instances must be 0 or more, got a count below 0 ({path})")


def _check_instances(store: AnnotationStore) -> None:
    """Check each instance's labels, and that the instances are in the order of the images."""
    path = store.directory / "instances.arrow"
    table = store.table
    index = view(table["image_index"], np.int32)
    # the sum first: counts of another file may be those of billions of instances
    if store.instance_counts.sum(dtype=np.int64) != len(index) or not np.array_equal(
        index, np.repeat(np.arange(len(store)), store.instance_counts)
    ):
        raise InputError(f"{path}: image_index must agree with the counts in images.arrow")
    labels = store.labels
    categories = view(table["category_id"], np.int16)
    _check_known("category_id", categories, labels.category_names, path)
    attributes = table["attribute_ids"].flatten().to_numpy(zero_copy_only=False)
    known = labels.attribute_names or dict.fromkeys(range(LARGEST_ID + 1), "")
    _check_known("attribute_ids", attributes, known, path)
    if not np.isin(view(table["is_crowd"], np.uint8), (0, 1)).all():
        raise InputError(f"is_crowd must be 0 or 1, got another value ({path})")
    rows = np.sort(view(table["runs_row"], np.int64))
    if not np.array_equal(rows, np.arange(len(rows))):
        raise InputError(f"{path}: runs_row must name each row of runs.arrow once")


def _check_known(
    key: str, values: npt.NDArray[np.integer], known: dict[int, str], path: Path
) -> None:
    unknown = np.setdiff1d(values, list(known))
    if len(unknown):
        raise InputError(f"{key} must be {describe_ids(known)}, got {unknown[0]} ({path})")


def _check_runs(store: AnnotationStore) -> None:
    """Check each mask against its image's size, and its instance's box and area against it."""
    path = store.directory / "runs.arrow"
    rows = view(store.table["runs_row"], np.int64)
    in_source_order = np.argsort(rows)
    sizes_hw = np.array([image.size_hw for image in store.images], np.int64).reshape(-1, 2)
    sizes_hw = np.repeat(sizes_hw, store.instance_counts, axis=0)[in_source_order]
    boxes = view(store.table["box_xyxy"].values, np.int32).reshape(-1, 4)[in_source_order]
    areas = view(store.table["area_px"], np.int64)[in_source_order]
    reader, first, starts = open_table(path), 0, []
    digests = [np.zeros(0, np.uint32)]
    for number in range(reader.num_record_batches):
        with _naming_damage(path, f" at record batch {number}"):
            batch = reader.get_batch(number)
            check_batch(batch)
        starts.append(first)
        chosen = slice(first, first + batch.num_rows)
        if chosen.stop > len(rows):
            break
        masks = masks_of(batch, sizes_hw[chosen])
        if wrong := masks.problems():
            row = min(wrong)
            raise InputError(f"runs: {wrong[row]} ({path}, row {first + row + 1})")
        figures = ("box_xyxy", boxes, masks.boxes_xyxy()), ("area_px", areas, masks.areas_px())
        for key, stored, of_masks in figures:
            differs = np.flatnonzero((stored[chosen] != of_masks).reshape(len(of_masks), -1).any(1))
            if len(differs):
                row = int(differs[0])
                raise InputError(
                    f"{key} must be that of the mask, {of_masks[row].tolist()}, got "
                    f"{stored[chosen][row].tolist()} ({path.with_name('instances.arrow')}, "
                    f"runs_row {first + row})"
                )
        digests.append(mask_digests(masks))
        first += batch.num_rows
    if first != len(rows) or starts != list(store.description["runs_batch_starts"]):
        raise InputError(f"{path}: must hold a row for each of the {len(rows)} instances")
    columns = [
        view(store.table["category_id"], np.int16),
        view(store.table["is_crowd"], np.uint8),
        np.concatenate(digests)[rows],
    ]
    attribute_ids = store.table["attribute_ids"].to_pylist()
    digest = image_digests(store.images, store.instance_counts, columns, attribute_ids)
    if not np.array_equal(digest, store.digests):
        raise InputError(f"{path.with_name('images.arrow')}: digest must be that of the instances")
