"""Evaluator: scores, table of classes and drawn images of every validation."""

from __future__ import annotations

import csv
from collections.abc import Mapping
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import torch.distributed
from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.callbacks import Callback

from src.annotations.competition import Competition
from src.annotations.image_files import read_image_rgb
from src.annotations.image_names import find_image
from src.callbacks.loggers import log_images, log_table
from src.callbacks.validation_metrics import Metric, MetricResult, ValidationImage
from src.io import atomic_path
from src.metrics.competition import ImageInstances
from src.metrics.inputs import RasterInstances
from src.modules.cascade import CascadeModule
from src.postprocess.category_names import CategoryNames
from src.postprocess.settings import named_settings, plain_settings
from src.reporting.drawing import compare_instances, draw_side_by_side
from src.validation import Count, check_value

Part = TypeVar("Part")


class Evaluator(Callback):
    """Post-process each validation image once, and pass its detections to metrics and drawings.

    Detections are scored as in a submission: in the competition's data, an image without any has
    the filler row.

    Args:
        settings: The values of ``PostprocessSettings``, categories by id or name.
        metrics: By name; null is left out.
        competition: The rules of scores, the values of ``Competition``; None: those of 2019.
        class_table_dir: Folder of ``epoch_07_classes.csv`` (epochs count from 0), with a row for
            each category of the annotations and a column for each score, empty if the images have
            no such instance. Loggers show the table as ``validation/classes``. None: no table.
        num_images: Number of images to draw, the same after each validation, evenly spread over
            the ids: image, ground truth and detections side by side, masks and labels burnt in.
            Loggers show them as ``validation/images``.
        image_edge_px: Longer edge of each of the three.

    Raises:
        InputError: A setting is not legal.
    """

    def __init__(
        self,
        *,
        settings: Mapping[str, Any],
        metrics: Mapping[str, Metric[Any] | None] | None,
        competition: Mapping[str, Any] | None = None,
        class_table_dir: str | Path | None = None,
        num_images: int = 0,
        image_edge_px: int = 480,
    ) -> None:
        plain_settings(settings)
        check_value("callbacks.evaluator.num_images", num_images, Count)
        self._values = settings
        self.competition = Competition.preset("imaterialist_2019")
        if competition is not None:
            self.competition = Competition.from_config(competition)
        self.metrics = {name: one for name, one in (metrics or {}).items() if one is not None}
        self.class_table_dir = None if class_table_dir is None else Path(class_table_dir)
        self.num_images = num_images
        self.image_edge_px = image_edge_px
        self.results: dict[str, MetricResult] = {}  # of the last validation, by metric
        self._file_names: dict[str, str] = {}  # of the images that are drawn, by id
        self._drawn: dict[str, ImageInstances] = {}

    def setup(self, trainer: Trainer, *_: Any, **__: Any) -> None:
        """Resolve the categories that settings name, before anything is trained.

        Raises:
            InputError: The annotations have no category of a name.
        """
        datamodule = trainer.datamodule  # type: ignore[attr-defined]
        # A run without a data module validates nothing, so it needs no names.
        names = {} if datamodule is None else datamodule.store.labels.category_names
        categories = CategoryNames(names, "the annotations")
        self.settings = named_settings(self._values, categories)
        for metric in self.metrics.values():
            metric.setup(categories)

    def on_validation_epoch_start(self, trainer: Trainer, *_: Any) -> None:
        """Select the images to draw, and forget the last validation."""
        dataset = trainer.datamodule.validation_dataset  # type: ignore[attr-defined]
        files = sorted(zip(dataset.image_ids, dataset.file_names, strict=True))
        places = np.linspace(0, len(files) - 1, min(self.num_images, len(files)))
        self._file_names = dict(files[place] for place in places.round().astype(int))
        self._reset()

    def on_validation_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, *_: Any
    ) -> None:
        """Update the metrics with the candidates of one batch."""
        assert isinstance(pl_module, CascadeModule)
        instances = RasterInstances(
            trainer.datamodule.store,  # type: ignore[attr-defined]
            competition=self.competition,
        )
        for candidates in outputs:
            image = ValidationImage(
                candidates,
                instances=instances,
                settings=self.settings,
                category_ids=pl_module.category_ids,
            )
            for metric in self.metrics.values():
                metric.update(image)
            if image.image_id in self._file_names:
                self._drawn[image.image_id] = image.submitted

    def on_validation_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Merge over all processes; log scores on each, table and drawings on the first."""
        own = {name: metric.kept for name, metric in self.metrics.items()}
        parts = gather_over_ranks((own, self._drawn))
        results = {}
        if trainer.is_global_zero:
            for name, metric in self.metrics.items():
                for kept, _ in parts:
                    metric.merge(kept[name])
                results[name] = metric.compute(trainer.datamodule.store)  # type: ignore[attr-defined]
        self.results = trainer.strategy.broadcast(results)
        for name, metric in self.metrics.items():
            # float64 with a weight of 1, so that the logged score is exactly the computed one
            scores = self.results[name].values.items()
            values = {key: torch.tensor(value, dtype=torch.float64) for key, value in scores}
            pl_module.log_dict(values, prog_bar=metric.in_progress_bar, batch_size=1)
        if trainer.is_global_zero and not trainer.sanity_checking:
            if self.class_table_dir is not None:
                self._log_class_table(trainer, self.class_table_dir)
            self._log_images(trainer, {k: v for _, drawn in parts for k, v in drawn.items()})
        self._reset()

    def _reset(self) -> None:
        self._drawn = {}
        for metric in self.metrics.values():
            metric.reset()

    def _log_class_table(self, trainer: Trainer, directory: Path) -> None:
        names = trainer.datamodule.store.labels.category_names  # type: ignore[attr-defined]
        parts = [result.by_class for result in self.results.values()]
        scored = list(dict.fromkeys(key for part in parts for row in part.values() for key in row))
        columns = ["category", "name", *scored]
        rows: list[list[Any]] = []
        for category, name in sorted(names.items()):
            values = {key: value for part in parts for key, value in part.get(category, {}).items()}
            rows.append([category, name, *map(values.get, scored)])
        with (
            atomic_path(directory / f"epoch_{trainer.current_epoch:02d}_classes.csv") as partial,
            partial.open("w", newline="", encoding="utf-8") as file,
        ):
            csv.writer(file).writerows([columns, *rows])
        log_table(trainer, "validation/classes", columns, rows)

    def _log_images(self, trainer: Trainer, drawn: Mapping[str, ImageInstances]) -> None:
        datamodule = trainer.datamodule  # type: ignore[attr-defined]
        ground_truth = RasterInstances(datamodule.store, competition=self.competition)
        names = datamodule.store.labels.category_names
        directory = datamodule.validation_dataset.images_directory
        images = {}
        for image_id, submitted in sorted(drawn.items()):
            sides = compare_instances(
                ground_truth[image_id], submitted, names, self.competition.rule
            )
            images[image_id] = draw_side_by_side(
                read_image_rgb(find_image(directory, self._file_names[image_id])),
                sides.ground_truth,
                sides.prediction,
                edge_px=self.image_edge_px,
            )
        if images:
            log_images(trainer, "validation/images", images)


def gather_over_ranks(part: Part) -> list[Part]:
    """Return the parts of all processes, in the order of ranks; call it on each of them."""
    if not (torch.distributed.is_available() and torch.distributed.is_initialized()):
        return [part]
    parts: list[Any] = [None] * torch.distributed.get_world_size()
    torch.distributed.all_gather_object(parts, part)
    return parts
