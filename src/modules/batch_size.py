"""The batch that an optimizer step really sees, and the learning rate that goes with it."""

from __future__ import annotations

import logging

from lightning import Trainer
from torch.optim import Optimizer

from src.errors import InputError

log = logging.getLogger(__name__)


def scale_learning_rate(optimizer: Optimizer, *, trainer: Trainer, base_batch_size: int) -> None:
    """Scale the learning rate with the batch (Goyal et al., 2017: the linear scaling rule).

    An optimizer step sees devices x batch x accumulated batches; devices are those of all nodes.

    Args:
        optimizer: each of its groups' ``lr`` is multiplied; no scheduler may have seen it yet.
        trainer: of a run whose data module says its ``batch_size``, photos a batch and device.
        base_batch_size: images an optimizer step that ``lr`` is meant for.

    Raises:
        InputError: the trainer knows no such data module.
    """
    photos = getattr(getattr(trainer, "datamodule", None), "batch_size", None)
    if photos is None:
        raise InputError(
            f"module.base_batch_size: {base_batch_size} given, but there is no data module that "
            "says its batch_size; null leaves the learning rate alone"
        )
    devices, accumulated = trainer.world_size, trainer.accumulate_grad_batches
    batch_size = devices * photos * accumulated
    factor = batch_size / base_batch_size
    for group in optimizer.param_groups:
        given = group["lr"]
        group["lr"] = given * factor
    if trainer.is_global_zero:
        log.info(
            "learning rate %g for a batch of %d is %g for this run's batch of %d: %d device(s) x "
            "%d photo(s) x %d accumulated (module.base_batch_size=null turns this off)",
            *(given, base_batch_size, given * factor, batch_size),
            *(devices, photos, accumulated),
        )
