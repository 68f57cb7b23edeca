"""Run lengths as the competition writes them (``start length start length``), to and from arrays.

Starts are counted from 1 in text and from 0 in arrays. Whole columns of a file are converted a
block of rows at a time: the digits of all numbers of a block are turned into values, and values
into digits, by a few array operations on 64-bit words of eight characters.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from itertools import pairwise
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from src.annotations.instances import Runs
from src.annotations.run_length_checks import RunLengthError

_BLOCK_BYTES = 1 << 18  # a block's arrays fit in a core's cache
_MAX_VALUE = np.iinfo(np.int32).max
_INTEGER = re.compile(r"[+-]?[0-9]+")
_WORD = np.uint64


class RunsBatch(NamedTuple):
    """The runs of N masks one after the other."""

    runs: Runs  # (R, 2) int32
    offsets: npt.NDArray[np.int64]  # (N + 1,): mask i has the runs offsets[i] to offsets[i + 1]
    problems: dict[int, str]  # what is wrong with a mask's text, by its number; it has no runs


def parse_runs(text: str | bytes) -> Runs:
    """Read the run lengths of one mask.

    Args:
        text: ``start length start length ...``, starts counted from 1; empty or blank is the empty
            mask.

    Returns:
        Runs, shape (R, 2) int32, starts counted from 0. Whether they ascend and lie in the picture
        is for :func:`check_runs`.

    Raises:
        RunLengthError: names the first value that is no whole number, a start or length below 1, a
            run too large for any picture, or an odd number of values.
    """
    if isinstance(text, bytes):
        text = text.decode("utf-8", errors="replace")
    tokens = text.split()
    values: list[int] = []
    for index, token in enumerate(tokens):
        place = f"value {index + 1} of {len(tokens)}"
        shown = token if len(token) <= 40 else token[:40] + "..."
        if not _INTEGER.fullmatch(token):
            raise RunLengthError(f"{place} is {shown!r}, not a whole number")
        kind = "length" if index % 2 else "start"
        # Thousands of digits would make int() itself refuse.
        value = (
            int(token) if len(token) <= 20 else (_MAX_VALUE + 1) * (-1 if token[0] == "-" else 1)
        )
        if value < 1:
            raise RunLengthError(f"{place}, the {kind} {shown}, is below 1")
        if value > _MAX_VALUE or (index % 2 and values[-1] + value - 1 > _MAX_VALUE):
            raise RunLengthError(
                f"{place}, the {kind} {shown}, ends past any picture (at most {_MAX_VALUE} pixels)"
            )
        values.append(value)
    if len(values) % 2:
        raise RunLengthError(
            f"an odd number of values, {len(values)}: each start needs a length; the last is "
            f"{tokens[-1]!r}"
        )
    runs = np.array(values, dtype=np.int64).reshape(-1, 2)
    runs[:, 0] -= 1
    return runs.astype(np.int32)


def parse_runs_batch(texts: pa.Array | pa.ChunkedArray | Sequence[str | bytes]) -> RunsBatch:
    """Read the run lengths of many masks, as :func:`parse_runs` would one by one.

    Args:
        texts: N texts; a null is an empty text.

    Returns:
        Runs, offsets and problems. A text that :func:`parse_runs` refuses gives no runs, and its
        message in ``problems``; the other masks are unharmed.
    """
    pieces: list[Runs] = []
    counts: list[npt.NDArray[np.int64]] = []
    problems: dict[int, str] = {}
    row = 0
    for block in _blocks(texts):
        parsed = _parse_block(block)
        if parsed is None:
            parsed = _parse_one_by_one(block, row, problems)
        pieces.append(parsed[0])
        counts.append(parsed[1])
        row += len(block)
    offsets = np.zeros(row + 1, dtype=np.int64)
    if counts:
        np.cumsum(np.concatenate(counts), out=offsets[1:])
    runs = np.concatenate(pieces) if pieces else np.zeros((0, 2), dtype=np.int32)
    return RunsBatch(runs=runs, offsets=offsets, problems=problems)


def _blocks(texts: pa.Array | pa.ChunkedArray | Sequence[str | bytes]) -> Iterator[list[bytes]]:
    """Cut into lists of texts of about ``_BLOCK_BYTES`` together."""
    if isinstance(texts, pa.Array | pa.ChunkedArray):
        texts = texts.cast(pa.large_binary())
        for chunk in texts.chunks if isinstance(texts, pa.ChunkedArray) else [texts]:
            ends = np.cumsum(pc.binary_length(chunk).fill_null(0).to_numpy(zero_copy_only=False))
            for begin, end in _cuts(ends):
                yield [text or b"" for text in chunk.slice(begin, end - begin).to_pylist()]
    else:
        encoded = [text.encode() if isinstance(text, str) else text for text in texts]
        for begin, end in _cuts(np.cumsum([len(text) for text in encoded])):
            yield encoded[begin:end]


def _cuts(ends: npt.NDArray[np.int64]) -> Iterator[tuple[int, int]]:
    if len(ends) == 0:
        return
    marks = np.arange(_BLOCK_BYTES, ends[-1] + _BLOCK_BYTES, _BLOCK_BYTES)
    cuts = np.unique(np.append(np.searchsorted(ends, marks, side="left") + 1, len(ends)))
    cuts = cuts[cuts <= len(ends)]
    yield from zip([0, *cuts[:-1].tolist()], cuts.tolist(), strict=True)


def _parse_one_by_one(
    block: list[bytes], first_row: int, problems: dict[int, str]
) -> tuple[Runs, npt.NDArray[np.int64]]:
    pieces = []
    for index, text in enumerate(block):
        one = _parse_block([text])
        if one is None:
            try:
                pieces.append(parse_runs(text))
            except RunLengthError as error:
                problems[first_row + index] = str(error)
                pieces.append(np.zeros((0, 2), dtype=np.int32))
        else:
            pieces.append(one[0])
    return np.concatenate(pieces), np.array([len(piece) for piece in pieces], dtype=np.int64)


def _parse_block(block: list[bytes]) -> tuple[Runs, npt.NDArray[np.int64]] | None:
    """Runs and their number in each text, or None where any text needs a closer look."""
    lengths = np.array([len(text) for text in block], dtype=np.int64)
    # Eight spaces in front, so that the eight characters that end a number can be loaded as one
    # word.
    characters = np.frombuffer(b"".join((b" " * 8, b" ".join(block), b" ")), dtype=np.uint8)
    ends = np.flatnonzero(characters[8:] == ord(" ")) + 8
    digits = np.diff(ends, prepend=7) - 1
    text_ends = np.cumsum(lengths + 1) + 7
    present = digits > 0
    if not present.all():
        ends, digits = ends[present], digits[present]
    counts = np.diff(np.searchsorted(ends, text_ends, side="right"), prepend=0)
    if len(ends) == 0:
        return np.zeros((0, 2), dtype=np.int32), counts
    if (counts & 1).any() or digits.max() > 8:
        return None

    # A void of 8 bytes has no alignment, so a word can be taken from any byte.
    words = np.ndarray(shape=(len(characters) - 7,), dtype="V8", buffer=characters, strides=(1,))[
        ends - 8
    ].view(_WORD)
    values = _digits_to_values(words, ((8 - digits) << 3).astype(_WORD))
    if values is None:
        return None
    runs = values.astype(np.int32).reshape(-1, 2)
    if runs.min() < 1:
        return None
    runs[:, 0] -= 1
    return runs, counts >> 1


def _digits_to_values(
    words: npt.NDArray[np.uint64], shifts: npt.NDArray[np.uint64]
) -> npt.NDArray[np.uint64] | None:
    """Values of right-aligned decimal digits in words of eight characters, None where a character
    is no digit.

    ``shifts`` is the number of bits before the first digit. The digits are added up in pairs, then
    in fours, then in eights, all lanes of a word at once (D. Lemire, "Quickly parsing eight
    digits", 2018).
    """
    words = ((words ^ _WORD(0x3030303030303030)) >> shifts) << shifts
    if (((words + _WORD(0x7676767676767676)) | words) & _WORD(0x8080808080808080)).any():
        return None
    words = (words * _WORD(10) + (words >> _WORD(8))) & _WORD(0x00FF00FF00FF00FF)
    words = (words * _WORD(100) + (words >> _WORD(16))) & _WORD(0x0000FFFF0000FFFF)
    return (words * _WORD(10000) + (words >> _WORD(32))) & _WORD(0x00000000FFFFFFFF)


def format_runs(runs: Runs) -> str:
    """Write run lengths as text, starts counted from 1; the empty mask is the empty text.

    Args:
        runs: Shape (R, 2) int32, starts counted from 0.
    """
    values = runs.astype(np.int64)
    values[:, 0] += 1
    return " ".join(map(str, values.ravel().tolist()))


def format_runs_batch(runs: Runs, offsets: npt.NDArray[np.int64]) -> pa.LargeStringArray:
    """Write the run lengths of many masks as text, as :func:`format_runs` would one by one.

    Args:
        runs: Shape (R, 2) int32, the runs of all masks one after the other.
        offsets: Shape (N + 1,), mask i has the runs ``offsets[i]`` to ``offsets[i + 1]``.

    Returns:
        N texts.
    """
    return pa.array(
        [format_runs(runs[i:j]) for i, j in pairwise(offsets.tolist())],
        type=pa.large_string(),
    )
