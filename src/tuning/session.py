"""The files of a post-processing run, opened; the jobs of a sweep open them once."""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from rich.progress import Progress

from src.annotations.categories import check_categories
from src.annotations.exif import AUTO
from src.annotations.image_names import file_name_of, match_ids, read_image_ids
from src.annotations.mask_folders import MASK_IMAGES, fingerprint
from src.annotations.mask_settings import MaskImageSettings
from src.annotations.sources import detect_format
from src.errors import InputError
from src.metrics.competition import ImageInstances
from src.metrics.inputs import RasterInstances
from src.metrics.scoring import Comparison, open_ground_truth
from src.postprocess.category_names import CategoryNames, names_for
from src.predictions.store import PredictionStore, find_store
from src.submission.formats import LEGAL_CATEGORIES
from src.tuning.settings_evaluator import SettingsEvaluator

log = logging.getLogger(__name__)

GROUND_TRUTH_ROOM_BYTES = 1 << 30


@dataclass(frozen=True, slots=True)
class Inputs:
    """Input files of a run."""

    predictions: str
    annotations: str | None
    sample_submission: str | None
    images: str | None  # the folder of the images
    cache_dir: str | None
    partial: bool = False  # whether a store that lacks images suffices
    exif: str = AUTO
    duplicates: str = "keep"
    mask_images: MaskImageSettings = field(default_factory=MaskImageSettings)

    def fingerprint(self) -> dict[str, Any]:
        """Return a JSON fingerprint of the input files; it changes whenever one of them does.

        Raises:
            InputError: One is missing.
        """
        files = {
            key: _fingerprint(key, getattr(self, key))
            for key in ("predictions", "annotations", "sample_submission")
        }
        choices = {"exif": (self.exif, AUTO), "duplicates": (self.duplicates, "keep")}
        choices["mask_images"] = (repr(self.mask_images), repr(MaskImageSettings()))
        return files | {key: value for key, (value, usual) in choices.items() if value != usual}


@dataclass(frozen=True, slots=True)
class Session:
    """An opened store, its images to be written, and their ground truth where it is given."""

    store: PredictionStore
    image_ids: Sequence[str]  # those that are in the store
    absent: Sequence[str]  # those of the sample that are not: only of a store that is partial
    notes: Sequence[str]  # what the user should know about images that are not in the store
    ground_truth: Mapping[str, ImageInstances]  # by image id; empty where none is given
    categories: CategoryNames
    competition: bool  # whether the competition's submission is written, filler rows and all
    comparison: Comparison | None  # None where no ground truth is given
    lab: SettingsEvaluator


class _Remembered(Mapping[str, ImageInstances]):
    """Ground-truth instances, kept once they are read as long as there is room for them."""

    def __init__(self, objects: RasterInstances, room_bytes: int) -> None:
        self._objects = objects
        self._room_bytes = room_bytes
        self._kept: dict[str, ImageInstances] = {}

    def __len__(self) -> int:
        return len(self._objects)

    def __iter__(self) -> Iterator[str]:
        return iter(self._objects)

    def __contains__(self, image_id: object) -> bool:
        return image_id in self._objects

    def __getitem__(self, image_id: str) -> ImageInstances:
        if image_id in self._kept:
            return self._kept[image_id]
        objects = self._objects[image_id]
        if objects.bitmasks.bits.nbytes <= self._room_bytes:
            self._kept[image_id] = objects
            self._room_bytes -= objects.bitmasks.bits.nbytes
        return objects


@contextlib.contextmanager
def open_session(
    inputs: Inputs,
    *,
    remember: bool = False,
    progress: Progress | None = None,
) -> Iterator[Session]:
    """Open the files; they are there while the context lasts.

    Args:
        inputs: The files.
        remember: Whether candidates, ground truth and masks are kept in memory for the next
            settings.
        progress: Where reading the ground truth shows how far it is.

    Raises:
        InputError: A file is missing or wrong, the store lacks an image of the sample, or none of
            the images has a truth.
    """
    store = PredictionStore(inputs.predictions)
    notes = store.check_whole(partial=inputs.partial)
    image_ids, absent = _chosen_images(store, inputs.sample_submission, partial=inputs.partial)
    if absent:
        notes.append(
            f"{len(absent)} of the {len(image_ids) + len(absent)} images of "
            f"{inputs.sample_submission} have no predictions: written as images without an object"
        )
    with contextlib.ExitStack() as opened:
        ground_truth: Mapping[str, ImageInstances] = {}
        comparison = None
        if inputs.annotations is not None:
            objects = opened.enter_context(
                open_ground_truth(
                    inputs.annotations,
                    images_directory=inputs.images,
                    exif=inputs.exif,
                    duplicates=inputs.duplicates,
                    mask_images=inputs.mask_images,
                    cache_dir=inputs.cache_dir,
                    ids={file_name_of(image_id): image_id for image_id in store.image_ids},
                    progress=progress,
                )
            )
            compare_categories(store, objects)
            comparison = beside_truth(objects, image_ids)
            ground_truth = _Remembered(
                objects, room_bytes=GROUND_TRUTH_ROOM_BYTES if remember else 0
            )
        categories = names_for(
            store, None if comparison is None else comparison.labels, str(inputs.annotations)
        )
        room = {} if remember else {"raster_room_bytes": 0, "candidate_room_bytes": 0}
        with_filler = comparison is not None and categories.is_competition
        lab = SettingsEvaluator(store, ground_truth, image_ids, with_filler=with_filler, **room)
        yield Session(
            store=store,
            image_ids=image_ids,
            absent=absent,
            notes=notes,
            ground_truth=ground_truth,
            categories=categories,
            competition=is_competition_submission(store, categories, inputs.sample_submission),
            comparison=comparison,
            lab=lab,
        )


def compare_categories(store: PredictionStore, ground_truth: RasterInstances) -> None:
    """Compare the classes of predictions with the ground truth's categories, and log problems.

    Raises:
        InputError: They contradict each other, see ``check_categories``.
    """
    notes = check_categories(
        store.classes,
        ground_truth.store.labels,
        instances=ground_truth.store.instances_by_category(),
        model=f"predictions={store.directory}",
        data=ground_truth.source,
    )
    for note in notes:
        log.warning(note)


_LAST: dict[str, Any] = {}  # the session of the job before, its key, and what closes it


def shared_session(inputs: Inputs, *, progress: Progress | None = None) -> Session:
    """Return the session of the job before where its files are unchanged, or a new one.

    It stays open until another takes its place, or the process ends.

    Raises:
        InputError: As for ``open_session``.
    """
    key = (inputs, repr(inputs.fingerprint()))
    if _LAST.get("key") != key:
        if _LAST:
            _LAST.pop("opened").close()
            _LAST.clear()
        opened = contextlib.ExitStack()
        session = opened.enter_context(open_session(inputs, remember=True, progress=progress))
        _LAST.update(key=key, opened=opened, session=session)
    found: Session = _LAST["session"]
    return found


def _chosen_images(
    store: PredictionStore, sample_submission: str | None, *, partial: bool
) -> tuple[Sequence[str], Sequence[str]]:
    """Return the images to write, in the file's order: those in the store, and the others."""
    if not len(store):
        raise InputError(f"{store.directory}: holds no predictions")
    if sample_submission is None:
        if not partial:
            store.check_none_failed()
        return store.image_ids, ()
    image_ids = match_ids(read_image_ids(sample_submission), store.image_ids)
    there = set(store.image_ids)
    absent = [image_id for image_id in image_ids if image_id not in there]
    if not partial or len(absent) == len(image_ids):
        store.check_image_ids(image_ids, source=sample_submission)
    return [image_id for image_id in image_ids if image_id in there], absent


def is_competition_submission(
    store: PredictionStore, categories: CategoryNames, sample_submission: str | None
) -> bool:
    """Return whether the competition's submission is written.

    A model of some of its categories, without the filler's, is told by the sample submission.
    """
    if categories.is_competition:
        return True
    return (
        sample_submission is not None
        and set(store.category_ids) <= set(LEGAL_CATEGORIES)
        and categories.has_only_competition_names
    )


def beside_truth(ground_truth: RasterInstances, image_ids: Sequence[str]) -> Comparison:
    """Return the written images that have ground truth, and notes on those of one side only."""
    known = tuple(image_id for image_id in image_ids if image_id in ground_truth)
    if not known:
        raise InputError(
            f"{ground_truth.source}: has none of the {len(image_ids)} images that are written; its "
            f"first is {next(iter(ground_truth), None)!r}, the first written {image_ids[0]!r}"
        )
    notes = []
    if len(known) < len(image_ids):
        notes.append(
            f"{len(image_ids) - len(known)} written images have no ground truth: not scored"
        )
    if len(known) < len(ground_truth):
        notes.append(
            f"{len(ground_truth) - len(known)} images of the ground truth are not written, so not "
            "scored"
        )
    return Comparison(
        ground_truth=ground_truth, prediction={}, image_ids=known, coverage_notes=tuple(notes)
    )


def _fingerprint(key: str, path: str | None) -> dict[str, Any] | None:
    """Return the path of a file or folder, and name, size and time of each file in it."""
    if path is None:
        return None
    place = find_store(Path(path)).resolve()
    if key == "annotations" and place.is_dir() and detect_format(place) == MASK_IMAGES:
        return {"path": str(place), "files": fingerprint(place)}
    files = sorted(place.iterdir()) if place.is_dir() else [place]
    try:
        stats = {file.name: file.stat() for file in files if not file.name.startswith(".")}
    except OSError as error:
        raise InputError(f"{key}={path}: cannot be read ({error.strerror})") from error
    return {
        "path": str(place),
        "files": {name: [stat.st_size, stat.st_mtime_ns] for name, stat in stats.items()},
    }
