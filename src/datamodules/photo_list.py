"""Which photos of a folder are predicted."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from pathlib import Path, PurePosixPath

from src.annotations.image_lists import ImageFolder, list_images, read_image_ids
from src.annotations.image_names import IMAGE_SUFFIXES
from src.errors import InputError

log = logging.getLogger(__name__)


def files_of_ids(
    image_ids: Sequence[str], *, folder: ImageFolder, source: Path, some_suffice: bool = False
) -> list[str]:
    """Return each id's file in a folder: the id itself (2019) or the id and a suffix (2020).

    Args:
        image_ids: the ids.
        folder: the images of the folder and of those below it.
        source: the file that names the ids, for the message.
        some_suffice: refuse only a folder that has none of the photos; an id without a photo stands
            for its file, so that reading it fails.

    Raises:
        InputError: names the first id without a photo, and how many there are.
    """
    files: dict[str, str] = {}
    for name in folder.names:
        files.setdefault(str(PurePosixPath(name).with_suffix("")), name)
    files |= {name: name for name in folder.names}
    missing = [image_id for image_id in image_ids if image_id not in files]
    if missing and not (some_suffice and len(missing) < len(image_ids)):
        raise InputError(
            f"{source}: image id {missing[0]!r} has no photo in {folder.directory} "
            f"({len(missing)} of {len(image_ids)} ids have none)"
        )
    found = [files.get(image_id, image_id) for image_id in image_ids]
    if others := sorted(set(folder.names).difference(found)):
        log.info(
            "%s: %d images are not in %s and are left out (the first: %r)",
            folder.directory,
            len(others),
            source,
            others[0],
        )
    return found


def select_photos(
    directory: Path, *, sample_submission: Path | None, some_suffice: bool = False
) -> tuple[list[str], list[str]]:
    """Return the ids of the photos to predict, and their files in the folder.

    What is left out of the folder is logged.

    Args:
        directory: folder of the photos.
        sample_submission: CSV whose column ``ImageId`` names them; None: all in the folder and in
            those below it, the path relative to the folder being the id.
        some_suffice: see ``files_of_ids``.

    Raises:
        InputError: no photos, or an id without one.
    """
    folder = list_images(directory)
    left_out = folder.describe_left_out()
    if not folder.names:
        raise InputError(
            left_out or f"{directory}: no images ({' '.join(IMAGE_SUFFIXES)}) in this folder"
        )
    if sample_submission is None:
        if left_out is not None:
            log.warning("%s", left_out)
        return list(folder.names), list(folder.names)
    image_ids = read_image_ids(sample_submission)
    file_names = files_of_ids(
        image_ids, folder=folder, source=sample_submission, some_suffice=some_suffice
    )
    return list(image_ids), file_names
