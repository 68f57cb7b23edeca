"""The competition's score on the validation photos, at the end of every validation."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch.distributed
from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.callbacks import Callback

from src.metrics.competition import Averaging, ScoreAccumulator
from src.metrics.inputs import RasterObjects
from src.metrics.matching import ImageMatches, ImageObjects, match_objects
from src.modules.cascade import CascadeModule
from src.postprocess.candidates import Candidates
from src.postprocess.pipeline import postprocess
from src.postprocess.settings import PostprocessSettings


class CompetitionScoreCallback(Callback):
    """Post-process each validation photo's candidates, match them with the truth, score them all.

    What is kept of a photo is its matches, a few hundred bytes. Under several devices they are
    gathered and merged by image id, so a photo that a sampler repeats counts once; no score is
    ever averaged over batches or ranks.

    Args:
        settings: the values of ``PostprocessSettings``: thresholds and rules for the candidates.
        averaging: ``per_class`` or ``pooled``; see ``src.metrics.competition``.
    """

    def __init__(self, *, settings: Mapping[str, Any], averaging: Averaging = "per_class") -> None:
        self.settings = PostprocessSettings(**settings)
        self.averaging = averaging
        self._matches: dict[str, ImageMatches] = {}

    def on_validation_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Forget the photos of the epoch before."""
        self._matches = {}

    def on_validation_batch_end(
        self,
        trainer: Trainer,
        pl_module: LightningModule,
        outputs: Any,
        batch: Any,
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        """Match one batch's photos with the truth."""
        assert isinstance(pl_module, CascadeModule)
        # The datamodule opens its store for fit and validate.
        truth = RasterObjects(trainer.datamodule.store)  # type: ignore[attr-defined]
        candidates: Sequence[Candidates] = outputs
        for image in candidates:
            self._matches[image.image_id] = match_objects(
                truth[image.image_id],
                self._predicted_objects(image, pl_module.category_ids),
            )

    def on_validation_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Log ``validation/competition_map``, the same number on every rank."""
        matches = merged_over_ranks(self._matches)
        accumulator = ScoreAccumulator(averaging=self.averaging)
        for image_id in sorted(matches):
            accumulator.add_matches(image_id, matches[image_id])
        score = accumulator.result()
        pl_module.log(
            "validation/competition_map",
            score.competition_map,
            prog_bar=True,
            rank_zero_only=False,
            batch_size=score.images,
        )

    def _predicted_objects(
        self, candidates: Candidates, category_ids: Sequence[int]
    ) -> ImageObjects:
        detections = postprocess(candidates, self.settings, label_category_ids=category_ids)
        return ImageObjects(
            image_id=candidates.image_id,
            class_keys=tuple(detections.category_ids.tolist()),
            packed=detections.packed,
        )


def merged_over_ranks(matches: Mapping[str, ImageMatches]) -> dict[str, ImageMatches]:
    """The matches of every rank's photos, by image id."""
    if not (torch.distributed.is_available() and torch.distributed.is_initialized()):
        return dict(matches)
    gathered: list[Any] = [None] * torch.distributed.get_world_size()
    torch.distributed.all_gather_object(gathered, dict(matches))
    return {image_id: match for part in gathered for image_id, match in part.items()}
