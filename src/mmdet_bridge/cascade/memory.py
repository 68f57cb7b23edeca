"""Keep a cascade's features within a memory budget, and split work that runs out of memory."""

from __future__ import annotations

import functools
import logging
import math
from collections.abc import Callable
from enum import IntEnum
from typing import TypeVar

import torch
from torch import Tensor

log = logging.getLogger(__name__)

Features = tuple[Tensor, ...]
"""A pyramid's levels of N views, each (N, C, H_l, W_l)."""

Part = TypeVar("Part")


class FeatureStorage(IntEnum):
    """Storage of features, fastest first; the last takes no memory."""

    DEVICE = 0
    HALF = 1
    CPU = 2
    RECOMPUTED = 3


_MEANING = (
    "on the device, as they are computed",
    "on the device, in half precision",
    "in the memory of the CPU, in half precision",
    "not at all: the backbone runs again for the box and for the mask stages",
)


class KeptFeatures:
    """Features of all forward passes over one batch of images, within a budget.

    Features stay on the device while they fit; once the budget is exceeded all of them move to the
    next cheaper storage: half precision (float16, rounded by at most 1 in 2,048), CPU memory, and
    finally recomputation, which is exact. The storage in use is logged once.

    Args:
        device_gb: Budget on the device, in GB (10^9 bytes).
        cpu_gb: Budget in CPU memory, in GB.
    """

    def __init__(self, *, device_gb: float, cpu_gb: float) -> None:
        self.storage = FeatureStorage.DEVICE
        self._budgets_gb = (device_gb, device_gb, cpu_gb, math.inf)  # by storage
        self._kept: list[Features] = []

    def keep(self, features: Features, recompute: Callable[[], Features]) -> Callable[[], Features]:
        """Store features.

        Args:
            features: The features.
            recompute: Computes them again.

        Returns:
            A function that loads them, on their device and in their dtype.
        """
        number, device, dtype = len(self._kept), features[0].device, features[0].dtype
        self._kept.append(self._stored(features))
        while self._size_gb() > self._budgets_gb[self.storage]:
            self.step_down()

        def load() -> Features:
            log_once(logging.INFO, f"features are kept {_MEANING[self.storage]}")
            if self.storage is FeatureStorage.RECOMPUTED:
                return recompute()
            return tuple(level.to(device=device, dtype=dtype) for level in self._kept[number])

        return load

    def step_down(self) -> bool:
        """Move all features to the next cheaper storage; return False where there is none."""
        if self.storage is FeatureStorage.RECOMPUTED:
            return False
        self.storage = FeatureStorage(self.storage + 1)
        for number, features in enumerate(self._kept):  # one by one, so that both need not fit
            self._kept[number] = self._stored(features)
        return True

    def _stored(self, features: Features) -> Features:
        if self.storage is FeatureStorage.DEVICE:
            return features
        if self.storage is FeatureStorage.RECOMPUTED:
            return ()
        halved = tuple(level.half() if level.element_size() > 2 else level for level in features)
        on_cpu = self.storage is FeatureStorage.CPU
        return tuple(level.cpu() for level in halved) if on_cpu else halved

    def _size_gb(self) -> float:
        return sum(level.nbytes for features in self._kept for level in features) / 1e9


def with_oom_split(
    run: Callable[[range], Part], items: range, *, what: str, make_room: Callable[[], bool]
) -> list[Part]:
    """Run on all items at once or, where the device runs out of memory, in parts.

    A part that fails is halved; one item that fails is tried again as long as room can be made.
    Each half is first tried whole, so one OOM does not split everything into tiny batches.

    Args:
        run: Processes some of the items.
        items: Numbers of the items.
        what: The items' name, for the log.
        make_room: Frees memory; returns False where nothing is left to free.

    Returns:
        The results of the parts, in the order of the items.

    Raises:
        torch.OutOfMemoryError: One item does not fit and nothing is left to free.
    """
    try:
        return [run(items)]
    except torch.OutOfMemoryError as error:
        shortage = error.with_traceback(None)  # its frames hold on to the tensors of the attempt
    torch.cuda.empty_cache()
    if len(items) > 1:
        log_once(logging.WARNING, f"out of memory: {what} are split, with the same result")
        middle = len(items) // 2
        return [
            part
            for half in (items[:middle], items[middle:])
            for part in with_oom_split(run, half, what=what, make_room=make_room)
        ]
    if make_room():
        log_once(logging.WARNING, f"out of memory: kept features make room for {what}")
        return with_oom_split(run, items, what=what, make_room=make_room)
    raise shortage


@functools.cache
def log_once(level: int, message: str) -> None:
    """Log a message the first time it comes up in this process."""
    log.log(level, message)
