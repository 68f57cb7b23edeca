"""Import predictions: ``python -m src.import_predictions input=R annotations=A output=STORE``."""

from __future__ import annotations

import hashlib
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from omegaconf import DictConfig
from rich.progress import Progress, TaskID

from src.annotations.categories import CLASS_NAMES_KEY, LabelDescriptions
from src.annotations.coco import COCO, read_coco_images
from src.annotations.formats import detect_format
from src.annotations.image_names import match_ids
from src.annotations.instances import ImageRecord
from src.annotations.json_stream import starts_with_list
from src.annotations.mask_folders import MASK_IMAGES
from src.annotations.store import STORE
from src.cli.entry_point import entry_point
from src.cli.locks import working_in
from src.cli.scores import chosen_images, ground_truth_of
from src.console import PlainConsole, progress_bar, say
from src.errors import InputError
from src.io import check_writable, working_directory
from src.metrics.inputs import RasterInstances
from src.metrics.scoring import images_of_results, open_submission
from src.predictions.files import FIXED, META_NAME, list_shards
from src.predictions.importing import candidates_of, write_results
from src.predictions.results import ResultBlock, ResultImages, ResultReader
from src.predictions.store import IMPORTED_KEY, PredictionStore, PredictionStoreWriter
from src.validation import check_value, whole

RESULTS, SUBMISSION = "COCO results", "submission"
OFFSET = whole(-1000, 1000)
USE = (
    "its masks are fixed: mask thresholds are refused, every other setting works; "
    "postprocess=unchanged takes the detections as they are"
)


def places_of(images: Sequence[ImageRecord], image_ids: Sequence[str] | None) -> list[int]:
    """Return the places of these images, of all if None.

    Raises:
        InputError: One of them is not there.
    """
    places = {record.image_id: place for place, record in enumerate(images)}
    if image_ids is None:
        return list(places.values())
    found = match_ids(image_ids, places)
    if unknown := [name for name in found if name not in places]:
        raise InputError(
            f"split must have images of the annotations, got {unknown[0]!r:.100} and "
            f"{len(unknown) - 1} others that they lack"
        )
    return sorted(places[name] for name in found)


def kind_of(path: Path) -> str:
    """Return what the input is.

    Raises:
        InputError: It is missing, or neither COCO results nor a submission.
    """
    legal = "input must be COCO results (a JSON list) or a submission (CSV), got"
    if not path.exists():
        raise InputError(f"{legal} {path}: no such file")
    kind = detect_format(path)
    if kind in (STORE, MASK_IMAGES):
        raise InputError(f"{legal} the folder {path}")
    if kind != COCO:
        return SUBMISSION
    if not starts_with_list(path):
        raise InputError(f"{legal} a JSON object ({path}): annotations are no predictions")
    return RESULTS


def read_images(config: DictConfig, progress: Progress) -> tuple[ResultImages, LabelDescriptions]:
    """Read the images of the annotations, and their categories.

    The masks of a COCO file are not read, unless ``images`` is given to repair its sizes.
    """
    path, kind = Path(config.annotations), config.image_ids
    is_coco = detect_format(path) == COCO
    if not is_coco or config.images is not None:
        with ground_truth_of(config, progress) as truth:
            return images_of_results(truth, image_ids=kind), truth.store.labels
    by_id, labels = read_coco_images(path, on_progress=_bytes_of(progress, path))
    records = {record.image_id: record for record in by_id.values()}
    if not records:
        raise InputError(f"annotations must have one image or more, got none ({path})")
    places = {image_id: place for place, image_id in enumerate(sorted(records))}
    numbers: dict[int | str, int] = {one: places[own.image_id] for one, own in by_id.items()}
    ordered = [records[image_id] for image_id in places]
    return ResultImages(ordered, numbers, source=str(path), kind=kind), labels


def writer_of(
    config: DictConfig, kind: str, labels: LabelDescriptions, image_ids: Sequence[str]
) -> Callable[[], PredictionStoreWriter]:
    """Return a function that opens the store, after a check that the folder is free or the same."""
    path = Path(config.input)
    with path.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    origin = {"name": path.name, "kind": kind, "sha256": digest}
    files = {key: config[key] and Path(config[key]).name for key in ("annotations", "split")}
    choices = {key: config[key] for key in ("image_ids", "category_offset")}
    return partial(
        PredictionStoreWriter,
        config.output,
        category_ids=labels.category_ids,
        settings={
            IMPORTED_KEY: origin | files | choices,
            CLASS_NAMES_KEY: list(labels.category_names.values()),
        },
        mask_dtype=FIXED,
        expected_image_ids=image_ids,
    )


def is_done(
    open_writer: Callable[[], PredictionStoreWriter], directory: Path, image_ids: Sequence[str]
) -> bool:
    """Return whether the store is there and complete.

    Raises:
        InputError: The folder holds another store.
    """
    if not (directory / META_NAME).exists() or not list_shards(directory):
        return False
    writer = open_writer()
    if not set(image_ids) <= writer.written_image_ids:
        return False
    writer.close()
    return True


def import_results(config: DictConfig, progress: Progress) -> list[str]:
    """Write the store of COCO results, and return notes for the user."""
    path, output = Path(config.input), Path(config.output)
    images, labels = read_images(config, progress)
    chosen = places_of(images.images, chosen_images(config))
    names = [images.images[place].image_id for place in chosen]
    open_writer = writer_of(config, RESULTS, labels, names)
    if is_done(open_writer, output, names):
        return ["the store was there before, of the same file"]
    reader = ResultReader(path, images, labels, category_offset=config.category_offset)
    task = progress.add_task("writing", total=len(chosen))
    with working_directory(next_to=output) as directory:
        write_results(
            reader,
            images.images,
            open_writer,
            chosen=chosen,
            num_bytes=path.stat().st_size,
            directory=directory,
            on_read=_bytes_of(progress, path),
            on_written=lambda: progress.advance(task),
        )
    of_chosen = reader.counts[chosen]
    notes = []
    if without := int((of_chosen == 0).sum()):
        notes.append(f"{without} of the {len(chosen)} images have no result: no detection there")
    if others := reader.num_entries - int(of_chosen.sum()):
        notes.append(f"{others} results of images that are not in split={config.split}, left out")
    if reader.num_empty:
        notes.append(f"{reader.num_empty} results have a mask without a pixel")
    return notes


def import_submission(config: DictConfig, progress: Progress) -> list[str]:
    """Write the store of a submission, and return notes for the user."""
    wanted = chosen_images(config)
    with ExitStack() as opened:
        truth = opened.enter_context(ground_truth_of(config, progress))
        submission = opened.enter_context(open_submission(config.input, truth, progress=progress))
        names = [name for name in truth if name in submission]
        if wanted is not None:
            inside = set(match_ids(wanted, names))
            names = [name for name in names if name in inside]
        if not names:
            raise InputError(
                f"input must have images of {truth.source}, got none of them ({config.input})"
            )
        open_writer = writer_of(config, SUBMISSION, truth.store.labels, names)
        if is_done(open_writer, Path(config.output), names):
            return ["the store was there before, of the same file"]
        notes = ["a submission has no scores: each detection has score 1, in the order of the rows"]
        lost = {"attributes": 0, "empty": 0}
        with open_writer() as writer:
            for found, without_pixel, with_attributes in progress.track(
                _submitted(truth, submission, names), total=len(names), description="writing"
            ):
                writer.add(found)
                lost["empty"] += without_pixel
                lost["attributes"] += with_attributes
        if others := len(submission) - len(names):
            notes.append(f"{others} images of the submission are left out: not in the annotations")
        if lost["empty"]:
            notes.append(
                f"{lost['empty']} rows have a mask without a pixel, which src.score counts as "
                "wrong: left out"
            )
        if lost["attributes"]:
            notes.append(f"attributes of {lost['attributes']} rows are left out")
        return notes


def _submitted(
    truth: RasterInstances, submission: RasterInstances, names: Sequence[str]
) -> Iterator[tuple[Any, int, int]]:
    """Yield the candidates of each image, and the numbers of rows without pixel, of attributes."""
    for name in names:
        instances, counted = submission.instances(name)
        kept = np.flatnonzero(counted & (instances.areas_px > 0))
        record, masks = truth.record(name), instances.masks[kept]
        boxes = masks.boxes_xyxy().astype(np.float64)
        if len(masks):
            scale = np.array(record.size_hw[::-1]) / masks.size_hw[::-1]
            boxes *= np.tile(scale, 2)
        block = ResultBlock(
            places=np.zeros(len(kept), np.int32),
            category_ids=instances.category_ids[kept],
            scores=np.ones(len(kept)),
            boxes_xyxy=boxes.astype(np.float32),
            masks=masks,
        )
        image = ImageRecord(name, record.file_name, *record.size_hw)
        num_attributes = sum(map(bool, (instances.attribute_ids[row] for row in kept)))
        yield candidates_of(image, block), int(counted.sum()) - len(kept), num_attributes


def _bytes_of(progress: Progress, path: Path) -> Callable[[int, int], None]:
    task: TaskID = progress.add_task(f"reading {path.name}", total=None)
    return lambda done, total: progress.update(task, completed=done, total=total)


@entry_point("import_predictions", lock=lambda config: working_in(config.output, key="output"))
def main(config: DictConfig) -> None:
    """Import, with a progress bar, and say what became of it."""
    check_value("category_offset", config.category_offset, OFFSET)
    check_writable(Path(config.output) / META_NAME)
    kind = kind_of(Path(config.input))
    with progress_bar() as progress:
        importer = import_results if kind == RESULTS else import_submission
        notes = importer(config, progress)
    store = PredictionStore(config.output)
    counts = [store.count(index) for index in range(len(store))]
    PlainConsole(file=sys.stdout, soft_wrap=True).print(
        f"{config.output}: {sum(counts)} detections in {sum(map(bool, counts))} of {len(store)} "
        f"images, of the {kind} {config.input}\n{USE}"
    )
    for note in notes:
        say(f"note: {note}")


if __name__ == "__main__":
    main()
