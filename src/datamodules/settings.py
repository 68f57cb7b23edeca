"""Keys of ``datamodule``: checks of their values, and the annotations that they name.

Without torch, so that a mistake is found, and the data read, in less than a second.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from src.annotations.formats import DUPLICATES, ReadingOptions
from src.annotations.image_files import AUTO, EXIF_CHOICES
from src.annotations.mask_settings import MaskImageSettings
from src.annotations.store import AnnotationStore
from src.datamodules.annotations import open_annotations
from src.datamodules.image_lists import check_directory
from src.datamodules.sizes import check_limits, check_scales
from src.errors import InputError
from src.validation import Count, PositiveShare, Share, check_values, nullable, one_of, whole

_LEGAL = {
    "exif": one_of(*EXIF_CHOICES),
    "duplicates": one_of(*DUPLICATES),
    "predict_split": one_of("validation", "test"),
    "flip_probability": Share,
    "repeat_factor": nullable(PositiveShare, null="for each image once"),
    "batch_size": whole(1),
    "predict_batch_size": whole(1),
    "num_workers": Count,
    "prefetch_factor": whole(1),
    "loader_timeout_s": Count,
    "seed": Count,
}
# Keys of ``open_store``.
SOURCE_KEYS = (
    *("annotations", "images", "cache_dir", "label_descriptions", "mask_images"),
    *("exif", "on_bad_rows", "duplicates"),
)


def check_settings(values: Mapping[str, Any]) -> None:
    """Check the values of some keys of ``datamodule``; absent ones have legal defaults.

    Raises:
        InputError: A value is not legal; names its key.
    """
    kinds = {key: kind for key, kind in _LEGAL.items() if key in values}
    check_values(kinds, values, prefix="datamodule.")
    for part in ("train", "predict"):
        short, long = (values.get(f"{part}_{edge}_edge_px") for edge in ("short", "long"))
        if short is not None and long is not None:
            check_limits(f"datamodule.{part}", [short] if part == "predict" else short, long)
    check_scales("datamodule.predict_scales", values.get("predict_scales"))


def open_store(
    *,
    annotations: str | Path | None,
    images: str | Path | None,
    cache_dir: str | Path,
    label_descriptions: str | Path | None = None,
    mask_images: MaskImageSettings | None = None,
    exif: str = AUTO,
    on_bad_rows: str = "error",
    duplicates: str = "keep",
    fallback_directory: Path | None = None,
) -> AnnotationStore:
    """Open the annotation store of ``datamodule``; build it from the file if missing.

    Args:
        fallback_directory: The run's folder, for a cache that cannot be written beside the data.

    Raises:
        InputError: The annotation file or the folder of images is missing or wrong.
    """
    if annotations is None:
        raise InputError("datamodule.annotations must be the annotation file, got null")
    directory = check_directory("datamodule.images", None if images is None else Path(images))
    return open_annotations(
        Path(annotations),
        Path(cache_dir),
        ReadingOptions(
            images_directory=directory,
            exif=exif,
            on_bad_rows=on_bad_rows,
            duplicates=duplicates,
            label_descriptions=label_descriptions,
            mask_images=MaskImageSettings() if mask_images is None else mask_images,
        ),
        fallback_directory=None if fallback_directory is None else fallback_directory / ".cache",
    )
