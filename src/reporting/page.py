"""Report pages: of one result, with its best and worst images, and of a sweep."""

from __future__ import annotations

import base64
import io
import itertools
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from jinja2 import Environment, PackageLoader, StrictUndefined, Template
from PIL import Image

from src.annotations.categories import LabelDescriptions
from src.annotations.image_files import read_image_rgb
from src.annotations.image_names import find_image, is_image_name
from src.errors import InputError
from src.io import write_bytes, write_text
from src.metrics.competition import CompetitionScore, split_key
from src.metrics.errors import BANDS, GROUPS, KINDS, POOR_MASK, SIZES, ErrorReport
from src.metrics.intervals import Interval, bootstrap_bands
from src.metrics.scoring import Comparison
from src.reporting import charts
from src.reporting.drawing import (
    DrawnComparison,
    RgbImage,
    compare_instances,
    draw_instances,
    draw_side_by_side,
    fit,
    fitting_hw,
)
from src.reporting.palette import css_colour
from src.tuning.sweeps import TABLE_NAMES, SweepResults

SHOWN_CLASSES, SHOWN_JOBS = 20, 25
Names = Mapping[int, str]
_JPEG_QUALITY = 84
IMAGE_EDGE_PX = 640
_CANVAS_GRAY = 150
_LONGEST_STEM_BYTES = 200


def choose_examples(
    score: CompetitionScore, worst: int, best: int
) -> tuple[list[tuple[str, float]], list[tuple[str, float]]]:
    """Return (image id, score) of the worst images, and of the best among the others.

    The worst come worst first, the best come best first, equal scores by image id.
    """
    ranked = sorted(zip(score.per_image.tolist(), score.image_ids, strict=True))
    low = ranked[:worst]
    rest = sorted(ranked[worst:], key=lambda item: (-item[0], item[1]))
    return [(name, value) for value, name in low], [(name, value) for value, name in rest[:best]]


@dataclass(frozen=True)
class Example:
    """Example image of a report."""

    image_id: str
    score: float
    image: RgbImage  # longer edge 640 px; gray if it cannot be read
    image_problem: str | None  # why it cannot be read
    drawn: DrawnComparison


def load_examples(
    comparison: Comparison,
    chosen: Sequence[tuple[str, float]],
    images_directory: str | Path | None,
) -> list[Example]:
    """Read the chosen images and compare their detections with the ground truth.

    An image that is missing or damaged is replaced by a gray canvas, and the example says why.

    Args:
        chosen: (image id, score) of each image.
        images_directory: Folder of the images; None: a gray canvas for all.
    """
    examples = []
    for image_id, score in chosen:
        ground_truth, prediction = comparison.pair(image_id)
        record = comparison.ground_truth.record(image_id)
        canvas_hw = fitting_hw(record.size_hw, IMAGE_EDGE_PX)
        image, problem = np.full((*canvas_hw, 3), _CANVAS_GRAY, dtype=np.uint8), None
        if images_directory is not None:
            try:
                path = find_image(images_directory, record.file_name)
                image = fit(read_image_rgb(path), IMAGE_EDGE_PX)
            except InputError as error:
                problem = str(error)
        drawn = compare_instances(ground_truth, prediction, comparison.labels.category_names)
        examples.append(Example(image_id, score, image, problem, drawn))
    return examples


def write_drawings(examples: Sequence[Example], directory: str | Path) -> list[Path]:
    """Write image, ground truth and detections of each example side by side as a JPEG.

    Files are named by score, ``0.1234_IMAGE.jpg``, so a sorted folder starts with the worst; ``/``
    in an image id becomes ``_``.
    """
    directory = Path(directory)
    written: list[Path] = []
    for example in examples:
        path = directory / _drawing_name(example, taken={path.name for path in written})
        drawn = example.drawn
        row = draw_side_by_side(example.image, drawn.ground_truth, drawn.prediction)
        write_bytes(path, _jpeg(row))
        written.append(path)
    return written


def _drawing_name(example: Example, *, taken: Collection[str]) -> str:
    """Return a file name of at most 255 bytes that no other drawing has."""
    image_id = example.image_id
    stem = image_id.rpartition(".")[0] if is_image_name(image_id) else image_id
    stem = stem.replace("/", "_").encode()[:_LONGEST_STEM_BYTES].decode(errors="ignore")
    suffixes = itertools.chain([""], (f"_{number}" for number in itertools.count(2)))
    names = (f"{example.score:.4f}_{stem}{suffix}.jpg" for suffix in suffixes)
    return next(name for name in names if name not in taken)


def _jpeg(image_rgb: RgbImage) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(image_rgb).save(buffer, "JPEG", quality=_JPEG_QUALITY, optimize=True)
    return buffer.getvalue()


def jpeg_data_uri(image_rgb: RgbImage) -> str:
    """Return an image, (H, W, 3) uint8 RGB, as a ``data:`` address of a JPEG."""
    return "data:image/jpeg;base64," + base64.b64encode(_jpeg(image_rgb)).decode("ascii")


def error_section(errors: ErrorReport, interval: Interval, names: Names) -> dict[str, Any]:
    """Return the values of the template's section on errors, gains with intervals."""
    kinds = [*KINDS[: -len(BANDS)], POOR_MASK, *BANDS]
    bands = _bands(np.stack([errors.gains[kind] for kind in kinds], axis=1), interval)
    rows = [
        {
            "kind": kind.removeprefix(f"{POOR_MASK}, "),
            "is_band": kind in BANDS,
            "count": errors.counts[kind],
            "gain": errors.gain(kind),
            "low": low,
            "high": high,
        }
        for kind, (low, high) in zip(kinds, bands.tolist(), strict=True)
    ]
    by_class = sorted(errors.by_class.items(), key=lambda item: -sum(item[1].values()))
    shown = [(*split_key(key), gains) for key, gains in by_class[:SHOWN_CLASSES]]
    named = [(str(number), names[number], attributes, gains) for number, attributes, gains in shown]
    return {
        "rows": rows,
        "chart": charts.gain_chart(rows),
        "groups": GROUPS,
        "by_class": _gain_rows(named),
        "more_classes": max(0, len(by_class) - SHOWN_CLASSES),
        "by_size": _gain_rows([("", name, (), errors.by_size[name]) for name, _ in SIZES]),
    }


def _gain_rows(
    named: Sequence[tuple[str, str, Sequence[int], Mapping[str, float]]],
) -> list[dict[str, Any]]:
    """Return the rows of a table; the larger a cell's gain, the darker it is."""
    largest = max([gain for *_, gains in named for gain in gains.values()], default=0.0)
    return [
        {
            "id": number,
            "name": name,
            "attributes": attributes,
            "cells": [
                (gains[group], max(0.0, gains[group] / largest) if largest > 0 else 0.0)
                for group in GROUPS
            ],
        }
        for number, name, attributes, gains in named
    ]


@dataclass(frozen=True)
class Report:
    """Content of a report page."""

    title: str
    score: CompetitionScore
    errors: ErrorReport
    interval: Interval
    labels: LabelDescriptions
    notes: Sequence[str]  # sentences about the score
    settings: Sequence[tuple[str, str]]  # (name, value) as shown
    worst: Sequence[Example]
    best: Sequence[Example]


def render(report: Report) -> str:
    """Return the page as HTML with styles, figures and images inline; it fetches nothing.

    Every text is escaped, and the page's own policy forbids scripts and connections.
    """
    score, interval, names = report.score, report.interval, report.labels.category_names
    bands = _bands(score.values, interval)
    classes = sorted(score.classes.items(), key=lambda item: -item[1].num_ground_truth)
    return template("report.html").render(
        vars(report),
        interval_bar=charts.interval_bar(interval.low, interval.estimate, interval.high),
        missing_images=[one for one in (*report.worst, *report.best) if one.image_problem],
        curve=charts.threshold_curve(score.rule.thresholds, score.per_threshold, bands),
        histogram=charts.score_histogram(score.per_image),
        errors=error_section(report.errors, interval, names),
        classes=[(*split_key(key), result) for key, result in classes],
        names=names,
        css_colour=css_colour,
        example_groups=[
            ("Worst images", "lowest score first", [_card(example) for example in report.worst]),
            ("Best images", "highest score first", [_card(example) for example in report.best]),
        ],
    )


def template(name: str) -> Template:
    """Load the template of a page; it escapes every text."""
    environment = Environment(
        loader=PackageLoader("src.reporting"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    return environment.get_template(name)


def write_report(report: Report, path: str | Path) -> None:
    """Write the page atomically."""
    write_text(path, render(report))


def _bands(values: npt.NDArray[np.float64], interval: Interval) -> npt.NDArray[np.float64]:
    """Return intervals of means over images like that of the score."""
    resamples, confidence = interval.resamples, interval.confidence
    return bootstrap_bands(values, num_resamples=resamples, confidence=confidence)


def _card(example: Example) -> dict[str, Any]:
    drawn = example.drawn
    ground_truth = _count(len(drawn.ground_truth), "ground-truth instance")
    prediction = f"{_count(len(drawn.prediction), 'detection')}, {drawn.matched} matched"
    images = [
        ("image" if example.image_problem is None else "no image", example.image),
        (ground_truth, draw_instances(example.image, drawn.ground_truth)),
        (prediction, draw_instances(example.image, drawn.prediction)),
    ]
    uris = [(caption, jpeg_data_uri(image)) for caption, image in images]
    return {"example": example, "size_hw": example.image.shape[:2], "images": uris}


def _count(number: int, what: str) -> str:
    return f"{number} {what}{'' if number == 1 else 's'}"


def render_sweep(results: SweepResults, *, title: str, directory: str) -> str:
    """Return the page of a sweep as HTML, everything inline; it fetches nothing.

    Args:
        directory: The sweep's folder, as shown.

    Raises:
        InputError: No job has a score.
    """
    rows = [row for row in results.rows if row["competition_map"] is not None]
    if not rows:
        jobs = f"none of its {len(results.rows)} jobs has a score"
        raise InputError(f"{directory}: {jobs}; give the sweep annotations=...")
    scored = SweepResults(results.overrides, tuple(rows))
    best, swept = rows[0], scored.swept
    has_interval = _has_interval(best)
    pairs = [(swept[0], None)] if len(swept) == 1 else combinations(swept, 2)
    fixed = [key for key in scored.overrides if key not in swept]
    return template("sweep.html").render(
        title=title,
        best=best,
        has_interval=has_interval,
        interval_bar=has_interval
        and charts.interval_bar(best["low"], best["competition_map"], best["high"]),
        settings=[(_short(key), best[key]) for key in (*swept, *fixed)],
        directory=directory,
        tables=", ".join(TABLE_NAMES),
        jobs=len(results.rows),
        unscored=len(results.rows) - len(rows),
        not_worse=has_interval and sum(row["competition_map"] >= best["low"] for row in rows[1:]),
        columns=[_short(key) for key in swept],
        rows=[
            {
                "values": [row[key] for key in swept],
                "score": row["competition_map"],
                "interval": f"{row['low']:.4f} to {row['high']:.4f}" if _has_interval(row) else "",
                "detections": row.get("num_detections"),
            }
            for row in rows[:SHOWN_JOBS]
        ],
        figures=[_figure(rows, x_key, y_key, swept) for x_key, y_key in pairs],
    )


def _figure(rows: list[Any], x_key: str, y_key: str | None, swept: Sequence[str]) -> dict[str, Any]:
    others = [_short(key) for key in swept if key not in (x_key, y_key)]
    heading = _short(x_key) if y_key is None else f"{_short(y_key)} by {_short(x_key)}"
    return {
        "heading": heading,
        "image": charts.heat_map(charts.best_scores(rows, x_key, y_key)),
        "caption": f"Each cell is the best over {', '.join(others)}." if others else "",
    }


def _has_interval(row: Mapping[str, Any]) -> bool:
    """Return whether a job has an interval of its score; jobs of a training have none."""
    return row.get("low") is not None and row.get("high") is not None


def _short(key: str) -> str:
    return key.removeprefix("postprocess.")
