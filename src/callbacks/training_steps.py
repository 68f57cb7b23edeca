"""Callbacks around a training step: seed, finite loss, moving average, speed, GPU memory."""

from __future__ import annotations

import logging
import random
import time
from collections import deque
from typing import Any

import numpy as np
import torch
from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.callbacks import Callback, WeightAveraging
from torch import Tensor
from torch.optim import Optimizer
from torch.optim.swa_utils import get_ema_multi_avg_fn

from src.errors import InputError
from src.io import printable
from src.mmdet_bridge.cascade.detectors import Batch
from src.validation import Count, check_value

log = logging.getLogger(__name__)

MAX_SHOWN = 4


class StepSeed(Callback):
    """Seed each training step, so that a resumed run samples the RoIs of an uninterrupted one."""

    def __init__(self, *, seed: int) -> None:
        self.seed = seed

    def on_train_batch_start(self, trainer: Trainer, _: Any, __: Any, batch_idx: int) -> None:
        """Seed torch, numpy and random."""
        rank, epoch = trainer.global_rank, trainer.current_epoch
        seed_step(self.seed, rank=rank, epoch=epoch, batch_index=batch_idx)


def seed_step(seed: int, *, rank: int, epoch: int, batch_index: int) -> None:
    """Seed the global generators for one batch of one process, from all four numbers."""
    state = np.random.SeedSequence([seed, rank, epoch, batch_index]).generate_state(1)
    torch.manual_seed(int(state[0]))
    np.random.seed(state)
    random.seed(int(state[0]))


class FiniteLoss(Callback):
    """Skip optimizer steps whose loss or gradient is not finite; end a run with too many in a row.

    A step of NaN would silently make every weight NaN. Its gradients are dropped instead, so that
    weights and checkpoints stay finite, and the step, the images and the loss terms are logged.
    Under several processes a bad loss on one of them skips the step on all, since they share
    gradients. In ``16-mixed``, where the gradient scaler probes for overflow, only the loss counts.

    Args:
        tolerated_in_a_row: Number of bad steps in a row to skip; one more ends the run.

    Raises:
        InputError: ``tolerated_in_a_row`` is negative; in training, too many bad steps in a row.
    """

    def __init__(self, *, tolerated_in_a_row: int) -> None:
        check_value("callbacks.finite_loss.tolerated_in_a_row", tolerated_in_a_row, Count)
        self.tolerated_in_a_row = tolerated_in_a_row
        self.bad_in_a_row = 0
        self._batch: Any = None
        self._found: list[str] = []  # descriptions of bad losses of this optimizer step

    def on_train_batch_start(self, trainer: Trainer, _: Any, batch: Any, *__: Any) -> None:
        """Remember the batch, whose images a message names."""
        self._batch = batch

    def on_before_backward(self, trainer: Trainer, pl_module: Any, loss: Tensor) -> None:
        """Check the loss of a batch."""
        if torch.isfinite(loss):
            return
        terms = getattr(pl_module, "loss_terms", {})
        bad = [f"{name}={float(term):g}" for name, term in terms.items() if not _is_finite(term)]
        ids = [printable(sample.img_id) for sample in self._batch["data_samples"]]
        images = ", ".join(ids[:MAX_SHOWN]) + (", ..." if len(ids) > MAX_SHOWN else "")
        self._found.append(f"{', '.join(bad) or f'loss={float(loss):g}'} on {images}")

    def on_before_optimizer_step(self, trainer: Trainer, _: Any, optimizer: Optimizer) -> None:
        """Drop the gradients of a bad step, and end the run after too many in a row."""
        found, self._found = self._found, []
        if getattr(trainer.precision_plugin, "scaler", None) is not None:
            is_bad = trainer.strategy.reduce_boolean_decision(bool(found), all=False)
        else:
            is_bad = not _has_finite_gradients(optimizer)
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


def _has_finite_gradients(optimizer: Optimizer) -> bool:
    """Return whether every gradient is finite, with one transfer from the device.

    Norms take a fifteenth of the time of checking each value; a norm that overflows, above 1.8e19,
    counts as not finite.
    """
    parameters = [parameter for group in optimizer.param_groups for parameter in group["params"]]
    gradients = [parameter.grad for parameter in parameters if parameter.grad is not None]
    if not gradients:
        return True
    norms = torch._foreach_norm(gradients)
    return _is_finite(torch.stack([norm.to(norms[0].device) for norm in norms]))


class ExponentialMovingAverage(WeightAveraging):
    """Average the weights for validation, checkpoints and prediction.

    After each optimizer step ``average = decay * average + (1 - decay) * weights``, starting with
    the weights after the first. In a checkpoint the average is the ``state_dict``; the weights that
    training resumes from are its ``current_model_state``.

    Lightning's ``EMAWeightAveraging`` averages one tensor at a time, rounds so that frozen weights
    drift, and keeps its copy on the CPU if no device is given.

    Raises:
        InputError: ``decay`` is not above 0 and below 1.
    """

    def __init__(self, *, decay: float = 0.999) -> None:
        if not 0.0 < decay < 1.0:
            raise InputError(f"callbacks.ema.decay must be above 0 and below 1, got {decay}")
        # Buffers are copied, not averaged: the statistics of a frozen BatchNorm do not change.
        super().__init__(use_buffers=False, multi_avg_fn=get_ema_multi_avg_fn(decay))  # type: ignore[no-untyped-call]

    def on_fit_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Move the average to the model's device."""
        assert self._average_model is not None  # made in `setup`
        self._average_model.to(pl_module.device)


class TrainingSpeed(Callback):
    """Log means over the last ``trainer.log_every_n_steps`` steps.

    - ``speed/images_per_second``: Of all devices together.
    - ``speed/step_seconds``: From the end of a step to the end of the next.
    - ``speed/data_loading_share``: The part of it before the step begins, in [0, 1]: waiting for
      the loader, moving the batch to the device, writing logs. The GPU runs asynchronously, so this
      is an upper bound on its idle time.
    - ``speed/gpu_memory_gib``: Peak allocation since the start; only on a GPU.

    The clock is read twice a step, without waiting for a device. The first step of an epoch, and
    one after a validation or a saved checkpoint, are left out.
    """

    def __init__(self) -> None:
        self._window: deque[tuple[int, float, float]] = deque()
        self._started = 0.0
        self._ended: float | None = None

    def on_train_start(self, trainer: Trainer, *_: Any) -> None:
        """Make a window of the logging interval."""
        self._window = deque(maxlen=trainer.log_every_n_steps)  # type: ignore[attr-defined]

    def on_train_epoch_start(self, *_: Any, **__: Any) -> None:
        """Leave out the time between epochs, like that of a validation and of saving."""
        self._ended = None

    on_validation_end = on_save_checkpoint = on_train_epoch_start

    def on_train_batch_start(self, trainer: Trainer, *_: Any) -> None:
        """Read the clock: the batch is loaded."""
        self._started = time.perf_counter()

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Read the clock, and log the window's means."""
        now = time.perf_counter()
        if self._ended is not None:
            waited, taken = self._started - self._ended, now - self._ended
            self._window.append((len(batch["inputs"]), waited, taken))
        if self._window:
            images, waited, taken = (sum(column) for column in zip(*self._window, strict=True))
            values = {
                "speed/images_per_second": images * trainer.world_size / taken,
                "speed/step_seconds": taken / len(self._window),
                "speed/data_loading_share": waited / taken,
            }
            if pl_module.device.type == "cuda":
                peak = torch.cuda.max_memory_allocated(pl_module.device)
                values["speed/gpu_memory_gib"] = peak / 2**30
            pl_module.log_dict(values, batch_size=1)
        self._ended = time.perf_counter()


class MemoryAdvice(Callback):
    """Remember the sizes of the current batch, for the message when GPU memory runs out."""

    def __init__(self) -> None:
        self.doing = "making the model"
        self.sizes = ""

    def on_train_batch_start(self, trainer: Trainer, _: Any, batch: Batch, *__: Any) -> None:
        """Remember a training batch."""
        self.doing = f"training, step {trainer.global_step}"
        self.sizes = describe_batch(batch)

    def on_validation_batch_start(self, trainer: Trainer, _: Any, batch: Batch, *__: Any) -> None:
        """Remember a validation batch."""
        self.doing = "validation"
        self.sizes = describe_batch(batch)

    def message(self) -> str:
        """Return one line: what was in memory, and what to lower."""
        sizes = f"images of the batch (height x width, instances): {self.sizes}; "
        keys = "datamodule.batch_size, train_short_edge_px, train_long_edge_px"
        if self.doing == "validation":
            keys = "datamodule.predict_batch_size, predict_short_edge_px, predict_long_edge_px"
        return (
            f"out of GPU memory in {self.doing}; {sizes if self.sizes else ''}lower {keys}, or "
            "give trainer.precision=bf16-mixed"
        )


def describe_batch(batch: Batch) -> str:
    """Return ``1200x800 (7), 900x1200 (3)``: each image's size and, in training, its instances."""
    return ", ".join(
        "x".join(map(str, pixels.shape[-2:]))
        + (f" ({len(sample.gt_instances)})" if "gt_instances" in sample else "")
        for pixels, sample in zip(batch["inputs"], batch["data_samples"], strict=True)
    )
