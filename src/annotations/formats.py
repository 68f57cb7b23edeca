"""The annotation formats: tell them apart by content, open any for reading, and write them."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa

from src.annotations.categories import (
    IMATERIALIST_2019_LABELS,
    LabelDescriptions,
    label_descriptions_from_json,
)
from src.annotations.coco import COCO, open_coco, write_coco
from src.annotations.image_files import AUTO, EXIF_CHOICES
from src.annotations.imaterialist_csv import (
    DSB_2018,
    IMATERIALIST_2019,
    IMATERIALIST_2020,
    read_csv_blocks,
    read_header,
    reread_lines,
    write_csv,
)
from src.annotations.mask_folders import MASK_IMAGES
from src.annotations.mask_images import open_mask_images
from src.annotations.mask_settings import MaskImageSettings
from src.annotations.rows import GivenSize, ProgressCallback, Source, StoredBlock
from src.annotations.store import STORE, AnnotationStore, masks_of, view
from src.errors import InputError
from src.io import fitting_name, refuse_special_file

DUPLICATES = ("keep", "drop")
CSV_EDITIONS = {
    edition.name: edition for edition in (IMATERIALIST_2019, IMATERIALIST_2020, DSB_2018)
}


@dataclass(frozen=True, slots=True)
class ReadingOptions:
    """Options for reading an annotation file.

    Args:
        images_directory: The images, to compare sizes with and to repair transposed ones.
        exif: The image on which masks were made, where an EXIF orientation turns it:
            ``as_displayed``, ``as_stored``, or ``auto``, see ``src.annotations.exif``.
        exif_undecided: The choice of ``auto`` if nothing decides; None: that is refused.
        missing_images: ``refuse`` the rows of an image that is missing or damaged, or ``keep`` them
            with the size as annotated.
        on_bad_rows: ``error`` or ``skip``.
        duplicates: ``keep`` or ``drop`` instances that have the image, category, attributes and
            mask of an earlier one; they are counted either way.
        label_descriptions: The legal categories and attributes as a JSON file; default: the file
            ``<source>.label_descriptions.json``, what a COCO source carries, those of 2019.
        size_hw: Size in pixels of all images, or of the image of an image id, for a CSV
            without Height and Width.
        mask_images: The layout and the classes of a folder of mask images; None: the defaults.

    Raises:
        InputError: A value is none of these.
    """

    images_directory: str | Path | None = None
    exif: str = AUTO
    exif_undecided: str | None = None
    missing_images: str = "refuse"
    on_bad_rows: str = "error"
    duplicates: str = "keep"
    label_descriptions: str | Path | None = None
    size_hw: GivenSize = None
    mask_images: MaskImageSettings | None = None

    def __post_init__(self) -> None:
        for key, legal in (
            ("exif", EXIF_CHOICES),
            ("missing_images", ("refuse", "keep")),
            ("on_bad_rows", ("error", "skip")),
            ("duplicates", DUPLICATES),
        ):
            if (value := getattr(self, key)) not in legal:
                raise InputError(f"{key} must be one of {', '.join(legal)}, got {value!r:.60}")
        size = self.size_hw
        if size is None or callable(size):
            return
        if len(size) != 2 or any(type(edge) is not int or edge < 1 for edge in size):
            raise InputError(f"size_hw must be height and width in pixels, got {list(size)}")


DEFAULT_OPTIONS = ReadingOptions()


def detect_format(path: str | Path) -> str:
    """Return the format of a file or folder by its content, whatever its name.

    Returns:
        ``imaterialist_2019``, ``imaterialist_2020`` (a CSV with the column AttributesIds),
        ``dsb_2018`` (a CSV of images, masks and perhaps sizes alone), ``coco`` (JSON), ``store``
        (a folder with a ``store.json``), or ``mask_images`` (any other folder; reading refuses one
        without mask images).

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
    header = read_header(path)
    if "AttributesIds" in header:
        return IMATERIALIST_2020.name
    if {"ImageId", "EncodedPixels"} <= set(header) <= set(DSB_2018.columns):
        return DSB_2018.name
    return IMATERIALIST_2019.name


def default_labels(kind: str) -> LabelDescriptions:
    """Return the labels of a CSV without its own: those of 2019, for 2020 without attributes."""
    if kind == IMATERIALIST_2019.name:
        return IMATERIALIST_2019_LABELS
    if kind == DSB_2018.name:
        return label_descriptions_from_json(
            {"categories": [{"id": 1, "name": "nucleus"}]}, where=kind
        )
    return LabelDescriptions(categories=IMATERIALIST_2019_LABELS.categories)


def labels_beside(path: Path) -> Path:
    """Return the path of the label descriptions of a CSV that has labels of its own."""
    return path.with_name(fitting_name(path.name, ".label_descriptions.json"))


def skipped_beside(path: Path) -> Path:
    """Return the path of the rows that reading into ``path`` leaves out."""
    return path.with_name(fitting_name(path.name, ".skipped.csv"))


def open_source(
    path: str | Path,
    options: ReadingOptions = DEFAULT_OPTIONS,
    *,
    labels: LabelDescriptions | None = None,
    on_progress: ProgressCallback | None = None,
) -> Source:
    """Open an annotation file of any format; its rows are read when the blocks are asked for.

    Args:
        path: A 2019 or 2020 CSV, COCO JSON, or a folder of mask images.
        options: ``size_hw``, ``mask_images`` and ``images_directory`` count here.
        labels: The legal categories and attributes. Without: those a COCO file carries, or for a
            CSV the 46 categories of 2019 and, in 2019, its 92 attributes (2020's are not checked).
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
        images = options.images_directory
        return open_mask_images(
            path,
            options.mask_images or MaskImageSettings(),
            labels=labels,
            images_directory=None if images is None else Path(images),
            on_progress=on_progress,
        )
    if kind == STORE:
        raise InputError(f"annotations must be a CSV or COCO JSON, got a store ({path})")
    labels = labels or default_labels(kind)
    notes: list[str] = []
    blocks = read_csv_blocks(
        path,
        edition=CSV_EDITIONS[kind],
        labels=labels,
        notes=notes,
        size_hw=options.size_hw,
        on_progress=on_progress,
    )
    return Source(kind, labels, blocks, lambda numbers: reread_lines(path, numbers), notes)


def write_annotations(store: AnnotationStore, path: Path, output_format: str) -> None:
    """Write a store as a CSV or COCO file in place, instances in the order of its source."""
    with path.open("wb") as file:
        blocks = _iterate_blocks(store)
        if output_format == COCO:
            write_coco(store.images, blocks, labels=store.labels, file=file)
        else:
            sets = zip(store.images, store.category_sets(), strict=True)
            without_instances = [image for image, categories in sets if not categories]
            edition = CSV_EDITIONS[output_format]
            write_csv(blocks, without_instances, edition=edition, file=file)


def _iterate_blocks(store: AnnotationStore) -> Iterator[StoredBlock]:
    """Read all instances once, in the order of the source.

    Reads ``runs.arrow`` as an ordinary file and not through the mapping, so that the memory of a
    conversion does not grow with the pages touched.
    """
    in_source_order, first = np.argsort(view(store.table["runs_row"], np.int64)), 0
    with pa.OSFile(str(store.directory / "runs.arrow")) as file:
        reader = pa.ipc.open_file(file)
        for number in range(reader.num_record_batches):
            batch = reader.get_batch(number)
            rows = store.table.take(pa.array(in_source_order[first : first + batch.num_rows]))
            first += batch.num_rows
            image_indices = rows["image_index"].to_pylist()
            images = [store.images[index] for index in image_indices]
            yield StoredBlock(
                images=images,
                image_indices=image_indices,
                category_ids=rows["category_id"].to_pylist(),
                attribute_ids=[tuple(ids) for ids in rows["attribute_ids"].to_pylist()],
                boxes_xyxy=rows["box_xyxy"].flatten().to_numpy().reshape(-1, 4),
                areas_px=rows["area_px"].to_numpy(),
                is_crowd=[bool(flag) for flag in rows["is_crowd"].to_pylist()],
                masks=masks_of(batch, [image.size_hw for image in images]),
            )
