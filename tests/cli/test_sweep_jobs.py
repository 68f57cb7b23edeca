"""Jobs that submitit runs: what is said of one that fails, and the rank of a task."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

from src.cli.sweep_jobs import explain_failed_jobs
from src.processes import is_first_process, name_rank_of_task
from tests.helpers.lab_data import write_lab_data

ROOT = Path(__file__).parents[2]


@pytest.mark.slow
def test_a_failed_job_is_one_line_and_the_others_are_kept(tmp_path: Path) -> None:
    store, ground_truth = write_lab_data(tmp_path, images=4)
    command = [
        *(sys.executable, "-m", "src.postprocess", "-m", f"hydra.sweep.dir={tmp_path}/sweep"),
        *(f"predictions={store}", f"annotations={ground_truth}", "num_resamples=50"),
        *("hydra/launcher=submitit_local", "postprocess.score_threshold=2,0.1"),
    ]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert re.fullmatch(
        r"error: 1 of 2 jobs failed: job 1: postprocess\.score_threshold must be a number from 0 "
        rf"to 1, got 2 \(logs: {tmp_path}/sweep/\.submitit/\d+\); the same command does what is "
        r"missing\n",
        done.stderr,
    ), done.stderr
    assert len(list((tmp_path / "sweep").glob("*/result.json"))) == 1


def test_other_errors_are_not_the_launchers() -> None:
    assert explain_failed_jobs(RuntimeError("as a test wants it")) is None


def test_a_task_of_the_local_launcher_has_a_rank(monkeypatch: pytest.MonkeyPatch) -> None:
    names = ("RANK", "LOCAL_RANK", "WORLD_SIZE", "NODE_RANK", "MASTER_ADDR", "MASTER_PORT")
    environment = {"SUBMITIT_LOCAL_NTASKS": "1", "SUBMITIT_LOCAL_GLOBALID": "0"}
    environment |= {"SUBMITIT_LOCAL_JOB_ID": "123456", "HOME": "/"}
    monkeypatch.setattr("os.environ", environment)
    name_rank_of_task()
    assert not set(names) & environment.keys()
    environment |= {"SUBMITIT_LOCAL_NTASKS": "2", "SUBMITIT_LOCAL_GLOBALID": "1"}
    name_rank_of_task()
    values = [environment[name] for name in names]
    assert values == ["1", "1", "2", "0", "127.0.0.1", "23456"]
    assert not is_first_process()
    environment["SUBMITIT_LOCAL_GLOBALID"] = "7"
    name_rank_of_task()
    assert environment["RANK"] == "1"
