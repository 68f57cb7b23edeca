"""The image files of a store: what they were when its annotations were read, and what they are now.

Masks belong to an image of a size. The size on the disk and the time of change of each file are
compared at every start, and the header is read again where one of them is another.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import astuple, dataclass
from pathlib import Path

from src.annotations.image_headers import read_header
from src.annotations.image_names import find_image
from src.errors import InputError
from src.io import check_seal, printable, read_json_object, seal, write_json

IMAGE_FILES = "image_files.json"
_READERS = 16  # side by side, because a cold disk answers in milliseconds


@dataclass(frozen=True, slots=True)
class ImageFile:
    """One image file."""

    num_bytes: int
    changed_ns: int  # time of change, as the operating system counts it
    height_px: int  # as displayed, EXIF orientation applied
    width_px: int
    orientation: int  # EXIF, 1 to 8

    @property
    def size_hw(self) -> tuple[int, int]:
        """(height, width) in pixels."""
        return self.height_px, self.width_px

    @property
    def shape(self) -> tuple[int, int, int]:
        """What masks depend on: height, width and orientation."""
        return self.height_px, self.width_px, self.orientation


def look_at_images(
    directory: Path, file_names: Iterable[str], known: Mapping[str, ImageFile]
) -> dict[str, ImageFile]:
    """Return what the files of a folder are, by name; those that cannot be read are left out.

    Args:
        directory: the image folder.
        file_names: relative to it.
        known: what files were before; of those unchanged on the disk no header is read.
    """

    def look(name: str) -> ImageFile | None:
        try:
            before = known.get(name)
            if before is not None:  # whether it lies in the folder is checked when it is read
                status = os.stat(os.path.join(directory, name))
                if (status.st_size, status.st_mtime_ns) == (before.num_bytes, before.changed_ns):
                    return before
            path = find_image(directory, name)
            status = path.stat()
            header = read_header(path)
            return ImageFile(
                status.st_size, status.st_mtime_ns, *header.displayed_hw, header.orientation
            )
        except (InputError, OSError):
            return None

    names = list(file_names)
    with ThreadPoolExecutor(_READERS) as pool:
        found = zip(names, pool.map(look, names), strict=True)
        return {name: file for name, file in found if file is not None}


def check_image_files(
    store_directory: Path,
    images_directory: Path,
    file_names: Iterable[str],
    *,
    record: bool = True,
) -> bool:
    """Refuse images that have another size than when a store's annotations were read.

    What is new of a file that was touched is recorded for the next time.

    Args:
        store_directory: of a store in a cache.
        images_directory: the folder of its images.
        file_names: of its images.
        record: whether the store may be written to.

    Returns:
        Whether there is no image that was missing when the annotations were read.

    Raises:
        InputError: names the first image with both sizes, and counts them.
    """
    path = store_directory / IMAGE_FILES
    known = read_image_files(path)
    found = look_at_images(images_directory, file_names, known)
    changed = [name for name, file in found.items() if file.shape != known.get(name, file).shape]
    if changed:
        name = changed[0]
        raise InputError(
            f"{images_directory}: {printable(name)} must have the size that it had when its "
            "annotations were read, {} x {} px (height x width, EXIF orientation {}), got "
            "{} x {} px ({}); ".format(*known[name].shape, *found[name].shape)
            + f"{len(changed)} of {len(found)} images have another size. Masks of one size do not "
            "fit an image of another: give the images of then, or, if the annotations are meant "
            f"for these, delete {store_directory}"
        )
    if path.exists() and not found.keys() <= known.keys():
        return False
    if record and found != known:
        write_image_files(path, known | found)
    return True


def write_image_files(path: Path, files: Mapping[str, ImageFile]) -> None:
    """Write what image files are, with a checksum."""
    content = {"files": {name: list(astuple(file)) for name, file in files.items()}}
    write_json(path, seal(content), indent=None)


def read_image_files(path: Path) -> dict[str, ImageFile]:
    """Read what ``write_image_files`` wrote; empty where there is no such file.

    Raises:
        InputError: the file is damaged.
    """
    if not path.exists():
        return {}
    content = check_seal(read_json_object(path), path)
    try:
        return {str(name): ImageFile(*map(int, file)) for name, file in content["files"].items()}
    except (LookupError, AttributeError, TypeError, ValueError) as error:
        raise InputError(f"{path}: damaged ({error!r:.100})") from error
