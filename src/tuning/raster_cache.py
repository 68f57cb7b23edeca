"""Cache of masks, kept while there is room for them."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Hashable, Sequence
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from src.postprocess.pipeline import Sampler
from src.rle.bitmasks import Bits

Key = tuple[Hashable, ...]


@dataclass(frozen=True, slots=True, eq=False)
class _Window:
    """The part of a bitmask that is not zero."""

    first: int  # byte
    content: Bits
    row_bytes: int  # of the whole mask


@dataclass(slots=True)
class RasterCache:
    """Bitmasks by (image, raster, index, threshold), the bytes from the first that is not zero.

    Those that were not asked for longest make room for new ones.

    Args:
        room_bytes: What all masks together may take.
    """

    room_bytes: int
    used_bytes: int = 0
    _windows: OrderedDict[Key, _Window] = field(default_factory=OrderedDict)

    def sampler(self, image_id: str, make: Sampler) -> Sampler:
        """Return a sampler that makes only what is missing; ``make`` is that of the image."""

        def sample(
            indices: npt.NDArray[np.int64], thresholds: npt.NDArray[np.float32], raster: str
        ) -> Bits:
            keys: list[Key] = [
                (image_id, raster, index, threshold)
                for index, threshold in zip(indices.tolist(), thresholds.tolist(), strict=True)
            ]
            there = [self._windows.get(key) for key in keys]
            missing = np.array([window is None for window in there], dtype=bool)
            if missing.any() or not keys:
                made = make(indices[missing], thresholds[missing], raster)
                packed = np.zeros((len(keys), made.shape[1]), dtype=np.uint8)
                packed[missing] = made
            else:
                assert there[0] is not None
                packed = np.zeros((len(keys), there[0].row_bytes), dtype=np.uint8)
            for key, row, window in zip(keys, packed, there, strict=True):
                if window is None:
                    self._keep(key, row)
                    continue
                row[window.first : window.first + len(window.content)] = window.content
                if key in self._windows:  # it may have made room just now
                    self._windows.move_to_end(key)
            return packed

        return sample

    def missing(
        self, image_id: str, raster: str, indices: Sequence[int], threshold: float
    ) -> list[int]:
        """Return the candidates whose masks at this threshold are not there."""
        return [
            index for index in indices if (image_id, raster, index, threshold) not in self._windows
        ]

    def add(
        self, image_id: str, raster: str, indices: Sequence[int], threshold: float, packed: Bits
    ) -> None:
        """Keep the masks of these candidates. Shape (N, B)."""
        for index, mask in zip(indices, packed, strict=True):
            self._keep((image_id, raster, index, threshold), mask)

    def _keep(self, key: Key, mask: Bits) -> None:
        words = np.flatnonzero(mask.view(np.uint64))  # rasters are whole numbers of words
        first, last = (8 * int(words[0]), 8 * int(words[-1]) + 8) if len(words) else (0, 0)
        window = _Window(first, mask[first:last].copy(), len(mask))
        if key in self._windows:
            self.used_bytes -= self._windows[key].content.nbytes
        self._windows[key] = window
        self.used_bytes += window.content.nbytes
        while self.used_bytes > self.room_bytes:
            _, dropped = self._windows.popitem(last=False)
            self.used_bytes -= dropped.content.nbytes
