"""A search for settings on a validation store, beside its trials the plain way.

    python -m benchmarks.search

The store of benchmarks/threshold_grid.py: 450 images of 12 megapixels, 100 candidates each. The
commands are those that a user types: ``src.search`` with 500 trials, then ``src.postprocess`` by
the name of what it found, which must have the score that the search says. The plain way would score
each image anew for each trial; it is measured on a few images, and multiplied.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from benchmarks.postprocess import SETTINGS
from benchmarks.threshold_grid import make_store, plain_score
from src.annotations.instances import RASTER_HW
from src.metrics.competition import ImageInstances
from src.rle import format_rle

ROOT = Path(__file__).resolve().parents[1]


def write_truth(path: Path, ground_truth: Sequence[ImageInstances]) -> None:
    """Write ground-truth instances as train.csv of images of the raster's size."""
    with path.open("w", encoding="utf-8") as file:
        file.write("ImageId,EncodedPixels,Height,Width,ClassId\n")
        for objects in ground_truth:
            texts = format_rle(objects.bitmasks.to_rle())
            for text, category in zip(texts, objects.class_keys, strict=True):
                height, width = RASTER_HW
                file.write(f"{objects.image_id},{text},{height},{width},{category}\n")


def _command(tool: str, *words: str) -> tuple[dict[str, Any], float, float]:
    """The JSON that a command prints last, its CPU seconds and its wall seconds."""
    before, start = os.times(), time.perf_counter()
    done = subprocess.run(
        [sys.executable, "-m", f"src.{tool}", *words],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        text=True,
        check=True,
    )
    wall, after = time.perf_counter() - start, os.times()
    cpu = after.children_user + after.children_system
    cpu -= before.children_user + before.children_system
    return json.loads(done.stdout.splitlines()[-1]), cpu, wall


def run(
    *, images: int = 450, candidates: int = 100, trials: int = 500, plain_images: int = 3
) -> dict[str, Any]:
    """Search, and post-process with what was found.

    Args:
        images: In the store.
        candidates: Of each image.
        trials: Of the search.
        plain_images: That the plain way scores, with the winner's settings.

    Raises:
        AssertionError: the search and the post-processing disagree about the score found.
    """
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        store, ground_truth = make_store(folder / "store", images, candidates)
        start = time.process_time()
        for number in range(plain_images):
            plain_score(store.candidates(number), ground_truth[number], SETTINGS)
        plain_seconds = (time.process_time() - start) / plain_images
        write_truth(folder / "truth.csv", ground_truth)
        files = (
            f"predictions={folder / 'store'}",
            f"annotations={folder / 'truth.csv'}",
            f"cache_dir={folder / 'cache'}",
        )
        options = folder / "conf"
        found, cpu, wall = _command(
            "search",
            *files,
            f"num_trials={trials}",
            f"config_dir={options}",
            f"output_dir={folder / 'search'}",
        )
        submitted, *_ = _command(
            "postprocess",
            *files,
            "postprocess=found",
            f"hydra.searchpath=[file://{options}]",
            f"output={folder / 'submission.csv'}",
        )
    scores = found["scores"]
    in_sample = scores["in_sample"]["estimate"]
    if abs(submitted["competition_map"] - in_sample) > 1e-12:
        raise AssertionError(f"{in_sample} found, {submitted['competition_map']} submitted")
    return {
        "images": images,
        "candidates_an_image": candidates,
        "trials": trials,
        "cpu_s": cpu,
        "wall_s": wall,
        "plain_cpu_s_an_image_and_trial": plain_seconds,
        "times_faster_than_plain_trials": plain_seconds * images * trials / cpu,
        "score_found": in_sample,
        "score_cross_validated": scores["cross_validated"]["estimate"],
        "score_of_the_winner": scores["winner"]["estimate"],
    }


if __name__ == "__main__":
    print(json.dumps(run(), indent=2))
