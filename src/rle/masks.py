"""The types `Rle` and `RleBatch`, and set operations on masks that are never decoded."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import TypeAlias, overload

import numpy as np
import numpy.typing as npt

from src.errors import InputError

Runs: TypeAlias = npt.NDArray[np.int32]
"""Shape (R, 2) int32: start and length of each run, in pixels, as `src.rle` explains."""

Size: TypeAlias = tuple[int, int]
"""Height and width in pixels."""

NO_RUNS: Runs = np.zeros((0, 2), dtype=np.int32)


class RleError(InputError):
    """Text or counts that describe no mask; the message names the bad value and its place."""


@dataclass(frozen=True, slots=True, eq=False)
class Rle:
    """One mask as run lengths, with the size of its image.

    Args:
        runs: Shape (R, 2) int32. Starts ascend, runs do not overlap (they may touch), lengths are
            positive. R = 0 is the empty mask.
        size_hw: Height and width of the image in pixels.

    Example:
        >>> import numpy as np
        >>> from src import Rle, decode, format_rle
        >>> mask = Rle(np.array([[1, 2]], dtype=np.int32), size_hw=(2, 2))
        >>> mask.area_px, format_rle([mask]), decode(mask).astype(int).tolist()
        (2, ['2 2'], [[0, 1], [1, 0]])
    """

    runs: Runs
    size_hw: Size

    @property
    def area_px(self) -> int:
        """Number of pixels."""
        return int(self.runs[:, 1].sum(dtype=np.int64))

    def __eq__(self, other: object) -> bool:
        return (
            isinstance(other, Rle)
            and self.size_hw == other.size_hw
            and np.array_equal(self.runs, other.runs)
        )


@dataclass(frozen=True, slots=True, eq=False)
class RleBatch:
    """N masks as run lengths, each with the size of its image.

    Args:
        runs: Shape (R, 2) int32, the runs of all masks one after the other.
        offsets: Shape (N + 1,) int64, mask i has the runs ``offsets[i]`` to ``offsets[i + 1]``.
        sizes_hw: Shape (N, 2) int64, height and width of each mask's image in pixels.

    Example:
        >>> import numpy as np
        >>> from src import RleBatch, encode
        >>> masks = RleBatch.of([encode(np.eye(4)), encode(np.ones((4, 4)))])
        >>> masks.areas_px().tolist(), masks.boxes_xyxy().tolist(), masks[1].runs.tolist()
        ([4, 16], [[0, 0, 4, 4], [0, 0, 4, 4]], [[0, 16]])
    """

    runs: Runs
    offsets: npt.NDArray[np.int64]
    sizes_hw: npt.NDArray[np.int64]

    @classmethod
    def of(cls, masks: Masks) -> RleBatch:
        """Return masks one after the other as a batch; a batch as it is."""
        if isinstance(masks, RleBatch):
            return masks
        sizes_hw = np.array([mask.size_hw for mask in masks], dtype=np.int64).reshape(-1, 2)
        return cls.join((mask.runs for mask in masks), sizes_hw)

    @classmethod
    def join(
        cls, runs: Iterable[Runs], sizes_hw: npt.NDArray[np.integer] | Sequence[Size] | Size
    ) -> RleBatch:
        """Return a batch of N masks.

        Args:
            runs: N arrays of shape (R_i, 2).
            sizes_hw: Height and width of the image of each mask, or of all masks.
        """
        parts = [NO_RUNS, *runs]
        offsets = np.cumsum([len(part) for part in parts], dtype=np.int64)
        return cls(np.concatenate(parts), offsets, as_sizes(sizes_hw, len(parts) - 1))

    @property
    def num_runs(self) -> npt.NDArray[np.int64]:
        """Number of runs of each mask, shape (N,) int64."""
        return np.diff(self.offsets)

    @property
    def size_hw(self) -> Size:
        """Height and width of the one image of all masks.

        Raises:
            ValueError: There is no mask, or masks are of images of different sizes.
        """
        if not len(self) or (self.sizes_hw != self.sizes_hw[0]).any():
            raise ValueError("sizes_hw must be one size for one or more masks")
        height, width = self.sizes_hw[0].tolist()
        return height, width

    def areas_px(self) -> npt.NDArray[np.int64]:
        """Return the number of pixels of each mask, shape (N,) int64."""
        areas = np.zeros(len(self), dtype=np.int64)
        filled = np.flatnonzero(self.num_runs)
        if len(filled):
            areas[filled] = np.add.reduceat(self.runs[:, 1], self.offsets[filled], dtype=np.int64)
        return areas

    def boxes_xyxy(self) -> npt.NDArray[np.int32]:
        """Return the smallest box around each mask.

        Returns:
            Shape (N, 4) int32, x_min, y_min, x_max, y_max in pixels, half-open (the maxima are one
            past the last pixel); zeros for an empty mask.
        """
        boxes = np.zeros((len(self), 4), dtype=np.int32)
        filled = np.flatnonzero(self.num_runs)
        if len(filled) == 0:
            return boxes
        first, last = self.offsets[filled], self.offsets[filled + 1] - 1
        heights = np.repeat(self.sizes_hw[:, 0].astype(np.int32), self.num_runs)
        starts = self.runs[:, 0]
        x_first, y_first = np.divmod(starts, heights)
        y_end = y_first + self.runs[:, 1]
        # A run that continues in the next column covers the bottom of one and the top of the next.
        crosses = y_end > heights
        if crosses.any():
            y_first[crosses] = 0
            y_end[crosses] = heights[crosses]
        boxes[filled, 0] = x_first[first]
        boxes[filled, 1] = np.minimum.reduceat(y_first, first)
        boxes[filled, 2] = (starts[last] + self.runs[last, 1] - 1) // heights[last] + 1
        boxes[filled, 3] = np.maximum.reduceat(y_end, first)
        return boxes

    def problems(self) -> dict[int, str]:
        """Return the first fault of each mask that is not one of its image, by the mask's number.

        A fault is a negative start, a length below 1, a start before the end of the previous run,
        or an end past the image. Messages count starts from 1, as files do.
        """
        starts = self.runs[:, 0].copy()
        ends = starts + self.runs[:, 1]  # wraps where it is too large for int32, to before start
        sizes_px = self.sizes_hw[:, 0] * self.sizes_hw[:, 1]
        filled = np.flatnonzero(self.num_runs)
        first, last = self.offsets[filled], self.offsets[filled + 1] - 1
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
        ends_px = starts.astype(np.int64) + self.runs[:, 1]
        bad = (starts < 0) | (self.runs[:, 1] <= 0) | (ends_px > sizes_px.repeat(self.num_runs))
        overlaps = starts[1:] < ends_px[:-1]
        overlaps[first[1:] - 1] = False
        bad[1:] |= overlaps
        at = np.flatnonzero(bad)
        rows, firsts = np.unique(self.offsets.searchsorted(at, side="right") - 1, return_index=True)
        found: dict[int, str] = {}
        for row, run in zip(rows.tolist(), at[firsts].tolist(), strict=True):
            values = self.runs[self.offsets[row] : run + 1].astype(np.int64) + np.array([1, 0])
            tokens = map(str, values.ravel().tolist())
            _, found[row] = next(run_problems(tokens, self[row].size_hw))
        return found

    def __len__(self) -> int:
        return len(self.offsets) - 1

    def __iter__(self) -> Iterator[Rle]:
        return (self[row] for row in range(len(self)))

    @overload
    def __getitem__(self, chosen: int) -> Rle: ...

    @overload
    def __getitem__(self, chosen: npt.ArrayLike | slice) -> RleBatch: ...

    def __getitem__(self, chosen: int | npt.ArrayLike | slice) -> Rle | RleBatch:
        """Return a mask as a view by its number, or a batch by numbers, a slice or N booleans."""
        if isinstance(chosen, int):
            height, width = self.sizes_hw[chosen].tolist()
            begin, end = self.offsets[chosen], self.offsets[chosen + 1]
            return Rle(self.runs[begin:end], (height, width))
        if not isinstance(chosen, slice):
            chosen = np.asarray(chosen, dtype=None if np.size(chosen) else np.int64)
        rows = np.arange(len(self))[chosen]
        if len(rows) == len(self) and (rows[1:] > rows[:-1]).all():
            return self
        counts = self.num_runs[rows]
        offsets = np.concatenate([[0], np.cumsum(counts)])
        places = ranges(self.offsets[rows], counts)
        return RleBatch(self.runs[places], offsets, self.sizes_hw[rows])

    def __eq__(self, other: object) -> bool:
        return (
            isinstance(other, RleBatch)
            and np.array_equal(self.runs, other.runs)
            and np.array_equal(self.offsets, other.offsets)
            and np.array_equal(self.sizes_hw, other.sizes_hw)
        )


Masks: TypeAlias = RleBatch | Sequence[Rle]
"""N masks; a single one is a list of one."""


def as_sizes(
    sizes_hw: npt.NDArray[np.integer] | Sequence[Size] | Size, count: int
) -> npt.NDArray[np.int64]:
    """Return height and width of the images of N masks, one or N of them, as shape (N, 2) int64."""
    sizes = np.asarray(sizes_hw, dtype=np.int64).reshape(-1, 2)
    return sizes if len(sizes) == count else np.broadcast_to(sizes, (count, 2))


def run_problems(tokens: Iterable[str], size_hw: Size) -> Iterator[tuple[str, str]]:
    """Find every problem of the numbers of one mask.

    Args:
        tokens: ``start length start length ...`` as text, starts counted from 1.
        size_hw: Height and width of the image in pixels.

    Yields:
        Kind and message of each problem, in the order of the numbers.
    """
    pixels, previous, start = size_hw[0] * size_hw[1], (1, 0), None
    before, token, count = "", "", 0
    for count, token in enumerate(tokens, start=1):
        value = _whole_number(token)
        if value is None:
            yield "text", f"value {count} must be a whole number, got {_shortened(token)!r}"
        if count % 2:
            start, start_text = value, token
            continue
        if start is None or value is None:
            continue
        name = f"run {count // 2} (start {_shortened(start_text)}, length {_shortened(token)})"
        if start < 1:
            yield "start", f"{name} must start at 1 or later"
        if value < 1:
            yield "length", f"{name} must have a length of 1 or more"
        elif start + value - 1 > pixels:
            last = f"the last of height {size_hw[0]} and width {size_hw[1]}"
            yield "outside", f"{name} must end by pixel {pixels}, {last}"
        if before and start < previous[0]:
            yield "descends", f"{name} must start after {before}: starts must ascend"
        elif before and start < sum(previous):
            yield "overlaps", f"{name} must not overlap {before}"
        before, previous = name, (start, value)
    if count % 2:
        got = f"{count}; the last is {_shortened(token)!r}"
        yield "odd", f"the number of values must be even, a length for each start, got {got}"


def _whole_number(token: str) -> int | None:
    digits = token[1:] if token[:1] in ("+", "-") else token
    if not (digits.isascii() and digits.isdigit()):
        return None
    # int() refuses thousands of digits.
    return int(token) if len(token) <= 20 else (-1 if token[0] == "-" else 1) * 10**20


def _shortened(token: str) -> str:
    return token if len(token) <= 40 else token[:40] + "..."


def ranges(begins: npt.NDArray[np.int64], lengths: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
    """Count up from each begin, one range after the other. Shapes (N,) and (sum of lengths,)."""
    ends = lengths.cumsum()
    total = int(ends[-1]) if len(ends) else 0
    return np.arange(total) + np.repeat(begins - (ends - lengths), lengths)


def split_columns(runs: Runs, height_px: int) -> Runs:
    """Cut runs at the ends of columns, so that each is in one. Shapes (R, 2) and (S, 2)."""
    starts = runs[:, 0].astype(np.int64)
    ends = starts + runs[:, 1]
    columns = starts // height_px
    pieces = (ends - 1) // height_px - columns + 1
    if (pieces == 1).all():
        return runs
    tops = ranges(columns, pieces) * height_px
    cut_starts = np.maximum(np.repeat(starts, pieces), tops)
    cut_ends = np.minimum(np.repeat(ends, pieces), tops + height_px)
    return np.stack([cut_starts, cut_ends - cut_starts], axis=1).astype(np.int32)


def merge_intervals(
    starts: npt.NDArray[np.integer], ends: npt.NDArray[np.integer], size_hw: Size, count: int = 1
) -> RleBatch:
    """Return N masks, as maximal runs, of the pixels of images that lie one after the other.

    Args:
        starts: Shape (R,), ascending; those of mask i are counted from i * H * W.
        ends: Shape (R,), each at most the next start; an interval may be empty.
        size_hw: Height and width of each image.
        count: N.
    """
    filled = ends > starts
    starts, ends = starts[filled], ends[filled]
    pixels = size_hw[0] * size_hw[1]
    rows = starts // pixels
    is_first = np.ones(len(starts), dtype=np.bool_)
    is_first[1:] = (starts[1:] > ends[:-1]) | (rows[1:] > rows[:-1])
    is_last = np.append(is_first[1:], True)[: len(starts)]
    starts, rows = starts[is_first], rows[is_first]
    runs = np.stack([starts - rows * pixels, ends[is_last] - starts], axis=1).astype(np.int32)
    offsets = rows.searchsorted(np.arange(count + 1))
    return RleBatch(runs, offsets, as_sizes(size_hw, count))


def intersection_px(a: Rle, b: Rle) -> int:
    """Return the number of pixels that two masks of one image share."""
    return shared_px(a.runs, b.runs)


def shared_px(a: npt.NDArray[np.integer], b: npt.NDArray[np.integer]) -> int:
    """Return the number of pixels that runs of shapes (R, 2) and (S, 2) share."""
    if len(a) == 0 or len(b) == 0:
        return 0
    if len(a) > len(b):
        a, b = b, a
    starts = b[:, 0].astype(np.int64)
    lengths = b[:, 1].astype(np.int64)
    before = np.cumsum(lengths) - lengths

    def covered(places: npt.NDArray[np.int64]) -> int:
        """Return the sum over places of the number of pixels of ``b`` before each."""
        run = np.searchsorted(starts, places, side="right") - 1
        inside = np.minimum(places - starts[run], lengths[run])
        return int(np.where(run < 0, 0, before[run] + inside).sum())

    a_starts = a[:, 0].astype(np.int64)
    return covered(a_starts + a[:, 1]) - covered(a_starts)


def iou(a: Rle, b: Rle) -> float:
    """Return the intersection over union of two masks, in [0, 1]; 0 where both are empty."""
    shared = intersection_px(a, b)
    total = a.area_px + b.area_px - shared
    return shared / total if total else 0.0


def subtract(a: Rle, b: Rle) -> Rle:
    """Return the pixels of ``a`` that are not in ``b``, as maximal runs."""
    return _combine(a, b, wanted=lambda in_a, in_b: in_a & ~in_b)


def union(a: Rle, b: Rle) -> Rle:
    """Return the pixels of ``a``, ``b`` or both, as maximal runs."""
    return _combine(a, b, wanted=lambda in_a, in_b: in_a | in_b)


def _combine(
    a: Rle,
    b: Rle,
    wanted: Callable[[npt.NDArray[np.bool_], npt.NDArray[np.bool_]], npt.NDArray[np.bool_]],
) -> Rle:
    """Return the pixels for which ``wanted(in_a, in_b)``, false outside both."""
    a_starts, b_starts = a.runs[:, 0].astype(np.int64), b.runs[:, 0].astype(np.int64)
    ends = a_starts + a.runs[:, 1], b_starts + b.runs[:, 1]
    places = np.concatenate([a_starts, ends[0], b_starts, ends[1]])
    lengths = [len(a.runs)] * 2 + [len(b.runs)] * 2
    a_steps, b_steps = np.repeat([[1, -1, 0, 0], [0, 0, 1, -1]], lengths, 1)
    order = np.argsort(places, kind="stable")
    places = places[order]
    # Between equal places the sums may be off, but no pixel lies there; merging drops those.
    in_a = np.cumsum(a_steps[order])[:-1] > 0
    in_b = np.cumsum(b_steps[order])[:-1] > 0
    kept = wanted(in_a, in_b)
    return merge_intervals(places[:-1][kept], places[1:][kept], a.size_hw)[0]
