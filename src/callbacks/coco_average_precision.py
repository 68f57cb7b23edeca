"""COCO's average precision on the validation photos, at the end of every validation."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.callbacks import Callback

from src.callbacks.competition_score import settings_of_run
from src.callbacks.gathering import merged_over_ranks
from src.metrics.coco_average_precision import (
    CocoImage,
    CocoScore,
    coco_annotations,
    coco_score,
    image_number,
)
from src.modules.cascade import CascadeModule
from src.postprocess.candidates import Candidates
from src.postprocess.category_names import check_values
from src.postprocess.coco_results import coco_results


class CocoAveragePrecisionCallback(Callback):
    """Put each validation photo's objects beside the truth at the photo's size, score them all.

    What is kept of a photo is run lengths, about a kilobyte an object. Under several devices they
    are gathered and merged by image id; the first scores them and tells the others.

    Args:
        settings: the values of ``PostprocessSettings``. COCO's metric wants many objects with their
            scores (``postprocess=default``), whatever the competition is sent.
    """

    def __init__(self, *, settings: Mapping[str, Any]) -> None:
        check_values(settings)
        self._values = settings
        self.score: CocoScore | None = None
        self._images: dict[str, CocoImage] = {}

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Find the categories that the settings name, before anything is trained."""
        self.settings = settings_of_run(trainer, self._values)

    def on_validation_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Forget the photos of the epoch before."""
        self._images = {}

    def on_validation_batch_end(
        self,
        trainer: Trainer,
        pl_module: LightningModule,
        outputs: Any,
        batch: Any,
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        """Keep the true and predicted objects of one batch's photos."""
        assert isinstance(pl_module, CascadeModule)
        store = trainer.datamodule.store  # type: ignore[attr-defined]
        candidates: Sequence[Candidates] = outputs
        for image in candidates:
            number = image_number(store, image.image_id)
            self._images[image.image_id] = CocoImage(
                number=number,
                size_hw=image.size_hw,
                annotations=coco_annotations(store, image.image_id, size_hw=image.size_hw),
                results=coco_results(
                    image,
                    self.settings,
                    image_number=number,
                    label_category_ids=pl_module.category_ids,
                ),
            )

    def on_validation_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Log ``validation/coco_map`` and its kin; what the truth does not define is left out."""
        images = merged_over_ranks(self._images)
        self._images = {}
        score = None
        if trainer.is_global_zero:
            score = coco_score(
                [images[image_id] for image_id in sorted(images)],
                category_ids=trainer.datamodule.store.category_ids,  # type: ignore[attr-defined]
            )
        self.score = trainer.strategy.broadcast(score)
        assert self.score is not None
        named = [
            *(
                (f"validation/coco_{name}", value)
                for name, value in self.score.masks.values().items()
            ),
            *(
                (f"validation/coco_box_{name}", value)
                for name, value in self.score.boxes.values().items()
            ),
        ]
        pl_module.log_dict(
            {name: value for name, value in named if value is not None},
            rank_zero_only=False,
            batch_size=self.score.images,
        )

    def by_class(self) -> dict[int, dict[str, float | int | None]]:
        """Columns of the table of classes, by category id."""
        assert self.score is not None
        boxes = self.score.boxes_by_class
        return {
            category: {
                "mask_ap": masks.map,
                "mask_ap_50": masks.map_50,
                "mask_ap_75": masks.map_75,
                "box_ap": boxes[category].map,
                "box_ap_50": boxes[category].map_50,
            }
            for category, masks in self.score.masks_by_class.items()
        }
