"""A rank or a loader worker of a training is killed: one line, and the same command resumes."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.helpers.runs import overrides


@pytest.mark.slow
@pytest.mark.timeout(900)
@pytest.mark.parametrize(
    ("killed", "options", "message"),
    [
        (
            "1",
            ["trainer.devices=2", "datamodule.batch_size=1"],
            r"error: rank 1 \(process \d+\) was ended by SIGKILL: most often the system ran out of "
            r"memory; the same command resumes from the last checkpoint in .*",
        ),
        (
            "null",
            ["datamodule.num_workers=1"],
            r"error: loader worker \d+ was ended by a signal \(Killed\): most often the system ran "
            r"out of memory: .*; the same command resumes from the last checkpoint in .*",
        ),
    ],
    ids=["rank", "worker"],
)
def test_one_of_many_processes_is_killed(
    killed: str, options: list[str], message: str, images: Path, tmp_path: Path
) -> None:
    output = tmp_path / "run"
    command = [
        *(sys.executable, "-m", "src.train"),
        *overrides(images, output),
        f"hydra.run.dir={output}",
        "trainer.max_epochs=1",
        "callbacks.run_checkpoint.every_n_train_steps=2",
        *options,
        "+callbacks.kill._target_=tests.helpers.interruptions.KillOneOfMany",
        "+callbacks.kill.step=3",
        f"+callbacks.kill.rank={killed}",
        f"+callbacks.kill.marker={tmp_path / 'killed'}",
    ]
    first = subprocess.run(command, capture_output=True, text=True, check=False)
    assert first.returncode == 2, first.stderr
    assert "Traceback" not in first.stderr
    errors = [line for line in first.stderr.splitlines() if line.startswith("error: ")]
    assert len(errors) == 1, first.stderr
    assert re.fullmatch(message, errors[0]), errors[0]
    second = subprocess.run(command, capture_output=True, text=True, check=False)
    assert second.returncode == 0, second.stderr
    assert "step_00000002.ckpt, step 2" in second.stdout
