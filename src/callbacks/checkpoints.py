"""Checkpoints: when a run saves them, how they are written, which one is ``best.ckpt``."""

from __future__ import annotations

import hashlib
import json
import logging
import math
import os
import signal
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from lightning.fabric.plugins.environments.slurm import SLURMEnvironment
from lightning.fabric.plugins.io import TorchCheckpointIO
from lightning.pytorch import Trainer
from lightning.pytorch.callbacks import Callback, Checkpoint, ModelCheckpoint
from lightning.pytorch.callbacks.early_stopping import EarlyStoppingReason

from src.datamodules.datamodule import CompetitionDataModule
from src.errors import InputError
from src.io import atomic_path, fsync
from src.mmdet_bridge.checkpoints.files import (
    EPOCH_FILES,
    LAST_FILE,
    REQUEUE_FILES,
    RUN_CHECKPOINTS,
    STEP_FILES,
)
from src.mmdet_bridge.checkpoints.reading import POSITION_KEY, check_archive, check_finite
from src.validation import check_values, nullable, whole

log = logging.getLogger(__name__)

STEP_FILES_KEPT = 2  # the newest, and the one before in case that the newest gets damaged
VALIDATION_PATIENCE_S = 30.0  # of the 90 seconds or so between SLURM's signal and the job's end


class AtomicCheckpointIO(TorchCheckpointIO):
    """Write checkpoints to a temporary name, flush them to the disk, then rename them.

    Lightning's own class builds the whole file in memory, then moves it from the folder of
    temporary files; on another disk that is a copy, which a kill cuts short.
    """

    def save_checkpoint(
        self, checkpoint: dict[str, Any], path: str | Path, storage_options: Any = None
    ) -> None:
        """Write a checkpoint; an existing file of that name stays until the new one is complete.

        Raises:
            InputError: A weight is not finite; nothing is written.
        """
        check_finite(checkpoint.get("state_dict", {}), path)
        with (
            atomic_path(path, sync=True, num_bytes=_num_bytes(checkpoint)) as partial,
            partial.open("wb") as file,  # given a path, torch hides why it cannot write
        ):
            torch.save(checkpoint, file)

    def load_checkpoint(
        self,
        path: str | Path,
        map_location: Callable[..., Any] | None = lambda storage, _location: storage,
        weights_only: bool | None = True,
    ) -> dict[str, Any]:
        """Read a checkpoint without running code from it.

        Raises:
            InputError: The file is damaged.
        """
        check_archive(Path(path))
        return super().load_checkpoint(path, map_location=map_location, weights_only=True)


def hard_link(path: Path, name: str) -> None:
    """Give a file a second name in its folder; replace what had that name."""
    with atomic_path(path.with_name(name)) as partial:
        os.link(path, partial)
    fsync(path.parent)


def _num_bytes(content: Any) -> int:
    """Return the size in bytes of a checkpoint's tensors, which make up nearly all of its file."""
    if isinstance(content, torch.Tensor):
        return content.nbytes
    if isinstance(content, Mapping):
        return sum(map(_num_bytes, content.values()))
    return sum(map(_num_bytes, content)) if isinstance(content, list | tuple) else 0


class BestLink(Callback):
    """Keep a link ``best.ckpt`` to the best checkpoint, whose own name has epoch and score.

    Args:
        monitor: Score by which a ``ModelCheckpoint`` keeps the best; None: no link.
    """

    def __init__(self, *, monitor: str | None) -> None:
        self.monitor = monitor

    def on_train_start(self, trainer: Trainer, *_: Any) -> None:
        """Warn if ``max_steps`` ends an epoch early, whose weights no validation will see."""
        last = _last_validated_step(trainer)
        if self.monitor is not None and 0 < last < trainer.max_steps and trainer.is_global_zero:
            log.warning(
                "trainer.max_steps=%d: the last validation is after step %d, so best.ckpt cannot "
                "hold the weights of the steps behind it; trainer.max_steps=%d ends with it",
                *(trainer.max_steps, last, last),
            )

    def on_train_epoch_end(self, trainer: Trainer, *_: Any) -> None:
        """Point to the best checkpoint; it was saved at the end of validation, before this hook."""
        if not trainer.is_global_zero or self.monitor is None:
            return
        for callback in _rankings(trainer):
            best = Path(callback.best_model_path)
            if callback.monitor == self.monitor and callback.best_model_path and best.exists():
                with atomic_path(best.with_name("best.ckpt")) as partial:
                    partial.symlink_to(best.name)


class RequeueSignal:
    """Hold back SLURM's signal, at which Lightning saves ``hpc_ckpt_1.ckpt`` and requeues the job.

    Lightning's handler saves at once, even in the middle of a validation or of a step whose weights
    are half updated. The owner of the loop asks ``is_due`` where saving is safe, then calls
    ``handle``. Training continues until SLURM ends the job.
    """

    def __init__(self) -> None:
        self._trainer: Trainer | None = None
        self._signal = signal.SIGUSR1
        self._received_at: float | None = None

    def hold_back(self, trainer: Trainer) -> None:
        """Replace Lightning's handler where it requeues: on SLURM, with ``auto_requeue``."""
        environment = trainer._accelerator_connector.cluster_environment
        if not isinstance(environment, SLURMEnvironment) or environment.requeue_signal is None:
            return
        handler = signal.getsignal(environment.requeue_signal)
        handlers = getattr(handler, "signal_handlers", ())
        if trainer._signal_connector._slurm_sigusr_handler_fn not in handlers:
            return  # a user's own handler
        self._trainer, self._signal = trainer, environment.requeue_signal
        signal.signal(self._signal, self._receive)

    def is_due(self, *, after_s: float = 0.0) -> bool:
        """Return whether any process received the signal ``after_s`` ago; call it on all."""
        if self._trainer is None:
            return False
        waited = self._received_at is not None and time.monotonic() - self._received_at >= after_s
        return self._trainer.strategy.reduce_boolean_decision(waited, all=False)

    def handle(self) -> None:
        """Have Lightning save its checkpoint and requeue the job; call it on all processes."""
        assert self._trainer is not None
        self._received_at = None
        step = self._trainer.global_step
        self._trainer._signal_connector._slurm_sigusr_handler_fn(self._signal, None)  # type: ignore[arg-type]
        log.info("SLURM's requeue signal: saved at step %d for the requeued job", step)

    def _receive(self, *_: Any) -> None:
        self._received_at = self._received_at or time.monotonic()


@dataclass(frozen=True)
class StepBoundary:
    """A place to resume from: all gradients so far went into optimizer steps."""

    step: int  # optimizer steps done
    epoch: int  # 0 for the first
    batches_done: int  # of each device in that epoch, in the order of the sampler
    loops: dict[str, Any]  # Lightning's progress


class RunCheckpoint(Checkpoint):
    """Save the run at points from which resuming gives the weights of an uninterrupted run exactly.

    These are after an optimizer step within an epoch (``step_00000500.ckpt``), and after an epoch
    with its validation (``epoch_00.ckpt``). ``last.ckpt`` is a second name of the newest. The run
    resumes with the first image of the epoch that it has not trained on, even if ``max_time``,
    ``max_steps`` or a callback ended it within an epoch.

    Lightning's ``ModelCheckpoint`` also saves between batches whose gradients are accumulated, and
    between an epoch's last step and its validation, which the resumed run would skip. List a
    score-monitoring ``ModelCheckpoint`` before this callback so that its state is saved.

    Args:
        dirpath: Folder of the checkpoints.
        every_n_train_steps: Optimizer steps between two checkpoints within an epoch.
        keep: Number of newest epochs whose checkpoints are kept; None: all. ``best.ckpt``,
            ``last.ckpt`` and checkpoints kept for their score always stay.

    Raises:
        InputError: ``every_n_train_steps`` or ``keep`` is below 1.
    """

    def __init__(self, *, dirpath: str, every_n_train_steps: int, keep: int | None = None) -> None:
        kinds = {"every_n_train_steps": whole(1), "keep": nullable(whole(1), null="for all")}
        check_values(kinds, locals(), prefix="callbacks.run_checkpoint.")
        self.directory = Path(dirpath)
        self.every_n_train_steps, self.keep = every_n_train_steps, keep
        self._is_size_logged = False
        self._saved_step = 0
        self._resumes_at_epoch_start = False
        self._boundary: StepBoundary | None = None  # the last one in this epoch
        self._saves_boundary = False
        self._saves_epoch = False
        self._ended_with_epoch = False
        self._requeue = RequeueSignal()
        self._used_requeue_files: list[Path] = []

    def on_train_epoch_start(self, trainer: Trainer, *_: Any) -> None:
        """Forget the epoch before."""
        self._boundary = None

    def on_train_batch_end(self, trainer: Trainer, *_: Any) -> None:
        """Save if it is due, no gradient is accumulated, and another step follows at once."""
        loop, fetcher = trainer.fit_loop.epoch_loop, trainer.fit_loop._data_fetcher
        assert fetcher is not None
        if loop._should_accumulate():
            return
        self._boundary = StepBoundary(
            step=trainer.global_step,
            epoch=_epochs_processed(trainer),
            batches_done=trainer.fit_loop.batch_idx + 1,
            loops=trainer.fit_loop.state_dict(),
        )
        if loop._is_training_done or loop._should_check_val_fx(fetcher):
            return
        if self._requeue.is_due():
            self._save_for_requeued_job()
        if trainer.global_step - self._saved_step >= self.every_n_train_steps:
            self._save_boundary(trainer)

    def on_validation_batch_end(self, trainer: Trainer, *_: Any) -> None:
        """Requeue the job before SLURM ends it during a long validation.

        The requeued job resumes after the steps of this epoch and skips this validation.
        """
        in_epoch = not trainer.sanity_checking and self._boundary is not None
        if in_epoch and self._requeue.is_due(after_s=VALIDATION_PATIENCE_S):
            self._save_for_requeued_job()

    def on_train_epoch_end(self, trainer: Trainer, *_: Any) -> None:
        """Save a complete epoch, or the last step of a run that ends within an epoch."""
        self._ended_with_epoch = trainer.fit_loop.epoch_loop._num_ready_batches_reached()
        if self._ended_with_epoch:
            self._saves_epoch = True
            self._save(trainer, f"epoch_{trainer.current_epoch:02d}.ckpt")
            if self._requeue.is_due():
                self._requeue.handle()
            self._saves_epoch = False
        elif self._boundary is not None:
            self._save_boundary(trainer)

    def on_train_end(self, trainer: Trainer, *_: Any) -> None:
        """Remove all but the epochs' checkpoints."""
        if trainer.is_global_zero and self._ended_with_epoch:
            for path in [*self.directory.glob(STEP_FILES), *_requeue_files(trainer)]:
                path.unlink()

    def on_save_checkpoint(self, trainer: Trainer, _: Any, checkpoint: dict[str, Any]) -> None:
        """Add the position in the data, to the checkpoints of this callback only."""
        # max_time holds for each start; with the Timer's state a resumed run would stop at once
        checkpoint["callbacks"].pop("Timer", None)
        if self._saves_epoch:
            position = {"epoch": _epochs_processed(trainer), "batches_done": 0}
        elif self._saves_boundary and self._boundary is not None:
            # within an epoch that ends early, Lightning's own progress says that it is complete
            checkpoint["loops"]["fit_loop"] = self._boundary.loops
            if trainer.validating and "current_model_state" in checkpoint:
                # a moving average is swapped with the trained weights
                checkpoint["state_dict"], checkpoint["current_model_state"] = (
                    checkpoint["current_model_state"],
                    checkpoint["state_dict"],
                )
            boundary = self._boundary
            position = {"epoch": boundary.epoch, "batches_done": boundary.batches_done}
        else:
            return
        position["stopped_early"] = _is_stopped_early(trainer)
        checkpoint[POSITION_KEY] = position | _data(trainer)

    def on_load_checkpoint(self, trainer: Trainer, _: Any, checkpoint: dict[str, Any]) -> None:
        """Resume the data where the checkpoint was saved.

        Raises:
            InputError: Training images or batches are not the checkpoint's.
        """
        saved = checkpoint[POSITION_KEY].items()
        position = {key.replace("photos", "images"): value for key, value in saved}  # older keys
        _check_data(_data(trainer), position)
        self._saved_step = checkpoint["global_step"]
        epoch, batches_done = position["epoch"], position["batches_done"]
        self._resumes_at_epoch_start = batches_done == 0
        _datamodule(trainer).resume_at(epoch=epoch, batches_done=batches_done)

    def on_train_start(self, trainer: Trainer, *_: Any) -> None:
        """Start a new epoch on resume if ``max_steps`` is set.

        Lightning would finish the old one twice; see
        https://github.com/Lightning-AI/pytorch-lightning/issues/19617
        """
        self._requeue.hold_back(trainer)
        self._used_requeue_files = _requeue_files(trainer)
        if self._resumes_at_epoch_start and trainer.max_steps != -1:
            loop = trainer.fit_loop
            loop.epoch_progress.increment_completed()
            loop.reset_restart_stage()
            loop.epoch_loop.restarting = False
            loop.epoch_loop.reset_restart_stage()

    def _save_boundary(self, trainer: Trainer) -> None:
        assert self._boundary is not None
        self._saves_boundary = True
        self._save(trainer, f"step_{self._boundary.step:08d}.ckpt")
        self._saves_boundary = False

    def _save_for_requeued_job(self) -> None:
        self._saves_boundary = True
        self._requeue.handle()
        self._saves_boundary = False

    def _save(self, trainer: Trainer, name: str) -> None:
        if trainer.fast_dev_run:  # type: ignore[attr-defined]
            return
        for logger in trainer.loggers:
            logger.save()
        trainer.save_checkpoint(self.directory / name, weights_only=False)
        self._saved_step = trainer.global_step
        if trainer.is_global_zero:
            hard_link(self.directory / name, LAST_FILE)
            for path in sorted(self.directory.glob(STEP_FILES))[:-STEP_FILES_KEPT]:
                path.unlink()
            for path in self._used_requeue_files:
                path.unlink(missing_ok=True)
            self._used_requeue_files = []
            if self._saves_epoch:
                self._log_size(trainer, (self.directory / name).stat().st_size)
                self._drop_old_epochs(trainer)

    def _log_size(self, trainer: Trainer, num_bytes: int) -> None:
        """Log once how many checkpoints are kept, and their size on disk."""
        if self._is_size_logged:
            return
        self._is_size_logged = True
        best = sum(max(0, callback.save_top_k) for callback in _rankings(trainer))
        limit = trainer.max_epochs or -1
        kept = f"the newest {self.keep} epochs" if self.keep is not None else "all epochs"
        epochs = limit if self.keep is None else min(self.keep, limit) if limit > 0 else self.keep
        count = epochs + STEP_FILES_KEPT + best
        total = f": at most {count}, {_size(count * num_bytes)}" if epochs > 0 else ""
        log.info(
            "checkpoints take %s each; kept: those of %s (callbacks.run_checkpoint.keep), %d "
            "within an epoch, and the %d best%s, in %s",
            *(_size(num_bytes), kept, STEP_FILES_KEPT, best, total, self.directory),
        )

    def _drop_old_epochs(self, trainer: Trainer) -> None:
        """Remove the checkpoints of epochs before the newest ones."""
        if self.keep is None:
            return
        links = [path for name in RUN_CHECKPOINTS if (path := self.directory / name).exists()]
        ranked = {Path(name) for callback in _rankings(trainer) for name in callback.best_k_models}
        files = sorted(self.directory.glob(EPOCH_FILES), key=lambda path: (len(path.name), path))
        for path in files[: -self.keep]:
            if path not in ranked and not any(path.samefile(link) for link in links):
                path.unlink()


def _rankings(trainer: Trainer) -> list[ModelCheckpoint]:
    """Return the callbacks that keep checkpoints by a score."""
    return [kept for kept in trainer.checkpoint_callbacks if isinstance(kept, ModelCheckpoint)]


def _size(num_bytes: int) -> str:
    return f"{num_bytes / 2**20:.0f} MiB" if num_bytes < 2**30 else f"{num_bytes / 2**30:.1f} GiB"


def _requeue_files(trainer: Trainer) -> list[Path]:
    return list(Path(trainer.default_root_dir).glob(REQUEUE_FILES))


def _is_stopped_early(trainer: Trainer) -> bool:
    """Return whether early stopping ends the run now, so that it must not be resumed."""
    reasons = [callback.stopping_reason for callback in trainer.early_stopping_callbacks]
    has_stopped = any(reason != EarlyStoppingReason.NOT_STOPPED for reason in reasons)
    return trainer.should_stop and trainer.fit_loop._can_stop_early and has_stopped


def _last_validated_step(trainer: Trainer) -> int:
    """Return the step of the last validation; ``max_steps`` if it is not what ends the run."""
    per_epoch = math.ceil(trainer.num_training_batches / trainer.accumulate_grad_batches)
    steps, epochs = trainer.max_steps, trainer.max_epochs
    in_epochs = trainer.check_val_every_n_epoch is not None and trainer.val_check_interval == 1.0
    if not in_epochs or steps < 0 or (epochs is not None and 0 <= epochs * per_epoch <= steps):
        return steps
    between = per_epoch * int(trainer.check_val_every_n_epoch or 1)
    return steps // between * between


def _epochs_processed(trainer: Trainer) -> int:
    """Return the epochs whose batches are done; in ``on_train_epoch_end`` the current one is."""
    return int(trainer.fit_loop.epoch_progress.current.state_dict()["processed"])


def _datamodule(trainer: Trainer) -> CompetitionDataModule:
    datamodule = trainer.datamodule  # type: ignore[attr-defined]
    assert isinstance(datamodule, CompetitionDataModule)
    return datamodule


def _data(trainer: Trainer) -> dict[str, Any]:
    """Return what a position in the data depends on."""
    datamodule, devices = _datamodule(trainer), trainer.world_size
    dataset = datamodule.train_dataset
    names = [dataset.store.images[index].image_id for index in dataset.indices]
    return {
        "devices": devices,
        "batch_size": datamodule.batch_size,
        "images_a_step": devices * datamodule.batch_size * trainer.accumulate_grad_batches,
        "training_images": len(names),
        "training_images_sha256": hashlib.sha256(json.dumps(names).encode()).hexdigest(),
    }


def _check_data(found: dict[str, Any], saved: dict[str, Any]) -> None:
    if found["training_images_sha256"] != saved["training_images_sha256"]:
        raise InputError(
            f"training images must be the {saved['training_images']} of the checkpoint, got "
            f"{found['training_images']} others: give its split and annotations, or start another "
            "run with name=..."
        )
    if found["images_a_step"] != saved["images_a_step"]:
        raise InputError(
            "devices x datamodule.batch_size x trainer.accumulate_grad_batches must be "
            f"{saved['images_a_step']} images a step, as in the checkpoint, got "
            f"{found['images_a_step']}: the schedule counts steps, so keep the product, or start "
            "another run with name=..."
        )
    shape = ("devices", "batch_size")
    if saved["batches_done"] and any(found[key] != saved[key] for key in shape):
        raise InputError(
            f"batches must be of {saved['batch_size']} on {saved['devices']} device(s) to resume "
            f"within an epoch, got {found['batch_size']} on {found['devices']}; resume from an "
            "epoch's end: resume=.../epoch_XX.ckpt"
        )
