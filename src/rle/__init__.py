"""Masks as run lengths, the form in which the project keeps them. One name for what the
``run_length_*`` files hold.

All functions take and give ``Runs`` (``instances.py``): shape (R, 2) int32, column-major 0-based
start and length.
"""

from __future__ import annotations

from src.rle.algebra import (
    Runs,
    area_px,
    areas_px_batch,
    box_xyxy,
    boxes_xyxy_batch,
    intersection_px,
    iou,
    mirror,
    subtract,
    union,
)
from src.rle.raster import (
    decode,
    decode_resized,
    draw,
    encode,
    resize_nearest,
)
from src.rle.text import (
    RunLengthError,
    RunsBatch,
    check_runs,
    check_runs_batch,
    format_runs,
    format_runs_batch,
    parse_runs,
    parse_runs_batch,
)

__all__ = [
    "RunLengthError",
    "Runs",
    "RunsBatch",
    "area_px",
    "areas_px_batch",
    "box_xyxy",
    "boxes_xyxy_batch",
    "check_runs",
    "check_runs_batch",
    "decode",
    "decode_resized",
    "draw",
    "encode",
    "format_runs",
    "format_runs_batch",
    "intersection_px",
    "iou",
    "mirror",
    "parse_runs",
    "parse_runs_batch",
    "resize_nearest",
    "subtract",
    "union",
]
