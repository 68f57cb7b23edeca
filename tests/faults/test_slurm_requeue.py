"""SLURM's requeue signal: the run is saved where it can be resumed, and resumed by the next job."""

from __future__ import annotations

import logging
import shutil
from pathlib import Path

import pytest

from src.callbacks import checkpoints
from tests.helpers.runs import load, run, state_differences
from tests.helpers.slurm import slurm_job

# A job of one task that no checkpoint of the run's own helps; a rate that no limit changes.
OPTIONS = ("scheduler=none", "callbacks.run_checkpoint.every_n_train_steps=500")


@pytest.fixture
def requests(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The requests to a ``scontrol`` that stands in for SLURM's, in the environment of a job."""
    return slurm_job(tmp_path, monkeypatch)


def cut_off(images: Path, output: Path, *, signal_at: str, ends_at: str, options: tuple) -> None:
    """Train, and leave the folder as it was when SLURM ended the job."""
    run(
        images,
        output,
        *options,
        "+callbacks.signal._target_=tests.helpers.interruptions.SignalAt",
        f"+callbacks.signal.moment={signal_at}",
        "+callbacks.snapshots._target_=tests.helpers.interruptions.Snapshots",
        f"+callbacks.snapshots.directory={output}",
        f"+callbacks.snapshots.output={output.parent}",
        f"+callbacks.snapshots.moments=[{ends_at}]",
    )
    shutil.rmtree(output)
    (output.parent / ends_at).rename(output)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("signal_at", "ends_at", "options", "step"),
    [
        ("batch 2", "batch 3", (), 3),
        ("batch 2", "batch 4", ("trainer.accumulate_grad_batches=2",), 2),
        # in the validation of epoch 0, which ends before SLURM's patience does
        ("validation 0", "batch 6", (), 6),
        ("batch 8", "batch 9", ("trainer.max_epochs=-1", "trainer.max_steps=11"), 9),
    ],
    ids=["step", "accumulated gradients", "validation", "limited by steps"],
)
def test_the_requeued_job_resumes_to_the_bit(
    signal_at: str,
    ends_at: str,
    options: tuple[str, ...],
    step: int,
    requests: Path,
    images: Path,
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
) -> None:
    run(images, tmp_path / "whole", *OPTIONS, *options)
    assert not requests.exists()
    output = tmp_path / "run"
    cut_off(images, output, signal_at=signal_at, ends_at=ends_at, options=(*OPTIONS, *options))
    assert requests.read_text() == "requeue 4711\n"
    assert load(output / "hpc_ckpt_1.ckpt")["global_step"] == step
    with caplog.at_level(logging.INFO):
        run(images, output, *OPTIONS, *options)
    assert any("resuming from" in line and f"step {step}" in line for line in caplog.messages)
    assert state_differences(output, tmp_path / "whole") == []
    assert not list(output.glob("hpc_ckpt_*"))  # of no use after the next checkpoint


@pytest.mark.slow
@pytest.mark.parametrize("options", [(), ("+callbacks=ema", "callbacks.ema.decay=0.5")])
def test_a_validation_longer_than_slurms_patience_is_left_out(
    options: tuple[str, ...],
    requests: Path,
    images: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(checkpoints, "VALIDATION_PATIENCE_S", 0.0)
    run(images, tmp_path / "whole", *OPTIONS, *options)
    output = tmp_path / "run"
    cut_off(
        images,
        output,
        signal_at="validation 0",
        ends_at="validation 0",
        options=(*OPTIONS, *options),
    )
    assert requests.read_text() == "requeue 4711\n"
    assert not (output / "checkpoints").exists()
    run(images, output, *OPTIONS, *options)
    found, expected = (
        load(path / "checkpoints/last.ckpt") for path in (output, tmp_path / "whole")
    )
    assert found["global_step"] == expected["global_step"]
    differing = [
        key
        for key, value in found["state_dict"].items()
        if not value.equal(expected["state_dict"][key])
    ]
    assert differing == []
    assert not list((output / "checkpoints").glob("best_epoch_00*"))


def test_starting_anew_takes_nothing_of_a_requeued_job(
    requests: Path, uninterrupted: Path, images: Path, tmp_path: Path
) -> None:
    """Lightning would resume from its newest ``hpc_ckpt_*.ckpt``, whatever the run asked for."""
    output = tmp_path / "run"
    output.mkdir()
    shutil.copy(uninterrupted / "checkpoints" / "epoch_00.ckpt", output / "hpc_ckpt_1.ckpt")
    run(images, output, "resume=never", "trainer.max_steps=1", "trainer.limit_val_batches=0")
    assert load(output / "checkpoints" / "last.ckpt")["global_step"] == 1
    assert [path.name for path in (output / "checkpoints" / "superseded").iterdir()] == [
        "hpc_ckpt_1.ckpt"
    ]
