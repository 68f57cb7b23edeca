"""A run that was killed ends with the weights of one that was not, to the bit."""

from __future__ import annotations

import logging
import re
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from tests.helpers.runs import STEPS_PER_EPOCH, load, overrides, run, state_differences


def at(moment: str, uninterrupted: Path) -> Path:
    """The run's folder, put back to how it was at a moment."""
    shutil.copytree(uninterrupted, uninterrupted.parent / "kept", symlinks=True)
    shutil.rmtree(uninterrupted)
    shutil.copytree(uninterrupted.parent / "moments" / moment, uninterrupted, symlinks=True)
    return uninterrupted.parent / "kept"


@pytest.fixture
def killed(request: pytest.FixtureRequest, uninterrupted: Path):
    """The run as a kill left it, and the uninterrupted one, kept elsewhere in the meantime."""
    kept = at(request.param, uninterrupted)
    yield uninterrupted, kept
    shutil.rmtree(uninterrupted)
    kept.rename(uninterrupted)


@pytest.mark.parametrize(
    ("killed", "message"),
    [
        # before the first checkpoint
        pytest.param("batch 1", None, marks=pytest.mark.slow),
        ("saving 4", "resuming from .*step_00000002.ckpt, step 2"),
        pytest.param(
            *("validation 0", "resuming from .*step_00000004.ckpt, step 4"), marks=pytest.mark.slow
        ),
        pytest.param(*("batch 6", "resuming from .*epoch_00.ckpt, step 6"), marks=pytest.mark.slow),
        ("batch 9", "resuming from .*step_00000008.ckpt, step 8"),
    ],
    indirect=["killed"],
)
def test_a_killed_run_goes_on_as_if_nothing_had_been(
    killed: tuple[Path, Path], message: str | None, images: Path, caplog: pytest.LogCaptureFixture
) -> None:
    found, expected = killed
    with caplog.at_level(logging.INFO):
        run(images, found)
    assert state_differences(found, expected) == []
    names = sorted(path.name for path in (found / "checkpoints").iterdir())
    assert names == sorted(path.name for path in (expected / "checkpoints").iterdir())
    assert {"best.ckpt", "epoch_00.ckpt", "epoch_01.ckpt", "last.ckpt"} < set(names)
    resuming = [record.message for record in caplog.records if "resuming from" in record.message]
    assert len(resuming) == (message is not None)
    assert message is None or re.search(message, resuming[0])


@pytest.mark.slow
def test_a_killed_process_goes_on_by_the_same_command(
    uninterrupted: Path, images: Path, tmp_path: Path
) -> None:
    """With loader processes, which make batches ahead of the kill."""
    output = tmp_path / "run"
    command = [
        *(sys.executable, "-m", "src.train"),
        *overrides(images, output),
        f"hydra.run.dir={output}",
        "datamodule.num_workers=1",
        "+callbacks.kill._target_=tests.helpers.interruptions.KillOnce",
        f"+callbacks.kill.step={STEPS_PER_EPOCH + 3}",
        f"+callbacks.kill.marker={tmp_path / 'killed'}",
    ]
    first = subprocess.run(command, capture_output=True, text=True, check=False)
    assert first.returncode == -signal.SIGKILL
    assert (output / "checkpoints" / "step_00000008.ckpt").exists()
    second = subprocess.run(command, capture_output=True, text=True, check=False)
    assert second.returncode == 0
    assert "step_00000008.ckpt, step 8" in second.stdout
    assert state_differences(output, uninterrupted) == []


def test_a_finished_run_is_not_trained_again(
    uninterrupted: Path, images: Path, caplog: pytest.LogCaptureFixture
) -> None:
    before = (uninterrupted / "checkpoints" / "last.ckpt").stat()
    with caplog.at_level(logging.INFO):
        score = run(images, uninterrupted)
    assert score == 0.0  # it has learnt nothing yet
    assert "finished already" in caplog.text
    assert (uninterrupted / "checkpoints" / "last.ckpt").stat() == before


@pytest.mark.slow
def test_a_run_limited_by_steps_goes_on_at_an_epoch(images: Path, tmp_path: Path) -> None:
    """Lightning's own way would end the epoch a second time there."""
    steps = (
        "trainer.max_epochs=-1",
        "trainer.max_steps=9",
        "scheduler=none",
        "trainer.limit_val_batches=0",
    )
    run(images, tmp_path / "whole", *steps)
    run(images, tmp_path / "parts", *steps, "trainer.max_steps=6")
    run(images, tmp_path / "parts", *steps)
    assert state_differences(tmp_path / "parts", tmp_path / "whole") == []


@pytest.mark.parametrize(
    ("options", "moment", "batches_done"),
    [
        # Steps of two batches: a checkpoint stands between steps only.
        (
            ["trainer.accumulate_grad_batches=2", "callbacks.run_checkpoint.every_n_train_steps=1"],
            "batch 3",
            2,
        ),
        (["+callbacks=ema", "callbacks.ema.decay=0.5"], "batch 9", 2),
    ],
    ids=["accumulated gradients", "moving average"],
)
@pytest.mark.slow
def test_nothing_between_steps_is_lost(
    options: list[str], moment: str, batches_done: int, images: Path, tmp_path: Path
) -> None:
    snapshots = (
        "+callbacks.snapshots._target_=tests.helpers.interruptions.Snapshots",
        f"+callbacks.snapshots.directory={tmp_path / 'run'}",
        f"+callbacks.snapshots.output={tmp_path}",
        f"+callbacks.snapshots.moments=[{moment}]",
    )
    run(images, tmp_path / "run", *options, *snapshots)
    (tmp_path / "run").rename(tmp_path / "whole")
    (tmp_path / moment).rename(tmp_path / "run")
    assert load(tmp_path / "run/checkpoints/last.ckpt")["position"]["batches_done"] == batches_done
    run(images, tmp_path / "run", *options)
    assert state_differences(tmp_path / "run", tmp_path / "whole") == []
