"""The scores of every class as one table, after every validation."""

from __future__ import annotations

import csv
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.callbacks import Callback

from src.callbacks.loggers import log_table
from src.io import atomic_path


@runtime_checkable
class ScoresClasses(Protocol):
    """A callback that has scores of classes once a validation epoch has ended."""

    def by_class(self) -> dict[int, dict[str, float | int | None]]:
        """Values by column, by category id."""
        ...


class ClassTableCallback(Callback):
    """Join what the trainer's scoring callbacks say of each class; write it, show it.

    A row a category of the annotations, a column a score; empty where the photos have no such
    object. The file is ``epoch_07_classes.csv`` (epochs count from 0), the loggers' key
    ``validation/classes``.

    Args:
        directory: where the files are written.
    """

    def __init__(self, *, directory: str | Path) -> None:
        self.directory = Path(directory)

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Write and log the table; the scores were made at the end of the epoch."""
        if trainer.sanity_checking or not trainer.is_global_zero:
            return
        names = trainer.datamodule.store.labels.category_names  # type: ignore[attr-defined]
        parts = [
            callback.by_class()
            for callback in trainer.callbacks  # type: ignore[attr-defined]
            if isinstance(callback, ScoresClasses)
        ]
        scored = list(
            dict.fromkeys(name for part in parts for row in part.values() for name in row)
        )
        columns = ["category", "name", *scored]
        rows: list[list[Any]] = []
        for category, name in sorted(names.items()):
            values = {key: value for part in parts for key, value in part.get(category, {}).items()}
            rows.append([category, name, *map(values.get, scored)])
        self._write(f"epoch_{trainer.current_epoch:02d}_classes.csv", [columns, *rows])
        log_table(trainer, "validation/classes", columns, rows)

    def _write(self, name: str, rows: Sequence[Sequence[Any]]) -> None:
        with (
            atomic_path(self.directory / name) as partial,
            partial.open("w", newline="", encoding="utf-8") as file,
        ):
            csv.writer(file).writerows(rows)
