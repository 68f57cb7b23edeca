"""What lies in a run's folder counts for that run only, and a start that fails leaves it alone."""

from __future__ import annotations

import logging
import shutil
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from lightning.pytorch.callbacks import ModelCheckpoint
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from src.callbacks.checkpoints import AtomicCheckpointIO, RunCheckpoint, hard_link
from src.cli.resume import (
    FoundCheckpoint,
    archive_later_checkpoints,
    check_same_run,
    choose_checkpoint,
    score_changes,
    trial_limits,
)
from src.errors import InputError
from src.mmdet_bridge.checkpoints.best import best_checkpoints
from tests.helpers.runs import STEPS_PER_EPOCH, load, run, state_differences

CONSTANT = ("scheduler=none",)


@pytest.fixture
def finished(uninterrupted: Path, tmp_path: Path) -> Path:
    """A copy of a finished run, which a test may change."""
    shutil.copytree(uninterrupted, tmp_path / "run", symlinks=True)
    return tmp_path / "run"


def names(directory: Path) -> set[str]:
    return {path.name for path in directory.iterdir()}


def write(path: Path, *, run_id: str, step: int) -> None:
    content = {
        "global_step": step,
        "position": {"epoch": 0, "batches_done": step},
        "callbacks": {},
        "config": {},
        "run_id": run_id,
        "state_dict": {"weight": torch.zeros(3)},
    }
    AtomicCheckpointIO().save_checkpoint(content, path)


def test_checkpoints_of_another_run_are_archived(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    write(tmp_path / "epoch_00.ckpt", run_id="old", step=3)
    write(tmp_path / "best_epoch_00_score_0.5000.ckpt", run_id="old", step=3)
    write(tmp_path / "best_epoch_01_score_0.4000.ckpt", run_id="new", step=4)
    write(tmp_path / "best_epoch_02_score_0.3000.ckpt", run_id="new", step=8)
    write(tmp_path / "step_00000004.ckpt", run_id="new", step=4)
    write(tmp_path / "soup.ckpt", run_id="old", step=4)  # somebody's own
    hard_link(tmp_path / "step_00000004.ckpt", "last.ckpt")
    (tmp_path / "best.ckpt").symlink_to("best_epoch_00_score_0.5000.ckpt")
    kept = {tmp_path / "best_epoch_01_score_0.4000.ckpt"}
    archive_later_checkpoints(tmp_path, after_step=4, run_id="new", best=kept)
    moved = {
        "epoch_00.ckpt",
        "best_epoch_00_score_0.5000.ckpt",
        "best_epoch_02_score_0.3000.ckpt",
    }
    assert names(tmp_path / "superseded") == moved
    assert names(tmp_path) == {
        "best_epoch_01_score_0.4000.ckpt",
        "step_00000004.ckpt",
        "last.ckpt",
        "soup.ckpt",
        "superseded",
    }
    assert "moved 3 checkpoints to" in caplog.text
    write(tmp_path / "epoch_00.ckpt", run_id="old", step=3)
    archive_later_checkpoints(tmp_path, after_step=4, run_id="new", best=None)
    assert names(tmp_path / "superseded") == moved | {"epoch_00-v2.ckpt"}


def test_an_ensemble_is_of_the_runs_own_checkpoints(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    write(tmp_path / "best_epoch_00_score_0.5000.ckpt", run_id="old", step=3)
    write(tmp_path / "best_epoch_01_score_0.4000.ckpt", run_id="new", step=4)
    write(tmp_path / "last.ckpt", run_id="new", step=4)
    assert [path.name for path in best_checkpoints(tmp_path, 1)] == [
        "best_epoch_01_score_0.4000.ckpt"
    ]
    assert "another run wrote them: best_epoch_00_score_0.5000.ckpt" in caplog.text
    with pytest.raises(InputError, match=r"ensemble\.num_best must be .*, 1 .* got 2"):
        best_checkpoints(tmp_path, 2)


@pytest.mark.parametrize(
    ("trainer", "expected"),
    [
        ({"limit_train_batches": 1.0, "limit_val_batches": 1.0, "overfit_batches": 0.0}, {}),
        ({"limit_val_batches": 0}, {}),  # no validation
        ({"limit_train_batches": 1}, {"trainer.limit_train_batches": 1}),  # a batch
        ({"limit_train_batches": 0.5}, {"trainer.limit_train_batches": 0.5}),
        ({"limit_val_batches": 2}, {"trainer.limit_val_batches": 2}),
        ({"overfit_batches": 2}, {"trainer.overfit_batches": 2}),
        ({}, {}),
    ],
)
def test_trials(trainer: dict, expected: dict) -> None:
    assert trial_limits(trainer) == expected


def test_a_trial_does_not_begin_in_the_folder_of_a_run(finished: Path) -> None:
    message = r"trainer\.limit_train_batches=2 makes this a trial, but .*epoch_00\.ckpt .*name=\.\."
    with pytest.raises(InputError, match=message):
        choose_checkpoint(
            resume="auto", directory=finished / "checkpoints", trainer={"limit_train_batches": 2}
        )


@pytest.mark.slow
def test_trials_leave_nothing_that_a_run_takes(
    images: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    run(images, tmp_path / "whole", *CONSTANT)
    run(images, tmp_path / "run", *CONSTANT, "+trainer.fast_dev_run=true")
    assert names(tmp_path / "run") == {"fast_dev_run"}
    assert not list((tmp_path / "run").rglob("*.ckpt"))
    run(images, tmp_path / "run", *CONSTANT, "+trainer.overfit_batches=2")
    limits = ("trainer.limit_train_batches=3", "trainer.limit_val_batches=1")
    run(images, tmp_path / "run", *CONSTANT, *limits)
    caplog.clear()
    run(images, tmp_path / "run", *CONSTANT)
    assert (
        "of a trial: epoch_00.ckpt (trainer.limit_train_batches=3, trainer.limit_v" in caplog.text
    )
    assert state_differences(tmp_path / "run", tmp_path / "whole") == []
    assert best_checkpoints(tmp_path / "run" / "checkpoints", 2)
    before = (tmp_path / "run" / "checkpoints" / "last.ckpt").stat()
    run(images, tmp_path / "run", *CONSTANT, "+trainer.fast_dev_run=true")
    assert (tmp_path / "run" / "checkpoints" / "last.ckpt").stat() == before


def test_a_refused_start_moves_nothing(finished: Path, images: Path) -> None:
    before = names(finished / "checkpoints")
    with pytest.raises(InputError, match=r"batch_size must be at most .*, got 14"):
        run(images, finished, "resume=never", "datamodule.batch_size=14")
    assert names(finished / "checkpoints") == before


def test_a_start_moves_others_when_it_has_a_checkpoint_of_its_own(
    finished: Path, images: Path
) -> None:
    """Before that, a kill leaves the run of before as it was."""
    before = names(finished / "checkpoints")
    steps = ("callbacks.run_checkpoint.every_n_train_steps=500", "trainer.limit_val_batches=0")
    stop = (
        "+callbacks.fail._target_=tests.helpers.interruptions.FailAt",
        "+callbacks.fail.batches=3",
    )
    with pytest.raises(RuntimeError, match="as a test wants it"):
        run(images, finished, "resume=never", *steps, *stop)
    assert names(finished / "checkpoints") == before
    run(images, finished, "resume=never", *steps, "trainer.max_steps=2")
    found = names(finished / "checkpoints")
    assert found == {"last.ckpt", "step_00000002.ckpt", "superseded"}
    assert names(finished / "checkpoints" / "superseded") >= before - {"best.ckpt"}
    with pytest.raises(InputError, match=r"checkpoints with a score in .*, 0 \("):
        best_checkpoints(finished / "checkpoints", 1)


@pytest.mark.slow
def test_a_moved_run_still_knows_its_best(finished: Path, images: Path) -> None:
    moved = finished.with_name("moved")
    finished.rename(moved)
    best = str((moved / "checkpoints" / "best.ckpt").readlink())
    run(images, moved, "trainer.max_epochs=3")
    state = next(
        value
        for key, value in load(moved / "checkpoints" / "last.ckpt")["callbacks"].items()
        if key.startswith("ModelCheckpoint")
    )
    assert len(state["best_k_models"]) == 3
    assert {Path(name).parent for name in state["best_k_models"]} == {moved / "checkpoints"}
    assert all(Path(name).is_file() for name in state["best_k_models"])
    # all scores are 0, so the first stays the best; forgetting it would make the newest the best
    assert str((moved / "checkpoints" / "best.ckpt").readlink()) == best
    assert not finished.exists()


@pytest.mark.slow
def test_scores_of_two_metrics_are_not_ranked_together(
    finished: Path, images: Path, caplog: pytest.LogCaptureFixture
) -> None:
    options = (
        "trainer.max_epochs=3",
        "callbacks.evaluator.metrics.competition_score.averaging=pooled",
        f"initial_weights={finished / 'none.pth'}",
    )
    run(images, finished, *options)
    key = "callbacks.evaluator.metrics.competition_score.averaging"
    assert f"{key}: per_class in the checkpoint, pooled" in caplog.text
    assert "the best checkpoints are ranked from now on" in caplog.text
    assert "none.pth (no such file) now: without effect" in caplog.text
    scored = [path.name[:13] for path in (finished / "checkpoints").glob("best_*")]
    assert scored == ["best_epoch_02"]
    assert str((finished / "checkpoints" / "best.ckpt").readlink()).startswith("best_epoch_02")
    caplog.clear()
    run(images, finished, "trainer.max_epochs=4", *options[1:2])
    assert "ranked from now on" not in caplog.text
    assert "initial_weights" not in caplog.text


def test_scores_of_the_callbacks_before_the_evaluator_are_ranked_anew(
    caplog: pytest.LogCaptureFixture,
) -> None:
    """They were made without the filler row."""
    best = {"callbacks.best_checkpoint": {"best_k_models": {"a.ckpt": 0.5}}}
    now = {
        "best_checkpoint": {"monitor": "validation/competition_map"},
        "evaluator": {"settings": {"score_threshold": 0.5}, "metrics": {}},
    }
    then = now | {
        "competition_score": {"averaging": "per_class"},
        "validation_pictures": {"photos": 8},
        "best_link": {"_target_": "src.callbacks.best_link.BestLinkCallback"},
    }
    del then["evaluator"]
    content = {"config": {"callbacks": then}, "callbacks": best}
    checkpoint = FoundCheckpoint(Path("last.ckpt"), content)
    check_same_run(checkpoint, {"callbacks": now})
    assert not caplog.records
    assert score_changes(checkpoint, {"callbacks": now}) == ["callbacks.evaluator"]


@pytest.mark.slow
def test_a_moving_average_switched_on_and_off_is_said(
    images: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Without it the weights that were trained go on, not their average."""
    ema = ("+callbacks=ema", "callbacks.ema.decay=0.9")
    run(images, tmp_path / "whole", *CONSTANT, "trainer.limit_val_batches=0")
    run(
        images,
        tmp_path / "run",
        *CONSTANT,
        "trainer.limit_val_batches=0",
        "trainer.max_epochs=1",
        *ema,
    )
    with caplog.at_level(logging.WARNING):
        run(images, tmp_path / "run", *CONSTANT, "trainer.limit_val_batches=0")
    assert "callbacks.ema.decay: 0.9 in the checkpoint, nothing now" in caplog.text
    assert "the checkpoint's moving average is dropped" in caplog.text
    assert state_differences(tmp_path / "run", tmp_path / "whole") == []
    with caplog.at_level(logging.WARNING):
        run(images, tmp_path / "run", *CONSTANT, "trainer.max_epochs=3", *ema)
    assert "callbacks.ema: the checkpoint has no moving average" in caplog.text


@pytest.mark.slow
def test_early_stopping_ends_a_run_for_good(
    images: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    options = (
        *CONSTANT,
        "trainer.max_epochs=9",
        "+callbacks.early_stopping._target_=lightning.pytorch.callbacks.EarlyStopping",
        "+callbacks.early_stopping.monitor=validation/competition_map",
        "+callbacks.early_stopping.mode=max",
    )
    run(images, tmp_path, *options, "+callbacks.early_stopping.patience=1")
    assert load(tmp_path / "checkpoints/last.ckpt")["global_step"] == 2 * STEPS_PER_EPOCH
    with caplog.at_level(logging.INFO):
        run(images, tmp_path, *options, "+callbacks.early_stopping.patience=1")
    assert "finished already: early stopping ended the run" in caplog.text
    assert load(tmp_path / "checkpoints/last.ckpt")["global_step"] == 2 * STEPS_PER_EPOCH
    run(images, tmp_path, *options, "+callbacks.early_stopping.patience=3")
    assert load(tmp_path / "checkpoints/last.ckpt")["global_step"] == 4 * STEPS_PER_EPOCH


@pytest.mark.parametrize("keep", [0, -1])
def test_at_least_one_epoch_is_kept(keep: int, tmp_path: Path) -> None:
    legal = "a whole number of at least 1, or null for all"
    with pytest.raises(InputError, match=rf"run_checkpoint\.keep must be {legal}, got {keep}"):
        RunCheckpoint(dirpath=str(tmp_path), every_n_train_steps=1, keep=keep)


def test_old_epochs_are_dropped_unless_something_needs_them(tmp_path: Path) -> None:
    for epoch in (0, 1, 2, 3, 98, 99, 100, 101):
        (tmp_path / f"epoch_{epoch:02d}.ckpt").touch()
    (tmp_path / "best.ckpt").symlink_to("epoch_01.ckpt")
    hard_link(tmp_path / "epoch_02.ckpt", "last.ckpt")
    ranking = ModelCheckpoint(dirpath=tmp_path, monitor="score", save_top_k=2)
    ranking.best_k_models = {str(tmp_path / "epoch_03.ckpt"): torch.tensor(0.5)}
    trainer = SimpleNamespace(checkpoint_callbacks=[ranking])
    saver = RunCheckpoint(dirpath=str(tmp_path), every_n_train_steps=1, keep=3)
    saver._drop_old_epochs(trainer)  # type: ignore[arg-type]
    assert names(tmp_path) == {
        *(f"epoch_{epoch:02d}.ckpt" for epoch in (1, 2, 3, 99, 100, 101)),
        "best.ckpt",
        "last.ckpt",
    }
    RunCheckpoint(dirpath=str(tmp_path), every_n_train_steps=1)._drop_old_epochs(trainer)  # type: ignore[arg-type]
    assert len(names(tmp_path)) == 8


@pytest.mark.slow
def test_tensorboard_shows_each_step_once(images: Path, tmp_path: Path) -> None:
    run(images, tmp_path, *CONSTANT, "trainer.max_steps=9")
    for name in ("step_00000009.ckpt", "last.ckpt"):  # as a kill before the last would have left it
        (tmp_path / "checkpoints" / name).unlink()
    run(images, tmp_path, *CONSTANT, "callbacks.run_checkpoint.keep=1")
    assert {"epoch_01.ckpt", "last.ckpt"} < names(tmp_path / "checkpoints")
    assert "epoch_00.ckpt" not in names(tmp_path / "checkpoints")
    shown = EventAccumulator(str(tmp_path / "tensorboard"), size_guidance={"scalars": 0})
    shown.Reload()
    assert [event.step for event in shown.Scalars("train/loss")] == list(range(12))
    assert [event.step for event in shown.Scalars("validation/competition_map")] == [5, 11]
    assert [event.step for event in shown.Tensors("validation/classes/text_summary")] == [5, 11]
