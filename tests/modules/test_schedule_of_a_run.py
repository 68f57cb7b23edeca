"""S7 in Lightning's hands: the learning rate of every optimizer step of a whole run."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from hydra.utils import instantiate
from lightning import Callback, LightningDataModule, Trainer
from torch import Tensor, nn
from torch.utils.data import DataLoader

from src.modules.cascade import CascadeModule
from tests.helpers.cascades import SMALL, compose_module
from tests.helpers.configs import compose_config

EPOCHS = 20


def recipe_rate(step: int, *, steps_per_epoch: int) -> float:
    """S7 from S6's 0.03: a warm-up over 500 steps from a third, a tenth after 10 and 18 epochs."""
    epoch = step // steps_per_epoch
    rate = 0.03
    if epoch >= 10:
        rate = rate * 0.1
    if epoch >= 18:
        rate = rate * 0.1
    if step < 500:
        rate = rate * (1 / 3 + (1 - 1 / 3) * step / 500)
    return rate


class OneWeight(CascadeModule):
    """The cascade's optimizer and schedule around a model that costs nothing."""

    def training_step(self, batch: Any, batch_index: int) -> Tensor:
        return self.weight.sum()

    def __init__(self, **arguments: Any) -> None:
        super().__init__(**arguments, init_weights=False)
        self.weight = nn.Parameter(torch.zeros(1))
        del self.detector


class Data(LightningDataModule):
    """As many batches as an epoch is to have."""

    def __init__(self, *, batches: int, batch_size: int) -> None:
        super().__init__()
        self.batches = batches
        self.batch_size = batch_size

    def train_dataloader(self) -> Any:
        return DataLoader(torch.zeros(self.batches, 1), batch_size=1)  # type: ignore[arg-type]


class Rates(Callback):
    """The learning rate that each optimizer step uses, with its epoch."""

    def __init__(self) -> None:
        self.seen: list[tuple[int, float]] = []

    def on_before_optimizer_step(self, trainer: Trainer, module: Any, optimizer: Any) -> None:
        self.seen.append((trainer.current_epoch, optimizer.param_groups[0]["lr"]))


@pytest.mark.parametrize(
    ("batches", "accumulated", "batch_size", "steps_per_epoch"),
    [
        (60, 1, 16, 60),  # the warm-up ends in epoch 8
        (20, 1, 16, 20),  # both drops fall into the warm-up
        (121, 2, 8, 61),  # an epoch's last step has half a batch
    ],
)
def test_every_step_of_the_recipe(
    batches: int, accumulated: int, batch_size: int, steps_per_epoch: int, tmp_path: Path
) -> None:
    recipe = compose_config("train", ["+experiment=htc_x101", f"paths.output_dir={tmp_path}"])
    groups = compose_module("htc_tiny", *SMALL, optimizer="sgd", scheduler="warmup_multistep")
    assert groups.optimizer == recipe.optimizer
    assert groups.scheduler == recipe.scheduler
    groups.module.base_batch_size = recipe.module.base_batch_size
    groups.module._target_ = f"{__name__}.OneWeight"
    rates = Rates()
    trainer = instantiate(
        recipe.trainer,
        accelerator="cpu",
        accumulate_grad_batches=accumulated,
        callbacks=[rates],
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
    )
    trainer.fit(instantiate(groups.module), datamodule=Data(batches=batches, batch_size=batch_size))

    assert trainer.global_step == EPOCHS * steps_per_epoch
    assert [epoch for epoch, _ in rates.seen] == [
        epoch for epoch in range(EPOCHS) for _ in range(steps_per_epoch)
    ]
    expected = [
        recipe_rate(step, steps_per_epoch=steps_per_epoch)
        for step in range(EPOCHS * steps_per_epoch)
    ]
    assert [rate for _, rate in rates.seen] == pytest.approx(expected, rel=1e-12, abs=0)
    assert rates.seen[0][1] == pytest.approx(0.01)
    if steps_per_epoch >= 50:
        assert rates.seen[10 * steps_per_epoch - 1][1] == pytest.approx(0.03)
        assert rates.seen[10 * steps_per_epoch][1] == pytest.approx(0.003)
        assert rates.seen[18 * steps_per_epoch - 1][1] == pytest.approx(0.003)
        assert rates.seen[18 * steps_per_epoch][1] == pytest.approx(0.0003)
        assert rates.seen[-1] == (19, pytest.approx(0.0003))
