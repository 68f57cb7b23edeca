"""Parse, check and write RLE strings of the competition.

Run lengths as the competition writes them (``start length start length``), to and from arrays.
Starts are counted from 1 in text and from 0 in arrays. Whole columns of a file are converted a
block of rows at a time: the digits of all numbers of a block are turned into values, and values
into digits, by a few array operations on 64-bit words of eight characters.
"""

from __future__ import annotations

import re
from array import array
from collections.abc import Callable, Iterator, Sequence
from itertools import pairwise
from typing import NamedTuple, TypeAlias

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from src.errors import InputError
from src.rle.algebra import Runs


class RunLengthError(InputError):
    """Run lengths that describe no mask; the message names the bad value and its place."""


def check_runs(runs: Runs, size_hw: tuple[int, int]) -> None:
    """Refuse runs that are no mask of an image of this size.

    Args:
        runs: Shape (R, 2), column-major 0-based start and length.
        size_hw: Height and width of the image in pixels.

    Raises:
        RunLengthError: names the first run with a negative start, a length below 1, a start before
            the end of the run before it, or an end past the image. Starts are counted from 1 in
            the message, as the files do.
    """
    problems = check_runs_batch(
        runs=runs, offsets=np.array([0, len(runs)]), sizes_hw=np.array([size_hw], dtype=np.int64)
    )
    if problems:
        raise RunLengthError(problems[0])


def check_runs_batch(
    runs: Runs, offsets: npt.NDArray[np.int64], sizes_hw: npt.NDArray[np.integer]
) -> dict[int, str]:
    """Check the runs of many masks at once.

    Args:
        runs: Shape (R, 2), the runs of all masks one after the other.
        offsets: Shape (N + 1,), mask i has the runs ``offsets[i]`` to ``offsets[i + 1]``.
        sizes_hw: Shape (N, 2), height and width of each mask's image in pixels.

    Returns:
        The number of each bad mask with the message that :func:`check_runs` would raise; empty
        where all are right.
    """
    starts = runs[:, 0].copy()
    ends = starts + runs[:, 1]  # wraps where it is too large for int32, to before the start
    sizes_px = np.prod(sizes_hw, axis=1, dtype=np.int64)
    filled = np.flatnonzero(np.diff(offsets))
    first, last = offsets[filled], offsets[filled + 1] - 1

    overlaps = starts[1:] < ends[:-1]
    overlaps[first[1:] - 1] = False
    # Where runs ascend, only a first start can be negative and only a last end too large.
    if (
        not overlaps.any()
        and (ends > starts).all()
        and (starts[first] >= 0).all()
        and (ends[last] <= sizes_px[filled]).all()
    ):
        return {}

    ends_px = starts.astype(np.int64) + runs[:, 1]
    bad = (starts < 0) | (runs[:, 1] <= 0) | (ends_px > np.repeat(sizes_px, np.diff(offsets)))
    overlaps = starts[1:] < ends_px[:-1]
    overlaps[first[1:] - 1] = False
    bad[1:] |= overlaps
    first_bad: dict[int, int] = {}
    at = np.flatnonzero(bad)
    for row, run in zip(np.searchsorted(offsets, at, side="right") - 1, at, strict=True):
        first_bad.setdefault(int(row), int(run))
    return {
        row: _explain(runs[offsets[row] : run + 1], (int(sizes_hw[row, 0]), int(sizes_hw[row, 1])))
        for row, run in first_bad.items()
    }


def _explain(runs: Runs, size_hw: tuple[int, int]) -> str:
    """Say what is wrong with the last of these runs, the first bad one of its mask."""
    start, length = int(runs[-1, 0]) + 1, int(runs[-1, 1])
    name = f"run {len(runs)} (start {start}, length {length})"
    if start < 1:
        return f"{name}: the start is below 1"
    if length < 1:
        return f"{name}: the length is below 1"
    if len(runs) > 1:
        previous_start, previous_length = int(runs[-2, 0]) + 1, int(runs[-2, 1])
        previous = f"run {len(runs) - 1} (start {previous_start}, length {previous_length})"
        if start < previous_start:
            return f"{name} descends: it starts before {previous}; starts must ascend"
        if start < previous_start + previous_length:
            return f"{name} overlaps {previous}; runs of a mask must not overlap"
    height_px, width_px = size_hw
    return (
        f"{name} ends past the image: its last pixel is {start + length - 1}, an image of "
        f"height {height_px} and width {width_px} has {height_px * width_px}"
    )


BLOCK_BYTES = 1 << 17  # of text; a block's arrays then fit in a core's cache
BLOCK_RUNS = 1 << 13  # as much, counted in runs

Texts: TypeAlias = pa.Array | pa.ChunkedArray | Sequence[str | bytes]
ParsedBlock: TypeAlias = tuple[Runs, npt.NDArray[np.int64]]
"""The runs of a block's masks one after the other, and their number in each mask."""


class RunsBatch(NamedTuple):
    """The runs of N masks one after the other."""

    runs: Runs  # (R, 2) int32
    offsets: npt.NDArray[np.int64]  # (N + 1,): mask i has the runs offsets[i] to offsets[i + 1]
    problems: dict[int, str]  # what is wrong with a mask's text, by its number; it has no runs


def parse_in_blocks(
    texts: Texts,
    parse_block: Callable[[list[bytes], int], ParsedBlock | None],
    parse_one: Callable[[bytes, int], Runs],
) -> RunsBatch:
    """Parse the texts of N masks.

    Args:
        texts: N texts; a null is an empty text.
        parse_block: Takes texts and the number of the first of them; None where it finds a fault or
            anything unusual. Then it is asked text by text.
        parse_one: Takes a text that ``parse_block`` refused and its number; raises RunLengthError.
    """
    runs: list[Runs] = [np.zeros((0, 2), dtype=np.int32)]
    counts: list[npt.NDArray[np.int64]] = [np.zeros(1, dtype=np.int64)]
    problems: dict[int, str] = {}
    row = 0
    for block in _blocks(texts):
        parsed = parse_block(block, row)
        if parsed is not None:
            runs.append(parsed[0])
            counts.append(parsed[1])
            row += len(block)
            continue
        for text in block:
            parsed = parse_block([text], row)
            try:
                one = parse_one(text, row) if parsed is None else parsed[0]
            except RunLengthError as error:
                problems[row] = str(error)
                one = runs[0]
            runs.append(one)
            counts.append(np.array([len(one)]))
            row += 1
    offsets = np.cumsum(np.concatenate(counts), dtype=np.int64)
    return RunsBatch(runs=np.concatenate(runs), offsets=offsets, problems=problems)


def _blocks(texts: Texts) -> Iterator[list[bytes]]:
    if isinstance(texts, pa.Array | pa.ChunkedArray):
        texts = texts.cast(pa.large_binary())
        for chunk in texts.chunks if isinstance(texts, pa.ChunkedArray) else [texts]:
            lengths = pc.binary_length(chunk).fill_null(0).to_numpy(zero_copy_only=False)
            for begin, end in cut_blocks(ends=np.cumsum(lengths), size=BLOCK_BYTES):
                yield [text or b"" for text in chunk.slice(begin, end - begin).to_pylist()]
    else:
        encoded = [text.encode() if isinstance(text, str) else text for text in texts]
        ends = np.cumsum([len(text) for text in encoded], dtype=np.int64)
        for begin, end in cut_blocks(ends=ends, size=BLOCK_BYTES):
            yield encoded[begin:end]


def cut_blocks(ends: npt.NDArray[np.int64], size: int) -> Iterator[tuple[int, int]]:
    """Group rows of any length into blocks.

    Args:
        ends: Shape (N,), the sum of the lengths up to and with each row.
        size: Length of a block; one is longer by at most its last row.

    Yields:
        Begin and end of each block, in rows.
    """
    if len(ends) == 0:
        return
    marks = np.arange(size, ends[-1], size)
    cuts = np.unique(np.concatenate([[0], np.searchsorted(ends, marks) + 1, [len(ends)]]))
    yield from zip(cuts[:-1].tolist(), cuts[1:].tolist(), strict=True)


def load_words(
    characters: npt.NDArray[np.uint8], begins: npt.NDArray[np.int64]
) -> npt.NDArray[np.uint64]:
    """The eight characters from each begin on as one word, the first of them its lowest byte.

    Args:
        characters: Shape (C,) uint8, with 16 or more behind the last begin.
        begins: Shape (T,).

    Returns:
        Shape (T,) uint64.
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
_MAX_VALUE = np.iinfo(np.int32).max
_TOKEN = re.compile(r"\S+")
_INTEGER = re.compile(r"[+-]?[0-9]+")
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


def parse_runs(text: str | bytes) -> Runs:
    """Read the run lengths of one mask.

    Args:
        text: ``start length start length ...``, starts counted from 1; empty or blank is the empty
            mask.

    Returns:
        Runs, shape (R, 2) int32, starts counted from 0. Whether they ascend and lie in the image
        is for :func:`check_runs`.

    Raises:
        RunLengthError: names the first value that is no whole number, a start or length below 1, a
            run too large for any image, or an odd number of values.
    """
    if isinstance(text, bytes):
        text = text.decode("utf-8", errors="replace")
    values = array("q")  # a list would take ten times the memory of the text
    token = ""
    for index, found in enumerate(_TOKEN.finditer(text)):
        token = found.group()
        shown = token if len(token) <= 40 else token[:40] + "..."
        if not _INTEGER.fullmatch(token):
            raise RunLengthError(f"{_place(index, text)} is {shown!r}, not a whole number")
        kind = "length" if index % 2 else "start"
        # Thousands of digits would make int() itself refuse.
        value = (
            int(token) if len(token) <= 20 else (_MAX_VALUE + 1) * (-1 if token[0] == "-" else 1)
        )
        if value < 1:
            raise RunLengthError(f"{_place(index, text)}, the {kind} {shown}, is below 1")
        if value > _MAX_VALUE or (index % 2 and values[-1] + value - 1 > _MAX_VALUE):
            raise RunLengthError(
                f"{_place(index, text)}, the {kind} {shown}, ends past any image (at most "
                f"{_MAX_VALUE} pixels)"
            )
        values.append(value)
    if len(values) % 2:
        raise RunLengthError(
            f"an odd number of values, {len(values)}: each start needs a length; the last is "
            f"{token!r:.60}"
        )
    runs = np.array(values, dtype=np.int64).astype(np.int32).reshape(-1, 2)
    runs[:, 0] -= 1
    return runs


def _place(index: int, text: str) -> str:
    return f"value {index + 1} of {sum(1 for _ in _TOKEN.finditer(text))}"


def parse_runs_batch(texts: Texts) -> RunsBatch:
    """Read the run lengths of many masks, as :func:`parse_runs` would one by one.

    Args:
        texts: N texts; a null is an empty text.

    Returns:
        Runs, offsets and problems. A text that :func:`parse_runs` refuses gives no runs, and its
        message in ``problems``; the other masks are unharmed.
    """
    return parse_in_blocks(
        texts,
        parse_block=lambda block, first: _parse_block(block),
        parse_one=lambda text, row: parse_runs(text),
    )


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
        return np.zeros((0, 2), dtype=np.int32), counts
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
    """Values of the first 1 to 8 decimal digits of each word of eight characters, in place.

    Digits are joined to pairs, pairs to fours and fours to eights, all of a word at once
    (D. Lemire, "Quickly parsing eight digits", 2018).
    """
    words <<= ((8 - digits) << 3).view(np.uint64)  # zeros in front, what follows the number is out
    for lanes, weights, shift in _JOINS:
        words &= lanes
        words *= weights
        words >>= shift
    return words


def format_runs(runs: Runs) -> str:
    """Write run lengths as text, starts counted from 1; the empty mask is the empty text.

    Args:
        runs: Shape (R, 2) int32, starts counted from 0.
    """
    return _format_block(runs, np.array([0, len(runs)]))[0]


def format_runs_batch(runs: Runs, offsets: npt.NDArray[np.int64]) -> pa.LargeStringArray:
    """Write the run lengths of many masks as text, as :func:`format_runs` would one by one.

    Args:
        runs: Shape (R, 2) int32, the runs of all masks one after the other.
        offsets: Shape (N + 1,), mask i has the runs ``offsets[i]`` to ``offsets[i + 1]``.

    Returns:
        N texts.
    """
    texts: list[str] = []
    for begin, end in cut_blocks(ends=offsets[1:] - offsets[0], size=BLOCK_RUNS):
        block = offsets[begin : end + 1]
        texts += _format_block(runs[block[0] : block[-1]], block - block[0])
    return pa.array(texts, type=pa.large_string())


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
