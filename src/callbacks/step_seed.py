"""Random numbers of a training step that do not depend on what ran before it."""

from __future__ import annotations

import random
from typing import Any

import numpy as np
import torch
from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.callbacks import Callback


class StepSeed(Callback):
    """Seed each training step anew, so that a run that resumes draws the same RoIs as one that ran.

    Args:
        seed: of the run, 0 or above.
    """

    def __init__(self, *, seed: int) -> None:
        self.seed = seed

    def on_train_batch_start(
        self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int
    ) -> None:
        """Seed torch, numpy and random."""
        seed_step(
            self.seed, rank=trainer.global_rank, epoch=trainer.current_epoch, batch_index=batch_idx
        )


def seed_step(seed: int, *, rank: int, epoch: int, batch_index: int) -> None:
    """Seed the global generators for one batch of one process; any four numbers give others."""
    state = np.random.SeedSequence([seed, rank, epoch, batch_index]).generate_state(1)
    torch.manual_seed(int(state[0]))
    np.random.seed(state)
    random.seed(int(state[0]))
