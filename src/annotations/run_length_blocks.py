"""Texts of many masks, a block at a time: fast where nothing is wrong, exact about what is."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple, TypeAlias

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from src.annotations.instances import Runs
from src.annotations.run_length_checks import RunLengthError

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
