"""The table of ``python -m benchmarks load`` in Markdown, with the sources of its figures.

python -m benchmarks.load_table
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

RESULTS = Path(__file__).parent / "results/cpu_load.json"
ROWS = {
    "csv.convert": "train.csv of 333,415 instances: to COCO JSON",
    "csv.split": "its split, the annotation store built",
    "csv.train": "one step of training on it",
    "coco.convert": "COCO JSON of 118,287 images, 860,001 instances: its polygons to RLE",
    "coco.split": "its split, the annotation store built",
    "coco.train": "one step of training on it",
    "store.postprocess": "store of 3,200 images, 100 candidates each: to a submission",
    "store.validate_submission": "that submission validated",
    "store.report": "the report of all images, without ground truth",
    "store.report_with_truth": "the same with ground truth",
    "store.lab": "the lab, 15 moved sliders, without ground truth",
    "store.lab_with_truth": "the same with ground truth",
    "sweep.sweep": "sweep of 1,000 jobs on 40 images",
    "sweep.sweep_again": "the same when it is finished",
    "search.search": "search of 2,000 trials on 40 images",
    "image.train_jpg": "two JPEGs of 100 megapixels: a step of training at 1200 px, and validation",
    "image.predict_jpg": "the same predicted",
    "image.postprocess_jpg_native_raster": "100 masks of each at the image's own size, scored",
    "image.report_jpg_native_raster": "the report of them",
    "image.train_png": "two PNGs of 100 megapixels: a step of training at 1200 px, and validation",
    "image.predict_png": "the same predicted",
}


def lines(figures: Mapping[str, Any]) -> Iterator[str]:
    """Yield the lines of the table, and of the comment that ``tests/test_figures.py`` reads."""
    yield from ("| | CPU time | peak memory |", "|---|---|---|")
    sources = []
    for path, what in ROWS.items():
        stage, _, name = path.partition(".")
        if name not in figures.get(stage, {}):
            continue
        found = figures[stage][name]
        seconds = f"{found['cpu_s']:.0f} s" if found["cpu_s"] >= 10 else f"{found['cpu_s']:.1f} s"
        gib = f"{found['peak_gib']:.2f} GiB"
        yield f"| {what} | {seconds} | {gib} |"
        sources += [f"{seconds} = load.{path}.cpu_s", f"{gib} = load.{path}.peak_gib"]
    yield from ("", "<!-- figures benchmarks/results/cpu_load.json", *sources, "-->")


if __name__ == "__main__":
    print("\n".join(lines(json.loads(RESULTS.read_text())["load"])))
