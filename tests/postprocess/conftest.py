"""A store, its ground truth and a way to run the program, for the command and for sweeps."""

from __future__ import annotations

import csv
import functools
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from src.cli.postprocess import main
from src.postprocess.pipeline import postprocess
from src.predictions.store import PredictionStoreWriter
from src.rle import format_rle
from tests.helpers.candidates import make_candidates, make_settings
from tests.helpers.stores import NUM_IMAGES, SIZE_HW


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Six images; the last has no candidates."""
    directory = tmp_path_factory.mktemp("predictions") / "store"
    with PredictionStoreWriter(directory, category_ids=range(46), settings={}) as writer:
        for number in range(NUM_IMAGES):
            count = 40 if number < NUM_IMAGES - 1 else 0
            writer.add(
                make_candidates(
                    number,
                    image_id=f"{number}.jpg",
                    size_hw=SIZE_HW,
                    count=count,
                    categories=20,
                    complete_above_score=0.001,
                )
            )
    return directory


@pytest.fixture(scope="module")
def ground_truth(tmp_path_factory: pytest.TempPathFactory, store: Path) -> Path:
    """A train.csv of the first three images and the last; and of one that the store lacks."""
    path = tmp_path_factory.mktemp("truth") / "train.csv"
    rules = make_settings(score_threshold=0.7, suppress_overlaps=True, mask_threshold=0.55)
    with path.open("w", newline="") as file:
        rows = csv.writer(file)
        rows.writerow(["ImageId", "EncodedPixels", "Height", "Width", "ClassId"])
        for number in range(3):
            candidates = make_candidates(
                number, image_id=f"{number}.jpg", size_hw=SIZE_HW, count=40, categories=20
            )
            found = postprocess(candidates, rules)
            texts = format_rle(found.bitmasks.to_rle())
            for text, category in zip(texts, found.category_ids, strict=True):
                rows.writerow([candidates.image_id, text, 512, 512, int(category)])
        rows.writerow([f"{NUM_IMAGES - 1}.jpg", "1 5", *SIZE_HW, 23])
        rows.writerow(["elsewhere.jpg", "1 5", *SIZE_HW, 3])
    return path


@pytest.fixture
def run(call_program: Any) -> Callable[..., str]:
    """Run the command, or another program, in an empty folder; gives its stdout."""

    def call(*arguments: str, program: Callable[[], Any] = main) -> str:
        ended = call_program(program, *arguments)
        assert ended.code is None, ended.err
        return ended.out

    return call


@pytest.fixture
def refused(refused: Any) -> Callable[..., str]:
    """Run the command with a user's mistake; gives its line on stderr."""
    return functools.partial(refused, main)
