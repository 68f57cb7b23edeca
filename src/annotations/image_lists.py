"""Lists of images: the ids that a CSV names, and the image files of a folder."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from src.annotations.image_names import IMAGE_SUFFIXES, ImageIds, image_path, is_image_name
from src.annotations.rows import RowError
from src.annotations.text_lines import iterate_lines, split_fields
from src.errors import InputError
from src.io import check_input_file, printable

_COLUMN = "ImageId"
_SHOWN = 3


def read_image_ids(path: str | Path) -> tuple[str, ...]:
    """Read the column ``ImageId`` of a CSV, such as ``sample_submission.csv``.

    Returns:
        Each image once, in the order of the file, see ``ImageIds``.

    Raises:
        InputError: the file is missing, no CSV, has no such column, an id in it is no path of an
            image, or it has no rows.
    """
    path = Path(path)
    if not path.exists():
        raise InputError(f"{path}: no such file")
    check_input_file(path)
    ids = ImageIds(key=_COLUMN, add_suffix=True)
    column: int | None = None
    found: dict[str, None] = {}
    for number, line in (numbered for lines in iterate_lines(path) for numbered in lines):
        try:
            fields = [field.decode("utf-8") for field in split_fields(line) or []]
        except UnicodeDecodeError as error:
            raise InputError(f"{path}, row {number}: not UTF-8 text ({error})") from None
        if column is None:
            names = [name.strip() for name in fields]
            if _COLUMN not in names:
                raise InputError(
                    f"{path}: the column {_COLUMN} is missing, found {printable(', '.join(names))}"
                )
            column = names.index(_COLUMN)
            continue
        if len(fields) <= column:
            raise InputError(f"{path}, row {number}: has no value in the column {_COLUMN}")
        try:
            found.setdefault(ids.identify(fields[column])[0])
        except RowError as error:
            raise InputError(f"{path}, row {number}: {error}") from None
    if column is None:
        raise InputError(f"{path}: the column {_COLUMN} is missing, the file is empty")
    if not found:
        raise InputError(f"{path}: holds no rows")
    return tuple(found)


@dataclass(frozen=True, slots=True)
class ImageFolder:
    """The files of a folder and of the folders below it, as paths relative to it."""

    directory: Path
    names: Sequence[str]  # images, sorted
    left_out: Mapping[str, Sequence[str]]  # other files, by why they are left out

    def describe_left_out(self) -> str | None:
        """Return what is left out in one line, with counts and examples; None for nothing."""
        if not self.left_out:
            return None
        parts = [
            f"{len(names)} {reason} ({', '.join(map(repr, names[:_SHOWN]))}"
            f"{', ...' if len(names) > _SHOWN else ''})"
            for reason, names in self.left_out.items()
        ]
        return f"{self.directory}: left out {'; '.join(parts)}"


def list_images(directory: str | Path) -> ImageFolder:
    """Find the images in a folder and in the folders below it.

    A file counts by its suffix, one of ``IMAGE_SUFFIXES``. Left out are files of other suffixes,
    hidden ones (``.DS_Store``, ``._a.jpg``), symbolic links that lead out of the folder or to other
    folders, and names that no annotation could spell.

    Raises:
        InputError: the folder cannot be read.
    """
    directory = Path(directory)
    root = os.path.realpath(directory)
    names: list[str] = []
    left_out: dict[str, list[str]] = {}
    try:
        for name, entry in _entries(directory):
            reason = _reason(name, entry, root)
            (names if reason is None else left_out.setdefault(reason, [])).append(name)
    except OSError as error:
        raise InputError(f"{directory}: cannot be read ({error.strerror})") from error
    ordered = {reason: sorted(left_out[reason]) for reason in sorted(left_out)}
    return ImageFolder(directory, sorted(names), ordered)


def _entries(directory: Path) -> Iterator[tuple[str, os.DirEntry[str]]]:
    """Everything below a folder but the folders themselves; links to folders are not followed."""
    folders = [""]
    while folders:
        folder = folders.pop()
        with os.scandir(directory / folder) as entries:
            for entry in entries:
                name = f"{folder}{entry.name}"
                if entry.is_dir(follow_symlinks=False) and not entry.name.startswith("."):
                    folders.append(f"{name}/")
                else:
                    yield name, entry


def _reason(name: str, entry: os.DirEntry[str], root: str) -> str | None:
    """Why an entry of a folder is no image to read; None where it is one."""
    if entry.name.startswith("."):
        return "hidden"
    if entry.is_symlink():
        real = os.path.realpath(entry.path)
        if os.path.commonpath([root, real]) != root:
            return "symbolic links that leave the folder"
        if os.path.isdir(real):
            return "symbolic links to folders"
    if not is_image_name(name):
        return f"without an image suffix ({' '.join(IMAGE_SUFFIXES)})"
    if not entry.is_file():
        return "that are no regular files"
    try:
        spelling = image_path(name, key=_COLUMN)
    except RowError:
        spelling = ""
    return None if spelling == name else "whose names no file of annotations could spell"
