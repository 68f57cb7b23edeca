"""Writes predictions to the prediction store while they are made, one series of shards a rank."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.callbacks import BasePredictionWriter

from src.callbacks.gathering import merged_over_ranks
from src.modules.ensemble import CascadeEnsemble
from src.postprocess.candidates import Candidates
from src.postprocess.prediction_store import PredictionStoreWriter


class PredictionWriter(BasePredictionWriter):
    """Hand every predicted image to a ``PredictionStoreWriter``.

    ``failures`` tells after the run which photos could not be predicted, and why, by image id;
    ``candidates_found`` how many candidates all others have together. Both are those of every rank.

    Args:
        directory: the folder of the store.
        settings: what the store says about how it was made (checkpoint, detector, scales); JSON
            values only. The writer refuses a folder that holds a store with other settings.
    """

    def __init__(self, *, directory: Path, settings: Mapping[str, Any]) -> None:
        super().__init__(write_interval="batch")
        self.directory = directory
        self.settings = dict(settings)
        self.failures: dict[str, str] = {}
        self.candidates_found = 0
        self._writer: PredictionStoreWriter | None = None

    def on_predict_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Open the store; images of an earlier, killed run of the same settings are kept."""
        assert isinstance(pl_module, CascadeEnsemble)
        self._writer = PredictionStoreWriter(
            self.directory,
            category_ids=pl_module.category_ids,
            settings=self.settings,
            rank=trainer.global_rank,
            score_floor=pl_module.score_floor,
            max_candidates=pl_module.max_candidates,
        )

    def write_on_batch_end(
        self,
        trainer: Trainer,
        pl_module: LightningModule,
        prediction: Sequence[Candidates],
        batch_indices: Sequence[int] | None,
        batch: Any,
        batch_idx: int,
        dataloader_idx: int,
    ) -> None:
        """Write the images of one batch."""
        assert self._writer is not None
        for candidates in prediction:
            self.candidates_found += len(candidates)
            if candidates.image_id not in self._writer.written_image_ids:
                self._writer.add(candidates)

    def on_predict_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Close the last shard and mark the rank as done."""
        assert self._writer is not None
        assert isinstance(pl_module, CascadeEnsemble)
        self._writer.close()
        self.failures = merged_over_ranks(pl_module.failures)
        found = merged_over_ranks({str(trainer.global_rank): self.candidates_found})
        self.candidates_found = sum(found.values())
