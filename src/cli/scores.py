"""Scores in the commands: the keys of the group ``metric``, tables, and one line of JSON."""

from __future__ import annotations

import contextlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy.typing as npt
from omegaconf import DictConfig
from rich.console import Group, RenderableType
from rich.progress import Progress
from rich.table import Table
from rich.text import Text

from src.annotations.categories import LabelDescriptions
from src.annotations.competition import Competition
from src.annotations.mask_settings import MaskImageSettings
from src.cli.entry_point import to_plain
from src.console import say
from src.datamodules.split import read_split
from src.metrics.competition import CompetitionScore, check_averaging
from src.metrics.inputs import RasterInstances, class_key_name, class_key_text
from src.metrics.intervals import Interval, bootstrap_interval, check_settings
from src.metrics.scoring import open_ground_truth
from src.postprocess.category_names import names_for
from src.postprocess.mask_source import check_fixed_masks
from src.postprocess.settings import named_settings
from src.predictions.store import PredictionStore
from src.tuning.evaluated_image import StoredDetections
from src.tuning.session import Inputs, compare_categories


def check_metric(config: DictConfig) -> None:
    """Check the averaging and the settings of the bootstrap."""
    competition_of(config)
    check_averaging(config.averaging)
    check_settings(num_resamples=config.num_resamples, confidence=config.confidence)


def competition_of(config: DictConfig) -> Competition:
    """Return the competition of a configuration.

    Raises:
        InputError: A value is not legal; names its key.
    """
    return Competition.from_config(to_plain(config.competition))


def ground_truth_of(
    config: DictConfig, progress: Progress
) -> contextlib.AbstractContextManager[RasterInstances]:
    """Open the annotations of a command by its configuration; see ``open_ground_truth``."""
    return open_ground_truth(
        config.annotations,
        use_attributes=config.get("use_attributes", False),
        images_directory=config.images,
        exif=config.exif,
        duplicates=config.duplicates,
        label_descriptions=config.label_descriptions,
        mask_images=mask_settings(config),
        cache_dir=config.cache_dir,
        competition=competition_of(config),
        progress=progress,
    )


def open_stored(
    config: DictConfig,
    ground_truth: RasterInstances,
    *,
    predictions: str,
    postprocess: str,
    side: str = "",
) -> StoredDetections:
    """Open the detections of a prediction store to be scored, and print its notes.

    Args:
        config: Of a command that scores: ``partial``, ``annotations``, ``use_attributes``.
        ground_truth: The ground truth.
        predictions: The store's folder.
        postprocess: Key of the settings.
        side: Prefix of notes that names one of several stores.
    """
    store = PredictionStore(predictions)
    compare_categories(store, ground_truth)
    for note in store.check_whole(partial=config.partial):
        say(f"note: {side}{note}")
    categories = names_for(store, ground_truth.store.labels, config.annotations)
    settings = named_settings(to_plain(config[postprocess]), categories)
    check_fixed_masks(settings, store, group=postprocess)
    return StoredDetections(
        store,
        settings,
        categories=categories,
        competition=competition_of(config),
        use_attributes=config.use_attributes,
        ids=ground_truth,
    )


def inputs_of(config: DictConfig) -> Inputs:
    """Return the files that a command with a prediction store reads."""
    return Inputs(
        predictions=config.predictions,
        annotations=config.annotations,
        sample_submission=config.get("sample_submission"),
        images=config.images,
        cache_dir=config.cache_dir,
        partial=config.partial,
        exif=config.exif,
        duplicates=config.duplicates,
        mask_images=mask_settings(config),
        competition=competition_of(config),
    )


def mask_settings(config: DictConfig) -> MaskImageSettings:
    """Return how a folder of mask images is read."""
    return MaskImageSettings.from_config(to_plain(config.mask_images))


def identity_of(
    inputs: Inputs, config: DictConfig, keys: Sequence[str], **others: Any
) -> dict[str, Any]:
    """Return the inputs of a result as JSON: files, values of some keys, and others."""
    identity = {**inputs.fingerprint(), **{key: config[key] for key in keys}, **others}
    return identity | ({"partial": True} if inputs.partial else {})


def chosen_images(config: DictConfig) -> tuple[str, ...] | None:
    """Return the validation images of ``split``; None: all images count."""
    return None if config.split is None else read_split(Path(config.split)).validation


def interval_of(per_image: npt.ArrayLike, config: DictConfig) -> Interval:
    """Return the mean of the images' scores with its interval."""
    return bootstrap_interval(
        per_image,
        num_resamples=config.num_resamples,
        confidence=config.confidence,
        seed=config.seed,
    )


def score_summary(
    score: CompetitionScore, interval: Interval, use_attributes: bool
) -> dict[str, Any]:
    """Return the result as JSON: numbers, lists, and classes by their ``ClassId``."""
    return {
        "competition_map": score.competition_map,
        "averaging": score.averaging,
        "use_attributes": use_attributes,
        "images": score.images,
        "interval": {
            key: getattr(interval, key) for key in ("low", "high", "confidence", "resamples")
        },
        "thresholds": list(score.rule.thresholds),
        "strict": score.rule.strict,
        "raster": score.raster,
        "per_threshold": score.per_threshold.tolist(),
        "per_class": {class_key_text(key): value for key, value in score.per_class.items()},
    }


def score_tables(
    score: CompetitionScore, interval: Interval, labels: LabelDescriptions, notes: Sequence[str]
) -> RenderableType:
    """Lay out the result for a terminal."""
    classes = Table(box=None, header_style="dim", padding=(0, 2, 0, 0))
    classes.add_column("class")
    for heading in ("images", "true", "predicted", "value"):
        classes.add_column(heading, justify="right")
    for key, result in sorted(score.classes.items(), key=lambda item: -item[1].num_ground_truth):
        counts = (result.images, result.num_ground_truth, result.num_detections)
        name = Text(class_key_name(key, labels))
        classes.add_row(name, *map(str, counts), f"{result.value:.4f}")
    thresholds = Table(box=None, header_style="dim", padding=(0, 2, 0, 0))
    for threshold in score.rule.thresholds:
        thresholds.add_column(f"{threshold:.2f}", justify="right")
    thresholds.add_row(*(f"{value:.4f}" for value in score.per_threshold))
    headline = Text.assemble(
        "competition score ",
        (f"{score.competition_map:.5f}", "bold"),
        f"  ({score.averaging}, {score.images} images, "
        f"{interval.confidence:.0%} interval {interval.low:.4f} to {interval.high:.4f})",
    )
    parts: list[RenderableType] = [classes, "", Text("by IoU threshold", "dim"), thresholds, ""]
    parts += [Text(f"note: {note}", "yellow") for note in notes]
    return Group(*parts, headline)
