"""Convert annotations from any format to any other."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from src.annotations.categories import write_label_descriptions
from src.annotations.coco import COCO
from src.annotations.formats import (
    DEFAULT_OPTIONS,
    ReadingOptions,
    default_labels,
    detect_format,
    labels_beside,
    skipped_beside,
    write_annotations,
)
from src.annotations.imaterialist_csv import IMATERIALIST_2019, IMATERIALIST_2020
from src.annotations.rows import ProgressCallback
from src.annotations.store import STORE, AnnotationStore
from src.annotations.store_builder import BuildReport, build_store, open_given
from src.errors import InputError
from src.io import atomic_path, working_directory

OUTPUT_FORMATS = ("auto", IMATERIALIST_2019.name, IMATERIALIST_2020.name, COCO, STORE)


@dataclass(frozen=True, slots=True)
class ConversionReport:
    """Figures of a conversion."""

    input_format: str
    output_format: str
    read: BuildReport | None  # None where the input was a store
    images: int
    instances: int
    crowd_regions: int  # instances marked iscrowd, a mark that a CSV cannot carry
    labels_file: Path | None  # categories and attributes beside a CSV that cannot carry them


def convert(
    source: str | Path,
    output: str | Path,
    options: ReadingOptions = DEFAULT_OPTIONS,
    *,
    output_format: str = "auto",
    skipped_file: str | Path | None = None,
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
        options: How to read the source.
        output_format: One of ``OUTPUT_FORMATS``. ``auto``: ``coco`` for a name in .json, ``store``
            for a name in .store or a store that is there, a CSV for .csv and .txt, of 2020 if the
            source is.
        skipped_file: As for ``build_store``; default: ``output`` with ``.skipped.csv`` behind it.
        on_progress: Called with the number of bytes read and their total.

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
        if input_format == STORE:
            store = open_given(source, options)
        else:
            directory = output if target == STORE else work / "store"
            skipped_file = skipped_file or skipped_beside(output)
            report = build_store(
                source, directory, options, skipped_file=skipped_file, on_progress=on_progress
            )
            store = AnnotationStore(directory)
        labels_file: Path | None = None
        if target != STORE:
            with atomic_path(output) as partial:
                write_annotations(store, partial, target)
                labels_file = labels_beside(output)
                if target == COCO or store.labels == default_labels(target):
                    labels_file.unlink(missing_ok=True)
                    labels_file = None
                else:
                    write_label_descriptions(store.labels, labels_file)
    return ConversionReport(
        input_format=input_format,
        output_format=target,
        read=report,
        images=len(store),
        instances=store.num_instances,
        crowd_regions=store.num_crowd_regions,
        labels_file=labels_file,
    )


def _output_format(wanted: str, output: Path, input_format: str) -> str:
    if wanted not in OUTPUT_FORMATS:
        raise InputError(
            f"output_format must be one of {', '.join(OUTPUT_FORMATS)}, got {wanted!r:.60}"
        )
    if wanted != "auto":
        return wanted
    suffix = output.suffix.lower()
    if suffix == ".json":
        return COCO
    if suffix == ".store" or (output / "store.json").is_file():
        return STORE
    if suffix not in (".csv", ".txt") and not output.is_dir():
        raise InputError(
            f"output must end in .csv (iMaterialist), .json (COCO) or .store, got {output}; "
            "output_format=... says what another name holds"
        )
    return input_format if input_format == IMATERIALIST_2020.name else IMATERIALIST_2019.name
