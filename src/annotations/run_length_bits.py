"""Bit rasters from run lengths and back, a 64-bit word at a time; what drawing shares.

A mask's bits are the running parity of its *toggles*: a bit set wherever a run starts or ends. The
parity inside a word takes six shifts, so a raster costs a few operations for each 64 pixels,
however many runs it has.
"""

from __future__ import annotations

import cv2
import numpy as np
import numpy.typing as npt

from src.annotations.instances import Runs

Words = npt.NDArray[np.uint64]


def runs_to_words(
    starts: npt.NDArray[np.integer], ends: npt.NDArray[np.integer], pixels: int
) -> Words:
    """Set the bits from each start to before its end.

    Args:
        starts: Shape (R,), ascending.
        ends: Shape (R,), each at most the next start and at most ``pixels``.
        pixels: Length of the raster.

    Returns:
        Shape (ceil(pixels / 64),); pixel p is bit p % 64 of word p // 64, bits past the raster are
        clear.
    """
    words = np.zeros(-(-pixels // 64) + 1, dtype=np.uint64)
    places = np.concatenate([starts, ends], dtype=np.int64)
    np.bitwise_xor.at(words, places >> 6, np.uint64(1) << (places & 63).view(np.uint64))
    return fill_toggles(words)[:-1]


def fill_toggles(words: Words) -> Words:
    """Replace bit p by the exclusive or of bits 0 to p, in place. Shape (W,)."""
    for shift in (1, 2, 4, 8, 16, 32):
        words ^= words << np.uint64(shift)
    # The top bit of a filled word is the word's own parity; all bits of the next words turn by it.
    parity = np.bitwise_xor.accumulate(words >> np.uint64(63))
    words[1:] ^= np.uint64(0) - parity[:-1]
    return words


def words_to_runs(words: Words) -> Runs:
    """Maximal runs of set bits. Shapes (W,) and (R, 2); bits past the raster must be clear."""
    toggles = np.append(words, np.uint64(0))
    toggles[1:] ^= words >> np.uint64(63)
    toggles[:-1] ^= words << np.uint64(1)
    changed = np.flatnonzero(toggles)
    bits = np.unpackbits(toggles[changed].view(np.uint8), bitorder="little")
    at = np.flatnonzero(bits.view(np.bool_))  # of booleans numpy finds them faster
    places = (changed[at >> 6] << 6) + (at & 63)
    return np.stack([places[::2], places[1::2] - places[::2]], axis=1).astype(np.int32)


def words_to_pixels(words: Words, pixels: int) -> npt.NDArray[np.bool_]:
    """Spread the first ``pixels`` bits of one raster into an array of shape (pixels,) bool."""
    return np.unpackbits(words.view(np.uint8), count=pixels, bitorder="little").view(np.bool_)


def pixels_to_words(pixels: npt.NDArray[np.bool_]) -> Words:
    """Gather an array of shape (P,) bool into words of 64 bits, the rest of the last one clear."""
    packed = np.packbits(pixels, bitorder="little")
    words = np.zeros(-(-len(pixels) // 64), dtype=np.uint64)
    words.view(np.uint8)[: len(packed)] = packed
    return words


def transpose(pixels: npt.NDArray[np.bool_]) -> npt.NDArray[np.bool_]:
    """Swap rows and columns, shapes (H, W) and (W, H) bool, faster than numpy does.

    May be a view of the input.
    """
    if pixels.T.flags.c_contiguous:
        return pixels.T
    height, width = pixels.shape
    turned = cv2.transpose(np.ascontiguousarray(pixels).view(np.uint8))
    return turned.reshape(width, height).view(np.bool_)
