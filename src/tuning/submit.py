"""Writing the submission of some settings, scored and checked on the way."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from src.annotations.sources import default_labels
from src.metrics.competition import Averaging, CompetitionScore, ScoreAccumulator
from src.postprocess.detections import Detections, no_detections
from src.postprocess.pipeline import StepCounts
from src.postprocess.settings import PostprocessSettings
from src.submission.formats import SubmissionFormat
from src.submission.validation import ValidationReport, check_submission
from src.submission.writing import SubmissionReport, write_submission
from src.tuning.session import Session
from src.tuning.submitted import as_submitted

SCORED_RASTER = "512x512"


@dataclass(frozen=True, slots=True)
class Submitted:
    """A written submission."""

    report: SubmissionReport
    # of the written file, against the competition's rules; None where it is of other data
    findings: ValidationReport | None
    score: CompetitionScore | None  # None where no ground truth is known
    steps: StepCounts


def submit(
    output: Path,
    session: Session,
    settings: PostprocessSettings,
    *,
    submission_format: SubmissionFormat,
    averaging: Averaging,
    track: Callable[[Iterable[Detections]], Iterable[Detections]],
) -> Submitted:
    """Write a submission, check the file, and score the images whose ground truth is known.

    Args:
        output: The file to write.
        session: Opened files.
        settings: Thresholds and rules.
        submission_format: The format.
        averaging: ``per_class`` or ``pooled``.
        track: Passes images through and shows how far it is.

    Raises:
        InputError: The file cannot be written, or the store is damaged.
    """
    accumulator = ScoreAccumulator(averaging=averaging)
    objects: Iterable[Detections] = session.lab.detections(
        settings, raster=submission_format.raster
    )
    is_scored_raster = submission_format.raster == SCORED_RASTER
    if is_scored_raster:
        objects = _scored(objects, session, accumulator)
    steps = StepCounts()
    objects = itertools.chain(track(_counted(objects, steps)), map(no_detections, session.absent))
    report = write_submission(
        output, objects, submission_format=submission_format, competition=session.competition
    )
    score = None
    if session.comparison is not None:
        score = (
            accumulator.result()
            if is_scored_raster
            else session.lab.score(settings, averaging=averaging)
        )
    findings = _check(output, session, submission_format) if session.competition else None
    return Submitted(report, findings, score, steps)


def _counted(detections: Iterable[Detections], steps: StepCounts) -> Iterator[Detections]:
    """Pass detections through, and count what the steps took."""
    for objects in detections:
        steps.add(len(objects), objects.taken)
        yield objects


def _scored(
    detections: Iterable[Detections], session: Session, accumulator: ScoreAccumulator
) -> Iterator[Detections]:
    """Pass detections through, and score those whose ground truth is known."""
    for objects in detections:
        if objects.image_id in session.ground_truth:
            predicted = as_submitted(objects, with_filler=session.lab.with_filler)
            accumulator.add(session.ground_truth[objects.image_id], predicted)
        yield objects


def _check(output: Path, session: Session, submission_format: SubmissionFormat) -> ValidationReport:
    names = {submission_format.image_id(image_id): image_id for image_id in session.image_ids}
    absent = map(submission_format.image_id, session.absent)
    return check_submission(
        output,
        submission_format=submission_format,
        image_ids=[*names, *absent],
        labels=default_labels(submission_format.name),
        sizes_hw={
            name: session.store.size_hw(session.store.index_of(image_id))
            for name, image_id in names.items()
        },
    )
