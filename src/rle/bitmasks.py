"""Masks of one raster as bits, eight pixels a byte: a 512 x 512 mask takes 32 KiB.

Shape (N, H * W / 8) uint8. The pixel in row y and column x has the number p = x * H + y, as in run
lengths; it is bit p % 8, lowest first, of byte p // 8. H * W must be a multiple of 8.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from src.rle.algebra import Runs
from src.rle.raster import Words, resized_intervals_batch, runs_to_words, transpose, words_to_runs

Packed = npt.NDArray[np.uint8]

_BLOCK_MASKS = 64  # of 512 x 512 pixels; they fit in a core's cache


def pack(masks: npt.NDArray[np.bool_]) -> Packed:
    """Pack bitmaps.

    Args:
        masks: Shape (N, H, W) bool.

    Returns:
        Shape (N, H * W / 8) uint8.

    Raises:
        ValueError: H * W is no multiple of 8.
    """
    count, height, width = masks.shape
    _check_size((height, width))
    packed = np.empty((count, height * width // 8), dtype=np.uint8)
    for row, mask in enumerate(masks):
        packed[row] = np.packbits(transpose(mask).ravel(), bitorder="little")
    return packed


def unpack(packed: Packed, size_hw: tuple[int, int]) -> npt.NDArray[np.bool_]:
    """Draw packed masks.

    Args:
        packed: Shape (N, H * W / 8) uint8.
        size_hw: Height and width of the raster.

    Returns:
        Shape (N, H, W) bool.

    Raises:
        ValueError: the masks are of another raster.
    """
    _check_size(size_hw, row_bytes=packed.shape[1])
    height, width = size_hw
    masks = np.empty((len(packed), height, width), dtype=np.bool_)
    for row, bits in enumerate(packed):
        pixels = np.unpackbits(bits, count=height * width, bitorder="little").view(np.bool_)
        masks[row] = transpose(pixels.reshape(width, height))
    return masks


def pack_runs(masks: Sequence[Runs], size_hw: tuple[int, int]) -> Packed:
    """Pack masks straight from run lengths on this raster.

    Args:
        masks: N arrays of shape (R_i, 2), valid for the raster (resize with ``resize_nearest``
            first).
        size_hw: Height and width of the raster.

    Returns:
        Shape (N, H * W / 8) uint8.

    Raises:
        ValueError: H * W is no multiple of 8.
    """
    raster_px = _check_size(size_hw)
    counts = np.array([len(runs) for runs in masks], dtype=np.int64)
    runs = np.concatenate([np.zeros((0, 2), dtype=np.int32), *masks])
    starts = runs[:, 0] + (np.arange(len(masks)) * raster_px).repeat(counts)
    return _draw(starts, starts + runs[:, 1], len(masks), raster_px)


def pack_resized(
    masks: Sequence[Runs], size_hw: tuple[int, int], raster_hw: tuple[int, int]
) -> Packed:
    """Pack masks of an image on a raster: ``pack_runs`` of what ``resize_nearest`` gives.

    Args:
        masks: N arrays of shape (R_i, 2), valid for the image.
        size_hw: Height and width of the image.
        raster_hw: Height and width of the raster.

    Returns:
        Shape (N, H * W / 8) uint8 of the raster's H and W.

    Raises:
        ValueError: H * W is no multiple of 8.
    """
    if size_hw == raster_hw:
        return pack_runs(masks, raster_hw)
    raster_px = _check_size(raster_hw)
    starts, ends = resized_intervals_batch(masks, size_hw, raster_hw)
    return _draw(starts, ends, len(masks), raster_px)


def _draw(
    starts: npt.NDArray[np.int64], ends: npt.NDArray[np.int64], count: int, raster_px: int
) -> Packed:
    """Set the bits of ``count`` masks from their ascending disjoint intervals; those of mask i lie
    between i and i + 1 times ``raster_px``."""
    packed = np.zeros((count, raster_px // 8), dtype=np.uint8)
    offsets = starts.searchsorted(np.arange(count + 1) * raster_px)
    intervals = np.diff(offsets)
    rows = np.flatnonzero(intervals)
    if len(rows) == 0:
        return packed
    # Each mask is drawn in a window, the words from its first interval to its last, for it is often
    # a small part of the raster; the windows lie one after the other and are filled together.
    origins = rows * raster_px
    first_words = (starts[offsets[rows]] - origins) >> 6
    sizes = ((ends[offsets[rows + 1] - 1] - origins) >> 6) + 1 - first_words
    windows = sizes.cumsum() - sizes
    shifts = (64 * (windows - first_words) - origins).repeat(intervals[rows])
    words = runs_to_words(starts + shifts, ends + shifts, 64 * int(sizes.sum())).view(np.uint8)
    places = zip(rows.tolist(), first_words.tolist(), windows.tolist(), sizes.tolist(), strict=True)
    for row, first_word, begin, size in places:
        window = packed[row, 8 * first_word : 8 * (first_word + size)]
        window[:] = words[8 * begin : 8 * begin + len(window)]
    return packed


def to_runs(packed_row: Packed, size_hw: tuple[int, int]) -> Runs:
    """Maximal runs of one packed mask.

    Args:
        packed_row: Shape (H * W / 8,) uint8.
        size_hw: Height and width of the raster.

    Returns:
        Shape (R, 2) int32.

    Raises:
        ValueError: the mask is of another raster.
    """
    _check_size(size_hw, row_bytes=len(packed_row))
    return words_to_runs(_words(packed_row[None])[0])


def to_runs_batch(packed: Packed, size_hw: tuple[int, int]) -> tuple[Runs, npt.NDArray[np.int64]]:
    """Maximal runs of packed masks, as ``to_runs`` gives them one by one.

    Args:
        packed: Shape (N, H * W / 8) uint8.
        size_hw: Height and width of the raster.

    Returns:
        The runs of all masks one after the other, shape (R, 2) int32, and where each mask's begin,
        shape (N + 1,): mask i has the runs ``offsets[i]`` to ``offsets[i + 1]``.

    Raises:
        ValueError: the masks are of another raster.
    """
    _check_size(size_hw, row_bytes=packed.shape[1])
    blocks = []
    counts = [np.zeros(1, dtype=np.int64)]
    for begin in range(0, len(packed), _BLOCK_MASKS):
        words = _words(packed[begin : begin + _BLOCK_MASKS])
        # the masks one after the other, and a clear word that ends the runs of each
        rows = np.zeros((len(words), words.shape[1] + 1), dtype=np.uint64)
        rows[:, :-1] = words
        runs = words_to_runs(rows.ravel())
        row, runs[:, 0] = np.divmod(runs[:, 0], 64 * rows.shape[1])
        blocks.append(runs)
        counts.append(np.bincount(row, minlength=len(words)))
    return (
        np.concatenate([np.zeros((0, 2), dtype=np.int32), *blocks]),
        np.cumsum(np.concatenate(counts)),
    )


def areas_px(packed: Packed) -> npt.NDArray[np.int64]:
    """Number of pixels of each mask. Shapes (N, B) uint8 and (N,) int64."""
    result: npt.NDArray[np.int64] = np.bitwise_count(_words(packed)).sum(axis=1, dtype=np.int64)
    return result


def intersections_px(a: Packed, b: Packed) -> npt.NDArray[np.int64]:
    """Number of pixels that each mask of ``a`` shares with each of ``b``.

    Args:
        a: Shape (N, B) uint8.
        b: Shape (M, B) uint8, of the same raster.

    Returns:
        Shape (N, M) int64.
    """
    a_words, b_words = _words(a), _words(b)
    used = [np.flatnonzero(words) for words in a_words]
    shared = np.zeros((len(a), len(b)), dtype=np.int64)
    for begin in range(0, len(b), _BLOCK_MASKS):
        block = b_words[begin : begin + _BLOCK_MASKS]
        for row, (words, at) in enumerate(zip(a_words, used, strict=True)):
            if len(at):
                window = slice(at[0], at[-1] + 1)
                both = np.bitwise_count(words[window] & block[:, window])
                shared[row, begin : begin + len(block)] = both.sum(axis=1, dtype=np.uint32)
    return shared


def paired_intersections_px(
    a: Packed,
    b: Packed,
    a_rows: npt.NDArray[np.integer],
    b_rows: npt.NDArray[np.integer],
) -> npt.NDArray[np.int64]:
    """Number of pixels that mask ``a_rows[i]`` of ``a`` shares with mask ``b_rows[i]`` of ``b``.

    Args:
        a: Shape (N, B) uint8.
        b: Shape (M, B) uint8, of the same raster.
        a_rows: Shape (P,), numbers below N.
        b_rows: Shape (P,), numbers below M.

    Returns:
        Shape (P,) int64.
    """
    a_words, b_words = _words(a), _words(b)
    shared = np.zeros(len(a_rows), dtype=np.int64)
    for begin in range(0, len(a_rows), _BLOCK_MASKS):
        block = slice(begin, begin + _BLOCK_MASKS)
        both = np.bitwise_count(a_words[a_rows[block]] & b_words[b_rows[block]])
        shared[block] = both.sum(axis=1, dtype=np.uint32)
    return shared


def _check_size(size_hw: tuple[int, int], row_bytes: int | None = None) -> int:
    pixels = size_hw[0] * size_hw[1]
    name = f"a raster of {size_hw[0]} x {size_hw[1]} pixels"
    if pixels % 8:
        raise ValueError(f"{name} is no whole number of bytes")
    if row_bytes is not None and row_bytes != pixels // 8:
        raise ValueError(f"{name} takes {pixels // 8} bytes a mask, got {row_bytes}")
    return pixels


def _words(packed: Packed) -> Words:
    """View as 64-bit words; where a row is no whole number of them, a copy with zeros behind."""
    count, length = packed.shape
    if length % 8:
        padded = np.zeros((count, length + 8 - length % 8), dtype=np.uint8)
        padded[:, :length] = packed
        packed = padded
    return np.ascontiguousarray(packed).view(np.uint64)
