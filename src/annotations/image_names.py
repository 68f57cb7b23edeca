"""Names and ids of images, and lists of them."""

from __future__ import annotations

import contextlib
import os
import re
import unicodedata
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from src.annotations.rows import RowError, iterate_lines, split_fields
from src.errors import InputError
from src.io import check_input_file, printable

IMAGE_SUFFIXES = (".jpg", ".jpeg", ".png", ".webp", ".bmp", ".tif", ".tiff", ".gif")
"""Suffixes of the files that count as images, in lower case, wherever a folder is read."""

_SCHEME_OR_DRIVE = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*://|[A-Za-z]:/")
# Control characters, half characters, line and paragraph separators.
_REFUSED_CATEGORIES = ("Cc", "Cs", "Zl", "Zp")
# These turn the order in which the text around them is displayed.
_REFUSED_CHARACTERS = frozenset("\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069")
_LEADING_SPACE = " \t\r\n"


def is_image_name(name: str) -> bool:
    """Return whether a file of this name counts as an image, by its suffix in any case."""
    return name.lower().endswith(IMAGE_SUFFIXES)


def image_path(text: str, *, key: str) -> str:
    """Return the path of an image relative to the image folder, in its one spelling.

    Windows separators become ``/``; a leading ``./``, empty and ``.`` parts and white space around
    the path are dropped; ``x/../a.jpg`` is ``a.jpg``. All spellings of a path give one text.

    Args:
        text: The path as a file spells it.
        key: Its key or column, for the message.

    Raises:
        RowError: Empty, absolute, an address, outside the folder, or with a character that no
            file name needs.
    """
    parts: list[str] = []
    path = text.rstrip().lstrip(_LEADING_SPACE).replace("\\", "/")
    legal = f"{key} must be a path relative to the image folder and inside it, got {text!r:.120}"
    is_absolute = path.startswith("/") or _SCHEME_OR_DRIVE.match(path)
    for part in path.split("/"):
        if is_absolute or (part == ".." and not parts):
            raise RowError(legal)
        if part == "..":
            parts.pop()
        elif part not in ("", "."):
            parts.append(part)
    if not parts or path.endswith("/"):
        raise RowError(f"{key} must name an image, got {text!r:.120}")
    for character in "" if path.isprintable() else path:
        is_refused = unicodedata.category(character) in _REFUSED_CATEGORIES
        if is_refused or character in _REFUSED_CHARACTERS:
            raise RowError(
                f"{key} must be free of control characters, got {character!r} in {text!r:.120}"
            )
    return "/".join(parts)


def file_name_of(image_id: str) -> str:
    """Return an image's file name: its id, with ``.jpg`` behind it unless it has a suffix."""
    return image_id if is_image_name(image_id) else f"{image_id}.jpg"


def short_id(image_id: str) -> str:
    """Return an image's id as a competition without suffixes spells it.

    ``x/abc.png`` is ``x/abc``; ``abc/images/abc.png``, the Data Science Bowl's layout, is ``abc``.
    """
    path = PurePosixPath(image_id)
    if path.suffix.casefold() not in IMAGE_SUFFIXES:
        return image_id
    is_bowl = path.parts[:-1] == (path.stem, "images")
    return path.stem if is_bowl else str(path.with_suffix(""))


def find_image(directory: str | Path, file_name: str, *, key: str = "file_name") -> Path:
    """Return the path of an image. Nothing is opened, and the file may be missing.

    An export often names images from its own root (``images/a.jpg``, ``train2017/a.jpg``) while the
    given folder is the one that holds them: if the path leads to no file and begins with the names
    that the folder's own path ends with, these are dropped.

    Args:
        directory: The image folder; it may itself be a symbolic link.
        file_name: Path relative to it, see ``image_path``.
        key: Where the name comes from, for the message.

    Raises:
        InputError: ``image_path`` refuses the path, or a symbolic link leads it out of the folder.
    """
    directory = Path(directory)
    try:
        parts = image_path(file_name, key=key).split("/")
    except RowError as error:
        raise InputError(f"{directory}: {error}") from error
    path = directory.joinpath(*parts)
    if not path.exists():
        own = Path(os.path.abspath(directory)).parts  # noqa: PTH100  keeps links, drops ..
        counts = [n for n in range(len(parts) - 1, 0, -1) if list(own[-n:]) == parts[:n]]
        shorter = (directory.joinpath(*parts[count:]) for count in counts)
        path = next(filter(Path.exists, shorter), path)
    root, real = os.path.realpath(directory), os.path.realpath(path)
    if os.path.commonpath([root, real]) != root:
        raise InputError(
            f"{key} must lead to a file inside the image folder {directory}, got {file_name!r:.120}"
            ", which leaves it through a symbolic link"
        )
    return path


def match_ids(wanted: Iterable[str], known: Iterable[str]) -> list[str]:
    """Return image ids, wanted in any spelling, as those known are spelled.

    ``abc`` is ``abc.jpg`` where that is known, else the only image with this ``short_id``; an id of
    no known image stays as it is.
    """
    known = dict.fromkeys(known)
    by_file = {file_name_of(image_id): image_id for image_id in known}
    num_short = Counter(map(short_id, known))
    for image_id in known:
        if num_short[name := short_id(image_id)] == 1:
            by_file.setdefault(file_name_of(name), image_id)
    matched = []
    for image_id in wanted:
        if image_id not in known:
            with contextlib.suppress(RowError):
                file_name = file_name_of(image_path(image_id, key="ImageId"))
                image_id = by_file.get(file_name, image_id)
        matched.append(image_id)
    return matched


class ImageIds:
    r"""Gives every image of an annotation file one id, however its rows spell it.

    Rows that spell an image ``abc`` and ``abc.jpg``, ``x/a.jpg`` and ``x\a.jpg``, or ``a.jpg`` with
    and without a space behind it mean one image; it has the id of the row that comes first.

    Args:
        key: The key or column of the names, for messages.
        add_suffix: Whether ``abc`` is the file ``abc.jpg``, as in the competition's CSV.
    """

    def __init__(self, *, key: str, add_suffix: bool) -> None:
        self._key, self._add_suffix = key, add_suffix
        self._id_of_file: dict[str, str] = {}
        self._first_text: dict[str, str] = {}  # of each file, as in the source
        self._other_texts: dict[str, str] = {}  # by file, of those spelled in two ways
        self._padded: dict[str, None] = {}

    def identify(self, text: str, *, key: str | None = None) -> tuple[str, str]:
        """Return id and file name of the image that a text of the source names.

        Args:
            text: The name as in the source.
            key: Its key, if another than that of the other names.

        Raises:
            RowError: As ``image_path``.
        """
        image_id = image_path(text, key=key or self._key)
        file_name = file_name_of(image_id) if self._add_suffix else image_id
        if text != text.strip():
            self._padded.setdefault(text)
        first = self._first_text.setdefault(file_name, text)
        if text != first:
            self._other_texts.setdefault(file_name, text)
        return self._id_of_file.setdefault(file_name, image_id), file_name

    def notes(self) -> list[str]:
        """Return notes on the spellings, a sentence each."""
        notes = []
        if self._padded:
            notes.append(
                f"image names with white space around them, which is dropped: {len(self._padded)} "
                f"(the first: {next(iter(self._padded))!r:.120})"
            )
        if self._other_texts:
            file_name, other = next(iter(self._other_texts.items()))
            notes.append(
                f"images spelled in more than one way, each taken as one: {len(self._other_texts)} "
                f"(the first: {self._first_text[file_name]!r:.120} and {other!r:.120})"
            )
        return notes


_COLUMN = "ImageId"
_SHOWN = 3


def read_image_ids(path: str | Path) -> tuple[str, ...]:
    """Read the column ``ImageId`` of a CSV, such as ``sample_submission.csv``.

    Returns:
        Each image once, in the order of the file, see ``ImageIds``.

    Raises:
        InputError: The file is missing, is not a CSV, has no such column or no rows, or an id is
            not the path of an image.
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
            raise InputError(
                f"the row must be UTF-8 text, got {error} ({path}, row {number})"
            ) from None
        if column is None:
            names = [name.strip() for name in fields]
            if _COLUMN not in names:
                got = printable(", ".join(names))
                raise InputError(f"columns must have {_COLUMN}, got {got} ({path}, row {number})")
            column = names.index(_COLUMN)
            continue
        try:
            if len(fields) <= column:
                raise RowError(f"{_COLUMN} must be given, got a row of {len(fields)} values")
            found.setdefault(ids.identify(fields[column])[0])
        except RowError as error:
            raise InputError(f"{error} ({path}, row {number})") from None
    if column is None:
        raise InputError(f"columns must have {_COLUMN}, got an empty file ({path})")
    if not found:
        raise InputError(f"the file must have one row or more, got only a header ({path})")
    return tuple(found)


@dataclass(frozen=True, slots=True)
class ImageFolder:
    """The files of a folder and of the folders below it, as paths relative to it."""

    directory: Path
    names: Sequence[str]  # images, sorted
    left_out: Mapping[str, Sequence[str]]  # other files, by why they are left out

    def describe_left_out(self) -> str | None:
        """Return in one line what is left out, with counts and examples; None for nothing."""
        if not self.left_out:
            return None
        parts = [
            f"{len(names)} {reason} ({', '.join(map(repr, names[:_SHOWN]))}"
            f"{', ...' if len(names) > _SHOWN else ''})"
            for reason, names in self.left_out.items()
        ]
        return f"{self.directory}: left out {'; '.join(parts)}"


def list_images(
    directory: str | Path, *, suffixes: tuple[str, ...] = IMAGE_SUFFIXES
) -> ImageFolder:
    """Find the images in a folder and in the folders below it.

    A file counts by its suffix in any case, one of ``suffixes``. Left out are files of other
    suffixes, hidden ones (``.DS_Store``, ``._a.jpg``), symbolic links that lead out of the folder
    or to other folders, and names that no annotation could spell.

    Raises:
        InputError: The folder cannot be read.
    """
    directory = Path(directory)
    root, folders = os.path.realpath(directory), [""]
    names: list[str] = []
    left_out: dict[str, list[str]] = {}
    try:
        for folder in folders:  # grows
            with os.scandir(directory / folder) as entries:
                for entry in entries:
                    name = f"{folder}{entry.name}"
                    if entry.is_dir(follow_symlinks=False) and not entry.name.startswith("."):
                        folders.append(f"{name}/")
                        continue
                    reason = _reason(name, entry, root, suffixes)
                    (names if reason is None else left_out.setdefault(reason, [])).append(name)
    except OSError as error:
        raise InputError(f"{directory}: cannot be read ({error.strerror})") from error
    ordered = {reason: sorted(left_out[reason]) for reason in sorted(left_out)}
    return ImageFolder(directory, sorted(names), ordered)


def _reason(name: str, entry: os.DirEntry[str], root: str, suffixes: tuple[str, ...]) -> str | None:
    """Return why a file is left out of the images of a folder; None where it is not."""
    if entry.name.startswith("."):
        return "hidden"
    if entry.is_symlink():
        real = os.path.realpath(entry.path)
        if os.path.commonpath([root, real]) != root:
            return "symbolic links that leave the folder"
        if Path(real).is_dir():
            return "symbolic links to folders"
    if not name.lower().endswith(suffixes):
        return f"without an image suffix ({' '.join(suffixes)})"
    if not entry.is_file():
        return "that are no regular files"
    try:
        spelling = image_path(name, key=_COLUMN)
    except RowError:
        spelling = ""
    return None if spelling == name else "whose names no file of annotations could spell"
