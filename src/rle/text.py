"""Parse and write RLE strings of the competition (``start length start length``).

Starts are counted from 1 in text and from 0 in arrays. Whole columns of a file are converted a
block of rows at a time: the digits of all numbers of a block are turned into values, and values
into digits, by a few array operations on 64-bit words of eight characters.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence
from itertools import pairwise
from typing import NamedTuple, TypeAlias

import numpy as np
import numpy.typing as npt

from src.rle.masks import NO_RUNS, Masks, RleBatch, RleError, Runs, Size, as_sizes, run_problems

BLOCK_BYTES = 1 << 17  # of text; a block's arrays then fit in a core's cache
BLOCK_RUNS = 1 << 13  # as much, counted in runs

Texts: TypeAlias = Sequence[str | bytes]
Sizes: TypeAlias = npt.NDArray[np.integer] | Sequence[Size] | Size
ParsedBlock: TypeAlias = tuple[Runs, npt.NDArray[np.int64]]
"""The runs of a block's masks one after the other, and their number in each mask."""


class ParsedRle(NamedTuple):
    """N masks as they were read, and the problem of each bad one, by its number."""

    masks: RleBatch  # one whose text cannot be read has no runs
    problems: dict[int, str]


def parse_in_blocks(
    texts: Texts,
    sizes_hw: Sizes,
    parse_block: Callable[[list[bytes], int], ParsedBlock | None],
    parse_one: Callable[[bytes, int], Runs],
) -> ParsedRle:
    """Parse the texts of N masks.

    Args:
        texts: N texts.
        sizes_hw: Height and width of the image of each mask, or of all masks.
        parse_block: Function of texts and the number of the first of them. It returns None at a
            fault or anything unusual, and is then called text by text.
        parse_one: Function of a text that ``parse_block`` refused and its number; raises RleError.
    """
    encoded = [
        # what is no text becomes bytes that no mask has
        text.encode(errors="surrogatepass") if isinstance(text, str) else text
        for text in texts
    ]
    ends = np.cumsum([len(text) for text in encoded], dtype=np.int64)
    runs: list[Runs] = [NO_RUNS]
    counts: list[npt.NDArray[np.int64]] = [np.zeros(1, dtype=np.int64)]
    problems: dict[int, str] = {}
    for begin, end in cut_blocks(ends=ends, size=BLOCK_BYTES):
        parsed = parse_block(encoded[begin:end], begin)
        if parsed is not None:
            runs.append(parsed[0])
            counts.append(parsed[1])
            continue
        for row in range(begin, end):
            parsed = parse_block([encoded[row]], row)
            try:
                one = parse_one(encoded[row], row) if parsed is None else parsed[0]
            except RleError as error:
                problems[row] = str(error)
                one = NO_RUNS
            runs.append(one)
            counts.append(np.array([len(one)]))
    offsets = np.cumsum(np.concatenate(counts), dtype=np.int64)
    masks = RleBatch(np.concatenate(runs), offsets, as_sizes(sizes_hw, len(encoded)))
    return ParsedRle(masks, problems)


def cut_blocks(ends: npt.NDArray[np.int64], size: int) -> Iterator[tuple[int, int]]:
    """Yield begin and end of blocks of rows, each longer than ``size`` by at most its last row.

    ``ends``, shape (N,), are the sums of the lengths up to and with each row.
    """
    if len(ends) == 0:
        return
    marks = np.arange(size, ends[-1], size)
    cuts = np.unique(np.concatenate([[0], np.searchsorted(ends, marks) + 1, [len(ends)]]))
    yield from zip(cuts[:-1].tolist(), cuts[1:].tolist(), strict=True)


def load_words(
    characters: npt.NDArray[np.uint8], begins: npt.NDArray[np.int64]
) -> npt.NDArray[np.uint64]:
    """Load the eight characters from each begin on as a word, the first as its lowest byte.

    Shapes (C,), with 16 or more characters behind the last begin, and (T,).
    """
    # Two aligned words shifted together: numpy reads single unaligned ones more slowly.
    aligned = characters[: len(characters) // 8 * 8].view(np.uint64)
    place = begins >> 3
    shift = ((begins & 7) << 3).view(np.uint64)
    words = aligned.take(place, mode="clip")
    words >>= shift
    place += 1
    following = aligned.take(place, mode="clip")
    np.subtract(np.uint64(64), shift, out=shift)
    following <<= shift  # numpy shifts by 64 to zero
    words |= following
    return words


_MAX_FAST = 100_000_000  # numbers of at most eight digits; images have no more pixels
_TOKEN = re.compile(r"\S+")
_JOINS = [
    (np.uint64(lanes), np.uint64(weights), np.uint64(shift))
    for lanes, weights, shift in (
        (0x0F0F0F0F0F0F0F0F, 10 * 2**8 + 1, 8),
        (0x00FF00FF00FF00FF, 100 * 2**16 + 1, 16),
        (0x0000FFFF0000FFFF, 10_000 * 2**32 + 1, 32),
    )
]
# Four characters of each number below 10,000: first without leading zeros (0 is no digit at all,
# being the front of a shorter number), then with them.
_DIGITS = np.frombuffer(
    b"\0\0\0\0"
    + b"".join((b"%d" % number).rjust(4, b"\0") for number in range(1, 10_000))
    + b"".join(b"%04d" % number for number in range(10_000)),
    dtype=np.uint32,
)


def parse_rle(texts: Texts, sizes_hw: Sizes) -> ParsedRle:
    """Parse the RLE strings of many masks, and check that each is a mask of its image.

    Args:
        texts: N times ``start length start length ...``, starts counted from 1; empty or blank is
            the empty mask.
        sizes_hw: Height and width of the image of each mask, or of all masks, in pixels.

    Returns:
        N masks, and the first problem of each bad one, see ``rle_problems``. A bad mask of whole
        numbers keeps its runs, which descend, overlap or end past the image; others have none.

    Example:
        >>> from src import parse_rle
        >>> masks, problems = parse_rle(["1 2 4 1", "3 9"], sizes_hw=(2, 2))
        >>> masks.areas_px().tolist()
        [3, 9]
        >>> problems
        {1: 'run 1 (start 3, length 9) must end by pixel 4, the last of height 2 and width 2'}
    """
    sizes = as_sizes(sizes_hw, len(texts))

    def parse_one(text: bytes, row: int) -> Runs:
        height, width = sizes[row].tolist()
        decoded = text.decode("utf-8", errors="replace")
        for _, problem in rle_problems(decoded, (height, width)):
            raise RleError(problem)
        values = np.fromiter(map(int, _tokens(decoded)), dtype=np.int64).reshape(-1, 2)
        runs: Runs = (values - np.array([1, 0])).astype(np.int32)
        return runs

    masks, problems = parse_in_blocks(
        texts, sizes, parse_block=lambda block, _first: _parse_block(block), parse_one=parse_one
    )
    return ParsedRle(masks, masks.problems() | problems)


def rle_problems(text: str, size_hw: Size) -> Iterator[tuple[str, str]]:
    """Find every problem of an RLE string, see ``run_problems``."""
    return run_problems(_tokens(text), size_hw)


def _tokens(text: str) -> Iterator[str]:
    """Yield the words of a text; as a list they would take ten times its memory."""
    return (found.group() for found in _TOKEN.finditer(text))


def _parse_block(block: list[bytes]) -> ParsedBlock | None:
    text_ends = np.cumsum([len(text) + 1 for text in block])
    # Behind the text is room to load the last number as a word of eight characters.
    characters = np.frombuffer(b" ".join((*block, b" " * 16)), dtype=np.uint8)
    text = characters[: text_ends[-1]]
    ends = np.flatnonzero(text - np.uint8(ord("0")) > 9)
    if np.count_nonzero(text == ord(" ")) != len(ends):
        return None
    begins = np.empty_like(ends)
    begins[0] = 0
    np.add(ends[:-1], 1, out=begins[1:])
    if (ends == begins).any():  # spaces side by side, or an empty text
        present = ends > begins
        begins, ends = begins[present], ends[present]
    counts = np.diff(np.searchsorted(ends, text_ends), prepend=0)
    if len(ends) == 0:
        return NO_RUNS, counts
    digits = ends - begins
    if (counts & 1).any() or digits.max() > 8:
        return None
    values = _digits_to_values(load_words(characters, begins), digits)
    runs = values.astype(np.int32)
    if runs.min() < 1:
        return None
    runs.view(np.uint64)[:] -= np.uint64(1)  # the start is the lower half of a pair
    return runs.reshape(-1, 2), counts >> 1


def _digits_to_values(
    words: npt.NDArray[np.uint64], digits: npt.NDArray[np.int64]
) -> npt.NDArray[np.uint64]:
    """Return the values of the first 1 to 8 decimal digits of each word, in place.

    Digits are joined to pairs, pairs to fours and fours to eights, all of a word at once
    (D. Lemire, "Quickly parsing eight digits", 2018).
    """
    words <<= ((8 - digits) << 3).view(np.uint64)  # zeros in front; drops what follows the number
    for lanes, weights, shift in _JOINS:
        words &= lanes
        words *= weights
        words >>= shift
    return words


def format_rle(masks: Masks) -> list[str]:
    """Write masks as RLE strings, starts counted from 1; the empty mask is the empty text.

    Example:
        >>> import numpy as np
        >>> from src import encode, format_rle
        >>> format_rle([encode(np.eye(2)), encode(np.zeros((2, 2)))])
        ['1 1 4 1', '']
    """
    batch = RleBatch.of(masks)
    texts: list[str] = []
    for begin, end in cut_blocks(ends=batch.offsets[1:] - batch.offsets[0], size=BLOCK_RUNS):
        block = batch.offsets[begin : end + 1]
        texts += _format_block(batch.runs[block[0] : block[-1]], block - block[0])
    return texts


def _format_block(runs: Runs, offsets: npt.NDArray[np.int64]) -> list[str]:
    if len(runs) == 0:
        return [""] * (len(offsets) - 1)
    if runs.max() >= _MAX_FAST - 1 or runs[:, 0].min() < 0 or runs[:, 1].min() < 1:
        values = (runs + np.array([1, 0], dtype=np.int64)).tolist()
        return [
            " ".join(f"{start} {length}" for start, length in values[begin:end])
            for begin, end in pairwise(offsets.tolist())
        ]
    values = (runs + np.array([1, 0], dtype=np.int32)).astype(np.uint32).ravel()
    high = values // np.uint32(10_000)
    low = values - high * np.uint32(10_000)
    low += (high > 0) * np.uint32(10_000)
    # Three words of four characters a number: its digits, without leading zeros, and what follows.
    words = np.empty((len(values), 3), dtype=np.uint32)
    words[:, 0] = _DIGITS[high]
    words[:, 1] = _DIGITS[low]
    words[:, 2] = ord(" ")
    filled = np.diff(offsets) > 0
    words[2 * offsets[1:][filled] - 1, 2] = ord("\n")
    lines = words.tobytes().translate(None, b"\0").decode("ascii").splitlines()
    if filled.all():
        return lines
    line = iter(lines)
    return [next(line) if present else "" for present in filled]
