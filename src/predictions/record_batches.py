"""One image's candidates as a row of a shard: an Arrow record batch, with a checksum.

Masks are probabilities, or run lengths where they are fixed: ``mask_run_counts`` has the number of
runs of each mask, and ``mask_runs`` start and length of each run, mask after mask, on a grid of
``mask_height`` x ``mask_width``. Scores are float32, beside fixed masks float64.
"""

from __future__ import annotations

import zlib
from collections.abc import Iterator
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from src.predictions.candidates import Candidates
from src.predictions.files import FIXED
from src.rle import RleBatch
from src.rle.masks import as_sizes

_FIXED_COLUMNS = {
    "mask_height": pa.int32(),
    "mask_width": pa.int32(),
    "mask_run_counts": pa.list_(pa.int32()),
    "mask_runs": pa.list_(pa.int32()),
}


def shard_schema(mask_size_hw: tuple[int, int], mask_dtype: str) -> pa.Schema:
    """Return the columns of a shard: a row an image, with an entry a candidate in its lists."""
    box = pa.list_(pa.float32(), 4)
    masks = _FIXED_COLUMNS
    if mask_dtype != FIXED:
        mask_bytes = mask_size_hw[0] * mask_size_hw[1] * np.dtype(mask_dtype).itemsize
        masks = {"mask_probabilities": pa.list_(pa.binary(mask_bytes))}
    required = {
        "image_id": pa.string(),
        "height": pa.int32(),
        "width": pa.int32(),
        "count": pa.int32(),
        "exact_above_score": pa.float64(),  # complete_above_score
        "checksum": pa.uint32(),
        "boxes": pa.list_(box),
        "nms_boxes": pa.list_(box),
        "scores": pa.list_(pa.float64() if mask_dtype == FIXED else pa.float32()),
        "category_ids": pa.list_(pa.int16()),
        **masks,
    }
    return pa.schema(
        [pa.field(name, kind, nullable=name == "nms_boxes") for name, kind in required.items()]
    )


def _checksum(candidates: Candidates) -> int:
    """Return the CRC-32 of everything stored, since Arrow has no checksum of its own."""
    frame = (candidates.image_id, *candidates.size_hw, candidates.complete_above_score)
    value = zlib.crc32(repr(frame).encode())
    for array in _arrays(candidates):
        value = zlib.crc32(np.ascontiguousarray(array).data, value)
    return value


def _arrays(candidates: Candidates) -> Iterator[npt.NDArray[Any]]:
    for name in ("boxes_xyxy", "scores", "category_ids", "mask_probabilities", "nms_boxes_xyxy"):
        if (array := getattr(candidates, name)) is not None:
            yield array
    if (masks := candidates.mask_rles) is not None:
        yield np.array(_grid_of(candidates), np.int32)
        yield masks.num_runs.astype(np.int32)
        yield masks.runs


def _grid_of(candidates: Candidates) -> tuple[int, int]:
    """Return height and width of the grid of fixed masks: the image's where there is no mask."""
    masks = candidates.mask_rles
    return masks.size_hw if masks is not None and len(masks) else candidates.size_hw


def _list_of_one(values: pa.Array) -> pa.Array:
    return pa.ListArray.from_arrays(pa.array([0, len(values)], pa.int32()), values)


def _box_list(boxes_xyxy: npt.NDArray[np.float32]) -> pa.Array:
    return _list_of_one(pa.FixedSizeListArray.from_arrays(pa.array(boxes_xyxy.reshape(-1)), 4))


def _mask_columns(candidates: Candidates, schema: pa.Schema) -> list[pa.Array]:
    if (masks := candidates.mask_rles) is not None:
        height, width = _grid_of(candidates)
        return [
            pa.array([height], pa.int32()),
            pa.array([width], pa.int32()),
            _list_of_one(pa.array(masks.num_runs.astype(np.int32))),
            _list_of_one(pa.array(masks.runs.reshape(-1))),
        ]
    mask_bytes = pa.FixedSizeBinaryArray.from_buffers(
        schema.field("mask_probabilities").type.value_type,
        len(candidates),
        [None, pa.py_buffer(candidates.mask_probabilities)],
    )
    return [_list_of_one(mask_bytes)]


def to_record_batch(candidates: Candidates, schema: pa.Schema, mask_dtype: str) -> pa.RecordBatch:
    """Return one image as a record batch of one row."""
    nms_boxes, masks = candidates.nms_boxes_xyxy, candidates.mask_probabilities
    score_dtype: Any = np.float64 if mask_dtype == FIXED else np.float32
    stored = Candidates(
        image_id=candidates.image_id,
        size_hw=(int(candidates.size_hw[0]), int(candidates.size_hw[1])),
        boxes_xyxy=np.ascontiguousarray(candidates.boxes_xyxy, np.float32),
        scores=np.ascontiguousarray(candidates.scores, score_dtype),
        category_ids=np.ascontiguousarray(candidates.category_ids, np.int16),
        mask_probabilities=None if masks is None else np.ascontiguousarray(masks, mask_dtype),
        complete_above_score=float(candidates.complete_above_score),
        nms_boxes_xyxy=None if nms_boxes is None else np.ascontiguousarray(nms_boxes, np.float32),
        mask_rles=candidates.mask_rles,
    )
    frame = (stored.image_id, *stored.size_hw, len(stored), stored.complete_above_score)
    scalars = (*frame, _checksum(stored))
    columns = [
        *(pa.array([value], field.type) for value, field in zip(scalars, schema, strict=False)),
        _box_list(stored.boxes_xyxy),
        pa.nulls(1, schema.field("nms_boxes").type)
        if stored.nms_boxes_xyxy is None
        else _box_list(stored.nms_boxes_xyxy),
        _list_of_one(pa.array(stored.scores)),
        _list_of_one(pa.array(stored.category_ids)),
        *_mask_columns(stored, schema),
    ]
    return pa.RecordBatch.from_arrays(columns, schema=schema)


def _values(column: pa.Array, kind: type[np.generic]) -> npt.NDArray[Any]:
    """Return a flat column without nulls as an array; ``to_numpy`` would import pandas."""
    offset = column.offset * np.dtype(kind).itemsize
    return np.frombuffer(column.buffers()[1] or b"", kind, count=len(column), offset=offset)


def _boxes_from(column: pa.Array) -> npt.NDArray[np.float32]:
    # flatten() honours the offsets of both list levels, the raw child arrays do not
    return _values(column.flatten().flatten(), np.float32).reshape(-1, 4)


def _probabilities_from(
    batch: pa.RecordBatch, mask_size_hw: tuple[int, int], mask_dtype: str
) -> npt.NDArray[np.float32]:
    mask_bytes = batch.column("mask_probabilities").flatten()
    dtype = np.dtype(mask_dtype)
    cells = mask_size_hw[0] * mask_size_hw[1]
    count, offset = len(mask_bytes) * cells, mask_bytes.offset * cells * dtype.itemsize
    masks: npt.NDArray[np.float32] = np.frombuffer(
        mask_bytes.buffers()[1] or b"", dtype, count, offset
    )
    return masks.reshape(-1, *mask_size_hw)


def _rles_from(batch: pa.RecordBatch) -> RleBatch:
    counts = _values(batch.column("mask_run_counts").flatten(), np.int32)
    runs = _values(batch.column("mask_runs").flatten(), np.int32).reshape(-1, 2)
    grid_hw = batch.column("mask_height")[0].as_py(), batch.column("mask_width")[0].as_py()
    offsets = np.concatenate([[0], np.cumsum(counts, dtype=np.int64)])
    if (counts < 0).any() or offsets[-1] != len(runs) or min(grid_hw) < 1:
        raise ValueError("mask_run_counts must count the runs of the masks")
    masks = RleBatch(runs, offsets, as_sizes(grid_hw, len(counts)))
    if problems := masks.problems():
        raise ValueError(next(iter(problems.values())))
    return masks


def from_record_batch(
    batch: pa.RecordBatch, mask_size_hw: tuple[int, int], mask_dtype: str
) -> Candidates:
    """Return the candidates of a record batch from ``to_record_batch``.

    Raises:
        ValueError: The bytes are not those that were written, or are no candidates.
    """
    batch.validate(full=True)
    nms_boxes, is_fixed = batch.column("nms_boxes"), mask_dtype == FIXED
    score_dtype = np.float64 if is_fixed else np.float32
    candidates = Candidates(
        image_id=batch.column("image_id")[0].as_py(),
        size_hw=(batch.column("height")[0].as_py(), batch.column("width")[0].as_py()),
        boxes_xyxy=_boxes_from(batch.column("boxes")),
        scores=_values(batch.column("scores").flatten(), score_dtype),
        category_ids=_values(batch.column("category_ids").flatten(), np.int16),
        mask_probabilities=None
        if is_fixed
        else _probabilities_from(batch, mask_size_hw, mask_dtype),
        complete_above_score=batch.column("exact_above_score")[0].as_py(),
        nms_boxes_xyxy=None if nms_boxes.null_count else _boxes_from(nms_boxes),
        mask_rles=_rles_from(batch) if is_fixed else None,
    )
    if _checksum(candidates) != batch.column("checksum")[0].as_py():
        raise ValueError("the checksum does not match")
    if min(candidates.size_hw) < 1:
        raise ValueError(f"height and width must be at least 1, got {candidates.size_hw}")
    for name in ("boxes_xyxy", "boxes_for_nms", "scores"):
        if not np.isfinite(getattr(candidates, name)).all():
            raise ValueError(f"{name} must be finite")
    return candidates
