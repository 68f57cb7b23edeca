"""Input files of a post-processing run, opened once for all jobs of a sweep, and its submission."""

from __future__ import annotations

import contextlib
import hashlib
import itertools
import logging
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from rich.progress import Progress

from src.annotations.categories import check_categories
from src.annotations.coco_results import number_images, number_images_of
from src.annotations.competition import Averaging, Competition
from src.annotations.formats import detect_format
from src.annotations.image_files import AUTO
from src.annotations.image_names import file_name_of, match_ids, read_image_ids
from src.annotations.mask_folders import MASK_IMAGES, fingerprint
from src.annotations.mask_settings import MaskImageSettings
from src.errors import InputError
from src.metrics.competition import CompetitionScore, ImageInstances, ScoreAccumulator
from src.metrics.inputs import RasterInstances
from src.metrics.scoring import Comparison, open_ground_truth
from src.postprocess.category_names import CategoryNames, names_for
from src.postprocess.detections import Detections, no_detections
from src.postprocess.pipeline import StepCounts
from src.postprocess.settings import PostprocessSettings
from src.predictions.store import PredictionStore, find_store
from src.submission.validation import ValidationReport, check_submission
from src.submission.writing import SubmissionReport, write_coco_results, write_submission
from src.tuning.evaluated_image import as_submitted
from src.tuning.settings_evaluator import SettingsEvaluator

log = logging.getLogger(__name__)

MAX_GROUND_TRUTH_BYTES = 1 << 30


@dataclass(frozen=True, slots=True)
class Inputs:
    """Input files of a run."""

    predictions: str
    annotations: str | None
    sample_submission: str | None
    images: str | None  # the folder of the images
    cache_dir: str | None
    partial: bool = False  # whether the store may lack images
    exif: str = AUTO
    duplicates: str = "keep"
    mask_images: MaskImageSettings = field(default_factory=MaskImageSettings)
    competition: Competition = field(
        default_factory=lambda: Competition.preset("imaterialist_2019")
    )

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
        changed: dict[str, Any] = {
            key: value for key, (value, usual) in choices.items() if value != usual
        }
        usual_rules = [
            Competition.preset(name) for name in ("imaterialist_2019", "imaterialist_2020")
        ]
        if self.competition.score_rules not in [rules.score_rules for rules in usual_rules]:
            changed["score_rules"] = self.competition.score_rules
        return files | changed

    def digests(self) -> dict[str, str | None]:
        """Return a SHA-256 of the content of each input, which is the same on every machine."""
        keys = ("predictions", "annotations", "sample_submission")
        return {key: _digest(getattr(self, key)) for key in keys}


@dataclass(frozen=True, slots=True)
class Session:
    """An opened store, the images to write, and their ground truth where it is given."""

    store: PredictionStore
    image_ids: Sequence[str]  # images to write that are in the store
    absent: Sequence[str]  # images of the sample that a partial store lacks
    notes: Sequence[str]  # for the user, about images that are not in the store
    ground_truth: Mapping[str, ImageInstances]  # by image id; empty where none is given
    categories: CategoryNames
    competition: Competition  # rules of the submission, see Competition.for_data
    is_own: bool  # whether the data is the competition's
    numbers: Mapping[str, int]  # COCO's ids of the images, for a file of COCO results
    comparison: Comparison | None  # None where no ground truth is given
    evaluator: SettingsEvaluator


class _CachedInstances(Mapping[str, ImageInstances]):
    """Ground-truth instances that stay in memory once they are read, up to a limit."""

    def __init__(self, instances: RasterInstances, max_bytes: int) -> None:
        self._instances = instances
        self._free_bytes = max_bytes
        self._kept: dict[str, ImageInstances] = {}

    def __len__(self) -> int:
        return len(self._instances)

    def __iter__(self) -> Iterator[str]:
        return iter(self._instances)

    def __contains__(self, image_id: object) -> bool:
        return image_id in self._instances

    def __getitem__(self, image_id: str) -> ImageInstances:
        if image_id in self._kept:
            return self._kept[image_id]
        instances = self._instances[image_id]
        if (num_bytes := instances.bitmasks.bits.nbytes) <= self._free_bytes:
            self._kept[image_id] = instances
            self._free_bytes -= num_bytes
        return instances


@contextlib.contextmanager
def open_session(
    inputs: Inputs, *, remember: bool = False, progress: Progress | None = None
) -> Iterator[Session]:
    """Open the files for the duration of a ``with`` block.

    Args:
        inputs: The files.
        remember: Whether candidates, ground truth and masks stay in memory for the next settings.
        progress: Progress bars; reading the ground truth adds one.

    Raises:
        InputError: A file is missing or wrong, the store lacks an image of the sample, or no image
            has ground truth.
    """
    store = PredictionStore(inputs.predictions)
    notes = store.check_whole(partial=inputs.partial)
    image_ids, absent = _chosen_images(store, inputs.sample_submission, partial=inputs.partial)
    if absent:
        notes.append(
            f"{len(absent)} of the {len(image_ids) + len(absent)} images of "
            f"{inputs.sample_submission} have no predictions: written as images without detections"
        )
    with contextlib.ExitStack() as opened:
        ground_truth: Mapping[str, ImageInstances] = {}
        comparison = None
        if inputs.annotations is not None:
            instances = opened.enter_context(
                open_ground_truth(
                    inputs.annotations,
                    images_directory=inputs.images,
                    exif=inputs.exif,
                    duplicates=inputs.duplicates,
                    mask_images=inputs.mask_images,
                    cache_dir=inputs.cache_dir,
                    ids={file_name_of(image_id): image_id for image_id in store.image_ids},
                    competition=inputs.competition,
                    progress=progress,
                )
            )
            compare_categories(store, instances)
            comparison = beside_truth(instances, image_ids)
            ground_truth = _CachedInstances(instances, MAX_GROUND_TRUTH_BYTES if remember else 0)
        categories = names_for(
            store, None if comparison is None else comparison.labels, str(inputs.annotations)
        )
        limits = {} if remember else {"max_raster_bytes": 0, "max_candidate_bytes": 0}
        rules = inputs.competition
        own_rules = rules.for_submission(
            categories.names,
            store.category_ids,
            has_sample=inputs.sample_submission is not None,
        )
        yield Session(
            store=store,
            image_ids=image_ids,
            absent=absent,
            notes=notes,
            ground_truth=ground_truth,
            categories=categories,
            competition=own_rules,
            is_own=own_rules is rules and rules.file == "csv",
            numbers=_numbers(inputs, [*image_ids, *absent]),
            comparison=comparison,
            evaluator=SettingsEvaluator(
                store,
                ground_truth,
                image_ids,
                competition=rules.for_data(categories.names),
                **limits,
            ),
        )


def _numbers(inputs: Inputs, image_ids: Sequence[str]) -> Mapping[str, int]:
    """Return COCO's ids of images where the competition takes COCO results, else none."""
    if inputs.competition.file != "coco_results":
        return {}
    if inputs.annotations is None:
        return number_images(image_ids, None, source=inputs.predictions)
    return number_images_of(inputs.annotations, image_ids)


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


_LAST: dict[str, Any] = {}  # the previous job's session, its key, and the stack that closes it


def shared_session(inputs: Inputs, *, progress: Progress | None = None) -> Session:
    """Return the previous job's session where its files are unchanged, otherwise a new one.

    The session stays open until another replaces it or the process ends.

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
    """Return the images to write that are in the store, and the others, in the file's order."""
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


def beside_truth(ground_truth: RasterInstances, image_ids: Sequence[str]) -> Comparison:
    """Return the comparison of the written images that have ground truth, without predictions.

    Raises:
        InputError: None of the images has ground truth.
    """
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
    """Return the path of a file or folder, and the size and time of each file in it, by name."""
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


def _digest(path: str | None) -> str | None:
    """Return a SHA-256 of the names and the content of a file, or of all in a folder."""
    if path is None:
        return None
    place = find_store(Path(path))
    digest = hashlib.sha256()
    for file in sorted(place.rglob("*")) if place.is_dir() else [place]:
        name = file.relative_to(place).as_posix()
        if not file.is_file() or name.startswith(".") or "/." in name:
            continue
        with file.open("rb") as content:
            digest.update(f"{name}\n".encode())
            digest.update(hashlib.file_digest(content, "sha256").digest())
    return digest.hexdigest()


@dataclass(frozen=True, slots=True)
class Submitted:
    """A written submission."""

    report: SubmissionReport
    # of the written file, against the competition's rules; None where they do not hold for the data
    validation: ValidationReport | None
    score: CompetitionScore | None  # None without ground truth
    steps: StepCounts


def submit(
    output: Path,
    session: Session,
    settings: PostprocessSettings,
    *,
    averaging: Averaging,
    track: Callable[[Iterable[Detections]], Iterable[Detections]],
) -> Submitted:
    """Write a submission, validate the file, and score the images that have ground truth.

    ``track`` passes the images through and shows the progress.

    Raises:
        InputError: The file cannot be written, or the store is damaged.
    """
    evaluator, steps = session.evaluator, StepCounts()
    rules = evaluator.competition
    accumulator = ScoreAccumulator(averaging, rules.rule, rules.scored_on)
    is_scored_raster = rules.raster == rules.scored_on

    def detect() -> Iterator[Detections]:
        """Yield the detections of each image, counted and, on the scored raster, scored."""
        for detections in evaluator.detections(settings, raster=rules.raster):
            if is_scored_raster and detections.image_id in session.ground_truth:
                predicted = as_submitted(detections, filler=rules.filler)
                accumulator.add(session.ground_truth[detections.image_id], predicted)
            steps.add(len(detections), detections.taken)
            yield detections

    found = itertools.chain(track(detect()), map(no_detections, session.absent))
    if session.competition.file == "coco_results":
        report = write_coco_results(output, found, session.numbers)
    else:
        report = write_submission(output, found, competition=session.competition)
    score = None
    if session.comparison is not None and is_scored_raster:
        score = accumulator.result()
    elif session.comparison is not None:
        score = evaluator.score(settings, averaging=averaging)
    validation = _validate(output, session) if session.is_own else None
    return Submitted(report, validation, score, steps)


def _validate(output: Path, session: Session) -> ValidationReport:
    store, competition = session.store, session.competition
    names = {competition.image_id(image_id): image_id for image_id in session.image_ids}
    return check_submission(
        output,
        competition=competition,
        image_ids=[*names, *map(competition.image_id, session.absent)],
        sizes_hw={name: store.size_hw(store.index_of(own)) for name, own in names.items()},
    )
