"""Build an annotation store from an annotation file, streamed, whole or not at all.

File locks make this POSIX only (Linux, macOS): ``fcntl`` does not exist on Windows.
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import logging
import shutil
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache as remember
from functools import partial
from pathlib import Path
from typing import Any

from src.annotations.categories import label_descriptions_to_json, read_label_descriptions
from src.annotations.exif import AUTO, ExifReadings, ReadOtherwiseError
from src.annotations.image_files import (
    IMAGE_FILES,
    check_image_files,
    look_at_images,
    write_image_files,
)
from src.annotations.image_sizes import ImageSizes, SizeFinding
from src.annotations.mask_folders import MASK_IMAGES, fingerprint
from src.annotations.mask_settings import MaskImageSettings
from src.annotations.rows import BadRowHandler, ProgressCallback, SizeOf, Source
from src.annotations.sources import detect_format, labels_beside, open_source, skipped_beside
from src.annotations.store import (
    FORMAT_VERSION,
    STORE,
    TABLES,
    AnnotationStore,
    describe_files,
    read_description,
)
from src.annotations.store_checks import check_store_sizes, open_store
from src.annotations.store_writer import StoreWriter
from src.errors import InputError
from src.io import fitting_name, fsync, make_directory, seal, working_directory, writing_problem

log = logging.getLogger(__name__)

DUPLICATES = ("keep", "drop")


@dataclass(frozen=True, slots=True)
class BuildReport:
    """What was read from a source."""

    source: Path
    kind: str  # imaterialist_2019, imaterialist_2020, coco or mask_images
    images: int
    objects: int
    images_without_instances: int
    empty_masks: int  # objects whose mask has no pixel; they are kept
    crowd_regions: int  # objects marked iscrowd
    skipped_rows: int
    skipped_file: Path | None  # where the skipped rows are, None where there are none
    size_findings: tuple[SizeFinding, ...]
    notes: tuple[str, ...]


def build_store(
    source: str | Path,
    directory: str | Path,
    *,
    images_directory: str | Path | None = None,
    exif: str = AUTO,
    exif_undecided: str | None = None,
    missing_images: str = "refuse",
    on_bad_rows: str = "error",
    duplicates: str = "keep",
    skipped_file: str | Path | None = None,
    label_descriptions: str | Path | None = None,
    size_hw: tuple[int, int] | SizeOf | None = None,
    mask_images: MaskImageSettings | None = None,
    on_progress: ProgressCallback | None = None,
) -> BuildReport:
    """Read an annotation file of any format into a store folder.

    Args:
        source: A 2019 or 2020 CSV, COCO JSON, or a folder of mask images; told apart by content.
        directory: The folder to make; a store that stands there is replaced.
        images_directory: The images, to compare sizes with and to repair transposed ones.
        exif: Which image masks were made on where an EXIF orientation turns it: ``as_displayed``,
            ``as_stored``, or ``auto``, see ``exif_readings``.
        exif_undecided: What ``auto`` takes where nothing decides; None: that is refused.
        missing_images: ``refuse`` the rows of an image whose image is missing or damaged, or
            ``keep`` them with the size as annotated.
        on_bad_rows: ``error`` or ``skip``.
        duplicates: ``keep`` or ``drop`` objects that have the image, category, attributes and mask
            of an earlier one; they are counted either way.
        skipped_file: Where ``skip`` writes the rows left out; default: ``directory`` with
            ``.skipped.csv`` behind it.
        label_descriptions: The legal categories and attributes as a JSON file; default: the file
            ``<source>.label_descriptions.json``, what a COCO source carries, those of 2019.
        size_hw: Size in pixels of all images, or of the image of an image id, for a CSV
            without Height and Width.
        mask_images: How a folder of mask images is read; None: the defaults.
        on_progress: Called with the number of bytes read and their total.

    Raises:
        InputError: The source cannot be read, a row is bad and ``on_bad_rows`` is ``error``,
            nothing tells how masks are to be read and ``exif`` is ``auto``, or ``directory`` is
            something else than a store. Nothing is left behind.
    """
    source, directory = Path(source), Path(directory)
    check_duplicates(duplicates)
    if size_hw is not None and not callable(size_hw):
        size_hw = _check_size(size_hw)
    if directory.exists() and not (directory / "store.json").is_file():
        raise InputError(
            f"output must be a new folder or an annotation store to replace, got {directory}"
        )
    label_descriptions = _label_file(source, label_descriptions)
    labels = None if label_descriptions is None else read_label_descriptions(label_descriptions)
    open_again = partial(
        open_source,
        source,
        labels=labels,
        size_hw=size_hw,
        mask_images=mask_images,
        images_directory=None if images_directory is None else Path(images_directory),
        on_progress=on_progress,
    )
    opened = open_again()
    sizes = ImageSizes(
        images_directory, name_key=opened.name_key, missing_are_kept=missing_images == "keep"
    )
    description = {
        "format_version": FORMAT_VERSION,
        "source": str(source.resolve()),
        "made_from": _made_from(
            source=source,
            images_directory=images_directory,
            exif=exif,
            missing_images=missing_images,
            on_bad_rows=on_bad_rows,
            duplicates=duplicates,
            label_descriptions=label_descriptions,
            size_hw=size_hw,
            mask_images=mask_images,
        ),
    }

    def write(new: Path, opened: Source, readings: ExifReadings) -> BuildReport:
        """Read the source once, into a folder that is not there."""
        bad_rows = BadRowHandler(
            source=source,
            on_bad_rows=on_bad_rows,
            skipped_file=Path(skipped_file or skipped_beside(directory)),
        )
        writer = StoreWriter(
            source=opened,
            sizes=sizes,
            readings=readings,
            bad_rows=bad_rows,
            drop_duplicates=duplicates == "drop",
        )
        new.mkdir()
        with bad_rows:
            writer.write(new)
            readings.settle(str(source))
            findings = tuple(sizes.findings(readings.by_image()))
            notes = [*opened.notes, *readings.notes(), *writer.notes()]
            for name in TABLES:
                fsync(new / name)
            whole = description | {
                "source_kind": opened.kind,
                "labels": label_descriptions_to_json(opened.labels),
                "runs_batch_starts": writer.runs_batch_starts,
                "skipped_rows": bad_rows.count,
                "duplicates_kept": writer.duplicates if duplicates == "keep" else 0,
                "notes": notes,
                "sizes_compared": images_directory is not None,
                "missing_images": sizes.num_missing,
                "exchanged_sizes": [found.image_id for found in findings if found.repaired],
                "files": describe_files(new),
            }
            (new / "store.json").write_text(json.dumps(seal(whole)), encoding="utf-8")
            fsync(new / "store.json")
            fsync(new)
        return BuildReport(
            source=source,
            kind=opened.kind,
            images=writer.images,
            objects=writer.objects,
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
            report = write(new, opened, ExifReadings(exif, undecided=exif_undecided))
        except ReadOtherwiseError as found:
            new = work / "again"
            report = write(new, open_again(), ExifReadings(exif, decided=found.readings))
        if directory.exists():
            directory.replace(work / "old")
        new.replace(directory)
        fsync(directory.parent)
    return report


def open_or_build(
    source: str | Path,
    cache_dir: str | Path,
    *,
    fallback_directory: str | Path | None = None,
    images_directory: str | Path | None = None,
    exif: str = AUTO,
    missing_images: str = "refuse",
    on_bad_rows: str = "error",
    duplicates: str = "keep",
    label_descriptions: str | Path | None = None,
    size_hw: tuple[int, int] | None = None,
    mask_images: MaskImageSettings | None = None,
    on_progress: ProgressCallback | None = None,
    on_built: Callable[[BuildReport], None] | None = None,
) -> AnnotationStore:
    """Open the store of an annotation file; build it if there is none, or its source has changed.

    It is built again, too, where a file of it is damaged.

    What counts as a change: path, size and time of change of the source (of a folder of mask
    images, name, size and time of each file) and of the label file, the image folder's path, and
    the other arguments; the folder's time of change, too, where rows were left out. An image whose
    size has changed since is an error. Processes that ask at the same time (the ranks of a
    training) wait for the one that builds.

    Args:
        source: An annotation file of any format, or a store folder, which is opened as it is.
        cache_dir: Where stores are kept, each in a folder named by source and arguments.
        fallback_directory: Where they are kept instead if that cannot be written (data on a
            read-only disk). A store that is there already is used where it is.
        images_directory: As for ``build_store``, like the others. A store that was made without
            images is refused where one of them is turned or has another shape.
        on_built: Called with the report where a store was built.

    Raises:
        InputError: As ``build_store``; an image has another size than when the store was built.
    """
    source, cache = Path(source), Path(cache_dir)
    kind = detect_format(source)
    if kind == STORE:
        given = open_store(source)
        check_store_sizes(given, images_directory, exif=exif)
        check_store_duplicates(given, duplicates)
        return given
    options: dict[str, Any] = {
        "images_directory": images_directory,
        "exif": exif,
        "missing_images": missing_images,
        "on_bad_rows": on_bad_rows,
        "duplicates": duplicates,
        "label_descriptions": _label_file(source, label_descriptions),
        "size_hw": size_hw,
    }
    if kind == MASK_IMAGES:
        options["mask_images"] = mask_images or MaskImageSettings()
    made_from = _made_from(source=source, **options)
    key = hashlib.sha256(repr((source.resolve(), options)).encode()).hexdigest()[:12]
    name = fitting_name(source.stem, f"-{key}.store")
    if problem := writing_problem(cache):
        store = _open_current(cache / name, made_from, images_directory, writable=False)
        if store is not None:
            return store
        cache = _fall_back(cache, fallback_directory, problem)
    directory = cache / name
    make_directory(cache)
    with (cache / fitting_name(f".{directory.name}", ".lock")).open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        store = _open_current(directory, made_from, images_directory)
        if store is None:
            report = build_store(source, directory, on_progress=on_progress, **options)
            if on_built is not None:
                on_built(report)
            store = AnnotationStore(directory)
            if images_directory is not None:
                names = [image.file_name for image in store.images]
                found = look_at_images(Path(images_directory), names, {})
                write_image_files(directory / IMAGE_FILES, found)
        return store


def check_duplicates(duplicates: str) -> None:
    """Check the choice.

    Raises:
        InputError: It is none.
    """
    if duplicates not in DUPLICATES:
        raise InputError(f"duplicates must be {' or '.join(DUPLICATES)}, got {duplicates!r:.60}")


def check_store_duplicates(store: AnnotationStore, duplicates: str) -> None:
    """Refuse to drop duplicates of a store that was made with them.

    Raises:
        InputError: As ``check_duplicates``; or the store has some and ``drop`` is asked for.
    """
    check_duplicates(duplicates)
    if (kept := store.description.get("duplicates_kept")) and duplicates == "drop":
        raise InputError(
            f"duplicates must be keep for a store that was made with {kept} exact duplicates, got "
            f"drop ({store.directory}); make it again: python -m src.convert "
            f"annotations={store.description['source']} duplicates=drop output={store.directory}"
        )


def _label_file(source: Path, given: str | Path | None) -> Path | None:
    """Return the label file to use: the one given, else one beside the source by its name."""
    if given is not None:
        return Path(given)
    beside = labels_beside(source)
    return beside if beside.is_file() else None


def _check_size(size_hw: Sequence[int]) -> tuple[int, int]:
    if len(size_hw) != 2 or any(type(edge) is not int or edge < 1 for edge in size_hw):
        raise InputError(f"size_hw must be height and width in pixels, got {list(size_hw)}")
    return size_hw[0], size_hw[1]


def _open_current(
    directory: Path,
    made_from: dict[str, Any],
    images_directory: str | Path | None,
    *,
    writable: bool = True,
) -> AnnotationStore | None:
    """Open the store in a cache; None where it is absent, of another source, or damaged.

    Raises:
        InputError: An image has another size than when the store was built.
    """
    if not directory.exists():
        return None
    try:
        description = read_description(directory)
        if not _is_made_from(description, made_from):
            return None
        store = AnnotationStore(directory)
        store.image_files()
    except InputError as error:
        log.warning("built anew: %s", error)
    else:
        if images_directory is not None:
            names = [image.file_name for image in store.images]
            if not check_image_files(directory, Path(images_directory), names, record=writable):
                return None
        return store
    if writable and not (directory / "store.json").is_file():  # build_store would not replace it
        shutil.rmtree(directory)
    return None


def _fall_back(cache: Path, fallback: str | Path | None, problem: str) -> Path:
    if fallback is None:
        raise InputError(f"cache_dir must be a folder to write to, got {cache}: {problem}")
    _say_once(
        f"{cache} cannot be written ({problem}): what is read of the annotations is kept in "
        f"{fallback}"
    )
    return Path(fallback)


@remember
def _say_once(text: str) -> None:
    log.warning("%s", text)


def _is_made_from(description: dict[str, Any], made_from: dict[str, Any]) -> bool:
    """Return whether a store is that of these files and arguments.

    The image folder's time of change counts only where images were missing or rows were left out,
    perhaps for want of one: images are compared one by one.
    """

    def compared(values: dict[str, Any]) -> dict[str, Any]:
        images = values.get("images")
        incomplete = description.get("skipped_rows") or description.get("missing_images")
        if incomplete or not isinstance(images, list):
            return values
        return values | {"images": images[0]}

    return compared(description["made_from"]) == compared(made_from)


def _made_from(
    *,
    source: Path,
    images_directory: str | Path | None,
    exif: str,
    missing_images: str,
    on_bad_rows: str,
    duplicates: str,
    label_descriptions: str | Path | None,
    size_hw: tuple[int, int] | SizeOf | None,
    mask_images: MaskImageSettings | None = None,
) -> dict[str, Any]:
    """Return everything a store depends on, as JSON would give it back."""
    made_from = {
        "source": _fingerprint(source),
        "images": None if images_directory is None else _fingerprint(Path(images_directory)),
        "labels": None if label_descriptions is None else _fingerprint(Path(label_descriptions)),
        "exif": exif,
        "missing_images": missing_images,
        "on_bad_rows": on_bad_rows,
        "duplicates": duplicates,
        "size_hw": "of each image" if callable(size_hw) else size_hw and list(size_hw),
    }
    if source.is_dir():
        settings = mask_images or MaskImageSettings()
        made_from |= {"source": [str(source.resolve()), fingerprint(source), repr(settings)]}
    return made_from


def _fingerprint(path: Path) -> list[Any]:
    try:
        status = path.stat()
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror})") from error
    return [str(path.resolve()), 0 if path.is_dir() else status.st_size, status.st_mtime_ns]
