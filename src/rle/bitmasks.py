"""Bit-packed masks of one raster, eight pixels a byte: a 512 x 512 mask takes 32 KiB."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from src.rle.masks import NO_RUNS, Masks, RleBatch, Size, as_sizes
from src.rle.raster import Words, resized_intervals, runs_to_words, transpose, words_to_runs

Bits = npt.NDArray[np.uint8]
"""Shape (N, ceil(H * W / 8)) uint8: see `Bitmasks`."""

_BLOCK_BYTES = 1 << 21  # 64 masks of 512 x 512 pixels, which fit in a core's cache


@dataclass(frozen=True, slots=True, eq=False)
class Bitmasks:
    """N masks of one raster as bits.

    Args:
        bits: Shape (N, ceil(H * W / 8)) uint8. The pixel in row y and column x has the number
            p = x * H + y, as in RLE; it is bit p % 8, lowest first, of byte p // 8. Bits of the
            last byte that are no pixels are clear.
        raster_hw: Height and width of the raster in pixels.

    Raises:
        ValueError: The bits are of another raster.

    Example:
        >>> import numpy as np
        >>> from src import Bitmasks
        >>> masks = Bitmasks.pack(np.stack([np.eye(4), np.ones((4, 4))]).astype(bool))
        >>> masks.bits.shape, masks.areas_px().tolist(), masks.intersections_px(masks).tolist()
        ((2, 2), [4, 16], [[4, 4], [4, 16]])
    """

    bits: Bits
    raster_hw: Size

    def __post_init__(self) -> None:
        expected = num_bytes(self.raster_hw)
        if self.bits.shape[1] != expected:
            raise ValueError(
                f"bits must have {expected} bytes a mask for a raster of {self.raster_hw[0]} x "
                f"{self.raster_hw[1]} pixels, got {self.bits.shape[1]}"
            )

    @classmethod
    def pack(cls, bitmaps: npt.NDArray[np.bool_]) -> Bitmasks:
        """Pack bitmaps, shape (N, H, W) bool."""
        count, height, width = bitmaps.shape
        bits = np.empty((count, num_bytes((height, width))), dtype=np.uint8)
        for row, bitmap in enumerate(bitmaps):
            bits[row] = np.packbits(transpose(bitmap).ravel(), bitorder="little")
        return cls(bits, (height, width))

    @classmethod
    def of(cls, masks: Masks, raster_hw: Size) -> Bitmasks:
        """Pack N valid masks of images of one size, resized by nearest to the raster."""
        raster_px = raster_hw[0] * raster_hw[1]
        batch = RleBatch.of(masks)
        if not len(batch):
            return cls(np.zeros((0, num_bytes(raster_hw)), dtype=np.uint8), raster_hw)
        if batch.size_hw == raster_hw:
            starts = batch.runs[:, 0] + (np.arange(len(batch)) * raster_px).repeat(batch.num_runs)
            ends = starts + batch.runs[:, 1]
        else:
            starts, ends = resized_intervals(batch, raster_hw)
            filled = starts < ends  # an empty one may lie in the next mask's raster
            starts, ends = starts[filled], ends[filled]
        return cls(_draw(starts, ends, len(batch), raster_px), raster_hw)

    def unpack(self) -> npt.NDArray[np.bool_]:
        """Return the masks as bitmaps, shape (N, H, W) bool."""
        height, width = self.raster_hw
        bitmaps = np.empty((len(self), height, width), dtype=np.bool_)
        for row, bits in enumerate(self.bits):
            pixels = np.unpackbits(bits, count=height * width, bitorder="little").view(np.bool_)
            bitmaps[row] = transpose(pixels.reshape(width, height))
        return bitmaps

    def to_rle(self) -> RleBatch:
        """Return the masks as maximal runs."""
        blocks = [NO_RUNS]
        counts = [np.zeros(1, dtype=np.int64)]
        for block in _blocks(len(self), self.bits.shape[1]):
            words = _words(self.bits[block])
            # the masks one after the other, and a clear word that ends the runs of each
            rows = np.zeros((len(words), words.shape[1] + 1), dtype=np.uint64)
            rows[:, :-1] = words
            runs = words_to_runs(rows.ravel())
            row, runs[:, 0] = np.divmod(runs[:, 0], 64 * rows.shape[1])
            blocks.append(runs)
            counts.append(np.bincount(row, minlength=len(words)))
        offsets = np.cumsum(np.concatenate(counts))
        return RleBatch(np.concatenate(blocks), offsets, as_sizes(self.raster_hw, len(self)))

    def areas_px(self) -> npt.NDArray[np.int64]:
        """Return the number of pixels of each mask, shape (N,) int64."""
        return areas_px(self.bits)

    def intersections_px(self, other: Bitmasks) -> npt.NDArray[np.int64]:
        """Return the number of pixels that each mask shares with each of M others of its raster.

        Returns:
            Shape (N, M) int64.
        """
        own, others = _words(self.bits), _words(other.bits)
        used = [np.flatnonzero(words) for words in own]
        shared = np.zeros((len(self), len(other)), dtype=np.int64)
        for block in _blocks(len(other), other.bits.shape[1]):
            for row, (words, at) in enumerate(zip(own, used, strict=True)):
                if len(at):
                    window = slice(at[0], at[-1] + 1)
                    both = np.bitwise_count(words[window] & others[block, window])
                    shared[row, block] = both.sum(axis=1, dtype=np.uint32)
        return shared

    def paired_intersections_px(
        self, other: Bitmasks, rows: npt.NDArray[np.integer], other_rows: npt.NDArray[np.integer]
    ) -> npt.NDArray[np.int64]:
        """Return the number of pixels that mask ``rows[i]`` shares with ``other_rows[i]``.

        Row numbers of this and the other masks have shape (P,), the result shape (P,) int64.
        """
        own, others = _words(self.bits), _words(other.bits)
        shared = np.zeros(len(rows), dtype=np.int64)
        if self.bits.shape[1] > _BLOCK_BYTES:
            used, others_used = _used_words(own, rows), _used_words(others, other_rows)
            pairs = zip(rows.tolist(), other_rows.tolist(), strict=True)
            for place, (row, column) in enumerate(pairs):
                (first, last), (others_first, others_last) = used[row], others_used[column]
                window = slice(max(first, others_first), min(last, others_last))
                both = np.bitwise_count(own[row, window] & others[column, window])
                shared[place] = both.sum()
            return shared
        for block in _blocks(len(rows), self.bits.shape[1]):
            both = np.bitwise_count(own[rows[block]] & others[other_rows[block]])
            shared[block] = both.sum(axis=1, dtype=np.uint32)
        return shared

    def __len__(self) -> int:
        return len(self.bits)

    def __getitem__(
        self, chosen: npt.NDArray[np.bool_] | npt.NDArray[np.integer] | Sequence[int] | slice
    ) -> Bitmasks:
        """Return the masks that N booleans, numbers or a slice choose."""
        rows = chosen if isinstance(chosen, slice | np.ndarray) else list(chosen)
        return Bitmasks(self.bits[rows], self.raster_hw)

    def __eq__(self, other: object) -> bool:
        return (
            isinstance(other, Bitmasks)
            and self.raster_hw == other.raster_hw
            and np.array_equal(self.bits, other.bits)
        )


def _blocks(count: int, mask_bytes: int) -> Iterator[slice]:
    """Yield the places of masks that are worked on together; a large mask is alone."""
    size = max(1, _BLOCK_BYTES // max(1, mask_bytes))
    for begin in range(0, count, size):
        yield slice(begin, begin + size)


def _used_words(words: Words, rows: npt.NDArray[np.integer]) -> dict[int, tuple[int, int]]:
    """Return the first word with a pixel, and the one after the last, by row; 0, 0 of none."""
    found = {}
    for row in np.unique(rows).tolist():
        at = np.flatnonzero(words[row])
        found[row] = (int(at[0]), int(at[-1]) + 1) if len(at) else (0, 0)
    return found


def areas_px(bits: Bits) -> npt.NDArray[np.int64]:
    """Return the number of pixels of N masks, or parts of them, as bits; shape (N,) int64."""
    areas: npt.NDArray[np.int64] = np.bitwise_count(_words(bits)).sum(axis=1, dtype=np.int64)
    return areas


def num_bytes(raster_hw: Size) -> int:
    """Return the bytes of a mask on a raster."""
    return -(-raster_hw[0] * raster_hw[1] // 8)


def _draw(
    starts: npt.NDArray[np.int64], ends: npt.NDArray[np.int64], count: int, raster_px: int
) -> Bits:
    """Set the bits of N masks; the intervals of mask i lie from i to i + 1 times ``raster_px``."""
    bits = np.zeros((count, -(-raster_px // 8)), dtype=np.uint8)
    offsets = starts.searchsorted(np.arange(count + 1) * raster_px)
    intervals = np.diff(offsets)
    rows = np.flatnonzero(intervals)
    if len(rows) == 0:
        return bits
    # Each mask is drawn in a window, the words from its first interval to its last, often a small
    # part of the raster; the windows lie one after the other and are filled together.
    origins = rows * raster_px
    first_words = (starts[offsets[rows]] - origins) >> 6
    sizes = ((ends[offsets[rows + 1] - 1] - origins) >> 6) + 1 - first_words
    windows = sizes.cumsum() - sizes
    shifts = (64 * (windows - first_words) - origins).repeat(intervals[rows])
    words = runs_to_words(starts + shifts, ends + shifts, 64 * int(sizes.sum())).view(np.uint8)
    places = zip(rows.tolist(), first_words.tolist(), windows.tolist(), sizes.tolist(), strict=True)
    for row, first_word, begin, size in places:
        window = bits[row, 8 * first_word : 8 * (first_word + size)]
        window[:] = words[8 * begin : 8 * begin + len(window)]
    return bits


def _words(bits: Bits) -> Words:
    """View rows as 64-bit words, padded with zeros to a whole number of them."""
    count, length = bits.shape
    if length % 8:
        padded = np.zeros((count, length + 8 - length % 8), dtype=np.uint8)
        padded[:, :length] = bits
        bits = padded
    return np.ascontiguousarray(bits).view(np.uint64)
