"""From the prediction store to a submission: ``python -m src.postprocess predictions=STORE``."""

from __future__ import annotations

import contextlib
import json
import sys
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig
from rich.console import Console
from rich.text import Text

from src.annotations.categories import IMATERIALIST_2019_LABELS
from src.cli.entry_point import entry_point, to_plain
from src.cli.locks import working_in, writing
from src.cli.scores import (
    check_metric,
    identity_of,
    inputs_of,
    interval_of,
    score_summary,
    score_tables,
)
from src.console import PlainConsole, progress_bar, say_once
from src.errors import InputError
from src.io import check_writable
from src.metrics.scoring import write_scores
from src.postprocess.mask_source import check_fixed_masks
from src.postprocess.settings import (
    SEARCHED_KEY,
    PostprocessSettings,
    named_settings,
    plain_settings,
)
from src.tuning.dashboard import open_dashboard
from src.tuning.search_results import find_in_sample
from src.tuning.session import (
    Inputs,
    Session,
    Submitted,
    open_session,
    shared_session,
    submit,
)
from src.tuning.sweeps import (
    describe_job,
    describe_job_settings,
    describe_score,
    finished_result,
    is_sweep,
    job_overrides,
    write_result,
)


def output_path(output: str, output_dir: str) -> Path:
    """Return the path of the submission, of its own for each job of a multirun."""
    if is_sweep() and Path(output).is_absolute():
        raise InputError(
            "output must be a relative path in a multirun, where each job writes its own file, got "
            f"{output}"
        )
    return Path(output_dir) / output


def describe(
    output: Path, submitted: Submitted, settings: PostprocessSettings, session: Session
) -> Text:
    """Return what was written and warnings about it, a line each."""
    report = submitted.report
    violations = None if submitted.validation is None else submitted.validation.violations
    text = Text(
        f"{output}: {report.num_detections} detections in {report.images - report.empty_images} of "
        f"{report.images} images{', a valid submission' if violations == () else ''}\n"
        f"{submitted.steps}"
    )
    warnings = submitted.steps.warnings(settings, session.categories, session.store.category_ids)
    lines = [f"warning: {warning}" for warning in warnings]
    if violations is None and session.competition.file == "csv":
        text.append(
            "\nnote: the categories are not the competition's, so this is no submission to it: "
            "an image without a detection has a row that names it alone, not the filler"
        )
    elif report.overlapping_images:
        is_all = session.competition.disjoint == "all"
        of_one_class, value = ("", "all") if is_all else ("of one class ", "true")
        lines.append(
            f"note: in {report.overlapping_images} images masks {of_one_class}overlap, and the "
            f"competition refuses such a file; postprocess.suppress_overlaps={value} takes the "
            "overlaps away"
        )
    elif violations:
        lines.append(f"note: not a valid submission: {violations[0]}")
    if report.inexact_images:
        lines.append(
            f"note: in {report.inexact_images} images the store lacks candidates above "
            f"score_threshold={settings.score_threshold:g}, so the model itself may give other "
            "detections; raise the threshold, or predict with a lower module.min_score or a "
            "higher module.max_candidates"
        )
    lines += [f"note: {note}" for note in session.notes]
    for line in lines:
        text.append(f"\n{line}", "yellow")
    return text


def run(config: DictConfig, inputs: Inputs, console: Console) -> dict[str, Any]:
    """Write the files of one job, print what they are, and return the row of the sweep's table."""
    output = output_path(config.output, config.output_dir)
    check_writable(output)
    with progress_bar() as progress, contextlib.ExitStack() as opened:
        session = (
            shared_session(inputs, progress=progress)
            if is_sweep()
            else opened.enter_context(open_session(inputs, progress=progress))
        )
        settings = named_settings(to_plain(config.postprocess), session.categories)
        check_fixed_masks(settings, session.store)
        submitted = submit(
            output,
            session,
            settings,
            averaging=config.averaging,
            track=lambda images: progress.track(images, total=len(session.image_ids)),
        )
        in_sample = find_in_sample(
            to_plain(config.postprocess),
            session.ground_truth,
            session.evaluator.scored_image_ids,
            where="postprocess",
        )
        labels, notes = (
            (session.comparison.labels, session.comparison.notes)
            if session.comparison
            else (IMATERIALIST_2019_LABELS, ())
        )
    if is_sweep():
        for note in session.notes:
            say_once(f"note: {note}")
    else:
        console.print(describe(output, submitted, settings, session))
    score, validation = submitted.score, submitted.validation
    violations = None if validation is None else len(validation.violations)
    counts = asdict(submitted.report) | {
        "violations": violations,
        "took_most": ", ".join(submitted.steps.took_most) or None,  # names of steps
    }
    if score is None:
        return dict.fromkeys(("competition_map", "low", "high", "averaging")) | counts
    interval = interval_of(score.per_image, config)
    summary = score_summary(score, interval, use_attributes=False)
    origin: dict[str, Any] = {}
    if in_sample is not None:
        origin[SEARCHED_KEY] = in_sample.to_plain(submission=output)
        notes = (*notes, in_sample.sentence("the settings", score.image_ids))
    write_scores(output.with_name("score.json"), summary | origin, score)
    if not is_sweep():
        console.print(score_tables(score, interval, labels, notes))
        print(json.dumps(summary))
    row = {"competition_map": interval.estimate, "low": interval.low, "high": interval.high}
    return row | {"averaging": score.averaging, "scored_images": score.images} | counts


def job_in_a_line(result: Mapping[str, Any], folder: Path, *, is_done_before: bool) -> str:
    """Return the result of a job of a sweep in one line."""
    remarks = [f"{result['num_detections']} detections", folder.name]
    if result.get("violations"):
        remarks.append("not a valid submission")
    if result.get("took_most"):
        remarks.append(f"{result['took_most']} took most detections")
    if is_done_before:
        remarks.append("done before")
    columns = (describe_job(), describe_score(result), describe_job_settings(), ", ".join(remarks))
    return "  ".join(columns)


def lock(config: DictConfig) -> contextlib.AbstractContextManager[None]:
    """Return the lock of the job's folder in a multirun, else of the output file."""
    if is_sweep():
        return working_in(config.output_dir, key="hydra.sweep.dir")
    return writing(output_path(config.output, config.output_dir), key="output")


@entry_point("postprocess", lock=lock)
def main(config: DictConfig) -> float | None:
    """Write the submission, show its score and return it; None without ground truth."""
    values = plain_settings(to_plain(config.postprocess))
    check_metric(config)
    inputs = inputs_of(config)
    console = PlainConsole(file=sys.stdout, soft_wrap=True)
    if not is_sweep():
        score: float | None = run(config, inputs, console)["competition_map"]
        return score
    keys = ("averaging", "num_resamples", "confidence", "seed")
    name = config.competition.name
    identity = identity_of(inputs, config, keys, postprocess=values, competition=name)
    folder = Path(config.output_dir)
    dashboard = open_dashboard(
        config.get("logger"),
        group=f"sweep {folder.parent.name}",
        directory=folder,
        shown=folder.parent / "*",
    )
    written = output_path(config.output, config.output_dir)
    done = finished_result(folder, identity) if written.is_file() else None
    if done is None:
        result = run(config, inputs, console)
        write_result(folder, identity=identity, overrides=job_overrides(), result=result)
    else:
        result = done["result"]
    console.print(job_in_a_line(result, folder, is_done_before=done is not None), markup=False)
    if dashboard is not None:
        name = describe_job_settings() or folder.name
        if HydraConfig.get().job.num == 0:
            console.print(dashboard.location)
        dashboard.add_once(name, config={"postprocess": values}, summary=result)
    score = result["competition_map"]
    return score
