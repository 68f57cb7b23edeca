"""Lists of images: which to predict, whether their files are there; without torch."""

from __future__ import annotations

import itertools
import logging
import os
from collections.abc import Collection, Sequence
from pathlib import Path

from src.annotations import image_names
from src.annotations.image_names import ImageFolder, find_image
from src.errors import InputError

log = logging.getLogger(__name__)


def files_of_ids(
    image_ids: Sequence[str], *, folder: ImageFolder, source: Path, some_suffice: bool = False
) -> list[str]:
    """Return each id's file in a folder: the id itself (2019), or what has the ``short_id``.

    Args:
        folder: The images in the folder and below it.
        source: The file that names the ids, for the message.
        some_suffice: Whether to refuse only a folder that has none of the images. An id without one
            is then returned as its file, and reading it fails.

    Raises:
        InputError: Names the first id without an image, and the number of them.
    """
    files: dict[str, str] = {}
    for name in folder.names:
        files.setdefault(image_names.short_id(name), name)
    files |= {name: name for name in folder.names}
    missing = [image_id for image_id in image_ids if image_id not in files]
    if missing and not (some_suffice and len(missing) < len(image_ids)):
        raise InputError(
            f"{source}: image id {missing[0]!r} has no image in {folder.directory} "
            f"({len(missing)} of {len(image_ids)} ids have none)"
        )
    found = [files.get(image_id, image_id) for image_id in image_ids]
    if others := sorted(set(folder.names).difference(found)):
        log.info(
            "%s: %d images are not in %s and are left out (the first: %r)",
            *(folder.directory, len(others), source, others[0]),
        )
    return found


def select_images(
    directory: Path, *, sample_submission: Path | None, some_suffice: bool = False
) -> tuple[list[str], list[str]]:
    """Return the ids of the images to predict, and their files in the folder; log the others.

    Args:
        sample_submission: CSV whose column ``ImageId`` names them; None: all in the folder and
            below it, with the path relative to the folder as id.
        some_suffice: See ``files_of_ids``.

    Raises:
        InputError: No images, or an id without one.
    """
    folder = image_names.list_images(directory)
    left_out = folder.describe_left_out()
    if not folder.names:
        suffixes = " ".join(image_names.IMAGE_SUFFIXES)
        raise InputError(left_out or f"{directory}: no images ({suffixes}) in this folder")
    if sample_submission is None:
        if left_out is not None:
            log.warning("%s", left_out)
        return list(folder.names), list(folder.names)
    image_ids = image_names.read_image_ids(sample_submission)
    file_names = files_of_ids(
        image_ids, folder=folder, source=sample_submission, some_suffice=some_suffice
    )
    return list(image_ids), file_names


def positions_left(ids: Sequence[str], predicted: Collection[str], world_size: int) -> list[int]:
    """Return the positions of the images still to predict, those not in ``predicted``.

    With fewer images than processes some are repeated: Lightning needs one for each process, and
    the prediction store drops the second.

    Raises:
        InputError: An image that has predictions is not among ``ids``.
    """
    if unknown := sorted(set(predicted).difference(ids)):
        raise InputError(
            f"{len(unknown)} images are in the prediction store that are none of the "
            f"{len(ids)} images to predict, the first is {unknown[0]!r}; the list of images "
            "has changed: give another folder"
        )
    left = [place for place, image_id in enumerate(ids) if image_id not in predicted]
    return [*left, *itertools.islice(itertools.cycle(left), max(0, world_size - len(left)))]


def check_directory(key: str, directory: Path | None) -> Path:
    """Return a folder after checking that it exists; ``key`` is for the message."""
    if directory is None:
        raise InputError(f"{key} must be the folder of the images, got null")
    if not directory.is_dir():
        raise InputError(f"{key} must be a folder, got {directory}: no such folder")
    return directory


def check_images(
    key: str, directory: Path | None, file_names: Sequence[str], *, some_suffice: bool = False
) -> Path:
    """Return a folder after checking, with one listing, that it holds certain images.

    An image may be in a sub-folder, but not outside the folder, as through a symbolic link.

    Args:
        key: Key of the folder, for the message.
        some_suffice: Whether to refuse only a folder that has none of them.

    Raises:
        InputError: There is no such folder, or an image is missing or outside of it.
    """
    directory = check_directory(key, directory)
    with os.scandir(directory) as entries:
        listing = {entry.name for entry in entries if entry.is_file(follow_symlinks=False)}
    below = [name for name in file_names if name not in listing]
    missing = [name for name in below if not find_image(directory, name).is_file()]
    if missing and not (some_suffice and len(missing) < len(file_names)):
        raise InputError(
            f"{key}={directory}: the image file {missing[0]} is missing "
            f"({len(missing)} of {len(file_names)} are)"
        )
    return directory
