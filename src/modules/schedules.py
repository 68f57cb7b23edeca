"""Learning rate schedules by step, and scaling with the batch size."""

from __future__ import annotations

import logging
import math
from collections.abc import Callable, Sequence

from lightning import Trainer
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LambdaLR

from src.errors import InputError

log = logging.getLogger(__name__)


def scale_learning_rate(optimizer: Optimizer, *, trainer: Trainer, base_batch_size: int) -> None:
    """Scale the learning rate with the batch (Goyal et al., 2017: the linear scaling rule).

    An optimizer step sees devices (of all nodes) x batch x accumulated batches.

    Args:
        optimizer: Each of its groups' ``lr`` is multiplied, before a scheduler sees it.
        trainer: Its data module has a ``batch_size``, images a batch and device.
        base_batch_size: Images an optimizer step for which ``lr`` is meant.

    Raises:
        InputError: The trainer has no such data module.
    """
    images = getattr(getattr(trainer, "datamodule", None), "batch_size", None)
    if images is None:
        raise InputError(
            "module.base_batch_size must be null, which leaves the learning rate alone, without a "
            f"data module that has a batch_size, got {base_batch_size}"
        )
    devices, accumulated = trainer.world_size, trainer.accumulate_grad_batches
    batch_size = devices * images * accumulated
    factor = batch_size / base_batch_size
    for group in optimizer.param_groups:
        given = group["lr"]
        group["lr"] = given * factor
    if trainer.is_global_zero:
        log.info(
            "learning rate %g for a batch of %d is %g for this run's batch of %d: %d device(s) x "
            "%d image(s) x %d accumulated (module.base_batch_size=null turns this off)",
            *(given, base_batch_size, given * factor, batch_size),
            *(devices, images, accumulated),
        )


def warmup_factor(step: int, *, warmup_steps: int, warmup_ratio: float) -> float:
    """Return the factor of a linear warm-up from ``warmup_ratio`` to 1 at ``warmup_steps``."""
    if step >= warmup_steps:
        return 1.0
    return 1.0 - (1.0 - step / warmup_steps) * (1.0 - warmup_ratio)


SchedulerFactory = Callable[..., LambdaLR]
"""``(optimizer, *, total_steps, steps_per_epoch)``; stepped after every optimizer step."""


def warmup_multistep(
    optimizer: Optimizer,
    *,
    total_steps: int,
    steps_per_epoch: int,
    warmup_steps: int,
    warmup_ratio: float,
    milestone_epochs: Sequence[int],
    gamma: float,
) -> LambdaLR:
    """Return the schedule of S7 (mmdetection's ``step`` policy with linear warm-up).

    The rate is multiplied by ``gamma`` after each of ``milestone_epochs``, numbers of epochs.
    """

    def factor(step: int) -> float:
        drops = sum(step >= epoch * steps_per_epoch for epoch in milestone_epochs)
        warmup = warmup_factor(step, warmup_steps=warmup_steps, warmup_ratio=warmup_ratio)
        return gamma**drops * warmup

    return LambdaLR(optimizer, factor)


def warmup_cosine(
    optimizer: Optimizer,
    *,
    total_steps: int,
    steps_per_epoch: int,
    warmup_steps: int,
    warmup_ratio: float,
    final_ratio: float,
) -> LambdaLR:
    """Return a linear warm-up, then half a cosine from 1 to ``final_ratio`` at the last step."""

    def factor(step: int) -> float:
        if step < warmup_steps:
            return warmup_factor(step, warmup_steps=warmup_steps, warmup_ratio=warmup_ratio)
        progress = min(1.0, (step - warmup_steps) / max(1, total_steps - 1 - warmup_steps))
        return final_ratio + (1.0 - final_ratio) * 0.5 * (1.0 + math.cos(math.pi * progress))

    return LambdaLR(optimizer, factor)


def constant(optimizer: Optimizer, *, total_steps: int, steps_per_epoch: int) -> LambdaLR:
    """Return a schedule that leaves the learning rate alone."""
    return LambdaLR(optimizer, lambda _step: 1.0)
