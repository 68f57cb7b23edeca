"""Learning rates over a run: pure functions of the step, and the schedulers made of them."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

from torch.optim import Optimizer
from torch.optim.lr_scheduler import LambdaLR


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
