"""Make a prediction store of COCO's results.

The entries of an image may lie anywhere in the file. So they are first sorted into buckets of
consecutive images, in temporary files where there are several, and then written bucket by bucket.
The store begins when the last entry has been read, and found right.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from src.annotations.instances import ImageRecord
from src.annotations.rows import ProgressCallback
from src.errors import naming_disk_errors
from src.predictions.candidates import Candidates
from src.predictions.results import ResultBlock, ResultReader
from src.predictions.store import PredictionStoreWriter
from src.rle import RleBatch

BUCKET_BYTES = 32 << 20  # of the file; masks take up to six times as much memory
MAX_BUCKETS = 256
_SCHEMA = pa.schema(
    {"place": pa.int32(), "category_id": pa.int16(), "score": pa.float64()}
    | {"box_xyxy": pa.list_(pa.float32(), 4), "runs": pa.list_(pa.int32())}
)


def candidates_of(image: ImageRecord, block: ResultBlock) -> Candidates:
    """Return the detections of one image as candidates with fixed masks, in their order."""
    return Candidates(
        image_id=image.image_id,
        size_hw=image.size_hw,
        boxes_xyxy=block.boxes_xyxy,
        scores=block.scores,
        category_ids=block.category_ids,
        mask_probabilities=None,
        complete_above_score=0.0,
        mask_rles=block.masks,
    )


def write_results(
    reader: ResultReader,
    images: Sequence[ImageRecord],
    open_writer: Callable[[], PredictionStoreWriter],
    *,
    chosen: Sequence[int],
    num_bytes: int,
    directory: Path,
    on_read: ProgressCallback | None = None,
    on_written: Callable[[], None] = lambda: None,
) -> None:
    """Read results and write the store.

    Args:
        reader: The results.
        images: The records that the reader knows.
        open_writer: Opens the store.
        chosen: Places of the images to write; entries of other images are left out.
        num_bytes: Size of the file.
        directory: An existing folder for temporary files.
        on_read: Called with the number of bytes read and their total.
        on_written: Called after each image.

    Raises:
        InputError: An entry is wrong; nothing is written.
    """
    count = min(MAX_BUCKETS, max(1, -(-num_bytes // BUCKET_BYTES)))
    with ExitStack() as opened:
        buckets = [_Bucket(directory / f"{n}.arrow", in_memory=count == 1) for n in range(count)]
        for bucket in buckets:
            opened.callback(bucket.close)
        for block in reader.blocks(on_read):
            bucket_of = block.places.astype(np.int64) * count // len(images)
            for number in np.unique(bucket_of).tolist():
                buckets[number].add(block.take(np.flatnonzero(bucket_of == number)))
        wanted: list[list[int]] = [[] for _ in range(count)]
        for place in chosen:
            wanted[place * count // len(images)].append(place)
        with open_writer() as writer:
            for bucket, places in zip(buckets, wanted, strict=True):
                for candidates in _by_image(bucket.read(images), images, places):
                    writer.add(candidates)
                    on_written()


def _by_image(
    block: ResultBlock, images: Sequence[ImageRecord], places: Sequence[int]
) -> Iterator[Candidates]:
    order = np.argsort(block.places, kind="stable")
    in_order = block.places[order]
    for place in places:
        low, high = np.searchsorted(in_order, [place, place + 1])
        yield candidates_of(images[place], block.take(order[low:high]))


class _Bucket:
    """The entries of some images, in the order of the file."""

    def __init__(self, path: Path, *, in_memory: bool) -> None:
        self._path = path
        self._sink = None if in_memory else pa.OSFile(str(path), "wb")
        self._blocks: list[pa.RecordBatch] = []
        self._writer = None
        if self._sink is not None:
            options = pa.ipc.IpcWriteOptions(compression="lz4", use_threads=False)
            self._writer = pa.ipc.new_stream(self._sink, _SCHEMA, options=options)

    def add(self, block: ResultBlock) -> None:
        """Append entries."""
        boxes = pa.FixedSizeListArray.from_arrays(pa.array(block.boxes_xyxy.reshape(-1)), 4)
        runs = pa.ListArray.from_arrays(
            pa.array((2 * block.masks.offsets).astype(np.int32)),
            pa.array(block.masks.runs.reshape(-1)),
        )
        columns = [block.places, block.category_ids, block.scores]
        batch = pa.RecordBatch.from_arrays([*map(pa.array, columns), boxes, runs], schema=_SCHEMA)
        if self._writer is None:
            self._blocks.append(batch)
            return
        with naming_disk_errors(self._path):
            self._writer.write_batch(batch)

    def read(self, images: Sequence[ImageRecord]) -> ResultBlock:
        """Return all entries, and free them here."""
        if self._writer is not None:
            with naming_disk_errors(self._path):
                self.close()
            with pa.OSFile(str(self._path), "rb") as source:
                self._blocks = list(pa.ipc.open_stream(source))
            self._path.unlink()
        batches, self._blocks = self._blocks, []
        sizes_hw = np.array([image.size_hw for image in images], np.int64).reshape(-1, 2)
        places = _column(batches, "place", np.int32)
        runs = [_values(batch["runs"].values, np.int32).reshape(-1, 2) for batch in batches]
        counts = [np.diff(_values(batch["runs"].offsets, np.int32)) // 2 for batch in batches]
        boxes = [_values(batch["box_xyxy"].values, np.float32) for batch in batches]
        return ResultBlock(
            places=places,
            category_ids=_column(batches, "category_id", np.int16),
            scores=_column(batches, "score", np.float64),
            boxes_xyxy=np.concatenate([np.zeros(0, np.float32), *boxes]).reshape(-1, 4),
            masks=RleBatch(
                np.concatenate([np.zeros((0, 2), np.int32), *runs]),
                np.cumsum(np.concatenate([[0], *counts]), dtype=np.int64),
                sizes_hw[places],
            ),
        )

    def close(self) -> None:
        """End the file."""
        if self._writer is not None and self._sink is not None and not self._sink.closed:
            self._writer.close()
            self._sink.close()


def _values(column: pa.Array, kind: type[np.generic]) -> npt.NDArray[Any]:
    """Return a flat column without nulls as an array; ``to_numpy`` would import pandas."""
    values = np.frombuffer(column.buffers()[1] or b"", kind)
    return values[column.offset : column.offset + len(column)]


def _column(
    batches: Sequence[pa.RecordBatch], name: str, kind: type[np.generic]
) -> npt.NDArray[Any]:
    parts = [_values(batch[name], kind) for batch in batches]
    return np.concatenate([np.zeros(0, kind), *parts])
