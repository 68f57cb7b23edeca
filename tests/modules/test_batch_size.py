"""The learning rate of the batch that an optimizer step really sees."""

from __future__ import annotations

import logging
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from hydra.utils import instantiate
from lightning import Callback, LightningDataModule, Trainer
from torch.utils.data import DataLoader

from src.errors import InputError
from src.modules.schedules import scale_learning_rate
from tests.helpers.cascades import SMALL, compose_module, make_batch
from tests.helpers.configs import compose_config


def optimizer_with(*rates: float) -> torch.optim.SGD:
    groups = [{"params": [torch.nn.Parameter(torch.zeros(1))], "lr": rate} for rate in rates]
    return torch.optim.SGD(groups)


def recipe_trainer(folder: Path, *overrides: str) -> Trainer:
    """The recipe's trainer as the command line makes it, on a machine without GPUs."""
    config = compose_config(
        "train",
        [
            "+experiment=htc_x101",
            "trainer.accelerator=cpu",
            f"paths.output_dir={folder}",
            *overrides,
        ],
    )
    trainer: Trainer = instantiate(config.trainer, logger=False)
    # What Trainer.fit sets; the recipe's two images a device, untouched by the overrides here.
    trainer.datamodule = SimpleNamespace(batch_size=config.datamodule.batch_size)  # type: ignore[attr-defined]
    return trainer


@pytest.mark.parametrize(
    ("overrides", "batch_size", "rate"),
    [
        (["trainer.devices=8"], 16, 0.03),
        ([], 2, 0.00375),
        (["trainer.devices=4"], 8, 0.015),
        (["trainer.devices=8", "trainer.num_nodes=2"], 32, 0.06),
        (["trainer.accumulate_grad_batches=8"], 16, 0.03),
        (["datamodule.batch_size=4", "trainer.devices=2"], 8, 0.015),
        (["datamodule.batch_size=3", "trainer.accumulate_grad_batches=3"], 9, 0.016875),
    ],
)
def test_rate_follows_devices_nodes_images_and_accumulation(
    overrides: list[str],
    batch_size: int,
    rate: float,
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
) -> None:
    optimizer = optimizer_with(0.03)
    with caplog.at_level(logging.INFO):
        scale_learning_rate(
            optimizer, trainer=recipe_trainer(tmp_path, *overrides), base_batch_size=16
        )
    assert optimizer.param_groups[0]["lr"] == pytest.approx(rate, rel=1e-12)
    said = [record.message for record in caplog.records if "learning rate" in record.message]
    assert len(said) == 1
    assert f"0.03 for a batch of 16 is {rate:g} for this run's batch of {batch_size}" in said[0]


def test_every_group_of_parameters_is_scaled(tmp_path: Path) -> None:
    optimizer = optimizer_with(0.03, 0.3)
    scale_learning_rate(optimizer, trainer=recipe_trainer(tmp_path), base_batch_size=1)
    assert [group["lr"] for group in optimizer.param_groups] == [0.06, 0.6]


def test_only_rank_zero_says_it(caplog: pytest.LogCaptureFixture) -> None:
    rank_one: Any = SimpleNamespace(
        datamodule=SimpleNamespace(batch_size=2),
        world_size=2,
        accumulate_grad_batches=1,
        is_global_zero=False,
    )
    optimizer = optimizer_with(1.0)
    with caplog.at_level(logging.INFO):
        scale_learning_rate(optimizer, trainer=rank_one, base_batch_size=16)
    assert optimizer.param_groups[0]["lr"] == 0.25
    assert not caplog.records


class Batches(LightningDataModule):
    """Two batches of two images."""

    batch_size = 2

    def train_dataloader(self) -> Any:
        return DataLoader([make_batch(seed=seed) for seed in range(2)], batch_size=None)  # type: ignore[arg-type]


class Rates(Callback):
    def __init__(self) -> None:
        self.seen: list[float] = []

    def on_before_optimizer_step(self, trainer: Trainer, module: Any, optimizer: Any) -> None:
        self.seen.append(optimizer.param_groups[0]["lr"])


def fit(folder: Path, base_batch_size: str, data: Any) -> list[float]:
    config = compose_module(
        "htc_tiny",
        *SMALL,
        f"module.base_batch_size={base_batch_size}",
        optimizer="sgd",
        scheduler="warmup_multistep",
    )
    rates = Rates()
    trainer = Trainer(
        accelerator="cpu",
        max_epochs=1,
        callbacks=[rates],
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        default_root_dir=folder,
    )
    trainer.fit(instantiate(config.module, init_weights=False), data)
    return rates.seen


@pytest.mark.parametrize(("base", "rate"), [("16", 0.00375), ("null", 0.03)])
def test_a_run_trains_with_it_and_null_turns_it_off(base: str, rate: float, tmp_path: Path) -> None:
    warm = [1 / 3, 1 / 3 + 2 / 3 / 500]
    assert fit(tmp_path, base, Batches()) == pytest.approx([rate * factor for factor in warm])


def test_without_a_data_module_the_batch_is_unknown(tmp_path: Path) -> None:
    with pytest.raises(
        InputError,
        match=r"module.base_batch_size must be null, .* without a data module",
    ):
        fit(tmp_path, "16", Batches().train_dataloader())


def test_the_demo_trains_with_the_rate_that_it_names() -> None:
    config = compose_config("train", ["+experiment=demo", "paths.output_dir=unused"])
    assert config.module.base_batch_size is None
    assert config.optimizer.lr == 0.0005
