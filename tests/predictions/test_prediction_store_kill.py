"""`kill -9` while a store is written costs at most the shard in hand."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from src.predictions.store import PredictionStore, PredictionStoreWriter
from tests.helpers.candidates import make_candidates

IMAGES, PER_SHARD = 40, 4
PROGRAM = """
import sys
from src.predictions.store import PredictionStoreWriter
from tests.helpers.candidates import make_candidates

with PredictionStoreWriter(
    sys.argv[1], category_ids=range(46), settings={{}}, images_per_shard={per_shard}
) as writer:
    for number in range({images}):
        writer.add(make_candidates(number, image_id=f"{{number:03d}}.jpg"))
        print(number, flush=True)
        sys.stdin.readline()
"""


@pytest.mark.parametrize("killed_after", [3, 18])
def test_a_killed_writer_loses_at_most_one_shard(tmp_path: Path, killed_after: int) -> None:
    store = tmp_path / "store"
    program = PROGRAM.format(images=IMAGES, per_shard=PER_SHARD)
    with subprocess.Popen(
        [sys.executable, "-c", program, str(store)],
        cwd=Path(__file__).parents[2],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        for number in range(killed_after):
            assert process.stdout.readline() == f"{number}\n"
            if number < killed_after - 1:
                process.stdin.write("\n")
                process.stdin.flush()
        os.kill(process.pid, signal.SIGKILL)
    assert process.returncode == -signal.SIGKILL

    whole = killed_after // PER_SHARD * PER_SHARD
    assert len(PredictionStore(store)) == whole
    with PredictionStoreWriter(
        store, category_ids=range(46), settings={}, images_per_shard=PER_SHARD
    ) as writer:
        assert len(writer.written_image_ids) == whole
        assert not list(store.glob(".*.part"))
        for number in range(IMAGES):
            writer.add(make_candidates(number, image_id=f"{number:03d}.jpg"))
    again = PredictionStore(store)
    assert again.image_ids == tuple(f"{number:03d}.jpg" for number in range(IMAGES))
    assert len(list(store.glob("*.arrow"))) == IMAGES // PER_SHARD
