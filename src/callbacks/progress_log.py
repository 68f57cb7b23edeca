"""Progress and scores as lines of the log."""

from __future__ import annotations

import logging
import sys
import time
from typing import Any

from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.callbacks import Callback, RichProgressBar

log = logging.getLogger(__name__)

SCORES = ("validation/competition_map", "validation/coco_map", "validation/coco_box_map")


class ProgressBar(RichProgressBar):
    """Lightning's bar without the version of a logger among the scores, and without ``/-2``.

    Lightning shows the last epoch's number beside the epoch's, also where none is set
    (``max_epochs=-1``).

    Args:
        leave: Whether the bar of each epoch stays on the screen.
    """

    def __init__(self, *, leave: bool) -> None:
        super().__init__(leave=leave)

    def get_metrics(
        self, trainer: Trainer, pl_module: LightningModule
    ) -> dict[str, int | str | float | dict[str, float]]:
        """Return the scores of the bar."""
        metrics = super().get_metrics(trainer, pl_module)
        metrics.pop("v_num", None)
        return metrics

    def _get_train_description(self, current_epoch: int) -> str:
        last = (self.trainer.max_epochs or -1) - 1
        return f"Epoch {current_epoch}/{last}" if last >= 0 else f"Epoch {current_epoch}"


class ProgressLogCallback(Callback):
    """Say the scores after each validation; where no terminal shows a bar, say how far it is, too.

    A bar in a file or a cluster's log is garbage, so there the trainer's bar is switched off.

    Args:
        every_seconds: a line of progress that often, at most.
    """

    def __init__(self, *, every_seconds: float) -> None:
        self.every_seconds = every_seconds
        self._next_line = float("inf")

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Look where the output goes."""
        if sys.stdout.isatty():
            return
        if trainer.progress_bar_callback is not None:
            trainer.progress_bar_callback.disable()
        if trainer.is_global_zero:
            self._next_line = time.monotonic() + self.every_seconds

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Say how far the epoch is, with the loss."""
        if self._is_due():
            shown = " ".join(
                f"{name} {value:.4g}" for name, value in trainer.progress_bar_metrics.items()
            )
            epoch = f"epoch {trainer.current_epoch}"
            self._say(epoch, batch_idx, trainer.num_training_batches, shown)

    def on_validation_batch_end(
        self,
        trainer: Trainer,
        pl_module: LightningModule,
        outputs: Any,
        batch: Any,
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        """Say how far validation is."""
        if self._is_due():
            self._say("validation", batch_idx, trainer.num_val_batches[dataloader_idx])

    def on_predict_batch_end(
        self,
        trainer: Trainer,
        pl_module: LightningModule,
        outputs: Any,
        batch: Any,
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        """Say how far prediction is."""
        if self._is_due():
            self._say("prediction", batch_idx, trainer.num_predict_batches[dataloader_idx])

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Say the scores."""
        values = {name: trainer.callback_metrics.get(name) for name in SCORES}
        scores = [f"{name} {value:.4f}" for name, value in values.items() if value is not None]
        if trainer.is_global_zero and not trainer.sanity_checking and scores:
            log.info("epoch %d: %s", trainer.current_epoch, ", ".join(scores))

    def _is_due(self) -> bool:
        return time.monotonic() >= self._next_line

    def _say(self, what: str, batch_idx: int, batches: float, shown: str = "") -> None:
        log.info("%s: %d of %d batches %s", what, batch_idx + 1, batches, shown)
        self._next_line = time.monotonic() + self.every_seconds
