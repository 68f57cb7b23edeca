"""Tell the annotation formats apart by their content, and open any of them for reading."""

from __future__ import annotations

from pathlib import Path

from src.annotations.categories import IMATERIALIST_2019_LABELS, LabelDescriptions
from src.annotations.coco import COCO, open_coco
from src.annotations.imaterialist_csv import (
    IMATERIALIST_2019,
    IMATERIALIST_2020,
    read_csv_blocks,
    read_header,
    reread_lines,
)
from src.annotations.mask_folders import MASK_IMAGES
from src.annotations.mask_images import open_mask_images
from src.annotations.mask_settings import MaskImageSettings
from src.annotations.rows import ProgressCallback, SizeOf, Source
from src.annotations.store import STORE
from src.errors import InputError
from src.io import fitting_name, refuse_special_file

CSV_EDITIONS = {edition.name: edition for edition in (IMATERIALIST_2019, IMATERIALIST_2020)}


def detect_format(path: str | Path) -> str:
    """Return the format of a file or folder by its content, whatever its name.

    Returns:
        ``imaterialist_2019``, ``imaterialist_2020`` (a CSV with the column AttributesIds), ``coco``
        (a JSON object), ``store`` (a folder with a ``store.json``), or ``mask_images`` (any other
        folder; reading says where it is none).

    Raises:
        InputError: No such file, an empty one, or none of these.
    """
    path = Path(path)
    if path.is_dir():
        if (path / "store.json").is_file():
            return STORE
        return MASK_IMAGES
    refuse_special_file(path)
    try:
        with path.open("rb") as file:
            start = file.read(4096).removeprefix(b"\xef\xbb\xbf").lstrip()
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror})") from error
    if start[:1] in (b"{", b"["):
        return COCO
    if "AttributesIds" in read_header(path):
        return IMATERIALIST_2020.name
    return IMATERIALIST_2019.name


def default_labels(kind: str) -> LabelDescriptions:
    """Return the labels of a CSV without its own: those of 2019, for 2020 without attributes."""
    if kind == IMATERIALIST_2019.name:
        return IMATERIALIST_2019_LABELS
    return LabelDescriptions(categories=IMATERIALIST_2019_LABELS.categories)


def labels_beside(path: Path) -> Path:
    """Return the path of the label descriptions of a CSV that has labels of its own."""
    return path.with_name(fitting_name(path.name, ".label_descriptions.json"))


def skipped_beside(path: Path) -> Path:
    """Return the path of the rows that reading into ``path`` leaves out."""
    return path.with_name(fitting_name(path.name, ".skipped.csv"))


def open_source(
    path: str | Path,
    *,
    labels: LabelDescriptions | None = None,
    size_hw: tuple[int, int] | SizeOf | None = None,
    mask_images: MaskImageSettings | None = None,
    images_directory: Path | None = None,
    on_progress: ProgressCallback | None = None,
) -> Source:
    """Open an annotation file of any format; its rows are read when the blocks are asked for.

    Args:
        path: A 2019 or 2020 CSV, COCO JSON, or a folder of mask images.
        labels: The legal categories and attributes. Without: those a COCO file carries, or for a
            CSV the 46 categories of 2019 and, in 2019, its 92 attributes (2020's are not checked).
        size_hw: Size in pixels of all images, or of the image of an image id, for a CSV
            without Height and Width.
        mask_images: How a folder of mask images is read; None: the defaults.
        images_directory: The images that mask images are of, to find them by name.
        on_progress: Called with the number of bytes read and their total.

    Raises:
        InputError: As ``detect_format``; a missing column; a COCO file without its lists; as
            ``open_mask_images``.
    """
    path = Path(path)
    kind = detect_format(path)
    if kind == COCO:
        return open_coco(path, labels=labels, on_progress=on_progress)
    if kind == MASK_IMAGES:
        return open_mask_images(
            path,
            mask_images or MaskImageSettings(),
            labels=labels,
            images_directory=images_directory,
            on_progress=on_progress,
        )
    if kind == STORE:
        raise InputError(
            f"annotations must be a CSV or COCO JSON, got an annotation store ({path})"
        )
    labels = labels or default_labels(kind)
    notes: list[str] = []
    return Source(
        path=path,
        kind=kind,
        labels=labels,
        blocks=read_csv_blocks(
            path,
            edition=CSV_EDITIONS[kind],
            labels=labels,
            notes=notes,
            size_hw=size_hw,
            on_progress=on_progress,
        ),
        reread=lambda numbers: reread_lines(path, numbers),
        notes=notes,
    )
