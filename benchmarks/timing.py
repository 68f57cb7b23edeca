"""CPU seconds of a task: of one call, or of the fastest of several rounds."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TypeVar

T = TypeVar("T")


def timed(task: Callable[[], T], *, rounds: int = 1) -> tuple[T, float]:
    """Return the result of the task, and the CPU seconds of its fastest round."""
    seconds = []
    for _ in range(rounds):
        start = time.process_time()
        result = task()
        seconds.append(time.process_time() - start)
    return result, min(seconds)
