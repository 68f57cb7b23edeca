"""Values of a configuration that follow from the data; without torch."""

from __future__ import annotations

import copy
import logging
import math
import os
from pathlib import Path

from hydra.utils import instantiate
from omegaconf import DictConfig, open_dict

from src.annotations.categories import ClassList, classes_of_data
from src.annotations.mask_settings import MaskImageSettings
from src.annotations.store import AnnotationStore
from src.cli.entry_point import overridden_keys, to_plain
from src.datamodules.settings import SOURCE_KEYS, check_settings, open_store
from src.errors import InputError

log = logging.getLogger(__name__)

DATAMODULE = "src.datamodules.datamodule.CompetitionDataModule"
DEFAULT_NUM_CLASSES = 46  # of conf/module, the competition's


def use_own_data(config: DictConfig, *, run_directory: Path) -> None:
    """Copy ``annotations``, ``images`` and the like to the datamodule's keys, if they are given.

    Split and cache, unless they are given, then lie in the run's folder: those of another data set
    are of no use, and the folder of the data may be read-only.

    Args:
        config: The composed configuration of training, or of predicting annotated images.
        run_directory: Folder of the run that has made the split, or is about to.
    """
    annotations, images, datamodule = config.annotations, config.images, config.datamodule
    keys = overridden_keys()
    for key in ("exif", "duplicates", "on_bad_rows"):
        if (value := config.get(key)) is not None:
            datamodule[key] = value
    if annotations is None and images is None:
        is_given = keys & {"datamodule.annotations", "paths.data_dir"}
        if config.get("length") is not None and not is_given:
            raise InputError(
                "annotations and images must be the annotation file and the folder of its images, "
                "got null: +experiment=own has no data"
            )
        return
    for key, value, what in (
        ("annotations", annotations, f"the annotation file of the images in {images}"),
        ("images", images, f"the folder of the images of {annotations}"),
    ):
        if value is None:
            raise InputError(f"{key} must be {what}, got null")
    datamodule.annotations, datamodule.images = annotations, images
    if "datamodule.split_file" not in keys:
        datamodule.split_file = str(run_directory / "split.json")
    if not keys & {"datamodule.cache_dir", "paths.cache_dir"}:
        datamodule.cache_dir = str(Path(config.paths.output_dir) / ".cache")


def choose_schedule(config: DictConfig, images: int) -> None:
    """Set how long to train and when to validate, by the number of annotated images.

    For a configuration with a section ``length`` (``+experiment=own``), where
    ``trainer.max_epochs`` and ``trainer.check_val_every_n_epoch`` are null.
    """
    length, trainer = config.get("length"), config.trainer
    if length is None:
        return
    batch = config.datamodule.batch_size * trainer.accumulate_grad_batches
    share = config.datamodule.num_validation_images or 0
    training = images - (share if share >= 1 else max(1, round(share * images)))
    steps_per_epoch = max(1, training // batch)
    steps = max(length.min_steps, min(training * length.num_visits / batch, length.max_steps))
    epochs = math.ceil(steps / steps_per_epoch)
    every = max(1, epochs // length.num_validations)
    if trainer.max_epochs is None:
        trainer.max_epochs = math.ceil(epochs / every) * every
        log.info(
            "%d images: %d epochs of about %d steps (trainer.max_epochs=... says another number)",
            *(images, trainer.max_epochs, steps_per_epoch),
        )
    if trainer.check_val_every_n_epoch is None:
        trainer.check_val_every_n_epoch = min(every, max(1, trainer.max_epochs))


def check_datamodule(config: DictConfig) -> None:
    """Check the values of ``datamodule`` that need no torch; the constructor checks all."""
    if config.datamodule._target_ == DATAMODULE:
        check_settings(to_plain(config.datamodule))
        if (augmentation := config.datamodule.get("geometric_augmentation")) is not None:
            instantiate(augmentation)


def open_data(config: DictConfig) -> AnnotationStore:
    """Open the annotations of ``datamodule``; torch is imported for somebody's own class only.

    Raises:
        InputError: A value is not legal; a file is missing or wrong.
    """
    directory = Path(config.paths.output_dir)
    if config.datamodule._target_ != DATAMODULE:
        datamodule = instantiate(config.datamodule)
        datamodule.fallback_directory = directory
        store: AnnotationStore = datamodule.open_store()
        return store
    check_datamodule(config)
    values = to_plain(config.datamodule)
    values["mask_images"] = MaskImageSettings.from_config(values.get("mask_images"))
    return open_store(
        **{key: values[key] for key in SOURCE_KEYS if key in values}, fallback_directory=directory
    )


def take_classes(config: DictConfig, store: AnnotationStore) -> ClassList:
    """Set the model's classes to the data's categories, before data module and model are built.

    ``module.num_classes``, ``module.category_ids`` and ``datamodule.category_ids`` are set in the
    composed configuration. Names stay out of it, for it would resolve ``${...}`` in them.

    Raises:
        InputError: The user's values contradict the data.
    """
    module = config.module
    instances = store.instances_by_category()
    source = str(config.datamodule.annotations)
    classes = classes_of_data(
        store.labels,
        instances,
        num_classes=module.num_classes if is_num_classes_given(module) else None,
        category_ids=to_plain(module.category_ids),
        source=source,
    )
    category_ids = list(classes.category_ids)
    module.num_classes, module.category_ids = len(category_ids), category_ids
    config.datamodule.category_ids = category_ids
    choose_schedule(config, len(store))
    log.info("the model's classes are the categories of %s: %s", source, classes)
    if empty := classes.only([key for key in category_ids if not instances.get(key)]):
        log.warning(
            "no instance in %s, so nothing is learnt, of %d of them: %s", source, len(empty), empty
        )
    if others := ClassList.of(store.labels).only({*store.category_ids}.difference(category_ids)):
        log.warning("categories of %s that are no class of the model: %s", source, others)
    return classes


def is_num_classes_given(module: DictConfig) -> bool:
    """Return whether the command line, or the model, says how many classes there are."""
    return module.num_classes != DEFAULT_NUM_CLASSES or "module.num_classes" in overridden_keys()


def loggers_with_id(loggers: DictConfig | None, run_id: str) -> DictConfig | None:
    """Give W&B's run the id of this training, so that a resumed training is the same run.

    An id that the configuration or the variable WANDB_RUN_ID gives stays; checkpoints of earlier
    versions have none.
    """
    if not loggers or "wandb" not in loggers or not run_id:
        return loggers
    if loggers.wandb.get("id") is not None or os.environ.get("WANDB_RUN_ID"):
        return loggers
    named = copy.deepcopy(loggers)
    with open_dict(named):
        named.wandb.id = run_id
    return named
