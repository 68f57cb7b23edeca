"""Losses and gradients that are not finite: named, never applied, in the end the end of a run."""

from __future__ import annotations

import logging
from typing import Any

import torch
from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.callbacks import Callback
from torch import Tensor
from torch.optim import Optimizer

from src.errors import InputError
from src.io import printable

log = logging.getLogger(__name__)

MAX_SHOWN = 4


class FiniteLossCallback(Callback):
    """Skip optimizer steps whose loss or gradient is not finite, and end a run that has only such.

    A step of NaN would make every weight NaN, silently. Its gradients are dropped instead, so that
    weights, and with them all checkpoints, stay finite. The step, the images and the loss terms are
    named. Under several processes a bad loss on one of them skips the step on all: the gradients
    that they share are bad everywhere. In ``16-mixed``, where the gradient scaler probes for
    overflow, only the loss counts.

    Args:
        tolerated_in_a_row: Bad steps in a row that are skipped, 0 or more; one more ends the run.

    Raises:
        InputError: ``tolerated_in_a_row`` is negative; in training, too many bad steps in a row.
    """

    def __init__(self, *, tolerated_in_a_row: int) -> None:
        if not isinstance(tolerated_in_a_row, int) or tolerated_in_a_row < 0:
            raise InputError(
                "callbacks.finite_loss.tolerated_in_a_row must be a whole number of 0 or more, got "
                f"{tolerated_in_a_row!r}"
            )
        self.tolerated_in_a_row = tolerated_in_a_row
        self.bad_in_a_row = 0
        self._batch: Any = None
        self._found: list[str] = []  # what was bad in the batches of this optimizer step

    def on_train_batch_start(
        self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int
    ) -> None:
        """Remember the images."""
        self._batch = batch

    def on_before_backward(
        self, trainer: Trainer, pl_module: LightningModule, loss: Tensor
    ) -> None:
        """Look at the loss of a batch."""
        if torch.isfinite(loss):
            return
        terms = getattr(pl_module, "loss_terms", {})
        bad = [f"{name}={float(term):g}" for name, term in terms.items() if not _is_finite(term)]
        ids = [printable(sample.img_id) for sample in self._batch["data_samples"]]
        images = ", ".join(ids[:MAX_SHOWN]) + (", ..." if len(ids) > MAX_SHOWN else "")
        self._found.append(f"{', '.join(bad) or f'loss={float(loss):g}'} on {images}")

    def on_before_optimizer_step(
        self, trainer: Trainer, pl_module: LightningModule, optimizer: Optimizer
    ) -> None:
        """Drop the gradients of a bad step, and end the run after too many in a row."""
        found, self._found = self._found, []
        if getattr(trainer.precision_plugin, "scaler", None) is not None:
            is_bad = trainer.strategy.reduce_boolean_decision(bool(found), all=False)
        else:
            is_bad = not _are_finite(optimizer)
        if not is_bad:
            self.bad_in_a_row = 0
            return
        optimizer.zero_grad(set_to_none=True)
        self.bad_in_a_row += 1
        what = "; ".join(found) or "the gradient (the loss is finite on this process)"
        line = f"step {trainer.global_step}: not finite: {what}"
        if self.bad_in_a_row > self.tolerated_in_a_row:
            raise InputError(
                f"{line}; {self.bad_in_a_row} step(s) in a row, "
                f"callbacks.finite_loss.tolerated_in_a_row={self.tolerated_in_a_row}. The weights "
                "are those of the last finite step; lower optimizer.lr, lengthen the warm-up, or "
                "look at these images"
            )
        if found or trainer.is_global_zero:
            log.warning("%s; the step is left out", line)


def _is_finite(tensor: Tensor) -> bool:
    return bool(torch.isfinite(tensor).all())


def _are_finite(optimizer: Optimizer) -> bool:
    """Return whether every gradient is finite, with one transfer from the device.

    Norms, because they take a fifteenth of the time of looking at each value; one that overflows,
    above 1.8e19, counts as not finite, too.
    """
    gradients = [
        parameter.grad
        for group in optimizer.param_groups
        for parameter in group["params"]
        if parameter.grad is not None
    ]
    if not gradients:
        return True
    norms = torch._foreach_norm(gradients)
    return _is_finite(torch.stack([norm.to(norms[0].device) for norm in norms]))
