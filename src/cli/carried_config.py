"""Values of a configuration that prediction takes from its checkpoints.

A checkpoint is somebody's file: lists of whole numbers and texts are taken from it, each checked.
Category ids and sizes in pixels alone become part of the composed configuration; the detector's
configuration goes to ``load_models``, which checks its content.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from omegaconf import DictConfig

from src.annotations.categories import ClassList
from src.cli.derived_config import DEFAULT_NUM_CLASSES, is_num_classes_given
from src.cli.entry_point import compose_default, overridden_keys, to_plain
from src.errors import InputError
from src.mmdet_bridge.checkpoints.averaging import check_same_classes
from src.mmdet_bridge.checkpoints.reading import (
    INFERENCE_KEYS,
    PREDICTION_SIZES,
    Checkpoint,
    load_checkpoint,
)

log = logging.getLogger(__name__)

LARGEST_EDGE_PX = 100_000


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
    count = module.num_classes if is_num_classes_given(module) else None
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
