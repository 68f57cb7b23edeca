"""A training on two CPU processes, started by Lightning: ``python -m tests.helpers.two_ranks``.

Each rank writes its weights after every optimizer step to ``FOLDER/rank0.pt`` and ``rank1.pt``.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import torch
from hydra.utils import instantiate
from lightning import Callback, LightningDataModule, Trainer
from torch import Tensor
from torch.utils.data import DataLoader

from src.mmdet_bridge.cascade.detectors import Batch
from src.modules.cascade import CascadeModule
from tests.helpers.cascades import SMALL_DEFORMABLE, compose_module, make_batch
from tests.helpers.configs import compose_config

STEPS, RANKS, IMAGES = 6, 2, 2
WITHOUT_OBJECTS = {(2, 1), (3, 0), (3, 1)}
"""Steps and ranks whose images hold no object, so that no RoI is positive there."""


def make_module() -> CascadeModule:
    """Like the winning model in small: frozen stage and statistics, deformable convolutions."""
    torch.manual_seed(0)
    config = compose_module(
        "htc_r50",
        *SMALL_DEFORMABLE,
        "module.base_batch_size=16",
        optimizer="sgd",
        scheduler="warmup_multistep",
    )
    config.scheduler.warmup_steps = 3
    module = instantiate(config.module)
    assert isinstance(module, CascadeModule)
    return module


def batch_of(step: int, rank: int) -> Batch:
    """The images of a step and rank; sizes differ, so that padding does, too."""
    return make_batch(
        seed=RANKS * step + rank,
        sizes_hw=((64, 96), (96, 64 + 32 * rank)),
        objects_each=0 if (step, rank) in WITHOUT_OBJECTS else 3,
    )


def seed_of(step: int, rank: int) -> int:
    """Of the RoIs that a step and rank draw."""
    return 1000 + RANKS * step + rank


class RankData(LightningDataModule):
    """Each rank's batches."""

    batch_size = IMAGES

    def train_dataloader(self) -> Any:
        assert self.trainer is not None
        rank = self.trainer.global_rank
        batches: Any = [batch_of(step, rank) for step in range(STEPS)]
        return DataLoader(batches, batch_size=None)


class SeedAndKeep(Callback):
    """Seeds every step by its number and rank, keeps the weights after it."""

    def __init__(self) -> None:
        self.weights: list[dict[str, Tensor]] = []
        self.rates: list[float] = []

    def on_train_batch_start(self, trainer: Trainer, *_: Any) -> None:
        torch.manual_seed(seed_of(trainer.global_step, trainer.global_rank))
        self.rates.append(trainer.optimizers[0].param_groups[0]["lr"])

    def on_train_batch_end(self, trainer: Trainer, module: Any, *_: Any) -> None:
        state = module.detector.state_dict()
        self.weights.append({name: value.clone() for name, value in state.items()})


def main(folder: Path) -> None:
    """Train with the recipe's trainer, but for what the test's size and machine ask."""
    torch.set_num_threads(1)
    config = compose_config("train", ["+experiment=htc_x101", f"paths.output_dir={folder}"])
    kept = SeedAndKeep()
    trainer = instantiate(
        config.trainer,
        accelerator="cpu",
        devices=RANKS,
        max_epochs=1,
        use_distributed_sampler=False,
        callbacks=[kept],
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
    )
    trainer.fit(make_module(), datamodule=RankData())
    torch.save(
        {"weights": kept.weights, "rates": kept.rates, "world_size": trainer.world_size},
        folder / f"rank{trainer.global_rank}.pt",
    )


if __name__ == "__main__":
    main(Path(sys.argv[1]))
