"""Masks as COCO writes them: counts, compressed counts, polygons. Counts are lengths of runs,
background first.

Source: ``maskApi.c`` of the COCO API (``rleFrString``, ``rleToString``). Runs that touch are kept
    apart by a background
run of length zero, so a mask comes back with the very runs it had.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
from pycocotools import mask as coco_mask

from src.annotations.instances import Runs
from src.annotations.run_length_checks import RunLengthError

_MAX_GROUPS = 7  # of five bits: more than any count below 2**31 and its sign take


def to_coco_counts(runs: Runs, size_hw: tuple[int, int]) -> list[int]:
    """Uncompressed COCO counts of a mask.

    Args:
        runs: Shape (R, 2), valid for the picture.
        size_hw: Height and width of the picture.

    Returns:
        Lengths of background and object runs by turns, background first; they sum to H * W. A
        background run of length zero at the end is left out.
    """
    return _counts(runs, size_hw).tolist()


def from_coco_counts(
    counts: Sequence[int] | npt.NDArray[np.integer], size_hw: tuple[int, int]
) -> Runs:
    """Runs of uncompressed COCO counts.

    Raises:
        RunLengthError: a count is no whole number or negative, or they do not sum to H * W.
    """
    lengths = np.asarray(counts)
    if lengths.ndim != 1 or (len(lengths) and lengths.dtype.kind not in "iu"):
        raise RunLengthError(f"counts must be a list of whole numbers, got {str(counts)[:60]}")
    if len(lengths) and lengths.min() < 0:
        at = int(np.argmax(lengths < 0))
        raise RunLengthError(f"count {at + 1} of {len(lengths)} is negative: {lengths[at]}")
    height_px, width_px = size_hw
    ends = np.cumsum(lengths, dtype=np.int64)
    total = int(ends[-1]) if len(ends) else 0
    if total != height_px * width_px:
        raise RunLengthError(
            f"counts sum to {total}, a picture of height {height_px} and width {width_px} has "
            f"{height_px * width_px}"
        )
    runs = np.stack([(ends - lengths)[1::2], lengths[1::2]], axis=1)
    return runs[runs[:, 1] > 0].astype(np.int32)


def to_coco_compressed(runs: Runs, size_hw: tuple[int, int]) -> str:
    """Compressed COCO counts of a mask, as in the ``counts`` of a COCO JSON. Arguments as
    ``to_coco_counts``.
    """
    counts = _counts(runs, size_hw)
    deltas = counts.copy()
    deltas[3:] -= counts[1:-2]
    # Groups of five bits, lowest first, until the rest is the sign of the last group.
    rests = deltas[:, None] >> (5 * np.arange(_MAX_GROUPS + 1))
    groups = rests[:, :-1] & 31
    done = rests[:, 1:] == -(groups >> 4)
    last = np.argmax(done, axis=1)
    places = np.arange(_MAX_GROUPS)
    characters = groups + 48 + 32 * (places < last[:, None])
    return characters[places <= last[:, None]].astype(np.uint8).tobytes().decode("ascii")


def from_coco_compressed(text: str | bytes, size_hw: tuple[int, int]) -> Runs:
    """Runs of compressed COCO counts.

    Raises:
        RunLengthError: a character that the format does not have, a text that ends within a count,
            a negative count, or counts that do not sum to H * W.
    """
    data = text.encode("utf-8") if isinstance(text, str) else text
    codes = np.frombuffer(data, dtype=np.uint8).astype(np.int64) - 48
    if len(codes) and (codes.min() < 0 or codes.max() > 63):
        at = int(np.argmax((codes < 0) | (codes > 63)))
        raise RunLengthError(
            f"compressed counts: character {at + 1} is {chr(data[at])!r}, legal are '0' to 'o'"
        )
    ends = np.flatnonzero(codes < 32)
    if len(codes) and (len(ends) == 0 or ends[-1] != len(codes) - 1):
        raise RunLengthError(
            f"compressed counts: the text of {len(codes)} characters ends within a count"
        )
    sizes = np.diff(ends, prepend=-1)
    if len(sizes) and sizes.max() > _MAX_GROUPS:
        raise RunLengthError("compressed counts: a count has more than 31 bits")
    within = np.arange(len(codes)) - np.repeat(ends - sizes + 1, sizes)
    counts = np.zeros(len(ends), dtype=np.int64)
    if len(ends):
        counts = np.add.reduceat((codes & 31) << (5 * within), ends - sizes + 1)
        counts -= ((codes[ends] >> 4) & 1) << (5 * sizes)
    # From the fourth on, a count is written as its difference to the one two before.
    counts[1::2] = np.cumsum(counts[1::2])
    counts[2::2] = np.cumsum(counts[2::2])
    return from_coco_counts(counts, size_hw)


def from_polygons(polygons: Sequence[Sequence[float]], size_hw: tuple[int, int]) -> Runs:
    """Runs of the union of polygons, rasterised by pycocotools so that pixels agree with every COCO
    tool.

    Args:
        polygons: Each ``[x1, y1, x2, y2, ...]`` in pixels, at least three points.
        size_hw: Height and width of the picture.

    Raises:
        RunLengthError: a polygon with an odd number of coordinates, fewer than three points, or a
            coordinate that is no finite number.
    """
    height_px, width_px = size_hw
    checked = []
    for index, polygon in enumerate(polygons):
        name = f"polygon {index + 1} of {len(polygons)}"
        try:
            coordinates = np.asarray(polygon, dtype=np.float64)
        except (TypeError, ValueError):
            raise RunLengthError(
                f"{name} holds a coordinate that is no number: {str(polygon)[:60]}"
            ) from None
        if coordinates.ndim != 1 or len(coordinates) % 2 or len(coordinates) < 6:
            raise RunLengthError(
                f"{name} has {coordinates.size} coordinates; legal are x1, y1, x2, "
                "y2, ... of at least 3 points"
            )
        if not np.isfinite(coordinates).all():
            raise RunLengthError(
                f"{name} holds a coordinate that is not finite: {str(polygon)[:60]}"
            )
        checked.append(coordinates.tolist())
    if not checked:
        return np.zeros((0, 2), dtype=np.int32)
    merged = coco_mask.merge(coco_mask.frPyObjects(checked, height_px, width_px))
    return from_coco_compressed(merged["counts"], size_hw)


def _counts(runs: Runs, size_hw: tuple[int, int]) -> npt.NDArray[np.int64]:
    starts = runs[:, 0].astype(np.int64)
    ends = starts + runs[:, 1]
    pixels = size_hw[0] * size_hw[1]
    last = int(ends[-1]) if len(ends) else 0
    counts = np.empty(2 * len(runs) + 1, dtype=np.int64)
    counts[0:-1:2] = np.diff(ends, prepend=0) - runs[:, 1]
    counts[1::2] = runs[:, 1]
    counts[-1] = pixels - last
    return counts if counts[-1] or len(counts) == 1 else counts[:-1]
