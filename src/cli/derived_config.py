"""Values of a configuration that follow from the data or, in prediction, from the checkpoints.

A checkpoint is somebody's file: lists of whole numbers and texts are taken from it, each checked.
Category ids and sizes in pixels alone become part of the composed configuration; the detector's
configuration goes to ``load_models``, which checks its content.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from omegaconf import DictConfig

from src.annotations.categories import ClassList, classes_of_data
from src.cli.entry_point import compose_default, overridden_keys, to_plain
from src.datamodules.datamodule import CompetitionDataModule
from src.errors import InputError
from src.mmdet_bridge.checkpoints.averaging import check_same_classes
from src.mmdet_bridge.checkpoints.reading import PREDICTION_SIZES, Checkpoint, load_checkpoint
from src.modules.ensemble import INFERENCE_KEYS

log = logging.getLogger(__name__)

DEFAULT_NUM_CLASSES = 46  # of conf/module, the competition's
LARGEST_EDGE_PX = 100_000


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


def take_classes(config: DictConfig, datamodule: CompetitionDataModule) -> ClassList:
    """Set the model's classes to the data's categories, before the model is built.

    ``module.num_classes``, ``module.category_ids`` and ``datamodule.category_ids`` are set in the
    composed configuration and in the datamodule. Names stay out of the configuration, which would
    resolve ``${...}`` in them.

    Raises:
        InputError: The user's values contradict the data.
    """
    module = config.module
    store = datamodule.open_store()
    instances = store.instances_by_category()
    source = str(datamodule.annotations)
    classes = classes_of_data(
        store.labels,
        instances,
        num_classes=module.num_classes if _is_num_classes_given(module) else None,
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
            "no instance in %s, so nothing is learnt, of %d of them: %s", source, len(empty), empty
        )
    if others := ClassList.of(store.labels).only({*store.category_ids}.difference(category_ids)):
        log.warning("categories of %s that are no class of the model: %s", source, others)
    return classes


@dataclass(frozen=True)
class Carried:
    """Values that prediction takes from its checkpoints."""

    classes: ClassList
    own_inference: bool  # whether each model's own configuration holds for inference, too


def take_from_checkpoints(config: DictConfig, paths: Sequence[Path]) -> Carried:
    """Set classes and sizes as the checkpoints have them, before anything is built.

    ``module.num_classes``, ``module.category_ids`` and the datamodule's sizes of prediction are set
    in the composed configuration, unless the command line gives them.

    Raises:
        InputError: The checkpoints contradict one another, or the command line contradicts them.
    """
    check_same_classes(paths)
    checkpoints = [load_checkpoint(path, only_notes=True) for path in paths]
    default, keys = compose_default("predict"), overridden_keys()
    own_inference = _has_own_inference(config, default)
    module = config.module
    classes = _classes(checkpoints, module)
    module.num_classes, module.category_ids = len(classes), list(classes.category_ids)
    sizes = [_sizes(checkpoint) for checkpoint in checkpoints]
    known = next((found for found in sizes if found), {})
    for key, value in known.items():
        is_given = {f"datamodule.{key}", "datamodule"} & keys
        if not is_given and config.datamodule[key] == default.datamodule[key]:
            config.datamodule[key] = value
    others = [path for path, found in zip(paths, sizes, strict=True) if found and found != known]
    if others:
        log.warning("%s was trained for other sizes than %s", others[0], paths[0])
    log.info(
        "the models' classes are %s; images are brought to at most %s px",
        classes,
        " x ".join(str(config.datamodule[key]) for key in PREDICTION_SIZES),
    )
    return Carried(classes=classes, own_inference=own_inference)


def _classes(checkpoints: Sequence[Checkpoint], module: DictConfig) -> ClassList:
    named = {one.path: one.classes for one in checkpoints if one.classes is not None}
    category_ids = to_plain(module.category_ids)
    count = module.num_classes if _is_num_classes_given(module) else None
    if not named:
        return _classes_of_weights(checkpoints[0], category_ids, count)
    path, classes = next(iter(named.items()))
    for key, wanted, own in (
        ("num_classes", count, len(classes)),
        ("category_ids", category_ids, list(classes.category_ids)),
    ):
        if wanted is not None and wanted != own:
            raise InputError(
                f"module.{key} must be {own}, as {path} has it ({classes}), got {wanted}; leave it "
                "out to take the checkpoint's"
            )
    return classes


def _classes_of_weights(
    checkpoint: Checkpoint, category_ids: list[int] | None, count: int | None
) -> ClassList:
    """Return the classes of a file without their names."""
    if category_ids is not None:
        return ClassList(tuple(category_ids))
    if count is None:
        names = (n for n in checkpoint.weights if n.endswith("bbox_head.0.fc_cls.weight"))
        rows = next((len(checkpoint.weights[name]) for name in names), DEFAULT_NUM_CLASSES + 1)
        count = rows - 1  # the last is the background
    log.warning(
        "%s does not say which categories its %d classes are: taken as 0 to %d; "
        "module.category_ids=[...] says others",
        *(checkpoint.path, count, count - 1),
    )
    return ClassList(tuple(range(count)))


def _sizes(checkpoint: Checkpoint) -> dict[str, int]:
    """Return the prediction sizes that a run was configured with; empty if one is not valid."""
    datamodule = checkpoint.config.get("datamodule")
    if not isinstance(datamodule, Mapping):
        return {}
    sizes = {key: datamodule.get(key) for key in PREDICTION_SIZES}
    found = {key: edge for key, edge in sizes.items() if type(edge) is int}
    is_valid = all(1 <= found.get(key, 0) <= LARGEST_EDGE_PX for key in PREDICTION_SIZES)
    return found if is_valid else {}


def _has_own_inference(config: DictConfig, default: DictConfig) -> bool:
    """Return whether each model predicts by its own configuration, not by the command line's."""
    own, standard = (to_plain(one.module.detector) for one in (config, default))
    return not (
        any(key == "module" or key.startswith("module.detector") for key in overridden_keys())
        or any(own.get(key) != standard.get(key) for key in INFERENCE_KEYS)
    )


def _is_num_classes_given(module: DictConfig) -> bool:
    return module.num_classes != DEFAULT_NUM_CLASSES or "module.num_classes" in overridden_keys()
