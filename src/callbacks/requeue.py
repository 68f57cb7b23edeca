"""SLURM's requeue signal, held back until the run is where it can be saved and resumed."""

from __future__ import annotations

import logging
import signal
import time
from typing import Any

from lightning.fabric.plugins.environments import SLURMEnvironment
from lightning.pytorch import Trainer

log = logging.getLogger(__name__)


class RequeueSignal:
    """Hold back the signal at which Lightning saves ``hpc_ckpt_1.ckpt`` and requeues the job.

    Lightning's own handler saves at once: in the middle of a step whose weights are half updated,
    or of an epoch's validation. Whoever owns the loop asks ``is_due`` where saving is safe, and
    then lets the handler run. Training goes on until SLURM ends the job.
    """

    def __init__(self) -> None:
        self._trainer: Trainer | None = None
        self._signal = signal.SIGUSR1
        self._received_at: float | None = None

    def hold_back(self, trainer: Trainer) -> None:
        """Take the place of Lightning's handler, where it requeues: SLURM, ``auto_requeue``."""
        environment = trainer._accelerator_connector.cluster_environment
        if not isinstance(environment, SLURMEnvironment) or environment.requeue_signal is None:
            return
        handler = signal.getsignal(environment.requeue_signal)
        handlers = getattr(handler, "signal_handlers", ())
        if trainer._signal_connector._slurm_sigusr_handler_fn not in handlers:
            return  # somebody's own
        self._trainer, self._signal = trainer, environment.requeue_signal
        signal.signal(self._signal, self._receive)

    def is_due(self, *, after_s: float = 0.0) -> bool:
        """Return whether one of the processes received the signal that long ago; asked of all."""
        if self._trainer is None:
            return False
        waited = self._received_at is not None and time.monotonic() - self._received_at >= after_s
        return self._trainer.strategy.reduce_boolean_decision(waited, all=False)

    def handle(self) -> None:
        """Let Lightning save its checkpoint and requeue the job; on all processes."""
        assert self._trainer is not None
        self._received_at = None
        step = self._trainer.global_step
        self._trainer._signal_connector._slurm_sigusr_handler_fn(self._signal, None)  # type: ignore[arg-type]
        log.info("SLURM's requeue signal: saved at step %d for the requeued job", step)

    def _receive(self, *_: Any) -> None:
        self._received_at = self._received_at or time.monotonic()
