"""Files of a prediction store: shards of candidates, and the list of what they hold."""

from __future__ import annotations

import os
import re
import zlib
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from src.errors import InputError, naming_disk_errors
from src.io import (
    PARTIAL_SUFFIX,
    SEAL_KEY,
    check_seal,
    fsync,
    partial_path,
    refuse_special_file,
    seal,
)
from src.predictions.candidates import Candidates
from src.predictions.metadata import read_json, write_json

SHARD_NAME = re.compile(r"rank(\d{5})_shard(\d{5})\.arrow")
FAILED_SUFFIX = "_failed.json"
EXPECTED_NAME = "expected_images.json"

Shard = tuple[int, int, Path]
"""Rank, number in the rank's series, file."""


def shard_path(directory: Path, rank: int, shard: int) -> Path:
    """A shard of a rank."""
    return directory / f"rank{rank:05d}_shard{shard:05d}.arrow"


def unfinished_shards(directory: Path, rank: int) -> list[Path]:
    """What a killed process of this rank left."""
    return list(directory.glob(f".rank{rank:05d}_shard*{PARTIAL_SUFFIX}"))


def clear_other_ranks(directory: Path, world_size: int) -> None:
    """Delete what ranks beyond ``world_size`` left, killed in a run of more processes than this."""
    left = [
        *directory.glob(f"rank?????{FAILED_SUFFIX}"),
        *directory.glob(f".rank?????_*{PARTIAL_SUFFIX}"),
    ]
    for path in left:
        if int(path.name.removeprefix(".")[4:9]) >= world_size:
            path.unlink(missing_ok=True)


def failed_path(directory: Path, rank: int) -> Path:
    """The file that says which images a rank could not predict."""
    return directory / f"rank{rank:05d}{FAILED_SUFFIX}"


def write_failed(directory: Path, rank: int, failed: Mapping[str, str]) -> None:
    """Record why a rank could not predict images, by image id."""
    write_json(failed_path(directory, rank), seal({"failed": failed}))


def read_failed(directory: Path) -> dict[str, str]:
    """Why images of a store could not be predicted, by image id in ascending order; of all ranks.

    Raises:
        InputError: a file is damaged.
    """
    found: dict[str, str] = {}
    for path in sorted(directory.glob(f"rank?????{FAILED_SUFFIX}")):
        content = read_json(path)
        # before format version 2 the reasons stood by themselves, without a checksum
        if not all(isinstance(reason, str) for reason in content.values()):
            content = _sealed(path, content, "failed", dict)
        if SEAL_KEY in content:
            raise InputError(f"{path}: key 'failed' is missing; the file is damaged")
        found |= content
    return dict(sorted(found.items()))


def write_expected(directory: Path, image_ids: Collection[str]) -> None:
    """Record which images the store is meant to hold, those that will fail included."""
    write_json(directory / EXPECTED_NAME, seal({"image_ids": sorted(set(image_ids))}))


def read_expected(directory: Path) -> frozenset[str] | None:
    """Return which images a store is meant to hold; None where the store does not say.

    Raises:
        InputError: the file is damaged.
    """
    path = directory / EXPECTED_NAME
    if not path.exists():
        return None
    return frozenset(_sealed(path, read_json(path), "image_ids", list))


def done_path(directory: Path, rank: int) -> Path:
    """The file that says how many shards a rank has written when it finished."""
    return directory / f"rank{rank:05d}_done.json"


def write_done(directory: Path, rank: int, *, shards: int) -> None:
    """Record that a rank has finished, and its number of shards."""
    write_json(done_path(directory, rank), seal({"shards": shards}))


def read_done(directory: Path) -> dict[int, int]:
    """Return the number of shards of each rank that has finished.

    Raises:
        InputError: a file is damaged.
    """
    found = {}
    for path in sorted(directory.glob("rank?????_done.json")):
        content = read_json(path)
        # before format version 2 the number stood alone, without a checksum
        shards = content.get("shards") if len(content) == 1 else None
        if shards is None:
            shards = _sealed(path, content, "shards", int)
        if type(shards) is not int or shards < 0:
            raise InputError(f"{path}: shards must be a number of files, got {shards!r}")
        found[int(path.name[4:9])] = shards
    return found


def _sealed(path: Path, content: Mapping[str, Any], key: str, kind: type) -> Any:
    value = check_seal(content, path).get(key)
    if not isinstance(value, kind):
        raise InputError(f"{path}: key {key!r} is missing; the file is damaged")
    return value


def list_shards(directory: Path) -> list[Shard]:
    """The whole shards of all ranks, by rank and number."""
    matches = [(SHARD_NAME.fullmatch(path.name), path) for path in directory.iterdir()]
    return sorted((int(match[1]), int(match[2]), path) for match, path in matches if match)


def check_series(directory: Path, shards: Sequence[Shard]) -> None:
    """Refuse a series with a hole, or one shorter than its rank said when it finished.

    Raises:
        InputError: names the first shard that is missing.
    """
    lengths = read_done(directory)
    for rank, shard, _ in shards:
        lengths[rank] = max(lengths.get(rank, 0), shard + 1)
    there = {(rank, shard) for rank, shard, _ in shards}
    for rank, length in sorted(lengths.items()):
        for shard in range(length):
            if (rank, shard) not in there:
                raise InputError(
                    f"{shard_path(directory, rank, shard)}: missing; run the same predict command "
                    "again, it writes what is missing"
                )


INDEX_FIELDS = ("image_id", "height", "width", "count")


@dataclass(frozen=True, slots=True)
class ShardImage:
    """Where an image is in a shard, without its candidates."""

    image_id: str
    size_hw: tuple[int, int]
    candidates: int
    batch: int


def shard_schema(mask_size_hw: tuple[int, int], mask_dtype: str) -> pa.Schema:
    """Columns of a shard; the lists have one entry a candidate."""
    box = pa.list_(pa.float32(), 4)
    mask_bytes = mask_size_hw[0] * mask_size_hw[1] * np.dtype(mask_dtype).itemsize
    return pa.schema(
        [
            pa.field("image_id", pa.string(), nullable=False),
            pa.field("height", pa.int32(), nullable=False),
            pa.field("width", pa.int32(), nullable=False),
            pa.field("count", pa.int32(), nullable=False),
            pa.field("exact_above_score", pa.float64(), nullable=False),
            pa.field("checksum", pa.uint32(), nullable=False),
            pa.field("boxes", pa.list_(box), nullable=False),
            pa.field("nms_boxes", pa.list_(box), nullable=True),
            pa.field("scores", pa.list_(pa.float32()), nullable=False),
            pa.field("category_ids", pa.list_(pa.int16()), nullable=False),
            pa.field("mask_probabilities", pa.list_(pa.binary(mask_bytes)), nullable=False),
        ]
    )


def _checksum(candidates: Candidates) -> int:
    """CRC-32 over everything stored: Arrow carries none, and a flipped bit must be seen."""
    frame = (candidates.image_id, *candidates.size_hw, candidates.exact_above_score)
    value = zlib.crc32(repr(frame).encode())
    for array in (
        candidates.boxes_xyxy,
        candidates.scores,
        candidates.category_ids,
        candidates.mask_probabilities,
        candidates.nms_boxes_xyxy,
    ):
        if array is not None:
            value = zlib.crc32(np.ascontiguousarray(array).data, value)
    return value


def _list_of_one(values: pa.Array) -> pa.Array:
    return pa.ListArray.from_arrays(pa.array([0, len(values)], pa.int32()), values)


def _box_list(boxes_xyxy: npt.NDArray[np.float32]) -> pa.Array:
    return _list_of_one(pa.FixedSizeListArray.from_arrays(pa.array(boxes_xyxy.reshape(-1)), 4))


def to_record_batch(candidates: Candidates, schema: pa.Schema, mask_dtype: str) -> pa.RecordBatch:
    """One image as a record batch of one row."""
    stored = Candidates(
        image_id=candidates.image_id,
        size_hw=(int(candidates.size_hw[0]), int(candidates.size_hw[1])),
        boxes_xyxy=np.ascontiguousarray(candidates.boxes_xyxy, dtype=np.float32),
        scores=np.ascontiguousarray(candidates.scores, dtype=np.float32),
        category_ids=np.ascontiguousarray(candidates.category_ids, dtype=np.int16),
        mask_probabilities=np.ascontiguousarray(candidates.mask_probabilities, dtype=mask_dtype),
        exact_above_score=float(candidates.exact_above_score),
        nms_boxes_xyxy=None
        if candidates.nms_boxes_xyxy is None
        else np.ascontiguousarray(candidates.nms_boxes_xyxy, dtype=np.float32),
    )
    mask_bytes = pa.FixedSizeBinaryArray.from_buffers(
        schema.field("mask_probabilities").type.value_type,
        len(stored),
        [None, pa.py_buffer(stored.mask_probabilities)],
    )
    columns = [
        pa.array([stored.image_id], pa.string()),
        pa.array([stored.size_hw[0]], pa.int32()),
        pa.array([stored.size_hw[1]], pa.int32()),
        pa.array([len(stored)], pa.int32()),
        pa.array([stored.exact_above_score], pa.float64()),
        pa.array([_checksum(stored)], pa.uint32()),
        _box_list(stored.boxes_xyxy),
        pa.nulls(1, schema.field("nms_boxes").type)
        if stored.nms_boxes_xyxy is None
        else _box_list(stored.nms_boxes_xyxy),
        _list_of_one(pa.array(stored.scores)),
        _list_of_one(pa.array(stored.category_ids)),
        _list_of_one(mask_bytes),
    ]
    return pa.RecordBatch.from_arrays(columns, schema=schema)


def _boxes_from(column: pa.Array) -> npt.NDArray[np.float32]:
    # flatten() honours offsets of both list levels, the raw child arrays do not
    flat: npt.NDArray[np.float32] = column.flatten().flatten().to_numpy(zero_copy_only=False)
    return flat.reshape(-1, 4)


def from_record_batch(
    batch: pa.RecordBatch, mask_size_hw: tuple[int, int], mask_dtype: str
) -> Candidates:
    """Undo ``to_record_batch``.

    Raises:
        ValueError: the bytes are not those that were written.
    """
    batch.validate(full=True)
    mask_bytes = batch.column("mask_probabilities").flatten()
    dtype = np.dtype(mask_dtype)
    cells = mask_size_hw[0] * mask_size_hw[1]
    masks: npt.NDArray[np.float32] = np.frombuffer(
        mask_bytes.buffers()[1] or b"",
        dtype=dtype,
        count=len(mask_bytes) * cells,
        offset=mask_bytes.offset * cells * dtype.itemsize,
    )
    nms_boxes = batch.column("nms_boxes")
    candidates = Candidates(
        image_id=batch.column("image_id")[0].as_py(),
        size_hw=(batch.column("height")[0].as_py(), batch.column("width")[0].as_py()),
        boxes_xyxy=_boxes_from(batch.column("boxes")),
        scores=batch.column("scores").flatten().to_numpy(zero_copy_only=False),
        category_ids=batch.column("category_ids").flatten().to_numpy(zero_copy_only=False),
        mask_probabilities=masks.reshape(-1, *mask_size_hw),
        exact_above_score=batch.column("exact_above_score")[0].as_py(),
        nms_boxes_xyxy=None if nms_boxes.null_count else _boxes_from(nms_boxes),
    )
    if _checksum(candidates) != batch.column("checksum")[0].as_py():
        raise ValueError("the checksum does not match")
    return candidates


class ShardWriter:
    """Streams images into one shard; the file has its name only when it is whole."""

    def __init__(self, path: Path, schema: pa.Schema) -> None:
        self._path = path
        self._partial = partial_path(path)
        with naming_disk_errors(path, partial=self._partial):
            self._sink = pa.OSFile(str(self._partial), "wb")
        # level 3: as fast to read as level 1 and smaller; smooth float16 masks shrink by a seventh
        options = pa.ipc.IpcWriteOptions(
            compression=pa.Codec("zstd", compression_level=3), use_threads=False
        )
        self._writer = pa.ipc.new_file(self._sink, schema, options=options)
        self.images = 0

    def add(self, batch: pa.RecordBatch) -> None:
        """Append one image."""
        with self._discarding_on_error():
            self._writer.write_batch(batch)
        self.images += 1

    def finish(self) -> None:
        """Complete the file, push it to the disk, and give it its name."""
        with self._discarding_on_error():
            self._writer.close()
            self._sink.close()
            fsync(self._partial)
            os.replace(self._partial, self._path)

    @contextmanager
    def _discarding_on_error(self) -> Iterator[None]:
        """Remove the file where it cannot be written: its end is missing, so it is none."""
        try:
            with naming_disk_errors(self._path, partial=self._partial):
                yield
        except Exception:
            with suppress(OSError):
                self._sink.close()
            self._partial.unlink(missing_ok=True)
            raise


def open_shard(
    path: Path, schema: pa.Schema, fields: Sequence[str] = ()
) -> pa.ipc.RecordBatchFileReader:
    """Memory-map a shard.

    Args:
        schema: the columns that it must have.
        fields: read (and decompress) only these columns; none: all.

    Raises:
        InputError: the file is missing, empty, truncated, or not such an Arrow file.
    """
    refuse_special_file(path)
    try:
        source = pa.memory_map(str(path), "rb")
        reader = pa.ipc.open_file(source)
        if not reader.schema.equals(schema):
            raise ValueError("its columns are not those of meta.json")
        if fields:
            included = [schema.get_field_index(name) for name in fields]
            options = pa.ipc.IpcReadOptions(included_fields=included, use_threads=False)
            reader = pa.ipc.open_file(source, options=options)
        return reader
    except FileNotFoundError as error:
        raise InputError(f"{path}: missing; {REMEDY}") from error
    except (pa.ArrowException, OSError, ValueError) as error:
        raise InputError(f"{path}: not a whole Arrow shard ({error}); {REMEDY}") from error


REMEDY = "delete it and run the same predict command again, it writes what is missing"


def list_images(path: Path, schema: pa.Schema) -> list[ShardImage]:
    """The images of a shard, in its order, without reading their candidates.

    Raises:
        InputError: the file is damaged.
    """
    reader = open_shard(path, schema, fields=INDEX_FIELDS)
    try:
        batches = [reader.get_batch(number) for number in range(reader.num_record_batches)]
        for batch in batches:
            batch.validate(full=True)
        rows = [batch.to_pylist()[0] for batch in batches]
        return [
            ShardImage(row["image_id"], (row["height"], row["width"]), row["count"], number)
            for number, row in enumerate(rows)
        ]
    except (pa.ArrowException, OSError, ValueError, LookupError) as error:
        raise InputError(f"{path}: damaged ({error}); {REMEDY}") from error
