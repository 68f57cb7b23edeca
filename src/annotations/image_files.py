"""Image files: headers, pixels, and their sizes beside those of the annotations.

Masks belong to an image of a size. The size on the disk and the time of change of each image file
are recorded when the annotations are read and compared at every start; if one of them has changed,
the header is read again.
"""

from __future__ import annotations

import math
import os
from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import astuple, dataclass, field, replace
from pathlib import Path

import cv2
import numpy as np
import numpy.typing as npt
import pyarrow as pa
from PIL import Image, ImageOps

from src.annotations.image_names import find_image
from src.annotations.instances import ImageRecord
from src.errors import InputError
from src.io import check_seal, printable, read_json_object, refuse_special_file, seal, write_json
from src.rle.masks import Size
from src.rle.raster import SIDEWAYS

_ORIENTATION_TAG = 0x0112
_END_MARKS = {"JPEG": b"\xff\xd9", "MPO": b"\xff\xd9", "PNG": b"IEND"}
_TAIL_BYTES = 4096
LARGEST_MEGAPIXELS = 2147  # masks count pixels in 32 bits
# What Pillow raises for damaged files; a length of two gigabytes is asked of the memory at once.
UNREADABLE = (OSError, ValueError, SyntaxError, EOFError, MemoryError)
_BYTES_A_PIXEL = 7  # Pillow keeps four, and the array that is made of them takes three

# Pillow's own limit would call a large image a "decompression bomb" and not name its size;
# open_image compares the size in the header with max_image_megapixels instead.
Image.MAX_IMAGE_PIXELS = None
_limit_megapixels = 179.0


def set_max_megapixels(value: float) -> None:
    """Set the number of megapixels above which an image is refused, in this process.

    Raises:
        InputError: Not a number above 0 and at most ``LARGEST_MEGAPIXELS``.
    """
    global _limit_megapixels
    if type(value) not in (int, float) or not 0 < value <= LARGEST_MEGAPIXELS:
        raise InputError(
            "max_image_megapixels must be a number above 0 and at most "
            f"{LARGEST_MEGAPIXELS}, got {value!r:.60}"
        )
    _limit_megapixels = value


def check_num_pixels(path: Path, size_wh: tuple[int, int]) -> None:
    """Refuse an image, by its width and height, that is larger than the limit.

    Raises:
        InputError: Names the file, its size, the limit and the memory that reading would take.
    """
    megapixels = size_wh[0] * size_wh[1] / 1e6
    if megapixels > _limit_megapixels:
        raise InputError(
            f"{path}: max_image_megapixels must be {math.ceil(megapixels)} or more for this image "
            f"of {size_wh[0]} x {size_wh[1]} px (width x height), got {_limit_megapixels:g}; "
            f"reading it takes about {megapixels * _BYTES_A_PIXEL / 1000:.1f} GB of memory"
        )


@dataclass(frozen=True, slots=True)
class ImageHeader:
    """Size of an image as its file stores it, and how a viewer turns it."""

    stored_hw: Size  # pixels
    orientation: int  # EXIF, 1 to 8; 1: displayed as stored

    @property
    def displayed_hw(self) -> Size:
        """Height and width in pixels, EXIF orientation applied."""
        return self.stored_hw[::-1] if self.orientation in SIDEWAYS else self.stored_hw


def read_header(path: str | Path) -> ImageHeader:
    """Read size and orientation of an image, without decoding its pixels.

    A JPEG or PNG must also carry its end mark near the end of the file; one without it (a download
    that broke off, or a long trailer) is decoded to know.

    Raises:
        InputError: The file is missing, is not an image, or is truncated.
    """
    path = Path(path)
    with open_image(path) as image:
        width, height = image.size
        orientation = _orientation(image)
        # of a TIFF, Pillow gives the size as it is displayed
        if image.format == "TIFF" and orientation in SIDEWAYS:
            width, height = height, width
        if not _has_end_mark(path, image.format or ""):
            load_pixels(image, path)
    return ImageHeader(stored_hw=(height, width), orientation=orientation)


def read_size_hw(path: str | Path) -> Size:
    """Read height and width of an image as it is displayed, as ``read_header`` does."""
    return read_header(path).displayed_hw


def read_image_rgb(path: str | Path, *, at_least_hw: Size | None = None) -> npt.NDArray[np.uint8]:
    """Read the pixels of an image as it is displayed.

    Grayscale is repeated in the three channels, CMYK and palettes are converted, transparency is
    dropped, 16-bit values keep their high byte.

    Args:
        path: The image.
        at_least_hw: Height and width that the result may not fall below; a JPEG is then decoded at
            a half, a quarter or an eighth of its size where that is enough. None: At full size.

    Returns:
        (H, W, 3) uint8, RGB, 0-255, EXIF rotation applied.

    Raises:
        InputError: The file is missing, is not an image, or is truncated.
    """
    path = Path(path)
    with open_image(path) as image:
        if at_least_hw is not None:
            sideways = _orientation(image) in SIDEWAYS
            image.draft(None, at_least_hw if sideways else at_least_hw[::-1])
        load_pixels(image, path)
        ImageOps.exif_transpose(image, in_place=True)
        if image.mode.startswith("I"):
            gray = (np.asarray(image).astype(np.int64) >> 8).clip(0, 255).astype(np.uint8)
            return np.repeat(gray[:, :, None], 3, axis=2)
        return _pixels(image if image.mode == "RGB" else image.convert("RGB"))


def _pixels(rgb: Image.Image) -> npt.NDArray[np.uint8]:
    """Copy the pixels of an RGB image, shape (H, W, 3).

    Pillow keeps four bytes a pixel. Where the rows lie together (up to 16 MB), Arrow views them
    without a copy, in a fifth of the time of Pillow's own export.
    """
    try:
        values = pa.array(rgb).values
    except ValueError:
        return np.array(rgb)
    padded = np.frombuffer(values.buffers()[1], dtype=np.uint8).reshape(rgb.height, rgb.width, 4)
    return np.asarray(cv2.cvtColor(padded, cv2.COLOR_RGBA2RGB), dtype=np.uint8)


def open_image(path: Path) -> Image.Image:
    """Open an image and read its header, for a ``with`` block.

    Raises:
        InputError: The file is missing, is no image, or is larger than the limit.
    """
    refuse_special_file(path)
    try:
        image = Image.open(path)
    except FileNotFoundError as error:
        raise InputError(f"{path}: the image file is missing") from error
    except UNREADABLE as error:
        raise InputError(f"{path}: not an image, or cut off in its header ({error})") from error
    try:
        if image.format == "EPS":  # to draw it, Pillow would start Ghostscript: EPS is a program
            raise InputError(f"{path}: not an image of pixels, got EPS")
        check_num_pixels(path, image.size)
    except InputError:
        image.close()
        raise
    return image


def load_pixels(image: Image.Image, path: Path) -> None:
    """Decode the pixels of an opened image.

    Raises:
        InputError: They are damaged or truncated.
    """
    try:
        image.load()
    except UNREADABLE as error:
        reason = str(error) or "a part of it claims more than the memory"
        raise InputError(f"{path}: the image is damaged or truncated ({reason})") from error


def _orientation(image: Image.Image) -> int:
    try:
        orientation = image.getexif().get(_ORIENTATION_TAG, 1)
    except (*UNREADABLE, TypeError):
        return 1  # EXIF that cannot be read rotates nothing, as in every viewer
    return orientation if isinstance(orientation, int) and 1 <= orientation <= 8 else 1


def _has_end_mark(path: Path, image_format: str) -> bool:
    if (mark := _END_MARKS.get(image_format)) is None:
        return False
    with path.open("rb") as file:
        file.seek(max(0, path.stat().st_size - _TAIL_BYTES))
        return mark in file.read()


IMAGE_FILES = "image_files.json"
_READERS = 16  # headers are read side by side, because a cold disk answers in milliseconds


@dataclass(frozen=True, slots=True)
class ImageFile:
    """One image file."""

    num_bytes: int
    changed_ns: int  # time of change, as the operating system counts it
    height_px: int  # as displayed, EXIF orientation applied
    width_px: int
    orientation: int  # EXIF, 1 to 8

    @property
    def size_hw(self) -> Size:
        """(height, width) in pixels."""
        return self.height_px, self.width_px

    @property
    def shape(self) -> tuple[int, int, int]:
        """Height, width and orientation: all that masks depend on."""
        return self.height_px, self.width_px, self.orientation


def look_at_images(
    directory: Path, file_names: Iterable[str], known: Mapping[str, ImageFile]
) -> dict[str, ImageFile]:
    """Look at the files of a folder, by name; those that cannot be read are left out.

    Args:
        directory: The image folder.
        file_names: Relative to it.
        known: The files as they were before; headers of those unchanged on the disk are not read.
    """

    def look(name: str) -> ImageFile | None:
        try:
            before = known.get(name)
            if before is not None:  # that it is inside the folder is checked when it is read
                status = os.stat(os.path.join(directory, name))  # noqa: PTH116, PTH118  five times faster
                if (status.st_size, status.st_mtime_ns) == (before.num_bytes, before.changed_ns):
                    return before
            path = find_image(directory, name)
            status, header = path.stat(), read_header(path)
            shape = (*header.displayed_hw, header.orientation)
            return ImageFile(status.st_size, status.st_mtime_ns, *shape)
        except (InputError, OSError):
            return None

    names = list(file_names)
    with ThreadPoolExecutor(_READERS) as pool:
        found = zip(names, pool.map(look, names), strict=True)
        return {name: file for name, file in found if file is not None}


def check_image_files(
    store_directory: Path, images_directory: Path, file_names: Iterable[str], *, record: bool
) -> bool:
    """Refuse images that have another size than when a store's annotations were read.

    The new state of a file that was touched is recorded for the next time.

    Args:
        store_directory: A store in a cache.
        images_directory: The folder of its images.
        file_names: Names of its images.
        record: Whether the store may be written to.

    Returns:
        False where an image has come that was missing when the annotations were read.

    Raises:
        InputError: Names the first image with both sizes, and counts them.
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
            "fit an image of another: give the former images, or, if the annotations are meant "
            f"for these, delete {store_directory}"
        )
    if path.exists() and not found.keys() <= known.keys():
        return False
    if record and found != known:
        write_image_files(path, known | found)
    return True


def write_image_files(path: Path, files: Mapping[str, ImageFile]) -> None:
    """Write the record of image files, with a checksum."""
    content = {"files": {name: list(astuple(file)) for name, file in files.items()}}
    write_json(path, seal(content), indent=None)


def read_image_files(path: Path) -> dict[str, ImageFile]:
    """Read the record of ``write_image_files``; empty where there is none."""
    if not path.exists():
        return {}
    content = check_seal(read_json_object(path), path)
    try:
        return {str(name): ImageFile(*map(int, file)) for name, file in content["files"].items()}
    except (LookupError, AttributeError, TypeError, ValueError) as error:
        raise InputError(f"{path}: damaged ({error!r:.100})") from error


AUTO, AS_DISPLAYED, AS_STORED = "auto", "as_displayed", "as_stored"
EXIF_CHOICES = (AUTO, AS_DISPLAYED, AS_STORED)
TURNED_FILE = "turned"  # made on an image that lay on its side, and nothing says on which


@dataclass(frozen=True, slots=True)
class Frame:
    """An annotated image beside its file."""

    record: ImageRecord  # with the size that it is displayed with
    annotated_hw: Size
    orientation: int = 1  # EXIF
    # height and width of the grid of the masks, by reading; empty where there is only one
    grids: Mapping[str, Size] = field(default_factory=dict)


def make_frame(image: ImageRecord, header: ImageHeader) -> Frame:
    """Put an image as annotated beside its file.

    Where the annotation has the size of the displayed image with height and width exchanged, the
    image's counts. One of another size altogether (the masks of the 2020 edition are smaller than
    its images) keeps it, lying or standing as the image is displayed.
    """
    annotated, displayed = image.size_hw, header.displayed_hw
    exchanged = annotated != displayed and annotated == displayed[::-1]
    sideways = header.orientation in SIDEWAYS
    if header.orientation == 1 and not exchanged:
        return Frame(image, annotated)
    lies_otherwise = (annotated[0] - annotated[1]) * (displayed[0] - displayed[1]) < 0
    upright = annotated[::-1] if exchanged or (sideways and lies_otherwise) else annotated
    grids = {AS_DISPLAYED: upright}
    if header.orientation != 1:
        grids[AS_STORED] = upright[::-1] if sideways else upright
    if exchanged and not sideways:
        grids[TURNED_FILE] = annotated
    record = replace(image, height_px=upright[0], width_px=upright[1])
    return Frame(record, annotated, header.orientation, grids)


@dataclass(frozen=True, slots=True)
class SizeFinding:
    """An image whose annotated size is not that of its file, or whose masks were turned."""

    image_id: str
    annotated_hw: Size  # pixels
    image_hw: Size  # pixels, EXIF rotation applied
    repaired: bool  # Height and Width were exchanged; otherwise the annotated size was kept
    reading: str = AS_DISPLAYED  # which image the masks were made on, as_displayed or as_stored


def describe_outcome(finding: SizeFinding, *, repaired: str) -> str:
    """Return what was done about a finding: ``repaired`` where the sizes were exchanged."""
    if finding.reading == AS_STORED:
        return "masks of the stored image, turned"
    return repaired if finding.repaired else "kept as annotated"


class ImageSizes:
    """Compares annotated sizes with image headers, each image once, see ``make_frame``.

    Args:
        images_directory: The folder of the images; None: every size is taken as annotated.
        name_key: The key or column in which the source names images, for messages.
        missing_are_kept: Whether the size of a missing or damaged image is taken as annotated.

    Raises:
        InputError: No such folder.
    """

    def __init__(
        self,
        images_directory: str | Path | None,
        *,
        name_key: str = "file_name",
        missing_are_kept: bool = False,
    ) -> None:
        self._name_key, self._missing_are_kept = name_key, missing_are_kept
        self._directory = None if images_directory is None else Path(images_directory)
        if self._directory is not None and not self._directory.is_dir():
            raise InputError(f"{self._directory}: no such image folder")
        self._images: dict[str, ImageHeader | str] = {}
        self._settled: dict[ImageRecord, Frame | str] = {}

    def resolve_sizes(self, images: Sequence[ImageRecord]) -> list[Frame | str]:
        """Return the frame of each image's masks; a text if the image is missing or damaged."""
        new = dict.fromkeys(image for image in images if image not in self._settled)
        if new and self._directory is not None:
            with ThreadPoolExecutor(_READERS) as pool:
                found = pool.map(self._read_header, [image.file_name for image in new])
                self._images |= zip((image.image_id for image in new), found, strict=True)
        for image in new:
            header = self._images.get(image.image_id)
            if isinstance(header, ImageHeader):
                self._settled[image] = make_frame(image, header)
            elif header is None or self._missing_are_kept:
                self._settled[image] = Frame(image, image.size_hw)
            else:
                self._settled[image] = header
        return [self._settled[image] for image in images]

    def image_hw(self, image_id: str) -> Size | None:
        """Return the size of the image as displayed, in pixels; None where it was not read."""
        header = self._images.get(image_id)
        return header.displayed_hw if isinstance(header, ImageHeader) else None

    @property
    def num_missing(self) -> int:
        """Number of images, of those settled so far, that are missing or damaged."""
        return sum(isinstance(header, str) for header in self._images.values())

    def findings(self, readings: Mapping[str, str]) -> list[SizeFinding]:
        """Return the images that a user should know of, with the ``readings`` by image id."""
        findings = []
        for frame in self._settled.values():
            if isinstance(frame, str):
                continue
            image_id = frame.record.image_id
            reading = readings.get(image_id, AS_DISPLAYED)
            image_hw = self.image_hw(image_id) or frame.annotated_hw
            named_hw = frame.annotated_hw
            if image_hw != named_hw or reading == AS_STORED:
                repaired = reading != AS_STORED and frame.record.size_hw != named_hw
                findings.append(SizeFinding(image_id, named_hw, image_hw, repaired, reading))
        return findings

    def _read_header(self, file_name: str) -> ImageHeader | str:
        assert self._directory is not None
        try:
            return read_header(find_image(self._directory, file_name, key=self._name_key))
        except InputError as error:
            return str(error)
