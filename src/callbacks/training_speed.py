"""How fast a training is, what of its time goes into waiting for images, and its GPU memory."""

from __future__ import annotations

import time
from collections import deque
from typing import Any

import torch
from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.callbacks import Callback


class TrainingSpeedCallback(Callback):
    """Log means over the last steps, as many as lie between two lines of the log.

    - ``speed/images_per_second``: of all devices together.
    - ``speed/step_seconds``: from the end of a step to the end of the next.
    - ``speed/data_loading_share``: the part of it before the step begins, in [0, 1]: waiting for
      the loader, moving the batch to the device, writing logs. A device that is behind its process
      works on meanwhile, so this is what it starves at most.
    - ``speed/gpu_memory_gib``: the most that was allocated since the start; only on a GPU.

    The clock is read twice a step and no device is waited for. The first step of an epoch, and one
    after a validation or a saved checkpoint, are left out.
    """

    def __init__(self) -> None:
        self._window: deque[tuple[int, float, float]] = deque()
        self._started = 0.0
        self._ended: float | None = None

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Begin a window of the log's interval."""
        self._window = deque(maxlen=trainer.log_every_n_steps)  # type: ignore[attr-defined]

    def on_train_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Leave out what lies between epochs."""
        self._ended = None

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Leave out validation."""
        self._ended = None

    def on_save_checkpoint(
        self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]
    ) -> None:
        """Leave out saving."""
        self._ended = None

    def on_train_batch_start(
        self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int
    ) -> None:
        """Read the clock: the batch is there."""
        self._started = time.perf_counter()

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Read the clock, log the window's means."""
        now = time.perf_counter()
        if self._ended is not None:
            self._window.append(
                (len(batch["inputs"]), self._started - self._ended, now - self._ended)
            )
        if self._window:
            images, waited, taken = (sum(column) for column in zip(*self._window, strict=True))
            values = {
                "speed/images_per_second": images * trainer.world_size / taken,
                "speed/step_seconds": taken / len(self._window),
                "speed/data_loading_share": waited / taken,
            }
            if pl_module.device.type == "cuda":
                peak = torch.cuda.max_memory_allocated(pl_module.device)
                values["speed/gpu_memory_gib"] = peak / 2**30
            pl_module.log_dict(values, batch_size=1)
        self._ended = time.perf_counter()
