"""What is wrong with the masks of a submission: their run lengths, and overlaps within a class."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import pairwise

import numpy as np
import numpy.typing as npt

from src.annotations.instances import Runs
from src.annotations.packed_masks import intersections_px, pack_runs
from src.annotations.run_length_algebra import merge_touching

_WHOLE_NUMBER = re.compile(r"[+-]?[0-9]{1,18}")


def run_problems(text: str, pixels: int) -> list[str]:
    """Everything that is wrong with one ``EncodedPixels``, a sentence a kind, with its first place.

    Args:
        text: ``start length start length ...``, starts counted from 1.
        pixels: Of the raster; 0: not known.

    Returns:
        Nothing where the text is a mask with a pixel.
    """
    tokens = text.split()
    if not tokens:
        return ["the mask is empty; an image without objects has the row `1 1` of class 23"]
    found: dict[str, list[str]] = {}
    values: list[int | None] = []
    for place, token in enumerate(tokens, start=1):
        is_number = _WHOLE_NUMBER.fullmatch(token) is not None
        values.append(int(token) if is_number else None)
        if not is_number:
            shown = token if len(token) <= 40 else token[:40] + "..."
            problem = f"value {place} of {len(tokens)} is {shown!r}, not a whole number"
            found.setdefault("text", []).append(problem)
    if len(tokens) % 2:
        problem = f"an odd number of values, {len(tokens)}: each start needs a length"
        found.setdefault("odd", []).append(problem)
    runs = [
        (number, start, length)
        for number, (start, length) in enumerate(zip(values[::2], values[1::2], strict=False), 1)
        if start is not None and length is not None
    ]
    for number, start, length in runs:
        name = f"run {number} (start {start}, length {length})"
        if start < 1:
            found.setdefault("start", []).append(f"{name}: the start is below 1")
        if length < 1:
            found.setdefault("length", []).append(f"{name}: the length is below 1")
        elif pixels and start + length - 1 > pixels:
            problem = f"{name} ends past the raster, which has {pixels} pixels"
            found.setdefault("outside", []).append(problem)
    for (before, start, length), (number, next_start, next_length) in pairwise(runs):
        name = f"run {number} (start {next_start}, length {next_length})"
        previous = f"run {before} (start {start}, length {length})"
        if next_start < start:
            problem = f"{name} starts before {previous}; starts must ascend"
            found.setdefault("descends", []).append(problem)
        elif next_start < start + length:
            found.setdefault("overlaps", []).append(f"{name} overlaps {previous}")
    return [
        problems[0] + (f" (and {len(problems) - 1} more such)" if len(problems) > 1 else "")
        for problems in found.values()
    ]


@dataclass(frozen=True, slots=True)
class Overlap:
    """Two masks of one image and class that share pixels."""

    image_id: str
    category: int
    row: int  # of the later mask, in the file
    earlier_row: int
    shared_px: int


@dataclass(slots=True)
class MaskCollector:
    """Takes the masks of a file block by block and finds those that overlap.

    Runs are kept, eight bytes each; only the masks of an image and class with an overlap are drawn.
    """

    _keys: list[tuple[str, int]] = field(default_factory=list)
    _groups: dict[tuple[str, int], int] = field(default_factory=dict)
    _group_pixels: list[int] = field(default_factory=list)
    _runs: list[Runs] = field(default_factory=list)
    _counts: list[npt.NDArray[np.int64]] = field(default_factory=list)
    _mask_groups: list[int] = field(default_factory=list)
    _rows: list[int] = field(default_factory=list)

    def add(
        self,
        *,
        runs: Runs,
        offsets: npt.NDArray[np.int64],
        rows: Sequence[int],
        keys: Sequence[tuple[str, int]],
        pixels: Sequence[int],
    ) -> None:
        """Add N masks.

        Args:
            runs: The runs of all, one after the other; need not ascend nor lie on the raster.
            offsets: Shape (N + 1,).
            rows: N numbers of rows.
            keys: N pairs of image and category; masks of a pair must be disjoint.
            pixels: N sizes of rasters.
        """
        self._runs.append(runs)
        self._counts.append(np.diff(offsets))
        self._rows.extend(rows)
        for key, count in zip(keys, pixels, strict=True):
            group = self._groups.setdefault(key, len(self._groups))
            if group == len(self._keys):
                self._keys.append(key)
                self._group_pixels.append(count)
            self._mask_groups.append(group)

    def overlaps(self) -> list[Overlap]:
        """Every pair of masks of one image and class that share a pixel."""
        if not self._rows:
            return []
        runs = np.concatenate(self._runs)
        counts = np.concatenate(self._counts)
        groups = np.array(self._mask_groups)
        offsets = np.concatenate([[0], np.cumsum(counts)])
        overlaps = []
        for group in _groups_with_overlaps(runs, np.repeat(groups, counts)).tolist():
            image_id, category = self._keys[group]
            masks = np.flatnonzero(groups == group)
            limit = self._group_pixels[group]
            drawn = pack_runs(
                [_as_mask(runs[offsets[mask] : offsets[mask + 1]], limit) for mask in masks],
                (limit, 1),
            )
            shared = np.triu(intersections_px(drawn, drawn), k=1)
            in_file = [self._rows[mask] for mask in masks]
            overlaps += [
                Overlap(image_id, category, in_file[later], in_file[earlier], int(px))
                for earlier, later, px in zip(*np.nonzero(shared), shared[shared > 0], strict=True)
            ]
        return overlaps


def _groups_with_overlaps(runs: Runs, groups: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
    """Groups in which some runs share a pixel. ``groups``: shape (R,), that of each run."""
    order = np.lexsort((runs[:, 0], groups))
    starts = runs[order, 0].astype(np.int64)
    ends = starts + runs[order, 1]
    groups = groups[order]
    # where any two runs overlap, the first that does overlaps the one before it
    shares = (starts[1:] < ends[:-1]) & (groups[1:] == groups[:-1])
    return np.unique(groups[1:][shares])


def _as_mask(runs: Runs, pixels: int) -> Runs:
    """The pixels of runs in any order, as far as they lie on the raster, as valid runs."""
    starts = np.clip(runs[:, 0].astype(np.int64), 0, pixels)
    ends = np.clip(runs[:, 0].astype(np.int64) + runs[:, 1], 0, pixels)
    order = np.argsort(starts, kind="stable")
    starts, ends = starts[order], np.maximum.accumulate(ends[order])
    starts[1:] = np.maximum(starts[1:], ends[:-1])
    return merge_touching(starts[ends > starts], ends[ends > starts])
