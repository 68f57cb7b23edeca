"""What a run takes from its data where nobody gives it: classes, schedule, and where files lie."""

from __future__ import annotations

import logging
import math
from pathlib import Path

from omegaconf import DictConfig

from src.annotations.classes import ClassList, classes_of_data
from src.config import overridden_keys, to_plain
from src.datamodules.datamodule import CompetitionDataModule
from src.errors import InputError

log = logging.getLogger(__name__)

DEFAULT_NUM_CLASSES = 46  # of conf/module, the competition's


def use_own_data(config: DictConfig, *, run_directory: Path) -> None:
    """Let ``annotations``, ``images`` and the like stand for the datamodule's keys, where given.

    Split and cache, unless they are given, then lie in the run's folder: another data set's are of
    no use, and the folder of the data may be read-only.

    Args:
        config: the composed configuration of training, or of predicting annotated images.
        run_directory: of the run that has made the split, or is about to.

    Raises:
        InputError: one of the two is missing.
    """
    annotations, images, datamodule = config.annotations, config.images, config.datamodule
    keys = overridden_keys()
    for key in ("exif", "duplicates", "on_bad_rows"):
        if (value := config.get(key)) is not None:
            datamodule[key] = value
    if annotations is None and images is None:
        if config.get("length") is not None and not keys & {
            "datamodule.train_annotations",
            "paths.data_dir",
        }:
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
    datamodule.train_annotations, datamodule.train_images = annotations, images
    if "datamodule.split_file" not in keys:
        datamodule.split_file = str(run_directory / "split.json")
    if not keys & {"datamodule.cache_directory", "paths.cache_dir"}:
        datamodule.cache_directory = str(Path(config.paths.output_dir) / ".cache")


def choose_schedule(config: DictConfig, images: int) -> None:
    """Set how long to train and when to validate, by the number of annotated images.

    For a configuration with a section ``length`` (``+experiment=own``), where
    ``trainer.max_epochs`` and ``trainer.check_val_every_n_epoch`` are null.
    """
    length, trainer = config.get("length"), config.trainer
    if length is None:
        return
    batch = config.datamodule.batch_size * trainer.accumulate_grad_batches
    share = config.datamodule.validation_images or 0
    training = images - (share if share >= 1 else max(1, round(share * images)))
    steps_per_epoch = max(1, training // batch)
    steps = training * length.visits / batch
    steps = max(length.least_steps, min(steps, length.most_steps))
    epochs = math.ceil(steps / steps_per_epoch)
    every = max(1, epochs // length.validations)
    if trainer.max_epochs is None:
        trainer.max_epochs = math.ceil(epochs / every) * every
        log.info(
            "%d images: %d epochs of about %d steps (trainer.max_epochs=... says another number)",
            images,
            trainer.max_epochs,
            steps_per_epoch,
        )
    if trainer.check_val_every_n_epoch is None:
        trainer.check_val_every_n_epoch = min(every, max(1, trainer.max_epochs))


def take_classes(config: DictConfig, datamodule: CompetitionDataModule) -> ClassList:
    """Set the model's classes to the data's categories, before the model is built.

    ``module.num_classes``, ``module.category_ids`` and ``datamodule.category_ids`` are set in the
    composed configuration and in the datamodule. Names stay out of the configuration, which would
    resolve ``${...}`` in them.

    Raises:
        InputError: what the user gives contradicts the data.
    """
    module = config.module
    store = datamodule.open_store()
    instances = store.instances_by_category()
    is_given = (
        module.num_classes != DEFAULT_NUM_CLASSES or "module.num_classes" in overridden_keys()
    )
    source = str(datamodule.train_annotations)
    classes = classes_of_data(
        store.labels,
        instances,
        num_classes=module.num_classes if is_given else None,
        category_ids=to_plain(module.category_ids),
        source=source,
    )
    category_ids = list(classes.category_ids)
    module.num_classes, module.category_ids = len(category_ids), category_ids
    config.datamodule.category_ids = datamodule.category_ids = category_ids
    choose_schedule(config, len(store))
    log.info("the model's classes are the categories of %s: %s", source, classes)
    if empty := classes.only([key for key in category_ids if not instances.get(key)]):
        log.warning(
            "no instance in %s, so nothing is learnt, of %d of them: %s",
            source,
            len(empty),
            empty,
        )
    if others := ClassList.of(store.labels).only({*store.category_ids}.difference(category_ids)):
        log.warning("categories of %s that are no class of the model: %s", source, others)
    return classes
