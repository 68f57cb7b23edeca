"""A callback that notes when training steps end, for ``benchmarks/peers.py``."""

from __future__ import annotations

import time
from typing import Any

from lightning import Callback, Trainer

from benchmarks.peers import StepClock, tree_cpu_seconds
from src.io import write_json


class Clock(Callback):
    """Write images a second and CPU seconds a step of a training run.

    Args:
        path: The JSON file.
    """

    def __init__(self, path: str) -> None:
        self.path = path
        self.clock: StepClock | None = None
        self._pause = (0.0, 0.0)

    def on_train_batch_end(self, trainer: Trainer, module: Any, *_: Any, **__: Any) -> None:
        """Note the end of a step."""
        if self.clock is None:
            self.clock = StepClock(trainer.datamodule.batch_size)  # type: ignore[attr-defined]
        self.clock.tick()

    def on_validation_start(self, trainer: Trainer, module: Any) -> None:
        """Begin a pause: validation is no training."""
        self._pause = (time.perf_counter(), tree_cpu_seconds())

    def on_validation_end(self, trainer: Trainer, module: Any) -> None:
        """End the pause."""
        if self.clock is not None:
            wall_s, cpu_s = self._pause
            self.clock.skip(time.perf_counter() - wall_s, tree_cpu_seconds() - cpu_s)

    def on_train_end(self, trainer: Trainer, module: Any) -> None:
        """Write the file."""
        assert self.clock is not None
        write_json(self.path, self.clock.figures())
