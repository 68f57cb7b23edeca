"""Renamed configuration keys: messages name the new one, files of earlier versions stay readable.

Checkpoints, prediction stores, searches and sweeps hold the configuration they were made with;
``upgrade_keys`` renames its keys.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import yaml

from src.errors import InputError
from src.io import printable

_POSTPROCESS_GROUPS = ("postprocess", "a_postprocess", "b_postprocess", "default", "winner")
RENAMED_KEYS: Mapping[str, str] = {
    "cache_directory": "cache_dir",
    "drawings": "drawings_dir",
    "folds": "num_folds",
    "format": "competition",
    "ground_truth": "annotations",
    "input": "annotations",
    "max_unlikely_candidates": "max_low_score_candidates",
    "random_trials": "num_random_trials",
    "resamples": "num_resamples",
    "rows": "num_rows",
    "sample": "sample_submission",
    "sweep_directory": "sweep_dir",
    "test_images": "num_test_images",
    "torch_threads": "num_torch_threads",
    "train_images": "num_train_images",
    "transposed_images": "num_transposed_images",
    "trials": "num_trials",
    "validation_images": "num_validation_images",
    "workers": "num_workers",
    "worst": "num_worst",
    "best": "num_best",
    "datamodule.cache_directory": "datamodule.cache_dir",
    "datamodule.train_annotations": "datamodule.annotations",
    "datamodule.train_images": "datamodule.images",
    "datamodule.validation_images": "datamodule.num_validation_images",
    "ensemble.best": "ensemble.num_best",
    "ensemble.directory": "ensemble.checkpoint_dir",
    "callbacks.class_table": "callbacks.evaluator.class_table_dir",
    "callbacks.coco_average_precision": "callbacks.evaluator.metrics.coco_average_precision",
    "callbacks.competition_score": "callbacks.evaluator.metrics.competition_score",
    "callbacks.validation_pictures": "callbacks.evaluator.num_images",
    "length.least_steps": "length.min_steps",
    "length.most_steps": "length.max_steps",
    "length.validations": "length.num_validations",
    "length.visits": "length.num_visits",
    "module.score_floor": "module.min_score",
    "space.remove": "space.remove_categories",
    **{f"{group}.remove": f"{group}.remove_categories" for group in _POSTPROCESS_GROUPS},
}


def find_renamed(key: str) -> str | None:
    """Return the renamed key that a key is, or lies below; None if it was not renamed."""
    parts = key.split(".")
    prefixes = (".".join(parts[:count]) for count in range(len(parts), 0, -1))
    return next((prefix for prefix in prefixes if prefix in RENAMED_KEYS), None)


def describe_renamed(key: str, place: str) -> InputError:
    """Return the error that names the new key of an old one."""
    return InputError(f"{printable(key)} was renamed: use {RENAMED_KEYS[key]} ({printable(place)})")


def check_renamed_keys(
    config: Any,
    directories: Iterable[Path] = (),
    is_own: Callable[[str], bool] = lambda _key: False,
) -> None:
    """Refuse a composed configuration that has an old key, from a user's own file.

    Args:
        config: The configuration as plain values.
        directories: Folders of the configuration's YAML files, to name the one with the key.
        is_own: Whether a key is one of the command's, whatever it was called elsewhere.
    """
    for key in _flat_keys(config):
        if (old := find_renamed(key)) is not None and not is_own(old):
            raise describe_renamed(old, find_file(old, directories))


def find_file(key: str, directories: Iterable[Path]) -> str:
    """Return the first YAML file that sets a key, else ``command line``."""
    group, _, name = key.rpartition(".")
    if group in _POSTPROCESS_GROUPS:  # options of one group, under several names
        key = f"postprocess.{name}"
    for directory in directories:
        for path in sorted(directory.rglob("*.yaml")):
            try:
                text = path.read_text("utf-8") if path.is_file() else ""
                content = yaml.safe_load(text)
            except (OSError, ValueError, RecursionError, yaml.YAMLError):
                continue
            is_global = path.parent == directory or "@package _global_" in text
            place = () if is_global else path.relative_to(directory).parent.parts
            if isinstance(content, Mapping) and any(
                ".".join((*place, one)).removeprefix("hydra.sweeper.params.") == key
                for one in _flat_keys(content)
            ):
                return str(path)
    return "command line"


def upgrade_keys(config: Any, prefix: str = "") -> Any:
    """Rename the keys of a configuration that an earlier version stored.

    Args:
        config: As stored; anything but a mapping is returned as it is.
        prefix: Prefix of its keys, such as ``datamodule``.
    """
    if not isinstance(config, Mapping):
        return config
    upgraded: dict[Any, Any] = {}
    for name, value in config.items():
        key = f"{prefix}.{name}" if prefix else str(name)
        parent, _, new = RENAMED_KEYS.get(key, key).rpartition(".")
        new = new if key in RENAMED_KEYS and parent == prefix else name
        upgraded.setdefault(new, upgrade_keys(value, key))
    removed = config.get("remove")
    if prefix in _POSTPROCESS_GROUPS and isinstance(removed, str):
        # ``remove`` named one group, or none, beside the list.
        listed = config.get("remove_categories") or []
        upgraded["remove_categories"] = [*listed, *([] if removed == "none" else [removed])]
    return upgraded


def _flat_keys(config: Mapping[str, Any], prefix: str = "") -> Iterator[str]:
    for name, value in config.items():
        yield f"{prefix}{name}"
        if isinstance(value, Mapping):
            yield from _flat_keys(value, f"{prefix}{name}.")
