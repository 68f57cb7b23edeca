"""Learning rates by step, and how they follow the batch size."""

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

    An optimizer step sees devices x batch x accumulated batches; devices are those of all nodes.

    Args:
        optimizer: each of its groups' ``lr`` is multiplied; no scheduler may have seen it yet.
        trainer: of a run whose data module says its ``batch_size``, images a batch and device.
        base_batch_size: images an optimizer step that ``lr`` is meant for.

    Raises:
        InputError: the trainer knows no such data module.
    """
    images = getattr(getattr(trainer, "datamodule", None), "batch_size", None)
    if images is None:
        raise InputError(
            f"module.base_batch_size: {base_batch_size} given, but there is no data module that "
            "says its batch_size; null leaves the learning rate alone"
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
    """Linear warm-up: ``warmup_ratio`` at step 0, 1 from step ``warmup_steps`` on.

    Args:
        step: optimizer steps done before this one, 0 for the first.
    """
    if step >= warmup_steps:
        return 1.0
    return 1.0 - (1.0 - step / warmup_steps) * (1.0 - warmup_ratio)


def warmup_multistep_factor(
    step: int,
    *,
    steps_per_epoch: int,
    warmup_steps: int,
    warmup_ratio: float,
    milestone_epochs: Sequence[int],
    gamma: float,
) -> float:
    """Factor on the learning rate at a step (S7; mmdetection's ``step`` policy, linear warm-up).

    Args:
        step: optimizer steps done before this one, 0 for the first.
        milestone_epochs: after each of these numbers of whole epochs the rate is multiplied with
            ``gamma`` once more.
    """
    drops = sum(step >= epoch * steps_per_epoch for epoch in milestone_epochs)
    return gamma**drops * warmup_factor(step, warmup_steps=warmup_steps, warmup_ratio=warmup_ratio)


def warmup_cosine_factor(
    step: int, *, total_steps: int, warmup_steps: int, warmup_ratio: float, final_ratio: float
) -> float:
    """Linear warm-up, then half a cosine from 1 down to ``final_ratio`` at the last step.

    Args:
        step: optimizer steps done before this one, 0 for the first.
        total_steps: of the run; its last step is number ``total_steps - 1``.
    """
    if step < warmup_steps:
        return warmup_factor(step, warmup_steps=warmup_steps, warmup_ratio=warmup_ratio)
    progress = min(1.0, (step - warmup_steps) / max(1, total_steps - 1 - warmup_steps))
    return final_ratio + (1.0 - final_ratio) * 0.5 * (1.0 + math.cos(math.pi * progress))


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
    """Scheduler of ``warmup_multistep_factor``; it does not depend on ``total_steps``."""

    def factor(step: int) -> float:
        return warmup_multistep_factor(
            step,
            steps_per_epoch=steps_per_epoch,
            warmup_steps=warmup_steps,
            warmup_ratio=warmup_ratio,
            milestone_epochs=milestone_epochs,
            gamma=gamma,
        )

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
    """Scheduler of ``warmup_cosine_factor``; it does not depend on ``steps_per_epoch``."""

    def factor(step: int) -> float:
        return warmup_cosine_factor(
            step,
            total_steps=total_steps,
            warmup_steps=warmup_steps,
            warmup_ratio=warmup_ratio,
            final_ratio=final_ratio,
        )

    return LambdaLR(optimizer, factor)


def constant(optimizer: Optimizer, *, total_steps: int, steps_per_epoch: int) -> LambdaLR:
    """Scheduler that leaves the learning rate alone."""
    return LambdaLR(optimizer, lambda step: 1.0)
