"""What Lightning's loggers have no common call for: tables, pictures, and where a run resumes."""

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


def log_pictures(trainer: Trainer, key: str, pictures: Mapping[str, npt.NDArray[np.uint8]]) -> None:
    """Show pictures by their names, in W&B and TensorBoard.

    Args:
        trainer: whose loggers show them.
        key: what they are shown under.
        pictures: shape (H, W, 3), uint8, RGB.
    """
    for logger in trainer.loggers:
        if isinstance(logger, WandbLogger):
            logger.log_image(
                key,
                _framed(list(pictures.values())),
                step=trainer.global_step,
                caption=list(pictures),
                file_type=["jpg"] * len(pictures),
            )
        elif isinstance(logger, TensorBoardLogger):
            for name, picture in pictures.items():
                logger.experiment.add_image(
                    f"{key}/{name}", picture, _last_step(trainer), dataformats="HWC"
                )


def _last_step(trainer: Trainer) -> int:
    """Return the number of the last step, 0 for the first, as Lightning logs what follows it."""
    return max(0, trainer.global_step - 1)


def _framed(pictures: Sequence[npt.NDArray[np.uint8]]) -> list[npt.NDArray[np.uint8]]:
    """The pictures with white below and to the right: W&B wants those of a key of one size."""
    height, width = (max(picture.shape[axis] for picture in pictures) for axis in (0, 1))
    framed = []
    for picture in pictures:
        frame = np.full((height, width, 3), 255, dtype=np.uint8)
        frame[: picture.shape[0], : picture.shape[1]] = picture
        framed.append(frame)
    return framed


def _cell(value: Any) -> str:
    if value is None:
        return ""
    if isinstance(value, float):
        return f"{value:.4f}"
    # A name out of a file is text, not Markdown: it opens no column, row, tag, link or code.
    return re.sub(r"([\\`\[\]|!])", r"\\\1", html.escape(printable(value), quote=False))
