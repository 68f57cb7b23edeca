"""Build annotation stores from annotation files, keep them in a cache, and convert between formats.

File locks make this POSIX only (Linux, macOS): ``fcntl`` does not exist on Windows.
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import logging
import shutil
from collections.abc import Callable
from dataclasses import dataclass, fields, replace
from functools import cache, partial
from pathlib import Path
from typing import Any

from src.annotations.categories import (
    label_descriptions_to_json,
    read_label_descriptions,
)
from src.annotations.exif import ExifReadings, ReadOtherwiseError
from src.annotations.formats import (
    CSV_EDITIONS,
    DEFAULT_OPTIONS,
    ReadingOptions,
    detect_format,
    labels_beside,
    open_source,
    skipped_beside,
)
from src.annotations.image_files import (
    AS_DISPLAYED,
    IMAGE_FILES,
    Frame,
    ImageSizes,
    SizeFinding,
    check_image_files,
    look_at_images,
    write_image_files,
)
from src.annotations.imaterialist_csv import (
    SIZE_COLUMNS,
    SizesOfFiles,
    read_header,
)
from src.annotations.mask_folders import fingerprint
from src.annotations.mask_settings import MaskImageSettings
from src.annotations.rows import BadRowHandler, ProgressCallback, Source
from src.annotations.store import (
    FORMAT_VERSION,
    STORE,
    TABLES,
    AnnotationStore,
    describe_files,
    open_store,
    read_description,
)
from src.annotations.store_writer import StoreWriter
from src.errors import InputError
from src.io import (
    fitting_name,
    fsync,
    make_directory,
    seal,
    working_directory,
    writing_problem,
)
from src.quoting import quote

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class BuildReport:
    """Figures of a source that was read into a store."""

    source: Path
    kind: str  # imaterialist_2019, imaterialist_2020, coco or mask_images
    images: int
    instances: int
    images_without_instances: int
    empty_masks: int  # instances whose mask has no pixel; they are kept
    crowd_regions: int  # instances marked iscrowd
    skipped_rows: int
    skipped_file: Path | None  # where the skipped rows are, None where there are none
    size_findings: tuple[SizeFinding, ...]
    notes: tuple[str, ...]


def build_store(
    source: str | Path,
    directory: str | Path,
    options: ReadingOptions = DEFAULT_OPTIONS,
    *,
    skipped_file: str | Path | None = None,
    on_progress: ProgressCallback | None = None,
    sync: bool = True,
) -> BuildReport:
    """Read an annotation file of any format into a store folder.

    Args:
        source: A 2019 or 2020 CSV, COCO JSON, or a folder of mask images; told apart by content.
        directory: The folder to make; an existing store there is replaced.
        options: How to read it.
        skipped_file: Where ``on_bad_rows=skip`` writes the rows left out; default: ``directory``
            with ``.skipped.csv`` behind it.
        on_progress: Called with the number of bytes read and their total.
        sync: Whether to flush the store to the disk, as in ``atomic_path``; not worth its time
            where the store is removed with the process.

    Raises:
        InputError: The source cannot be read, a row is bad and not to be skipped, ``exif`` is
            ``auto`` and nothing tells how to read the masks, or ``directory`` is not a store.
            Nothing is left behind.
    """
    source, directory = Path(source), Path(directory)
    if directory.exists() and not (directory / "store.json").is_file():
        raise InputError(
            f"output must be a new folder or an annotation store to replace, got {directory}"
        )
    options = _with_paths(options, source)
    label_file = options.label_descriptions
    labels = None if label_file is None else read_label_descriptions(label_file)
    reading = options
    if options.size_hw is None and options.images_directory is not None:
        images = Path(options.images_directory)
        reading = replace(options, size_hw=_sizes_of_files(source, images))
    open_again = partial(open_source, source, reading, labels=labels, on_progress=on_progress)
    opened = open_again()
    sizes = ImageSizes(
        options.images_directory,
        name_key=opened.name_key,
        missing_are_kept=options.missing_images == "keep",
    )
    made_from = _made_from(source, options)

    def write(new: Path, opened: Source, readings: ExifReadings) -> BuildReport:
        """Read the source once, into a folder that does not exist yet."""
        bad_rows = BadRowHandler(
            source=source,
            skip=options.on_bad_rows == "skip",
            skipped_file=Path(skipped_file or skipped_beside(directory)),
        )
        drop = options.duplicates == "drop"
        writer = StoreWriter(opened, sizes, readings, bad_rows, drop_duplicates=drop)
        new.mkdir()
        with bad_rows:
            writer.write(new)
            readings.settle(str(source))
            findings = tuple(sizes.findings(readings.by_image()))
            notes = [*opened.notes, *readings.notes(), *writer.notes()]
            description = {
                "format_version": FORMAT_VERSION,
                "source": str(source.resolve()),
                "made_from": made_from,
                "source_kind": opened.kind,
                "labels": label_descriptions_to_json(opened.labels),
                "runs_batch_starts": writer.runs_batch_starts,
                "skipped_rows": bad_rows.count,
                "duplicates_kept": 0 if drop else writer.duplicates,
                "notes": notes,
                "sizes_compared": options.images_directory is not None,
                "missing_images": sizes.num_missing,
                "exchanged_sizes": [found.image_id for found in findings if found.repaired],
                "files": describe_files(new),
            }
            (new / "store.json").write_text(json.dumps(seal(description)), encoding="utf-8")
            if sync:
                for path in (*(new / name for name in TABLES), new / "store.json", new):
                    fsync(path)
        return BuildReport(
            source=source,
            kind=opened.kind,
            images=writer.images,
            instances=writer.instances,
            images_without_instances=writer.images_without_instances,
            empty_masks=writer.empty_masks,
            crowd_regions=writer.crowd_regions,
            skipped_rows=bad_rows.count,
            skipped_file=bad_rows.skipped_file if bad_rows.count else None,
            size_findings=findings,
            notes=tuple(notes),
        )

    with working_directory(next_to=directory) as work:
        new = work / "store"
        try:
            undecided = options.exif_undecided
            report = write(new, opened, ExifReadings(options.exif, undecided=undecided))
        except ReadOtherwiseError as found:
            new = work / "again"
            report = write(new, open_again(), ExifReadings(options.exif, decided=found.readings))
        if directory.exists():
            directory.replace(work / "old")
        new.replace(directory)
        if sync:
            fsync(directory.parent)
    return report


def _sizes_of_files(source: Path, images: Path) -> SizesOfFiles | None:
    """Return the sizes of the images for a CSV that has none; None: it has, or is no CSV."""
    is_csv = source.is_file() and detect_format(source) in CSV_EDITIONS
    if not is_csv or set(SIZE_COLUMNS) <= set(read_header(source)):
        return None
    return SizesOfFiles(images)


def open_or_build(
    source: str | Path,
    cache_dir: str | Path,
    options: ReadingOptions = DEFAULT_OPTIONS,
    *,
    fallback_directory: str | Path | None = None,
    on_progress: ProgressCallback | None = None,
    on_built: Callable[[BuildReport], None] | None = None,
    sync: bool = True,
) -> AnnotationStore:
    """Open the store of an annotation file; build it if there is none, or its source has changed.

    A damaged one is also built again. A change is one of path, size or time of change of the source
    (of a folder of mask images, of name, size or time of a file) or of the label file, of the image
    folder's path, or of another option; if rows were left out, also of the folder's time of change.
    An image whose size has changed since is an error. Processes that ask at the same time (the
    ranks of a training) wait for the one that builds.

    Args:
        source: An annotation file of any format, or a store folder, which is opened as it is.
        cache_dir: The folder of the stores, each in a folder named by source and options.
        fallback_directory: Used instead if ``cache_dir`` cannot be written (data on a read-only
            disk). A store that is there already is used where it is.
        options: How to read the file. A store that was made without images is refused where one of
            them is turned or has another shape.
        on_progress: Called with the number of bytes read and their total.
        on_built: Called with the report if a store was built.
        sync: As for ``build_store``.

    Raises:
        InputError: As ``build_store``; an image has another size than when the store was built.
    """
    source, folder = Path(source), Path(cache_dir)
    if detect_format(source) == STORE:
        return open_given(source, options)
    options = _with_paths(options, source)
    made_from = _made_from(source, options)
    key = hashlib.sha256(repr((source.resolve(), options)).encode()).hexdigest()[:12]
    name = fitting_name(source.stem, f"-{key}.store")
    images = options.images_directory
    if problem := writing_problem(folder):
        store = _open_current(folder / name, made_from, images, writable=False)
        if store is not None:
            return store
        if fallback_directory is None:
            raise InputError(f"cache_dir must be a folder to write to, got {folder}: {problem}")
        _warn_once(
            f"{folder} cannot be written ({problem}): what is read of the annotations is kept in "
            f"{fallback_directory}"
        )
        folder = Path(fallback_directory)
    directory = folder / name
    make_directory(folder)
    with (folder / fitting_name(f".{name}", ".lock")).open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        store = _open_current(directory, made_from, images)
        if store is None:
            report = build_store(source, directory, options, on_progress=on_progress, sync=sync)
            if on_built is not None:
                on_built(report)
            store = AnnotationStore(directory)
            if images is not None:
                names = [image.file_name for image in store.images]
                write_image_files(directory / IMAGE_FILES, look_at_images(Path(images), names, {}))
        return store


@cache
def _warn_once(text: str) -> None:
    log.warning("%s", text)


def open_given(directory: Path, options: ReadingOptions) -> AnnotationStore:
    """Open a store that a user gives, if the options still allow it.

    Its masks are drawn: nothing tells any longer on which image they were made. So it is refused
    where it was made without the images and one of them has an EXIF orientation (``as_displayed``
    accepts it) or height and width exchanged, or where it has duplicates that are to be dropped.
    """
    store, images = open_store(directory), options.images_directory
    source, output = str(store.description["source"]), quote("output", directory)
    again = f"make it again: python -m src.convert {quote('annotations', source)}"
    if images is not None and not store.description.get("sizes_compared"):
        turned = [
            frame.record.image_id
            for frame in ImageSizes(images, missing_are_kept=True).resolve_sizes(store.images)
            if isinstance(frame, Frame)
            and frame.grids
            and (options.exif != AS_DISPLAYED or frame.record.size_hw != frame.annotated_hw)
        ]
        if turned:
            raise InputError(
                f"{directory}: made without the images, of which {len(turned)} have an EXIF "
                f"orientation or height and width exchanged (the first: {turned[0]}); {again} "
                f"{quote('images', images)} {output}"
            )
    if options.duplicates == "drop" and (kept := store.description.get("duplicates_kept")):
        raise InputError(
            f"duplicates must be keep for a store that was made with {kept} exact duplicates, got "
            f"drop ({directory}); {again} duplicates=drop {output}"
        )
    return store


def _with_paths(options: ReadingOptions, source: Path) -> ReadingOptions:
    """Return options as they are used: with the label file beside the source where none is given.

    The settings of mask images are kept for a folder alone, with their defaults filled in.
    """
    images, labels, beside = (
        options.images_directory,
        options.label_descriptions,
        labels_beside(source),
    )
    labels = labels or (beside if beside.is_file() else None)
    return replace(
        options,
        images_directory=None if images is None else Path(images),
        label_descriptions=None if labels is None else Path(labels),
        mask_images=(options.mask_images or MaskImageSettings()) if source.is_dir() else None,
    )


def _open_current(
    directory: Path,
    made_from: dict[str, Any],
    images_directory: str | Path | None,
    *,
    writable: bool = True,
) -> AnnotationStore | None:
    """Open the store in a cache; None where it is absent, of another source, or damaged."""
    if not directory.exists():
        return None
    try:
        if not _is_made_from(read_description(directory), made_from):
            return None
        store = AnnotationStore(directory)
        store.image_files()
    except InputError as error:
        log.warning("built again: %s", error)
    else:
        images, names = images_directory, [image.file_name for image in store.images]
        if images is None or check_image_files(directory, Path(images), names, record=writable):
            return store
        return None
    if writable and not (directory / "store.json").is_file():  # build_store would not replace it
        shutil.rmtree(directory)
    return None


def _is_made_from(description: dict[str, Any], made_from: dict[str, Any]) -> bool:
    """Return whether a store is that of these files and options.

    The image folder's time of change counts only if images were missing or rows were left out,
    perhaps for want of one: images are compared one by one.
    """
    found, wanted = dict(description["made_from"]), dict(made_from)
    if not (description.get("skipped_rows") or description.get("missing_images")):
        for values in (found, wanted):
            if isinstance(images := values.get("images_directory"), list):
                values["images_directory"] = images[0]
    return found == wanted


def _made_from(source: Path, options: ReadingOptions) -> dict[str, Any]:
    """Return everything that a store depends on, as JSON would give it back."""
    values = {field.name: getattr(options, field.name) for field in fields(options)}
    for key in ("images_directory", "label_descriptions"):
        values[key] = None if values[key] is None else _fingerprint(Path(values[key]))
    size = options.size_hw
    values["size_hw"] = "of each image" if callable(size) else size and list(size)
    if options.mask_images is None:
        return values | {"source": _fingerprint(source)}
    values["mask_images"] = repr(options.mask_images)
    return values | {"source": [str(source.resolve()), fingerprint(source)]}


def _fingerprint(path: Path) -> list[Any]:
    try:
        status = path.stat()
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror})") from error
    return [str(path.resolve()), 0 if path.is_dir() else status.st_size, status.st_mtime_ns]
