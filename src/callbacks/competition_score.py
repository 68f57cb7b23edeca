"""The competition's score on the validation photos, at the end of every validation."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.callbacks import Callback

from src.callbacks.gathering import merged_over_ranks
from src.metrics.competition import Averaging, CompetitionScore, ScoreAccumulator
from src.metrics.inputs import RasterObjects
from src.metrics.matching import ImageMatches, ImageObjects, match_objects, split_key
from src.modules.cascade import CascadeModule
from src.postprocess.candidates import Candidates
from src.postprocess.category_names import CategoryNames, check_values, named_settings
from src.postprocess.pipeline import postprocess
from src.postprocess.settings import PostprocessSettings


def settings_of_run(trainer: Trainer, values: Mapping[str, Any]) -> PostprocessSettings:
    """Return post-processing settings with category names replaced by the annotations' ids.

    Args:
        trainer: of a run; one without a data module, which validates nothing, knows no names.
        values: the values of ``PostprocessSettings``, categories by id or name.

    Raises:
        InputError: a name that is none of the annotations'.
    """
    datamodule = trainer.datamodule  # type: ignore[attr-defined]
    names = {} if datamodule is None else datamodule.store.labels.category_names
    return named_settings(values, CategoryNames(names, "the annotations"))


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
        check_values(settings)
        self._values = settings
        self.averaging = averaging
        self.score: CompetitionScore | None = None
        self._matches: dict[str, ImageMatches] = {}

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Find the categories that the settings name, before anything is trained."""
        self.settings = settings_of_run(trainer, self._values)

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
        self.score = accumulator.result()
        pl_module.log(
            "validation/competition_map",
            self.score.competition_map,
            prog_bar=True,
            rank_zero_only=False,
            batch_size=self.score.images,
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

    def by_class(self) -> dict[int, dict[str, float | int | None]]:
        """Columns of the table of classes, by category id: those in truth or prediction."""
        assert self.score is not None
        return {
            split_key(key)[0]: {
                "true_objects": result.truth_objects,
                "predicted_objects": result.predicted_objects,
                "competition_score": result.value,
            }
            for key, result in self.score.classes.items()
        }
