"""Writing predictions to a prediction store as they are made, in a series of shards per rank."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from lightning.pytorch import Trainer
from lightning.pytorch.callbacks import BasePredictionWriter

from src.datamodules.datamodule import CompetitionDataModule
from src.modules.ensemble import CascadeEnsemble
from src.predictions.candidates import Candidates
from src.predictions.files import StoreMeta, clear_other_ranks, write_expected
from src.predictions.store import PredictionStoreWriter


class PredictionWriter(BasePredictionWriter):
    """Pass every predicted image, and every failed one, to a ``PredictionStoreWriter``.

    After a prediction without an exception, every rank's part is in the folder.

    Args:
        directory: Folder of the store.
        meta: Description of the store. A folder with a different one is refused.
        images_per_shard: Maximum number of images that a killed process loses.
    """

    def __init__(self, *, directory: Path, meta: StoreMeta, images_per_shard: int = 64) -> None:
        super().__init__(write_interval="batch")
        self.directory = directory
        self.meta = meta
        self.images_per_shard = images_per_shard
        self._writer: PredictionStoreWriter | None = None
        self._failed: set[str] = set()

    def setup(self, trainer: Trainer, *_: Any, **__: Any) -> None:
        """Record the images that the store will hold, before the first is predicted.

        Every process writes the same content, even if no image is left to predict: a store of an
        earlier version has no such record.
        """
        datamodule = trainer.datamodule  # type: ignore[attr-defined]
        assert isinstance(datamodule, CompetitionDataModule)
        write_expected(self.directory, datamodule.images_to_predict.image_ids)

    def on_predict_start(self, trainer: Trainer, *_: Any) -> None:
        """Open the store; images of a killed run with the same settings are kept."""
        if trainer.is_global_zero:
            clear_other_ranks(self.directory, trainer.world_size)
        self._writer = PredictionStoreWriter(
            self.directory,
            rank=trainer.global_rank,
            images_per_shard=self.images_per_shard,
            **asdict(self.meta),
        )

    def write_on_batch_end(
        self, trainer: Trainer, pl_module: Any, prediction: Sequence[Candidates], *_: Any
    ) -> None:
        """Write the images of one batch."""
        assert self._writer is not None
        assert isinstance(pl_module, CascadeEnsemble)
        for image_id in pl_module.failures.keys() - self._failed:
            self._failed.add(image_id)
            self._writer.add_failed(image_id, pl_module.failures[image_id])
        for candidates in prediction:
            self._writer.add(candidates)

    def on_exception(self, trainer: Trainer, *_: Any) -> None:
        """Keep the images that were predicted before the error, or before Ctrl-C."""
        if self._writer is not None:
            self._writer.flush()

    def on_predict_end(self, trainer: Trainer, *_: Any) -> None:
        """Close the last shard, mark the rank as done, and wait for the others."""
        assert self._writer is not None
        self._writer.close()
        trainer.strategy.barrier("predictions are written")
