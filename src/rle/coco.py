"""Read COCO's masks, RLE and polygons, and write RLE.

RLE counts are the lengths of background and foreground runs in turn, background first. Runs that
touch are kept apart by a background run of length zero, so a mask comes back with its very runs.

Compressed counts are text of one or two characters a run. Source: ``rleToString`` and
``rleFrString`` in ``maskApi.c`` of the COCO API. From the fourth on, a count is written as its
difference to the one two before; a number is written five bits a character, lowest first, as the
character's code less 48, with 32 added where more follow.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
from pycocotools import mask as coco_mask

from src.rle.masks import NO_RUNS, Masks, Rle, RleBatch, RleError, Runs, Size, as_sizes
from src.rle.text import (
    BLOCK_RUNS,
    ParsedBlock,
    ParsedRle,
    Sizes,
    Texts,
    cut_blocks,
    load_words,
    parse_in_blocks,
)

MIN_COORDINATES = 6  # of a polygon: three points
_FARTHEST_PX = 100_000  # pycocotools walks along every edge, even outside of the image
_MAX_GROUPS = 7  # of five bits: more than any count below 2**31 and its sign take
_JOINS = [
    (np.uint64(low), np.uint64(high), np.uint64(shift))
    for low, high, shift in (
        (0x001F001F001F001F, 0x03E003E003E003E0, 3),
        (0x000003FF000003FF, 0x000FFC00000FFC00, 6),
        (0x00000000000FFFFF, 0x000000FFFFF00000, 12),
    )
]


def from_coco_counts(counts: Sequence[int] | npt.NDArray[np.integer], size_hw: Size) -> Rle:
    """Return the mask of uncompressed COCO counts.

    Args:
        counts: Lengths of background and foreground runs by turns, background first.
        size_hw: Height and width of the image.

    Returns:
        A mask without runs of length zero; runs that a background run of length zero parts are kept
        apart.

    Raises:
        RleError: A count is not a whole number, or is negative, or they do not sum to H * W.
    """
    try:
        lengths = np.asarray(counts, dtype=None if len(counts) else np.int64)
    except (TypeError, ValueError):
        lengths = np.zeros(())
    if lengths.ndim != 1 or lengths.dtype.kind not in "iu":
        raise RleError(f"counts must be a list of whole numbers, got {str(counts)[:60]}")
    if (lengths < 0).any():
        at = int(np.argmax(lengths < 0))
        raise RleError(f"count {at + 1} of {len(lengths)} must be 0 or more, got {lengths[at]}")
    height_px, width_px = size_hw
    ends = np.cumsum(lengths, dtype=np.int64)
    total = int(ends[-1]) if len(ends) else 0
    if len(lengths) and lengths.max() > height_px * width_px:  # their sum may not fit in 64 bits
        total = sum(lengths.tolist())
    if total != height_px * width_px:
        raise RleError(
            f"counts must sum to {height_px * width_px} for an image of height {height_px} and "
            f"width {width_px}, got {total}"
        )
    runs = np.stack([(ends - lengths)[1::2], lengths[1::2]], axis=1)
    return Rle(runs[runs[:, 1] > 0].astype(np.int32), size_hw)


def to_coco(masks: Masks) -> list[str]:
    """Return the compressed COCO counts of N masks, as in the ``counts`` of a COCO JSON."""
    batch = RleBatch.of(masks)
    texts: list[str] = []
    for begin, end in cut_blocks(ends=batch.offsets[1:] - batch.offsets[0], size=BLOCK_RUNS):
        block = batch.offsets[begin : end + 1]
        texts += _compress_block(
            batch.runs[block[0] : block[-1]], block - block[0], batch.sizes_hw[begin:end]
        )
    return texts


def from_coco(texts: Texts, sizes_hw: Sizes) -> ParsedRle:
    """Return the masks of compressed COCO counts.

    Args:
        texts: N times the ``counts`` of a COCO JSON or of pycocotools.
        sizes_hw: Height and width of the image of each mask, or of all masks.

    Returns:
        N masks, in which runs that a background run of length zero parts are kept apart, and the
        problem of each bad text, whose mask has no runs: a character outside the format, a text
        that ends within a count, a negative count, or counts that do not sum to H * W.
    """
    sizes = as_sizes(sizes_hw, len(texts))
    sizes_px = sizes[:, 0] * sizes[:, 1]
    return parse_in_blocks(
        texts,
        sizes,
        parse_block=lambda block, first: _expand_block(block, sizes_px[first : first + len(block)]),
        parse_one=lambda text, row: _expand(text, (int(sizes[row, 0]), int(sizes[row, 1]))),
    )


def _expand(data: bytes, size_hw: Size) -> Runs:
    """Return the runs of one text, or say what is wrong with it."""
    codes = np.frombuffer(data, dtype=np.uint8).astype(np.int64) - 48
    if len(codes) and (codes.min() < 0 or codes.max() > 63):
        at = int(np.argmax((codes < 0) | (codes > 63)))
        character = data.decode("utf-8", errors="replace")[at]
        raise RleError(
            f"compressed counts: character {at + 1} must be one of '0' to 'o', got {character!r}"
        )
    ends = np.flatnonzero(codes < 32)
    if len(codes) and (len(ends) == 0 or ends[-1] != len(codes) - 1):
        raise RleError(
            "compressed counts must end with a whole count, got "
            f"{len(codes)} characters that end within one"
        )
    sizes = np.diff(ends, prepend=-1)
    if len(sizes) and sizes.max() > _MAX_GROUPS:
        at = int(np.argmax(sizes > _MAX_GROUPS))
        raise RleError(f"compressed counts: count {at + 1} must have at most 31 bits, got more")
    within = np.arange(len(codes)) - np.repeat(ends - sizes + 1, sizes)
    counts = np.zeros(len(ends), dtype=np.int64)
    if len(ends):
        counts = np.add.reduceat((codes & 31) << (5 * within), ends - sizes + 1)
        counts -= ((codes[ends] >> 4) & 1) << (5 * sizes)
    # From the fourth on, a count is written as its difference to the one two before.
    counts[1::2] = np.cumsum(counts[1::2])
    counts[2::2] = np.cumsum(counts[2::2])
    return from_coco_counts(counts, size_hw).runs


def _counts(
    runs: Runs, offsets: npt.NDArray[np.int64], sizes_hw: npt.NDArray[np.integer]
) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
    """Return the counts of N masks, 2 R + 1 of a mask of R runs, and the place of each's first."""
    sizes_px = np.prod(sizes_hw, axis=1, dtype=np.int64)
    begins = 2 * offsets[:-1] + np.arange(len(sizes_px))
    places = 2 * np.arange(len(runs)) + np.repeat(np.arange(len(sizes_px)), np.diff(offsets))
    filled = np.diff(offsets) > 0
    starts = runs[:, 0].astype(np.int64)
    ends = starts + runs[:, 1]
    gaps = np.diff(ends, prepend=0) - runs[:, 1]
    gaps[offsets[:-1][filled]] = starts[offsets[:-1][filled]]
    sizes_px[filled] -= ends[offsets[1:][filled] - 1]
    counts = np.empty(2 * len(runs) + len(sizes_px), dtype=np.int64)
    counts[places] = gaps
    counts[places + 1] = runs[:, 1]
    counts[begins + 2 * np.diff(offsets)] = sizes_px
    return counts, begins


def _compress_block(
    runs: Runs, offsets: npt.NDArray[np.int64], sizes_hw: npt.NDArray[np.integer]
) -> list[str]:
    counts, begins = _counts(runs, offsets, sizes_hw)
    deltas = counts.copy()
    deltas[2:] -= counts[:-2]
    for place in range(3):  # the first three of a mask are written as they are
        at = begins[begins + place < len(counts)] + place
        deltas[at] = counts[at]
    # A count's characters, lowest five bits first, are the bytes of one word; it takes at most 7.
    words = np.zeros(len(counts), dtype=np.uint64)
    at = np.arange(len(counts))
    rests = deltas
    for group in range(_MAX_GROUPS):
        bits = rests & 31
        rests = rests >> 5
        more = rests != -(bits >> 4)  # until the rest is but the sign of this group
        words[at] |= (bits + 48 + 32 * more).astype(np.uint64) << np.uint64(8 * group)
        at, rests = at[more], rests[more]
        if len(at) == 0:
            break
    lasts = np.append(begins[1:], len(counts)) - 1
    words[lasts[(counts[lasts] == 0) & (np.diff(offsets) > 0)]] = 0
    words[lasts] |= np.uint64(ord("\n") << 56)
    return words.tobytes().translate(None, b"\0").decode("ascii").split("\n")[:-1]


def _expand_block(block: list[bytes], sizes_px: npt.NDArray[np.int64]) -> ParsedBlock | None:
    lengths = np.array([len(text) for text in block], dtype=np.int64)
    text_ends = np.cumsum(lengths)
    # Behind the text is room to load the last count as a word of eight characters.
    codes = np.frombuffer(b"".join((*block, b"0" * 16)), dtype=np.uint8) - np.uint8(48)
    if lengths.min() == 0 or codes.max() > 63 or codes[text_ends - 1].max() > 31:
        return None
    ends = np.flatnonzero(codes[: text_ends[-1]] < 32) + 1
    groups = np.diff(ends, prepend=0)
    if groups.max() > _MAX_GROUPS:
        return None
    # Join the low five bits of a word's bytes in pairs, fours and eights, all at once.
    words = load_words(codes, ends - groups)
    for low, high, shift in _JOINS:
        words = (words & low) | ((words >> shift) & high)
    unused = 64 - 5 * groups  # the counts that follow, and room for the sign
    deltas = (words << unused.view(np.uint64)).view(np.int64) >> unused

    totals = np.diff(np.searchsorted(ends, text_ends, side="right"), prepend=0)
    begins = np.cumsum(totals) - totals
    gaps = deltas[begins]
    # After a mask's first count come pairs of a run and the background after it.
    pairs_in = totals >> 1
    firsts = np.cumsum(pairs_in) - pairs_in
    pairs = np.zeros((int(pairs_in.sum()), 2), dtype=np.int64)
    rows = np.repeat(begins - 2 * firsts, pairs_in) + 2 * np.arange(len(pairs)) + 1
    pairs[:, 0] = deltas[rows]
    whole = np.ones(len(pairs), dtype=bool)
    whole[(firsts + pairs_in - 1)[(totals & 1 == 0)]] = False
    pairs[whole, 1] = deltas[rows[whole] + 1]
    _accumulate(pairs, firsts, pairs_in)
    pairs[~whole, 1] = 0
    if (len(pairs) and (pairs[:, 0].min() < 1 or pairs[:, 1].min() < 0)) or gaps.min() < 0:
        return None
    ends_px = pairs.sum(axis=1)
    _accumulate(ends_px, firsts, pairs_in)
    ends_px += np.repeat(gaps, pairs_in)
    finals = gaps
    filled = pairs_in > 0
    finals[filled] = ends_px[(firsts + pairs_in - 1)[filled]]
    if (finals != sizes_px).any():
        return None
    runs = np.stack([ends_px - pairs.sum(axis=1), pairs[:, 0]], axis=1)
    return runs.astype(np.int32), pairs_in


def _accumulate(
    values: npt.NDArray[np.int64], firsts: npt.NDArray[np.int64], sizes: npt.NDArray[np.int64]
) -> None:
    """Replace values by their running sums along the first axis, restarted in each segment."""
    np.cumsum(values, axis=0, out=values)
    before = np.concatenate([np.zeros((1, *values.shape[1:]), dtype=np.int64), values])[firsts]
    values -= np.repeat(before, sizes, axis=0)


def from_polygons(polygons: Sequence[Sequence[float]], size_hw: tuple[int, int]) -> Rle:
    """Return the union of polygons, see ``compress_polygons``.

    Raises:
        RleError: As for ``compress_polygons``.
    """
    counts = compress_polygons(polygons, size_hw)
    return from_coco([counts], size_hw).masks[0] if counts else Rle(NO_RUNS, size_hw)


def compress_polygons(polygons: Sequence[Sequence[float]], size_hw: tuple[int, int]) -> bytes:
    """Return compressed COCO counts of the union of polygons, as pycocotools rasterises them.

    Every COCO tool does. ``from_coco`` expands the counts of many masks together much faster than
    one at a time. No polygons, no text.

    Args:
        polygons: Each ``[x1, y1, x2, y2, ...]`` in pixels. One of fewer than three points has no
            area and is left out where another one has three.
        size_hw: Height and width of the image.

    Raises:
        RleError: A polygon is not a list of an even number of numbers, none has three points, a
            coordinate is not finite or far beyond any image, or all lie within 0 and 1, as those
            divided by width and height do.
    """
    checked: list[list[float]] = []
    too_short: str | None = None
    for index, polygon in enumerate(polygons):
        name = f"polygon {index + 1} of {len(polygons)}"
        try:
            coordinates = np.asarray(polygon, dtype=np.float64)
        except (TypeError, ValueError):
            raise RleError(f"{name} must hold numbers, got {str(polygon)[:60]}") from None
        if coordinates.ndim != 1:
            raise RleError(f"{name} must be one list of coordinates, got {str(polygon)[:60]}")
        count = len(coordinates)
        legal = f"{name} must be x1, y1, x2, y2, ... of at least 3 points, got {count} coordinates"
        if count % 2:
            raise RleError(legal)
        outside = np.flatnonzero(~(np.abs(coordinates) <= _FARTHEST_PX))
        if len(outside):
            raise RleError(
                f"{name}: coordinate {outside[0] + 1} must be from -{_FARTHEST_PX} to "
                f"{_FARTHEST_PX}, got {coordinates[outside[0]]:g}"
            )
        if count < MIN_COORDINATES:
            too_short = too_short or legal
        else:
            checked.append(coordinates.tolist())
    if not checked:
        if too_short is not None:
            raise RleError(too_short)
        return b""
    if all(0 <= coordinate <= 1 for polygon in checked for coordinate in polygon):
        raise RleError(
            "coordinates must be in pixels, got none outside of 0 to 1 "
            f"({str(checked[0][:4])[1:-1]}, ...): multiply x by the image's width and y by its "
            "height"
        )
    rasterised = coco_mask.frPyObjects(checked, *size_hw)
    merged = rasterised[0] if len(rasterised) == 1 else coco_mask.merge(rasterised)
    counts: bytes = merged["counts"]
    return counts
