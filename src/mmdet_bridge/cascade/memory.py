"""Where a cascade's features wait for the next stage, and what happens when memory runs out."""

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


class Rung(IntEnum):
    """How features are kept, from the fastest way down to the one that takes no memory."""

    DEVICE = 0
    HALF = 1
    CPU = 2
    RECOMPUTED = 3


_MEANING = {
    Rung.DEVICE: "on the device, as they are computed",
    Rung.HALF: "on the device, in half precision",
    Rung.CPU: "in the memory of the CPU, in half precision",
    Rung.RECOMPUTED: "not at all: the backbone runs again for the box and for the mask stages",
}


class KeptFeatures:
    """Features of all passes over one batch of images, within a budget.

    They stay on the device while they fit. When they no longer do, all of them go one rung down,
    to half precision (float16: rounded by at most 1 in 2,048), to the memory of the CPU, and at
    last they are dropped and recomputed, exactly. The rung that served is logged once.

    Args:
        device_gb: budget on the device, in GB (10^9 bytes).
        cpu_gb: budget in the memory of the CPU, in GB.
    """

    def __init__(self, *, device_gb: float, cpu_gb: float) -> None:
        self.rung = Rung.DEVICE
        self._budget_gb = {
            Rung.DEVICE: device_gb,
            Rung.HALF: device_gb,
            Rung.CPU: cpu_gb,
            Rung.RECOMPUTED: math.inf,
        }
        self._kept: list[Features] = []

    def keep(self, features: Features, recompute: Callable[[], Features]) -> Callable[[], Features]:
        """Take features into keeping.

        Args:
            features: what is kept.
            recompute: makes them anew.

        Returns:
            A function that gives them back, on their device and of their dtype.
        """
        number, device, dtype = len(self._kept), features[0].device, features[0].dtype
        self._kept.append(self._on_rung(features))
        while self._size_gb() > self._budget_gb[self.rung]:
            self.step_down()

        def give_back() -> Features:
            say_once(logging.INFO, f"features are kept {_MEANING[self.rung]}")
            if self.rung is Rung.RECOMPUTED:
                return recompute()
            return tuple(level.to(device=device, dtype=dtype) for level in self._kept[number])

        return give_back

    def step_down(self) -> bool:
        """Keep everything one rung further down; False where there is none."""
        if self.rung is Rung.RECOMPUTED:
            return False
        self.rung = Rung(self.rung + 1)
        for number, features in enumerate(self._kept):  # one by one, so that both need not fit
            self._kept[number] = self._on_rung(features)
        return True

    def _on_rung(self, features: Features) -> Features:
        if self.rung is Rung.DEVICE:
            return features
        if self.rung is Rung.RECOMPUTED:
            return ()
        halved = tuple(level.half() if level.element_size() > 2 else level for level in features)
        return tuple(level.cpu() for level in halved) if self.rung is Rung.CPU else halved

    def _size_gb(self) -> float:
        return sum(level.nbytes for features in self._kept for level in features) / 1e9


def in_parts(
    run: Callable[[range], Part],
    items: range,
    *,
    what: str,
    make_room: Callable[[], bool],
) -> list[Part]:
    """Run on all items at once, or, where the device's memory does not suffice, in parts.

    A part that fails is halved; one item that fails is tried again as long as room can be made.
    Each half is first tried whole, so that one shortage does not leave everything in crumbs.

    Args:
        run: the work on some of the items.
        items: numbers of the items.
        what: the items' name, for the log.
        make_room: frees memory; False where nothing is left to free.

    Returns:
        What the parts gave, in the order of the items.

    Raises:
        torch.OutOfMemoryError: one item does not fit and nothing is left to free.
    """
    try:
        return [run(items)]
    except torch.OutOfMemoryError as error:
        shortage = error.with_traceback(None)  # its frames hold on to the tensors of the attempt
    torch.cuda.empty_cache()
    if len(items) > 1:
        say_once(logging.WARNING, f"out of memory: {what} are split, with the same result")
        middle = len(items) // 2
        return [
            part
            for half in (items[:middle], items[middle:])
            for part in in_parts(run, half, what=what, make_room=make_room)
        ]
    if make_room():
        say_once(logging.WARNING, f"out of memory: kept features make room for {what}")
        return in_parts(run, items, what=what, make_room=make_room)
    raise shortage


@functools.cache
def say_once(level: int, message: str) -> None:
    """Log a message the first time that it comes up in this process."""
    log.log(level, message)
