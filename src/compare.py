"""Compare two results: ``python -m src.compare a=one.csv b=other.csv annotations=train.csv``."""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from omegaconf import DictConfig
from rich.progress import Progress

from src.annotations.competition import Competition
from src.annotations.image_names import match_ids
from src.cli.entry_point import entry_point, to_plain
from src.cli.scores import (
    check_metric,
    chosen_images,
    competition_of,
    ground_truth_of,
    interval_of,
    open_stored,
)
from src.console import progress_bar, say, say_once
from src.errors import InputError
from src.metrics.competition import ImageInstances
from src.metrics.inputs import RasterInstances
from src.metrics.intervals import check_same_images, paired_bootstrap_interval
from src.metrics.scoring import (
    compare,
    is_score_file,
    open_submission,
    read_scores,
    score_comparison,
)
from src.tuning.evaluated_image import StoredDetections
from src.tuning.search_results import InSample, find_in_sample, read_beside, read_in_sample
from src.tuning.sweeps import RESULT_NAME, job_file
from src.validation import shown

SIDES = ("a", "b")


@dataclass(frozen=True, slots=True)
class Side:
    """One of the two results that are compared."""

    scores: Mapping[str, float]  # of each image, by image id
    in_sample: InSample | None  # None if no search is known to have used these images


def scores_of(config: DictConfig, side: str, progress: Progress) -> Side:
    """Return the score of each image of one side.

    Raises:
        InputError: A file is missing or wrong, or a score file has another averaging.
    """
    path = job_file(config[side], "score.json", "submission.csv")
    if not path.exists():
        raise InputError(f"{side} must be a file or folder, got {path}: no such file or folder")
    wanted = chosen_images(config)
    if is_score_file(path):
        scores = read_scores(path)
        for key in ("averaging", "use_attributes"):
            if (own := getattr(scores, key)) != config[key]:
                raise InputError(
                    f"{key} must be {own}, as {side}={path} was made with, got {config[key]}"
                )
        rules = competition_of(config)
        usual = Competition.preset("imaterialist_2019")  # of files that do not say
        for name, own, before in (
            ("raster", rules.scored_on, usual.scored_on),
            ("strict", rules.strict, usual.strict),
            ("thresholds", list(rules.thresholds), list(usual.thresholds)),
        ):
            if (made_with := scores.content.get(name, before)) != own:
                raise InputError(
                    f"{name} must be {shown(made_with)}, as {side}={path} was made with, got "
                    f"{shown(own)} of competition={rules.name}"
                )
        kept = scores.per_image
        names = set(kept if wanted is None else match_ids(wanted, kept))
        chosen = {name: value for name, value in kept.items() if name in names}
        return Side(chosen, read_in_sample(scores.content, str(path)))
    if config.annotations is None:
        raise InputError(f"annotations must be the ground truth to score {side}={path}, got null")
    key = f"{side}_postprocess"
    with ExitStack() as opened:
        ground_truth = opened.enter_context(ground_truth_of(config, progress))
        prediction: Mapping[str, ImageInstances] = (
            open_stored(
                config, ground_truth, predictions=config[side], postprocess=key, side=f"{side}="
            )
            if path.is_dir()
            else opened.enter_context(open_submission(path, ground_truth, progress=progress))
        )
        scores_by_id = _score(ground_truth, prediction, wanted, side, config, progress)
        if isinstance(prediction, StoredDetections):
            for warning in prediction.step_warnings:
                say(f"warning: {side}: {warning}")
        in_sample = (
            find_in_sample(to_plain(config[key]), ground_truth, scores_by_id, where=key)
            if path.is_dir()
            else read_beside(path)
        )
        return Side(scores_by_id, in_sample)


def _score(
    ground_truth: RasterInstances,
    prediction: Mapping[str, ImageInstances],
    wanted: Sequence[str] | None,
    side: str,
    config: DictConfig,
    progress: Progress,
) -> Mapping[str, float]:
    """Score the wanted images that have annotations and predictions."""
    name = f"{side}={config[side]}"
    names = set(ground_truth if wanted is None else match_ids(wanted, ground_truth))
    image_ids = [one for one in ground_truth if one in prediction and one in names]
    if not image_ids:
        raise InputError(f"{name}: has none of the images of {config.annotations} to be compared")
    comparison = compare(ground_truth, prediction, prediction_name=name, image_ids=image_ids)
    score = score_comparison(comparison, averaging=config.averaging, progress=progress)
    for note in comparison.notes:
        say_once(f"note: {note}")
    return dict(zip(score.image_ids, score.per_image.tolist(), strict=True))


def in_sample_notes(sides: Mapping[str, Side]) -> dict[str, str]:
    """Return a sentence for each side whose settings were searched on the compared images."""
    notes = {
        name: side.in_sample.sentence(f"{name}'s settings", side.scores)
        for name, side in sides.items()
        if side.in_sample is not None
    }
    return {name: note for name, note in notes.items() if note}


def sweep_note(side: str, path: str) -> str | None:
    """Return a sentence if a side is one of the jobs of a sweep."""
    given = Path(path)
    folder = given if given.is_dir() else given.parent
    jobs = len(list(folder.parent.glob(f"*/{RESULT_NAME}")))
    if jobs < 2 or not (folder / RESULT_NAME).is_file():
        return None
    return (
        f"{side} is one of {jobs} jobs of a sweep: the best of many looks better than it is on the "
        "images that it was chosen by"
    )


def _in_sample_summary(side: Side) -> dict[str, Any]:
    assert side.in_sample is not None
    searched = side.in_sample.searched
    return {
        "name": searched.name,
        "images": len(side.in_sample.image_ids & set(side.scores)),
        "cross_validated_gain": asdict(searched.gain),
        "verdict": searched.verdict,
    }


@entry_point(
    "compare", renamed={f"{side}_postprocess": f"postprocess@{side}_postprocess" for side in SIDES}
)
def main(config: DictConfig) -> None:
    """Score both sides, resample the images, and show the difference with its interval."""
    check_metric(config)
    with progress_bar() as progress:
        sides = {side: scores_of(config, side, progress) for side in SIDES}
    a, b = (sides[side].scores for side in SIDES)
    check_same_images(a, b)
    options = {key: config[key] for key in ("num_resamples", "confidence", "seed")}
    per_image = {"a": list(a.values()), "b": [b[name] for name in a]}
    paired = paired_bootstrap_interval(per_image["a"], per_image["b"], **options)
    intervals = {side: interval_of(per_image[side], config) for side in SIDES}
    for side, own in intervals.items():
        print(
            f"{side}  {own.estimate:.5f}  {own.confidence:.0%} interval {own.low:.4f} to "
            f"{own.high:.4f}  {config[side]}"
        )
    gain, notes = paired.difference, in_sample_notes(sides)
    verdict = f"{paired.verdict}{', in-sample' if notes else ''}"
    print(
        f"b - a  {gain.estimate:+.5f}  {gain.confidence:.0%} interval {gain.low:+.4f} to "
        f"{gain.high:+.4f}, probability that b is better {paired.probability_better:.1%}: "
        f"{verdict} ({config.averaging}, {len(a)} images)"
    )
    for note in (*notes.values(), *(sweep_note(side, config[side]) for side in SIDES)):
        if note is not None:
            say(f"note: {note}", file=sys.stdout)
    summary = {side: asdict(own) for side, own in intervals.items()} | {
        "difference": asdict(gain),
        "probability_better": paired.probability_better,
        "verdict": verdict,
        "in_sample": {side: _in_sample_summary(sides[side]) for side in notes},
        "images": len(a),
        "averaging": config.averaging,
        "use_attributes": config.use_attributes,
    }
    print(json.dumps(summary))


if __name__ == "__main__":
    main()
