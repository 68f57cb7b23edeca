"""A few validation photos with truth and prediction drawn on them, after every validation."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.callbacks import Callback

from src.annotations.image_headers import read_image_rgb
from src.annotations.image_names import find_image
from src.callbacks.competition_score import settings_of_run
from src.callbacks.gathering import merged_over_ranks
from src.callbacks.loggers import log_pictures
from src.errors import InputError
from src.metrics.inputs import RasterObjects
from src.metrics.matching import ImageObjects
from src.modules.cascade import CascadeModule
from src.postprocess.candidates import Candidates
from src.postprocess.category_names import check_values
from src.postprocess.pipeline import postprocess
from src.reporting.drawing import draw_side_by_side
from src.reporting.examples import compare_objects


class ValidationPicturesCallback(Callback):
    """Show photo, truth and prediction side by side, of the same photos each time.

    Masks, outlines and labels are part of the picture, so that they are there whatever a viewer
    does with overlays. The loggers' key is ``validation/pictures``.

    Args:
        photos: how many, evenly spread over the validation photos in the order of their ids.
        settings: the values of ``PostprocessSettings``: which predicted objects are shown.
        edge_px: longer edge of each of the three pictures.

    Raises:
        InputError: a number of photos below 1.
    """

    def __init__(self, *, photos: int, settings: Mapping[str, Any], edge_px: int = 480) -> None:
        if photos < 1:
            raise InputError(
                f"callbacks.validation_pictures.photos={photos}: at least 1 wanted; none at all: "
                "~callbacks.validation_pictures"
            )
        self.photos = photos
        check_values(settings)
        self._values = settings
        self.edge_px = edge_px
        self._predictions: dict[str, ImageObjects] = {}
        self._file_names: dict[str, str] = {}

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Find the categories that the settings name, before anything is trained."""
        self.settings = settings_of_run(trainer, self._values)

    def on_validation_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Choose the photos, always the same ones, and forget what was predicted before."""
        dataset = trainer.datamodule.validation_dataset  # type: ignore[attr-defined]
        files = sorted(zip(dataset.image_ids, dataset.file_names, strict=True))
        places = np.linspace(0, len(files) - 1, min(self.photos, len(files))).round().astype(int)
        self._file_names = dict(files[place] for place in places)
        self._predictions = {}

    def on_validation_batch_end(
        self,
        trainer: Trainer,
        pl_module: LightningModule,
        outputs: Any,
        batch: Any,
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        """Keep the objects of the chosen photos."""
        assert isinstance(pl_module, CascadeModule)
        candidates: Sequence[Candidates] = outputs
        for image in candidates:
            if image.image_id in self._file_names:
                found = postprocess(image, self.settings, label_category_ids=pl_module.category_ids)
                self._predictions[image.image_id] = ImageObjects(
                    image_id=image.image_id,
                    class_keys=tuple(found.category_ids.tolist()),
                    packed=found.packed,
                )

    def on_validation_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Draw and log the photos, on the first rank."""
        predictions = merged_over_ranks(self._predictions)
        if trainer.sanity_checking or not trainer.is_global_zero:
            return
        datamodule = trainer.datamodule  # type: ignore[attr-defined]
        truth = RasterObjects(datamodule.store)
        names = datamodule.store.labels.category_names
        directory = datamodule.validation_dataset.images_directory
        pictures = {}
        for image_id in sorted(predictions):
            drawn = compare_objects(truth[image_id], predictions[image_id], names)
            pictures[image_id] = draw_side_by_side(
                read_image_rgb(find_image(directory, self._file_names[image_id])),
                drawn.truth,
                drawn.prediction,
                edge_px=self.edge_px,
            )
        log_pictures(trainer, "validation/pictures", pictures)
