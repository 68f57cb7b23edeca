"""Logging: progress and scores as bars and lines; tables and images in W&B and TensorBoard."""

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
    """Lightning's bar without a logger's version, and without ``/-2`` for ``max_epochs=-1``."""

    def get_metrics(self, trainer: Trainer, pl_module: LightningModule) -> dict[str, Any]:
        """Return the values that the bar shows."""
        metrics = super().get_metrics(trainer, pl_module)
        return {name: value for name, value in metrics.items() if name != "v_num"}

    def _get_train_description(self, current_epoch: int) -> str:
        last = (self.trainer.max_epochs or -1) - 1
        return f"Epoch {current_epoch}/{last}" if last >= 0 else f"Epoch {current_epoch}"


class ProgressLog(Callback):
    """Log the scores after each validation and, if the output is no terminal, the progress.

    A bar in a file or in a cluster's log is garbage, so the trainer's bar is switched off there.

    Args:
        every_seconds: Minimum time between two lines of progress.
    """

    def __init__(self, *, every_seconds: float) -> None:
        self.every_seconds = every_seconds
        self._next_line = float("inf")

    def setup(self, trainer: Trainer, *_: Any, **__: Any) -> None:
        """Switch off the bar if the output is no terminal."""
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
        shown = trainer.progress_bar_metrics
        epoch = f"epoch {trainer.current_epoch}"
        self._log_progress(epoch, batch_idx, trainer.num_training_batches, shown)

    def on_validation_batch_end(
        self, trainer: Trainer, pl_module: Any, outputs: Any, batch: Any, batch_idx: int, *_: Any
    ) -> None:
        """Log the progress of validation."""
        self._log_progress("validation", batch_idx, trainer.num_val_batches[0])

    def on_predict_batch_end(
        self, trainer: Trainer, pl_module: Any, outputs: Any, batch: Any, batch_idx: int, *_: Any
    ) -> None:
        """Log the progress of prediction."""
        self._log_progress("prediction", batch_idx, trainer.num_predict_batches[0])

    def on_validation_end(self, trainer: Trainer, *_: Any) -> None:
        """Log the scores."""
        values = {name: trainer.callback_metrics.get(name) for name in SCORES}
        scores = [f"{name} {value:.4f}" for name, value in values.items() if value is not None]
        if trainer.is_global_zero and not trainer.sanity_checking and scores:
            log.info("epoch %d: %s", trainer.current_epoch, ", ".join(scores))

    def _log_progress(
        self, what: str, batch_idx: int, batches: float, values: Mapping[str, float] | None = None
    ) -> None:
        """Log a line if one is due."""
        if time.monotonic() >= self._next_line:
            shown = " ".join(f"{name} {value:.4g}" for name, value in (values or {}).items())
            log.info("%s: %d of %d batches %s", what, batch_idx + 1, batches, shown)
            self._next_line = time.monotonic() + self.every_seconds


def begin_at_step(loggers: Sequence[Logger], step: int) -> None:
    """Make TensorBoard drop its events from an optimizer step on, which is about to be repeated.

    Call it before anything is logged. Each start has a CSV file of its own.
    """
    for logger in loggers:
        if isinstance(logger, TensorBoardLogger):
            logger._kwargs["purge_step"] = step


def log_table(trainer: Trainer, key: str, columns: list[str], rows: list[list[Any]]) -> None:
    """Log a table to W&B, and as Markdown to TensorBoard."""
    for logger in trainer.loggers:
        if isinstance(logger, WandbLogger):
            logger.log_table(key, columns, rows, step=trainer.global_step)
        elif isinstance(logger, TensorBoardLogger):
            lines = [columns, ["---"] * len(columns), *rows]
            text = "\n".join("|".join(map(_cell, line)) for line in lines)
            logger.experiment.add_text(key, text, _last_step(trainer))


def log_images(trainer: Trainer, key: str, images: Mapping[str, npt.NDArray[np.uint8]]) -> None:
    """Log images, by caption, to W&B and TensorBoard; shape (H, W, 3), uint8, RGB."""
    for logger in trainer.loggers:
        if isinstance(logger, WandbLogger):
            by_image = {"caption": list(images), "file_type": ["jpg"] * len(images)}
            framed = _framed(list(images.values()))
            logger.log_image(key, framed, step=trainer.global_step, **by_image)
        elif isinstance(logger, TensorBoardLogger):
            step = _last_step(trainer)
            for name, image in images.items():
                logger.experiment.add_image(f"{key}/{name}", image, step, dataformats="HWC")


def _last_step(trainer: Trainer) -> int:
    """Return the index of the last step, the one that Lightning logs a validation at."""
    return max(0, trainer.global_step - 1)


def _framed(images: Sequence[npt.NDArray[np.uint8]]) -> list[npt.NDArray[np.uint8]]:
    """Pad images with white to one size, as W&B expects of a key."""
    height, width = (max(image.shape[axis] for image in images) for axis in (0, 1))
    pads = [(height - image.shape[0], width - image.shape[1]) for image in images]
    return [
        np.pad(image, ((0, below), (0, right), (0, 0)), constant_values=255)
        for image, (below, right) in zip(images, pads, strict=True)
    ]


def _cell(value: Any) -> str:
    if value is None:
        return ""
    if isinstance(value, float):
        return f"{value:.4f}"
    # a name from a file is text, not Markdown: escape columns, rows, tags, links and code
    return re.sub(r"([\\`\[\]|!])", r"\\\1", html.escape(printable(value), quote=False))
