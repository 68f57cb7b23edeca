"""Imports that go wrong: nothing half-written; damaged stores of fixed masks are noticed."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from src.errors import InputError
from src.import_predictions import main as import_predictions
from src.predictions.candidates import Candidates
from src.predictions.store import PredictionStore, PredictionStoreWriter
from src.rle import Rle, RleBatch
from tests.helpers.results import write_truth_and_results


def write_fixed(directory: Path, masks: list[Rle]) -> None:
    with PredictionStoreWriter(
        directory, category_ids=[1], settings={}, mask_dtype="rle"
    ) as writer:
        writer.add(
            Candidates(
                image_id="a.jpg",
                size_hw=(6, 8),
                boxes_xyxy=np.zeros((len(masks), 4), dtype=np.float32),
                scores=np.linspace(1, 0, len(masks)),
                category_ids=np.ones(len(masks), dtype=np.int16),
                mask_probabilities=None,
                complete_above_score=0.0,
                mask_rles=RleBatch.of(masks),
            )
        )


def test_every_flipped_bit_of_a_shard_is_noticed_or_harmless(tmp_path: Path) -> None:
    random = np.random.default_rng(0)
    masks = [Rle(np.array([[n, 3], [n + 9, 2]], np.int32), (6, 8)) for n in range(20)]
    write_fixed(tmp_path / "store", masks)
    (path,) = (tmp_path / "store").glob("*.arrow")
    whole = path.read_bytes()
    noticed = 0
    for place in random.choice(len(whole), size=150, replace=False):
        damaged = bytearray(whole)
        damaged[place] ^= 1 << random.integers(8)
        path.write_bytes(damaged)
        try:
            found = PredictionStore(tmp_path / "store").candidates(0)
        except InputError as error:
            noticed += 1
            assert path.name in str(error)  # noqa: PT017
        else:
            assert found.mask_rles == RleBatch.of(masks)
    assert noticed > 50


@pytest.mark.parametrize("runs", [[[40, 9]], [[-1, 3]], [[5, 0]], [[5, 4], [7, 2]]])
def test_runs_that_are_no_mask_are_refused(tmp_path: Path, runs: list[list[int]]) -> None:
    write_fixed(tmp_path / "store", [Rle(np.array(runs, np.int32), (6, 8))])
    with pytest.raises(InputError, match=r"rank00000_shard00000\.arrow: damaged at image a\.jpg"):
        PredictionStore(tmp_path / "store").candidates(0)


def test_a_wrong_entry_leaves_nothing(refused: Any, tmp_path: Path) -> None:
    truth, results = write_truth_and_results(tmp_path / "data")
    entries = json.loads(results.read_text())
    entries[-1]["score"] = 7
    results.write_text(json.dumps(entries))
    given = f"input={results}", f"annotations={truth}", f"output={tmp_path / 'store'}"
    shown = refused(import_predictions, *given)
    assert shown == f"error: score must be a number from 0 to 1, got 7 ({results}, entry 72)"
    assert [path.name for path in tmp_path.iterdir()] == ["data"]


@pytest.mark.parametrize(
    ("input_text", "message"),
    [
        (None, "input must be COCO results (a JSON list) or a submission (CSV), got {path}: no su"),
        ("{}", "got a JSON object ({path}): annotations are no predictions"),
        ("", "annotations must be a CSV or COCO JSON, got an empty file ({path})"),
        ("[]", None),
    ],
)
def test_inputs_that_are_no_predictions(
    call_program: Any, tmp_path: Path, input_text: str | None, message: str | None
) -> None:
    truth, _ = write_truth_and_results(tmp_path / "data")
    path = tmp_path / "r.json"
    if input_text is not None:
        path.write_text(input_text)
    given = f"input={path}", f"annotations={truth}", f"output={tmp_path / 'store'}"
    ended = call_program(import_predictions, *given)
    if message is None:  # no detection at all
        assert ended.code is None
        assert "6 of the 6 images have no result" in ended.err
        return
    assert ended.code == 2
    assert message.format(path=path) in ended.err
    assert ended.err.count("\n") == 1


@pytest.mark.slow
def test_a_killed_import_resumes(tmp_path: Path) -> None:
    truth, results = write_truth_and_results(tmp_path, num_images=40, per_image=400)
    output = tmp_path / "store"
    command = [sys.executable, "-m", "src.import_predictions", f"input={results}"]
    command += [f"annotations={truth}", f"output={output}"]
    program = subprocess.Popen(command, cwd=Path(__file__).parents[2])
    while program.poll() is None and not (output / "meta.json").exists():
        time.sleep(0.002)
    program.send_signal(signal.SIGKILL)
    program.wait()
    subprocess.run(command, cwd=Path(__file__).parents[2], check=True)
    store = PredictionStore(output)
    assert store.missing == ()
    assert sum(map(store.count, range(len(store)))) == 16_000
    assert not list(tmp_path.glob(".store*"))
