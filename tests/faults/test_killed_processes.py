"""A rank or a loader worker of a training is killed: one line, and the same command resumes."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

from src.synthetic.dataset import synthesize
from tests.training.runs import overrides


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory = tmp_path_factory.mktemp("images")
    synthesize(
        directory,
        num_train_images=16,
        num_test_images=1,
        seed=3,
        image_size=(96, 96),
        difficulty=0.0,
        clutter=0.0,
        attributes_share=0.0,
        grayscale_share=0.0,
        rotated_share=0.0,
        num_transposed_images=0,
        workers=1,
    )
    return directory


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
        "+callbacks.kill._target_=tests.training.interruptions.KillOneOfMany",
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
