"""A moving average of the weights, which validation, checkpoints and prediction use."""

from __future__ import annotations

from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.callbacks import WeightAveraging
from torch.optim.swa_utils import get_ema_multi_avg_fn

from src.errors import InputError


class ExponentialMovingAverage(WeightAveraging):
    """Lightning's weight averaging by ``average = decay * average + (1 - decay) * weights``.

    The average starts as the weights after the first optimizer step. In a checkpoint it is the
    ``state_dict``; the weights that training goes on with are its ``current_model_state``.

    Lightning's own ``EMAWeightAveraging`` differs in three ways: it averages one tensor at a time,
    rounds so that frozen weights drift, and, given no device, keeps its copy on the CPU, because it
    makes it before the model is moved.

    Args:
        decay: in (0, 1).

    Raises:
        InputError: a decay outside.
    """

    def __init__(self, *, decay: float = 0.999) -> None:
        if not 0.0 < decay < 1.0:
            raise InputError(f"callbacks.ema.decay: {decay} given, 0 < decay < 1 wanted")
        # Buffers are copied, not averaged: the statistics of a frozen BatchNorm stay what they are.
        super().__init__(use_buffers=False, multi_avg_fn=get_ema_multi_avg_fn(decay))

    def on_fit_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Follow the model to its device."""
        assert self._average_model is not None  # made in `setup`
        self._average_model.to(pl_module.device)
