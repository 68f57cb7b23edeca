"""File formats of a prediction store: ``meta.json``, the JSON files of each rank, and the shards.

JSON files have a checksum of their content (``src.io.seal``), shards one for each image. Format
version 1 differs in that its JSON files have no checksum.
"""

from __future__ import annotations

import json
import re
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

import pyarrow as pa

from src.annotations.categories import LARGEST_ID
from src.errors import InputError, naming_disk_errors
from src.io import (
    PARTIAL_SUFFIX,
    SEAL_KEY,
    check_seal,
    fsync,
    partial_path,
    read_json_object,
    refuse_special_file,
    seal,
    write_json,
)
from src.renamed_keys import upgrade_keys

FORMAT_VERSION = 2
UNSEALED_VERSION = 1
META_NAME = "meta.json"
EXPECTED_NAME = "expected_images.json"
SHARD_NAME = re.compile(r"rank(\d{5})_shard(\d{5})\.arrow")
FIXED = "rle"  # the mask_dtype of fixed masks
MASK_DTYPES = ("float16", "float32", FIXED)
INDEX_FIELDS = ("image_id", "height", "width", "count")
_MAX_MASK_EDGE_PX = 4096  # of stored probabilities; their cells are counted before one is read
RUN_AGAIN = "run the command that made the store again, it writes what is missing"
REMEDY = f"delete it and {RUN_AGAIN}"

Shard = tuple[int, int, Path]
"""Rank, number in the rank's series, file."""


@dataclass(frozen=True, slots=True)
class StoreMeta:
    """Everything in which two runs must agree to write into one store.

    Raises:
        InputError: ``mask_dtype`` is not legal.
    """

    category_ids: tuple[int, ...]  # in the order of the model's labels
    settings: Mapping[str, Any]  # plain JSON values: the config, checkpoint hashes, ...
    mask_size_hw: tuple[int, int]  # of the stored probabilities, 28 x 28 in HTC; 0 x 0 of FIXED
    mask_dtype: str  # one of MASK_DTYPES
    min_score: float  # candidates at or below this score were not written
    max_candidates: int | None  # maximum number of an image's candidates; None: no cap

    def __post_init__(self) -> None:
        if self.mask_dtype not in MASK_DTYPES:
            raise InputError(
                f"mask_dtype must be one of {', '.join(MASK_DTYPES)}, got {self.mask_dtype!r}"
            )


META_KEYS = ["score_floor" if key.name == "min_score" else key.name for key in fields(StoreMeta)]


def to_json(meta: StoreMeta) -> dict[str, Any]:
    """Return the content of ``meta.json`` as plain JSON values, without its checksum.

    Raises:
        InputError: The settings are not plain JSON values.
    """
    content = {**asdict(meta), "format_version": FORMAT_VERSION}
    content["score_floor"] = content.pop("min_score")  # its name in the file
    try:
        plain: dict[str, Any] = json.loads(json.dumps(content, allow_nan=False))
    except (TypeError, ValueError) as error:
        raise InputError(f"settings of a prediction store must be plain JSON ({error})") from error
    return plain


def write_sealed(path: Path, content: Mapping[str, Any]) -> None:
    """Write a JSON file of the store with its checksum, flushed to the disk."""
    write_json(path, seal(content), sync=True)


def read_store_json(path: Path) -> dict[str, Any]:
    """Read a JSON object of the store, with its checksum, which is not checked.

    Raises:
        InputError: The file is missing or damaged.
    """
    return read_json_object(
        path,
        missing="missing; a prediction store is a folder that `python -m src.predict` wrote, or "
        "src.import_predictions",
    )


def read_meta(directory: Path) -> StoreMeta:
    """Read ``meta.json``.

    Raises:
        InputError: The file is missing, damaged, lacks a key, or has another format version.
    """
    path = directory / META_NAME
    content = read_store_json(path)
    version = content.get("format_version")
    if version not in (UNSEALED_VERSION, FORMAT_VERSION):
        raise InputError(
            f"format_version must be {UNSEALED_VERSION} or {FORMAT_VERSION}, got {version!r} "
            f"({path}); run predict again"
        )
    if missing := [key for key in META_KEYS if key not in content]:
        raise _damaged(path, f"key {missing[0]!r} is missing")
    if version == FORMAT_VERSION:
        try:
            content = check_seal(content, path)
        except InputError as error:
            raise InputError(f"{error}; delete the folder and run predict again") from None
    elif unknown := sorted(content.keys() - {*META_KEYS, "format_version"}):
        raise _damaged(path, f"unknown key {unknown[0]!r}")
    try:
        cap = content["max_candidates"]
        height, width = (_whole(value, most=_MAX_MASK_EDGE_PX) for value in content["mask_size_hw"])
        return StoreMeta(
            category_ids=tuple(_whole(value, most=LARGEST_ID) for value in content["category_ids"]),
            settings=upgrade_keys(dict(content["settings"])),
            mask_size_hw=(height, width),
            mask_dtype=content["mask_dtype"],
            min_score=float(content["score_floor"]),
            max_candidates=None if cap is None else _whole(cap),
        )
    except (TypeError, ValueError, OverflowError) as error:
        raise _damaged(path, error) from error


def _whole(value: object, *, most: int = 2**63 - 1) -> int:
    if type(value) is not int or not 0 <= value <= most:
        raise ValueError(f"a value must be a whole number from 0 to {most}, got {value!r:.80}")
    return value


def _damaged(path: Path, reason: object) -> InputError:
    return InputError(f"{path}: damaged ({reason})")


def failed_path(directory: Path, rank: int) -> Path:
    """Return the file of a rank's failed images: the reasons by image id, under ``failed``."""
    return directory / f"rank{rank:05d}_failed.json"


def done_path(directory: Path, rank: int) -> Path:
    """Return the file that a rank writes when it has finished: its number of ``shards``."""
    return directory / f"rank{rank:05d}_done.json"


def shard_path(directory: Path, rank: int, number: int) -> Path:
    """Return the file of a rank's shard."""
    return directory / f"rank{rank:05d}_shard{number:05d}.arrow"


def write_expected(directory: Path, image_ids: Collection[str]) -> None:
    """Record the images that the store is meant to hold, including those that will fail."""
    write_sealed(directory / EXPECTED_NAME, {"image_ids": sorted(set(image_ids))})


def read_failed(directory: Path) -> dict[str, str]:
    """Read the reasons why images could not be predicted, by ascending image id, of all ranks.

    Raises:
        InputError: A file is damaged.
    """
    found: dict[str, str] = {}
    for path in sorted(directory.glob("rank?????_failed.json")):
        content = read_store_json(path)
        # format version 1 has the reasons at the top level
        if SEAL_KEY in content or not all(isinstance(text, str) for text in content.values()):
            content = _sealed_value(path, content, "failed", dict)
        if not all(isinstance(text, str) for text in content.values()):
            raise _damaged(path, "key 'failed' must hold texts")
        found |= content
    return dict(sorted(found.items()))


def read_expected(directory: Path) -> frozenset[str] | None:
    """Read the ids of the images that a store is meant to hold; None where it does not say.

    Raises:
        InputError: The file is damaged.
    """
    path = directory / EXPECTED_NAME
    if not path.exists():
        return None
    image_ids = _sealed_value(path, read_store_json(path), "image_ids", list)
    if not all(isinstance(image_id, str) for image_id in image_ids):
        raise _damaged(path, "key 'image_ids' must hold texts")
    return frozenset(image_ids)


def read_done(directory: Path) -> dict[int, int]:
    """Read the number of shards of each rank that has finished.

    Raises:
        InputError: A file is damaged.
    """
    found = {}
    for path in sorted(directory.glob("rank?????_done.json")):
        content = read_store_json(path)
        if content.keys() == {"shards"}:  # format version 1
            shards = content["shards"]
        else:
            shards = _sealed_value(path, content, "shards", int)
        if type(shards) is not int or shards < 0:
            raise InputError(
                f"shards must be a whole number of at least 0, got {shards!r} ({path})"
            )
        found[int(path.name[4:9])] = shards
    return found


def _sealed_value(path: Path, content: Mapping[str, Any], key: str, kind: type) -> Any:
    value = check_seal(content, path).get(key)
    if not isinstance(value, kind):
        raise _damaged(path, f"key {key!r} is missing")
    return value


def unfinished_shards(directory: Path, rank: int | None = None) -> list[Path]:
    """Return the temporary shards of running or killed processes, of one rank or of all."""
    name = "?????" if rank is None else f"{rank:05d}"
    return sorted(directory.glob(f".rank{name}_shard*{PARTIAL_SUFFIX}"))


def clear_other_ranks(directory: Path, world_size: int) -> None:
    """Delete what ranks beyond ``world_size`` left in a killed run with more processes."""
    for pattern in ("rank?????_failed.json", f".rank?????_*{PARTIAL_SUFFIX}"):
        for path in directory.glob(pattern):
            if int(path.name.removeprefix(".")[4:9]) >= world_size:
                path.unlink(missing_ok=True)


def list_shards(directory: Path) -> list[Shard]:
    """Return the complete shards of all ranks, by rank and number."""
    matches = [(SHARD_NAME.fullmatch(path.name), path) for path in directory.iterdir()]
    return sorted((int(match[1]), int(match[2]), path) for match, path in matches if match)


def check_series(directory: Path, shards: Sequence[Shard]) -> None:
    """Check that each rank has all shards that it recorded when it finished, without a gap.

    Raises:
        InputError: Names the first shard that is missing.
    """
    lengths = read_done(directory)
    for rank, number, _ in shards:
        lengths[rank] = max(lengths.get(rank, 0), number + 1)
    there = {(rank, number) for rank, number, _ in shards}
    for rank, length in sorted(lengths.items()):
        for number in range(length):
            if (rank, number) not in there:
                path = shard_path(directory, rank, number)
                raise InputError(f"{path}: missing; {RUN_AGAIN}")


@dataclass(frozen=True, slots=True)
class ShardImage:
    """An image of a shard without its candidates."""

    image_id: str
    size_hw: tuple[int, int]
    num_candidates: int
    batch: int


class ShardWriter:
    """Write images to one shard, which gets its name when it is complete."""

    def __init__(self, path: Path, schema: pa.Schema) -> None:
        self._path = path
        self._partial = partial_path(path)
        with naming_disk_errors(path, partial=self._partial):
            self._sink = pa.OSFile(str(self._partial), "wb")
        # level 3 reads as fast as level 1 and is smaller; smooth float16 masks shrink by a seventh
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
        """Complete the file, flush it to the disk, and give it its name."""
        with self._discarding_on_error():
            self._writer.close()
            self._sink.close()
            fsync(self._partial)
            self._partial.replace(self._path)

    @contextmanager
    def _discarding_on_error(self) -> Iterator[None]:
        """Delete the file on an error, because it cannot be read without its end."""
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
    """Memory-map a shard that has the columns of ``schema``.

    Args:
        path: The shard.
        schema: Columns that it must have.
        fields: Columns to read and decompress; empty: all.

    Raises:
        InputError: The file is missing, empty, truncated, or not such an Arrow file.
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
        raise InputError(f"{path}: damaged ({error}); {REMEDY}") from error


def list_images(path: Path, schema: pa.Schema) -> list[ShardImage]:
    """Return the images of a shard in order, without reading their candidates.

    Raises:
        InputError: The file is damaged.
    """
    reader = open_shard(path, schema, fields=INDEX_FIELDS)
    try:
        images = []
        for number in range(reader.num_record_batches):
            batch = reader.get_batch(number)
            batch.validate(full=True)
            image_id, *size_hw, count = batch.to_pylist()[0].values()
            images.append(ShardImage(image_id, tuple(size_hw), count, number))
        return images
    except (pa.ArrowException, OSError, ValueError, LookupError) as error:
        raise InputError(f"{path}: damaged ({error}); {REMEDY}") from error
