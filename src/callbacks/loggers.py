"""What Lightning's loggers have no common call for: tables, images, and where a run resumes."""

from __future__ import annotations

import html
import re
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
from lightning.pytorch import Trainer
from lightning.pytorch.loggers import Logger, TensorBoardLogger, WandbLogger

from src.io import printable


def begin_at_step(loggers: Sequence[Logger], step: int) -> None:
    """Let TensorBoard show steps that are done again once: what it has from there on is superseded.

    To be called before anything is logged. CSV files are one a start.

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
    """Show a table in W&B as such and in TensorBoard as text."""
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
    """Show images in W&B and TensorBoard.

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
    """Return the number of the last step, 0 for the first, as Lightning logs what follows it."""
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
    # A name out of a file is text, not Markdown: it opens no column, row, tag, link or code.
    return re.sub(r"([\\`\[\]|!])", r"\\\1", html.escape(printable(value), quote=False))
