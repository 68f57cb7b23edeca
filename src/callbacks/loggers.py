"""Logs: progress and scores as bars and lines; tables and images for W&B and TensorBoard."""

from __future__ import annotations

import html
import logging
import re
import sys
import time
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.callbacks import Callback, RichProgressBar
from lightning.pytorch.loggers import Logger, TensorBoardLogger, WandbLogger

from src.io import printable

log = logging.getLogger(__name__)

SCORES = ("validation/competition_map", "validation/coco_map", "validation/coco_box_map")


class ProgressBar(RichProgressBar):
    """Lightning's bar without the version of a logger, and without ``/-2`` for ``max_epochs=-1``.

    Args:
        leave: Whether the bar of each epoch stays on the screen.
    """

    def __init__(self, *, leave: bool) -> None:
        super().__init__(leave=leave)

    def get_metrics(
        self, trainer: Trainer, pl_module: LightningModule
    ) -> dict[str, int | str | float | dict[str, float]]:
        """Return the values that the bar shows."""
        metrics = super().get_metrics(trainer, pl_module)
        metrics.pop("v_num", None)
        return metrics

    def _get_train_description(self, current_epoch: int) -> str:
        last = (self.trainer.max_epochs or -1) - 1
        return f"Epoch {current_epoch}/{last}" if last >= 0 else f"Epoch {current_epoch}"


class ProgressLog(Callback):
    """Log the scores after each validation and, where the output is no terminal, the progress.

    A bar in a file or a cluster's log is garbage, so there the trainer's bar is switched off.

    Args:
        every_seconds: Least time between two lines of progress.
    """

    def __init__(self, *, every_seconds: float) -> None:
        self.every_seconds = every_seconds
        self._next_line = float("inf")

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Switch off the bar where the output is no terminal."""
        if sys.stdout.isatty():
            return
        if trainer.progress_bar_callback is not None:
            trainer.progress_bar_callback.disable()
        if trainer.is_global_zero:
            self._next_line = time.monotonic() + self.every_seconds

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Log the progress of the epoch, with the loss."""
        if self._is_due():
            shown = " ".join(
                f"{name} {value:.4g}" for name, value in trainer.progress_bar_metrics.items()
            )
            epoch = f"epoch {trainer.current_epoch}"
            self._log_progress(epoch, batch_idx, trainer.num_training_batches, shown)

    def on_validation_batch_end(
        self,
        trainer: Trainer,
        pl_module: LightningModule,
        outputs: Any,
        batch: Any,
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        """Log the progress of validation."""
        if self._is_due():
            self._log_progress("validation", batch_idx, trainer.num_val_batches[dataloader_idx])

    def on_predict_batch_end(
        self,
        trainer: Trainer,
        pl_module: LightningModule,
        outputs: Any,
        batch: Any,
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        """Log the progress of prediction."""
        if self._is_due():
            self._log_progress("prediction", batch_idx, trainer.num_predict_batches[dataloader_idx])

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Log the scores."""
        values = {name: trainer.callback_metrics.get(name) for name in SCORES}
        scores = [f"{name} {value:.4f}" for name, value in values.items() if value is not None]
        if trainer.is_global_zero and not trainer.sanity_checking and scores:
            log.info("epoch %d: %s", trainer.current_epoch, ", ".join(scores))

    def _is_due(self) -> bool:
        return time.monotonic() >= self._next_line

    def _log_progress(self, what: str, batch_idx: int, batches: float, shown: str = "") -> None:
        log.info("%s: %d of %d batches %s", what, batch_idx + 1, batches, shown)
        self._next_line = time.monotonic() + self.every_seconds


def begin_at_step(loggers: Sequence[Logger], step: int) -> None:
    """Have TensorBoard drop what it has from a step on, which is about to be done again.

    Call it before anything is logged. Each start has a CSV file of its own.

    Args:
        loggers: Of this start.
        step: Optimizer steps done before it, 0 for a new run.
    """
    for logger in loggers:
        if isinstance(logger, TensorBoardLogger):
            logger._kwargs["purge_step"] = step


def log_table(
    trainer: Trainer, key: str, columns: Sequence[str], rows: Sequence[Sequence[Any]]
) -> None:
    """Log a table to W&B, and as Markdown to TensorBoard."""
    for logger in trainer.loggers:
        if isinstance(logger, WandbLogger):
            logger.log_table(
                key, list(columns), [list(row) for row in rows], step=trainer.global_step
            )
        elif isinstance(logger, TensorBoardLogger):
            lines = [columns, ["---"] * len(columns), *rows]
            text = "\n".join("|".join(map(_cell, line)) for line in lines)
            logger.experiment.add_text(key, text, _last_step(trainer))


def log_images(trainer: Trainer, key: str, images: Mapping[str, npt.NDArray[np.uint8]]) -> None:
    """Log images to W&B and TensorBoard.

    Args:
        trainer: Has the loggers.
        key: The loggers' key.
        images: By caption; shape (H, W, 3), uint8, RGB.
    """
    for logger in trainer.loggers:
        if isinstance(logger, WandbLogger):
            logger.log_image(
                key,
                _framed(list(images.values())),
                step=trainer.global_step,
                caption=list(images),
                file_type=["jpg"] * len(images),
            )
        elif isinstance(logger, TensorBoardLogger):
            for name, image in images.items():
                logger.experiment.add_image(
                    f"{key}/{name}", image, _last_step(trainer), dataformats="HWC"
                )


def _last_step(trainer: Trainer) -> int:
    """Return the index of the last step, as Lightning logs a validation after it."""
    return max(0, trainer.global_step - 1)


def _framed(images: Sequence[npt.NDArray[np.uint8]]) -> list[npt.NDArray[np.uint8]]:
    """Pad images with white to one size, which W&B wants of a key."""
    height, width = (max(image.shape[axis] for image in images) for axis in (0, 1))
    framed = []
    for image in images:
        frame = np.full((height, width, 3), 255, dtype=np.uint8)
        frame[: image.shape[0], : image.shape[1]] = image
        framed.append(frame)
    return framed


def _cell(value: Any) -> str:
    if value is None:
        return ""
    if isinstance(value, float):
        return f"{value:.4f}"
    # a name from a file is text, not Markdown: escape columns, rows, tags, links and code
    return re.sub(r"([\\`\[\]|!])", r"\\\1", html.escape(printable(value), quote=False))
