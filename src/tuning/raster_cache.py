"""Bitmasks that stay in memory, so that settings that draw the same masks share them."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Hashable
from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from src.postprocess.pipeline import Sampler
from src.rle.bitmasks import Bits

Key = tuple[Hashable, ...]


class _Window(NamedTuple):
    """The part of a bitmask that is not zero."""

    first: int  # byte
    content: Bits
    row_bytes: int  # of the whole mask


@dataclass(slots=True)
class RasterCache:
    """Bitmasks by (image, raster, index, threshold); the least recently used make room.

    Of each mask only the bytes from its first to its last set pixel are kept.

    Args:
        max_bytes: Memory that all masks together may take.
    """

    max_bytes: int
    used_bytes: int = 0
    _windows: OrderedDict[Key, _Window] = field(default_factory=OrderedDict)

    def sampler(self, image_id: str, make: Sampler) -> Sampler:
        """Return a sampler of an image that has ``make`` draw only the masks not in the cache."""
        if self.max_bytes == 0:
            return make

        def sample(
            indices: npt.NDArray[np.int64], thresholds: npt.NDArray[np.float32], raster: str
        ) -> Bits:
            keys: list[Key] = [
                (image_id, raster, index, threshold)
                for index, threshold in zip(indices.tolist(), thresholds.tolist(), strict=True)
            ]
            there = [self._windows.get(key) for key in keys]
            missing = np.array([window is None for window in there], dtype=bool)
            if keys and there[0] is not None and not missing.any():
                packed = np.zeros((len(keys), there[0].row_bytes), dtype=np.uint8)
            else:
                made = make(indices[missing], thresholds[missing], raster)
                packed = np.zeros((len(keys), made.shape[1]), dtype=np.uint8)
                packed[missing] = made
            for key, row, window in zip(keys, packed, there, strict=True):
                if window is None:
                    self.add(key, row)
                    continue
                row[window.first : window.first + len(window.content)] = window.content
                if key in self._windows:  # a mask added in this loop may have evicted it
                    self._windows.move_to_end(key)
            return packed

        return sample

    def __contains__(self, key: Key) -> bool:
        return key in self._windows

    def add(self, key: Key, mask: Bits) -> None:
        """Keep a mask, shape (B,), and evict others until all fit."""
        step = 1 if len(mask) % 8 else 8  # in words of 8 bytes where the raster has whole ones
        used = np.flatnonzero(mask.view(np.uint64) if step == 8 else mask)
        first, last = (step * int(used[0]), step * int(used[-1]) + step) if len(used) else (0, 0)
        window = _Window(first, mask[first:last].copy(), len(mask))
        if key in self._windows:
            self.used_bytes -= self._windows[key].content.nbytes
        self._windows[key] = window
        self.used_bytes += window.content.nbytes
        while self.used_bytes > self.max_bytes:
            _, dropped = self._windows.popitem(last=False)
            self.used_bytes -= dropped.content.nbytes
