"""Processes share a search over PostgreSQL, and one is killed in the middle of a trial."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path

import optuna
import pytest

from tests.helpers.lab_data import write_lab_data
from tests.helpers.postgresql import PASSWORD, postgresql, why_not

ROOT = Path(__file__).parents[2]
TRIALS = 60


def states(address: str) -> Counter[str]:
    """As the database has them; none before the study is made."""
    try:
        study = optuna.load_study(study_name="mine", storage=address)
    except (KeyError, optuna.exceptions.StorageInternalError):
        return Counter()
    return Counter(trial.state.name for trial in study.get_trials(deepcopy=False))


@pytest.mark.slow
@pytest.mark.skipif(why_not() is not None, reason=str(why_not()))
def test_a_killed_process_takes_no_trial_with_it(tmp_path: Path) -> None:
    store, ground_truth = write_lab_data(tmp_path, images=40)
    with postgresql() as address:
        address = address.replace("@", f":{PASSWORD}@") + "?application_name=tune"

        def start(number: int) -> subprocess.Popen[str]:
            command = [
                *(sys.executable, "-m", "src.search", f"storage={address}", "name=mine"),
                *(f"predictions={store}", f"annotations={ground_truth}", "cache_dir=null"),
                *(f"config_dir={tmp_path}/own", f"output_dir={tmp_path}/out", "logger=wandb"),
                *(f"num_trials={TRIALS}", "num_random_trials=10", "num_resamples=200"),
                *("space.nms_kind=[class_wise]", "space.mask_threshold_per_class=null"),
            ]
            log = (tmp_path / f"{number}.log").open("w")
            return subprocess.Popen(
                command, cwd=ROOT, stdout=log, stderr=subprocess.STDOUT, text=True
            )

        first = start(0)
        while states(address)["COMPLETE"] < 5:
            assert first.poll() is None
            time.sleep(0.1)
        os.kill(first.pid, signal.SIGSTOP)
        while states(address)["RUNNING"] == 0:  # it was between two trials
            os.kill(first.pid, signal.SIGCONT)
            time.sleep(0.03)
            os.kill(first.pid, signal.SIGSTOP)
        assert states(address)["COMPLETE"] < TRIALS
        os.kill(first.pid, signal.SIGKILL)
        first.wait()
        others = [start(1), start(2)]
        assert [other.wait(timeout=250) for other in others] == [0, 0]
        # failed: the one of the killed process, and claims that came a moment too late
        assert states(address)["COMPLETE"] == TRIALS
        assert states(address).keys() == {"COMPLETE", "FAIL"}
    logs = [(tmp_path / f"{number}.log").read_text() for number in (1, 2)]
    assert "Traceback" not in "".join(logs)
    assert json.loads((tmp_path / "out" / "result.json").read_text())["trials"] == TRIALS
    assert any(f"wrote {tmp_path}/own/postprocess/mine.yaml" in log for log in logs)
    for path in tmp_path.rglob("*"):  # W&B's files, too
        assert not path.is_file() or PASSWORD.encode() not in path.read_bytes(), path
