"""What ends a run, or copies its folder, at a chosen moment; tests add it to the callbacks."""

from __future__ import annotations

import multiprocessing
import os
import shutil
import signal
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from lightning.pytorch import Callback, Trainer

from src.processes import process_identity


class KillOnce(Callback):
    """SIGKILL this process before a training step, the first time that the run comes there."""

    def __init__(self, *, step: int, marker: str) -> None:
        self.step, self.marker = step, Path(marker)

    def on_train_batch_start(self, trainer: Trainer, *_: Any) -> None:
        if trainer.global_step == self.step and not self.marker.exists():
            self.marker.touch()
            os.kill(os.getpid(), signal.SIGKILL)


class KillOneOfMany(Callback):
    """SIGKILL a rank or a loader worker of this run before a training step, once.

    Args:
        step: the optimizer step.
        marker: made at the kill; where it exists, nothing is killed.
        rank: the process to kill; None: a loader worker of the first process.
    """

    def __init__(self, *, step: int, marker: str, rank: int | None) -> None:
        self.step, self.marker, self.rank = step, Path(marker), rank

    def on_train_batch_start(self, trainer: Trainer, *_: Any) -> None:
        is_here = trainer.global_rank == (0 if self.rank is None else self.rank)
        if trainer.global_step != self.step or not is_here or self.marker.exists():
            return
        self.marker.touch()
        if self.rank is None:
            worker = multiprocessing.active_children()[0]
            os.kill(int(worker.pid or 0), signal.SIGKILL)
        else:
            os.kill(os.getpid(), signal.SIGKILL)


class KillAll(Callback):
    """SIGKILL all processes of this run before a training step, once: it leads a process group."""

    def __init__(self, *, step: int, marker: str) -> None:
        self.step, self.marker = step, Path(marker)

    def on_train_batch_start(self, trainer: Trainer, *_: Any) -> None:
        is_here = trainer.global_step == self.step and trainer.is_global_zero
        if is_here and not self.marker.exists():
            self.marker.touch()
            os.killpg(0, signal.SIGKILL)


class Snapshots(Callback):
    """Copy the run's folder as a SIGKILL would leave it there and then.

    Moments are ``batch 3`` (before the batch of that number in the run), ``validation 1`` (in the
    middle of it, after the epoch of that number) and ``saving 2`` (before a checkpoint of that step
    has its name; what is written of it is cut short).
    """

    def __init__(self, *, directory: str, output: str, moments: Sequence[str]) -> None:
        self.directory, self.output, self.moments = Path(directory), Path(output), list(moments)
        self.seen: list[str] = []

    def _note(self, moment: str) -> None:
        self.seen.append(moment)
        if moment in self.moments:
            shutil.copytree(self.directory, self.output / moment, symlinks=True)

    def on_train_batch_start(self, trainer: Trainer, *_: Any) -> None:
        self._note(f"batch {trainer.fit_loop.total_batch_idx}")

    def on_validation_batch_start(self, trainer: Trainer, *arguments: Any) -> None:
        if arguments[2] == 1:
            self._note(f"validation {trainer.current_epoch}")

    def on_save_checkpoint(self, trainer: Trainer, module: Any, checkpoint: Any) -> None:
        moment = f"saving {trainer.global_step}"
        if moment not in self.seen:
            self._note(moment)
        if moment in self.moments:
            host = process_identity()["host"]
            name = f".step_{trainer.global_step:08d}.ckpt.{host}-1-1.part"
            folder = self.output / moment / "checkpoints"
            folder.mkdir(exist_ok=True)
            (folder / name).write_bytes(b"PK\x03\x04 cut short")


class StopAt(Callback):
    """Tell the trainer to stop after so many batches of the run, as a limit of time does."""

    def __init__(self, *, batches: int) -> None:
        self.batches = batches

    def on_train_batch_end(self, trainer: Trainer, *_: Any) -> None:
        if trainer.fit_loop.total_batch_idx + 1 == self.batches:
            trainer.should_stop = True


class SignalAt(Callback):
    """SIGUSR1 to this process at a moment: ``batch 2`` (before it) or ``validation 0`` (in it)."""

    def __init__(self, *, moment: str) -> None:
        self.moment = moment

    def on_train_batch_start(self, trainer: Trainer, *_: Any) -> None:
        if self.moment == f"batch {trainer.fit_loop.total_batch_idx}":
            os.kill(os.getpid(), signal.SIGUSR1)

    def on_validation_batch_start(self, trainer: Trainer, *arguments: Any) -> None:
        if arguments[2] == 0 and self.moment == f"validation {trainer.current_epoch}":
            os.kill(os.getpid(), signal.SIGUSR1)


class FailAt(Callback):
    """Fail after so many batches of the run."""

    def __init__(self, *, batches: int) -> None:
        self.batches = batches

    def on_train_batch_end(self, trainer: Trainer, *_: Any) -> None:
        if trainer.fit_loop.total_batch_idx + 1 == self.batches:
            raise RuntimeError("as a test wants it")
