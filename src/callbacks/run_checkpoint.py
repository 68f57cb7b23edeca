"""The checkpoints that a run resumes from: one an epoch, and one every so many steps."""

from __future__ import annotations

import hashlib
import json
import logging
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.callbacks import Checkpoint, ModelCheckpoint
from lightning.pytorch.callbacks.early_stopping import EarlyStoppingReason

from src.callbacks.checkpoint_files import link
from src.callbacks.requeue import RequeueSignal
from src.datamodules.datamodule import CompetitionDataModule
from src.errors import InputError

log = logging.getLogger(__name__)

EPOCH_FILES, STEP_FILES, LAST_FILE = "epoch_*.ckpt", "step_*.ckpt", "last.ckpt"
LINKS = ("last.ckpt", "best.ckpt")
REQUEUE_FILES = "hpc_ckpt_*.ckpt"  # Lightning's, in the folder above, when SLURM stops a job
STEP_FILES_KEPT = 2  # the newest, and the one before for the case that the newest gets damaged
POSITION_KEY = "position"
VALIDATION_PATIENCE_S = 30.0  # of the 90 seconds or so between SLURM's signal and the job's end


@dataclass(frozen=True)
class StepBoundary:
    """Everything trained so far went into optimizer steps: the place that a run resumes from.

    Attributes:
        step: Optimizer steps done.
        epoch: Epoch that it lies in, 0 for the first.
        batches_done: Batches of each device in that epoch, in the order of the sampler.
        loops: Lightning's progress there.
    """

    step: int
    epoch: int
    batches_done: int
    loops: dict[str, Any]


class RunCheckpoint(Checkpoint):
    """Save the run where resuming gives the weights of an uninterrupted run, bit for bit.

    That is after an optimizer step in the middle of an epoch (``step_00000500.ckpt``), and after an
    epoch with its validation (``epoch_00.ckpt``, kept). ``last.ckpt`` is a second name of the
    newest. The run resumes with the first image of the epoch that it has not trained on, also where
    ``max_time``, ``max_steps`` or a callback ended it in the middle of an epoch.

    Lightning's ``ModelCheckpoint`` also saves between an epoch's last step and its validation,
    which is left out when the run resumes, and between batches whose gradients are accumulated. One
    that monitors a score has to stand before this one, so that what it knows is saved here.

    Args:
        dirpath: Folder of the checkpoints.
        every_n_train_steps: Optimizer steps between two checkpoints within an epoch.
        keep: Epochs whose checkpoints are kept, the newest; None: all. One that ``best.ckpt`` or
            ``last.ckpt`` stands for, or that is kept for its score, stays in any case.

    Raises:
        InputError: A number of steps, or of epochs, below 1.
    """

    def __init__(self, *, dirpath: str, every_n_train_steps: int, keep: int | None = None) -> None:
        if every_n_train_steps < 1:
            raise InputError(
                f"callbacks.run_checkpoint.every_n_train_steps={every_n_train_steps}: 1 or more "
                "is legal"
            )
        if keep is not None and keep < 1:
            raise InputError(
                f"callbacks.run_checkpoint.keep must be 1 or more, or null for all, got {keep}"
            )
        self.keep = keep
        self._is_size_said = False
        self.directory = Path(dirpath)
        self.every_n_train_steps = every_n_train_steps
        self._saved_step = 0
        self._resumes_at_epoch_start = False
        self._boundary: StepBoundary | None = None  # the last one in this epoch
        self._saves_boundary = False
        self._saves_epoch = False
        self._ended_with_epoch = False
        self._requeue = RequeueSignal()
        self._used_requeue_files: list[Path] = []

    def on_train_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Forget the epoch before."""
        self._boundary = None

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Save where it is time, gradients are used up, and another step follows at once."""
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

    def on_validation_batch_end(
        self,
        trainer: Trainer,
        pl_module: LightningModule,
        outputs: Any,
        batch: Any,
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        """Do not let a long validation cost a job its place in SLURM's queue.

        The requeued job resumes after the steps of this epoch and leaves this validation out.
        """
        if trainer.sanity_checking or self._boundary is None:
            return
        if self._requeue.is_due(after_s=VALIDATION_PATIENCE_S):
            self._save_for_requeued_job()

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Save an epoch that is done, or as far as it was trained where the run ends within it."""
        self._ended_with_epoch = trainer.fit_loop.epoch_loop._num_ready_batches_reached()
        if self._ended_with_epoch:
            self._saves_epoch = True
            self._save(trainer, f"epoch_{trainer.current_epoch:02d}.ckpt")
            if self._requeue.is_due():
                self._requeue.handle()
            self._saves_epoch = False
        elif self._boundary is not None:
            self._save_boundary(trainer)

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Leave the epochs' checkpoints."""
        if trainer.is_global_zero and self._ended_with_epoch:
            for path in [*self.directory.glob(STEP_FILES), *_requeue_files(trainer)]:
                path.unlink()

    def on_save_checkpoint(
        self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]
    ) -> None:
        """Add where the data resumes, to the checkpoints of this class only."""
        # A limit of time is one of each start: a run that was resumed would else stop at once.
        checkpoint["callbacks"].pop("Timer", None)
        if self._saves_epoch:
            checkpoint[POSITION_KEY] = {
                "epoch": _epochs_processed(trainer),
                "batches_done": 0,
                "stopped_early": _is_stopped_early(trainer),
                **_data(trainer),
            }
        elif self._saves_boundary and self._boundary is not None:
            # Where an epoch is broken off, Lightning's own progress says that it is done.
            checkpoint["loops"]["fit_loop"] = self._boundary.loops
            if trainer.validating and "current_model_state" in checkpoint:
                # A moving average has changed places with the weights that are trained.
                checkpoint["state_dict"], checkpoint["current_model_state"] = (
                    checkpoint["current_model_state"],
                    checkpoint["state_dict"],
                )
            checkpoint[POSITION_KEY] = {
                "epoch": self._boundary.epoch,
                "batches_done": self._boundary.batches_done,
                "stopped_early": _is_stopped_early(trainer),
                **_data(trainer),
            }

    def on_load_checkpoint(
        self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]
    ) -> None:
        """Let the data resume where the checkpoint says.

        Raises:
            InputError: other training images or batches than the checkpoint's.
        """
        # Checkpoints written before 2026-11-28 say photos.
        position = {
            key.replace("photos", "images"): value
            for key, value in checkpoint[POSITION_KEY].items()
        }
        _check_data(_data(trainer), position)
        self._saved_step = checkpoint["global_step"]
        self._resumes_at_epoch_start = position["batches_done"] == 0
        _datamodule(trainer).go_on(epoch=position["epoch"], batches_done=position["batches_done"])

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Begin an epoch as an epoch, also in runs that are limited by ``max_steps``.

        Lightning takes it there for one that waits to be finished, and ends it a second time; see
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
            link(self.directory / name, LAST_FILE)
            for path in sorted(self.directory.glob(STEP_FILES))[:-STEP_FILES_KEPT]:
                path.unlink()
            for path in self._used_requeue_files:
                path.unlink(missing_ok=True)
            self._used_requeue_files = []
            if self._saves_epoch:
                self._say_size(trainer, (self.directory / name).stat().st_size)
                self._drop_old_epochs(trainer)

    def _say_size(self, trainer: Trainer, num_bytes: int) -> None:
        """Say once how many checkpoints are kept, and what they take on the disk."""
        if self._is_size_said:
            return
        self._is_size_said = True
        best = sum(max(0, callback.save_top_k) for callback in _rankings(trainer))
        limit = trainer.max_epochs or -1
        kept = f"the newest {self.keep} epochs" if self.keep is not None else "all epochs"
        epochs = limit if self.keep is None else min(self.keep, limit) if limit > 0 else self.keep
        count = epochs + STEP_FILES_KEPT + best
        total = f": at most {count}, {_size(count * num_bytes)}" if epochs > 0 else ""
        log.info(
            "checkpoints take %s each; kept are those of %s (callbacks.run_checkpoint.keep), %d "
            "within an epoch, and %d best%s in %s",
            *(_size(num_bytes), kept, STEP_FILES_KEPT, best, total, self.directory),
        )

    def _drop_old_epochs(self, trainer: Trainer) -> None:
        """Remove the checkpoints of epochs that are no longer kept."""
        if self.keep is None:
            return
        links = [path for name in LINKS if (path := self.directory / name).exists()]
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
    """Return whether an early stopping ends the run now, so that no start trains it on."""
    return (
        trainer.should_stop
        and trainer.fit_loop._can_stop_early
        and any(
            callback.stopping_reason != EarlyStoppingReason.NOT_STOPPED
            for callback in trainer.early_stopping_callbacks
        )
    )


def _epochs_processed(trainer: Trainer) -> int:
    """Return the epochs whose batches are done; one more than completed in an epoch's end."""
    return int(trainer.fit_loop.epoch_progress.current.state_dict()["processed"])


def _datamodule(trainer: Trainer) -> CompetitionDataModule:
    datamodule = trainer.datamodule  # type: ignore[attr-defined]
    assert isinstance(datamodule, CompetitionDataModule)
    return datamodule


def _data(trainer: Trainer) -> dict[str, Any]:
    """What the place in the data depends on."""
    datamodule = _datamodule(trainer)
    images = datamodule.train_dataset
    names = [images.store.images[index].image_id for index in images.indices]
    return {
        "devices": trainer.world_size,
        "batch_size": datamodule.batch_size,
        "images_a_step": trainer.world_size
        * datamodule.batch_size
        * trainer.accumulate_grad_batches,
        "training_images": len(names),
        "training_images_sha256": hashlib.sha256(json.dumps(names).encode()).hexdigest(),
    }


def _check_data(found: dict[str, Any], saved: dict[str, Any]) -> None:
    if found["training_images_sha256"] != saved["training_images_sha256"]:
        raise InputError(
            f"the checkpoint was trained on {saved['training_images']} images, and the "
            f"{found['training_images']} training images now are others: give the split and the "
            "annotations of then, or start another run with name=..."
        )
    if found["images_a_step"] != saved["images_a_step"]:
        raise InputError(
            f"devices x datamodule.batch_size x trainer.accumulate_grad_batches is "
            f"{found['images_a_step']} images a step, the checkpoint's {saved['images_a_step']}: "
            "the schedule counts steps, so keep the product, or start another run with name=..."
        )
    shape = ("devices", "batch_size")
    if saved["batches_done"] and any(found[key] != saved[key] for key in shape):
        raise InputError(
            f"the checkpoint is in the middle of an epoch of batches of {saved['batch_size']} on "
            f"{saved['devices']} device(s); batches of {found['batch_size']} on "
            f"{found['devices']} resume from an epoch's end only: resume=.../epoch_XX.ckpt"
        )
