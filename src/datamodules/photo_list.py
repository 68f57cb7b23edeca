"""Which photos of a folder are predicted."""

from __future__ import annotations

import csv
import os
from collections.abc import Sequence
from pathlib import Path

from src.errors import InputError

PHOTO_SUFFIXES = (".jpeg", ".jpg", ".png")


def list_photos(directory: Path) -> list[str]:
    """Return the names of the photos in a folder, sorted.

    Raises:
        InputError: there are none.
    """
    names = sorted(n for n in os.listdir(directory) if Path(n).suffix.lower() in PHOTO_SUFFIXES)
    if not names:
        raise InputError(f"{directory}: no photos ({', '.join(PHOTO_SUFFIXES)}) in this folder")
    return names


def read_image_ids(path: Path) -> list[str]:
    """Return the different ids of a CSV's column ``ImageId``, in the order of the file.

    Raises:
        InputError: the file is missing, has no such column, or no rows.
    """
    try:
        with path.open(newline="", encoding="utf-8") as file:
            rows = csv.DictReader(file)
            if "ImageId" not in (rows.fieldnames or ()):
                raise InputError(f"{path}: the column ImageId is missing, got {rows.fieldnames}")
            image_ids = list(dict.fromkeys(row["ImageId"] for row in rows))
    except FileNotFoundError:
        raise InputError(f"{path}: no such file") from None
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise InputError(f"{path}: not a readable CSV file: {error}") from None
    if not image_ids:
        raise InputError(f"{path}: holds no rows")
    return image_ids


def files_of_ids(
    image_ids: Sequence[str], *, directory: Path, source: Path, some_suffice: bool = False
) -> list[str]:
    """Return each id's file in a folder: the id itself (2019) or the id and a suffix (2020).

    Looking ids up in the folder's listing also refuses those with a path in them.

    Args:
        image_ids: the ids.
        directory: folder of the photos.
        source: the file that names the ids, for the message.
        some_suffice: refuse only a folder that has none of the photos, and an id that is no file
            name; an id without a photo stands for its file, so that reading it fails.

    Raises:
        InputError: names the first id without a photo, and how many there are.
    """
    files: dict[str, str] = {}
    for name in list_photos(directory):
        files.setdefault(Path(name).stem, name)
        files[name] = name
    missing = [image_id for image_id in image_ids if image_id not in files]
    are_names = all(Path(image_id).name == image_id for image_id in missing)
    if missing and not (some_suffice and are_names and len(missing) < len(image_ids)):
        raise InputError(
            f"{source}: image id {missing[0]!r} has no photo in {directory} "
            f"({len(missing)} of {len(image_ids)} ids have none)"
        )
    return [files.get(image_id, image_id) for image_id in image_ids]


def select_photos(
    directory: Path, *, sample_submission: Path | None, some_suffice: bool = False
) -> tuple[list[str], list[str]]:
    """Return the ids of the photos to predict, and their files in the folder.

    Args:
        directory: folder of the photos.
        sample_submission: CSV whose column ``ImageId`` names them; None: all in the folder, the
            file name being the id.
        some_suffice: see ``files_of_ids``.

    Raises:
        InputError: no photos, or an id without one.
    """
    if sample_submission is None:
        names = list_photos(directory)
        return names, names
    image_ids = read_image_ids(sample_submission)
    file_names = files_of_ids(
        image_ids, directory=directory, source=sample_submission, some_suffice=some_suffice
    )
    return image_ids, file_names
