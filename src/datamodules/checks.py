"""Checks of the user's values about the data; each message names the key and the value."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

from src.annotations.image_names import find_image
from src.errors import InputError


def check_batch_size(batch_size: int, devices: int, *, images: int, split_file: Path) -> None:
    """Check that the images to train on are enough for a step.

    Raises:
        InputError: There are fewer than the devices' batches take.
    """
    if batch_size * devices > images:
        raise InputError(
            f"datamodule.batch_size must be at most {images // devices} on {devices} device(s), as "
            f"{split_file} has {images} training images with instances, got {batch_size}"
        )


def check_scale(prefix: str, short_edge_px: Sequence[int], long_edge_px: int) -> None:
    """Check the limits of a resized image's edges, in pixels.

    Args:
        prefix: The keys' names before ``_short_edge_px`` and ``_long_edge_px``.
        short_edge_px: One limit, or the least and the greatest of a range.
        long_edge_px: Limit of the longer edge.

    Raises:
        InputError: Not one or two limits, below 1, in descending order, or above the long edge's.
    """
    limits = [*short_edge_px]
    are_whole = all(type(limit) is int for limit in limits)
    if len(limits) not in (1, 2) or not are_whole or not 1 <= limits[0] <= limits[-1]:
        raise InputError(
            f"{prefix}_short_edge_px must be one or two whole numbers of pixels from 1 up, the "
            f"least first, got {limits}"
        )
    if long_edge_px < limits[-1]:
        raise InputError(
            f"{prefix}_long_edge_px must be at least {prefix}_short_edge_px={limits[-1]}, got "
            f"{long_edge_px}"
        )


def check_directory(key: str, directory: Path | None) -> Path:
    """Return a folder that must exist.

    Raises:
        InputError: None is given, or it is no folder.
    """
    if directory is None:
        raise InputError(f"{key} must be the folder of the images, got null")
    if not directory.is_dir():
        raise InputError(f"{key} must be a folder, got {directory}: no such folder")
    return directory


def check_images(
    key: str, directory: Path | None, file_names: Sequence[str], *, some_suffice: bool = False
) -> Path:
    """Return a folder that must hold certain images, after one listing of it.

    An image may be in a sub-folder, but not outside the folder, as through a symbolic link.

    Args:
        key: Key of the folder, for the message.
        directory: The folder.
        file_names: The images.
        some_suffice: Whether to refuse only a folder that has none of them.

    Raises:
        InputError: No folder, an image is missing (names the first, and the number of them), or one
            is outside the folder.
    """
    directory = check_directory(key, directory)
    with os.scandir(directory) as entries:
        listing = {entry.name for entry in entries if entry.is_file(follow_symlinks=False)}
    missing = [
        name
        for name in file_names
        if name not in listing and not find_image(directory, name).is_file()
    ]
    if missing and not (some_suffice and len(missing) < len(file_names)):
        raise InputError(
            f"{key}={directory}: the image file {missing[0]} is missing "
            f"({len(missing)} of {len(file_names)} are)"
        )
    return directory
