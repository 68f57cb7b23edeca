"""Convert annotations: CSV of 2019 or 2020, COCO JSON, mask images, the store."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from src.annotations.categories import write_label_descriptions
from src.annotations.coco import COCO, write_coco
from src.annotations.exif import AUTO
from src.annotations.imaterialist_csv import IMATERIALIST_2019, IMATERIALIST_2020, write_csv
from src.annotations.mask_settings import MaskImageSettings
from src.annotations.rows import ProgressCallback
from src.annotations.sources import (
    CSV_EDITIONS,
    default_labels,
    detect_format,
    labels_beside,
    skipped_beside,
)
from src.annotations.store import STORE, AnnotationStore, images_without_instances, iterate_blocks
from src.annotations.store_builder import BuildReport, build_store, check_store_duplicates
from src.annotations.store_checks import check_store_sizes, open_store
from src.errors import InputError
from src.io import atomic_path, working_directory

__all__ = ["OUTPUT_FORMATS", "ConversionReport", "convert", "detect_format", "write_annotations"]

CSV_SUFFIXES = (".csv", ".txt")
OUTPUT_FORMATS = ("auto", IMATERIALIST_2019.name, IMATERIALIST_2020.name, COCO, STORE)


@dataclass(frozen=True, slots=True)
class ConversionReport:
    """What a conversion did."""

    input_format: str
    output_format: str
    read: BuildReport | None  # None where the input was a store
    images: int
    objects: int
    crowd_regions: int  # objects marked iscrowd, a mark that a CSV cannot carry
    labels_file: Path | None  # categories and attributes beside a CSV that cannot carry them


def convert(
    source: str | Path,
    output: str | Path,
    *,
    output_format: str = "auto",
    images_directory: str | Path | None = None,
    exif: str = AUTO,
    on_bad_rows: str = "error",
    duplicates: str = "keep",
    skipped_file: str | Path | None = None,
    label_descriptions: str | Path | None = None,
    size_hw: tuple[int, int] | None = None,
    mask_images: MaskImageSettings | None = None,
    on_progress: ProgressCallback | None = None,
) -> ConversionReport:
    """Convert an annotation file of any format to any other.

    A CSV carries ids only: where its categories and attributes are not those that a reader would
    take for granted, they are written beside it as ``<output>.label_descriptions.json``, which is
    then read with it. Attribute ids keep their numbers, though 2019 and 2020 mean different
    attributes by them; in a 2020 CSV they are sorted. ``iscrowd`` is lost in a CSV.

    Args:
        source: A 2019 or 2020 CSV, COCO JSON, a store, or a folder of mask images; told apart by
            content.
        output: The file to write, or the folder of a store; replaced where it exists.
        output_format: One of ``OUTPUT_FORMATS``. ``auto``: ``coco`` for a name in .json, ``store``
            for a name in .store or a store that is there, a CSV for .csv and .txt, of 2020 if the
            source is.
        images_directory: As for ``build_store``, like all that follow.
        skipped_file: Default: ``output`` with ``.skipped.csv`` behind it.

    Raises:
        InputError: Bad input; nothing is left behind and an existing output stays as it was.
    """
    source, output = Path(source), Path(output)
    input_format = detect_format(source)
    target = _output_format(output_format, output, input_format)
    if output.exists() and output.samefile(source):
        raise InputError(f"output must be another file than the annotations, got {output}")
    if output.is_dir() and target != STORE:
        raise InputError(f"output must be a file for {target}, got the folder {output}")
    if input_format == STORE and target == STORE:
        raise InputError(
            f"annotations must be a CSV or COCO JSON, got a store: copy the folder ({source})"
        )
    with working_directory(next_to=output) as work:
        report: BuildReport | None = None
        store_directory = source
        if input_format != STORE:
            store_directory = output if target == STORE else work / "store"
            report = build_store(
                source,
                store_directory,
                images_directory=images_directory,
                exif=exif,
                on_bad_rows=on_bad_rows,
                duplicates=duplicates,
                skipped_file=skipped_file or skipped_beside(output),
                label_descriptions=label_descriptions,
                size_hw=size_hw,
                mask_images=mask_images,
                on_progress=on_progress,
            )
        store = open_store(source) if input_format == STORE else AnnotationStore(store_directory)
        check_store_sizes(store, images_directory, exif=exif)
        if input_format == STORE:
            check_store_duplicates(store, duplicates)
        labels_file = None
        if target != STORE:
            with atomic_path(output) as partial:
                write_annotations(store, partial, target)
                labels_file = _write_labels_beside(store, output, target)
    return ConversionReport(
        input_format=input_format,
        output_format=target,
        read=report,
        images=len(store),
        objects=store.object_count,
        crowd_regions=store.crowd_count,
        labels_file=labels_file,
    )


def write_annotations(store: AnnotationStore, path: Path, output_format: str) -> None:
    """Write a store as a CSV or COCO file, objects in the order of the store's source.

    Args:
        store: What to write.
        path: The file, written in place.
        output_format: ``imaterialist_2019``, ``imaterialist_2020`` or ``coco``.
    """
    with path.open("wb") as file:
        if output_format == COCO:
            write_coco(store.images, iterate_blocks(store), labels=store.labels, file=file)
        else:
            write_csv(
                iterate_blocks(store),
                images_without_instances(store),
                edition=CSV_EDITIONS[output_format],
                file=file,
            )


def _output_format(wanted: str, output: Path, input_format: str) -> str:
    if wanted not in OUTPUT_FORMATS:
        raise InputError(
            f"output_format must be one of {', '.join(OUTPUT_FORMATS)}, got {wanted!r:.60}"
        )
    if wanted != "auto":
        return wanted
    if output.suffix.lower() == ".json":
        return COCO
    if output.suffix.lower() == ".store" or (output / "store.json").is_file():
        return STORE
    if output.suffix.lower() not in CSV_SUFFIXES and not output.is_dir():
        raise InputError(
            f"output must end in .csv (iMaterialist), .json (COCO) or .store, got {output}; "
            "output_format=... says what another name holds"
        )
    return input_format if input_format == IMATERIALIST_2020.name else IMATERIALIST_2019.name


def _write_labels_beside(store: AnnotationStore, output: Path, target: str) -> Path | None:
    path = labels_beside(output)
    if target == COCO or store.labels == default_labels(target):
        path.unlink(missing_ok=True)
        return None
    write_label_descriptions(store.labels, path)
    return path
