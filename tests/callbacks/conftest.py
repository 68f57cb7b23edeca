"""Gives mmcv its operators before a test module imports mmcv; images; a run's composed config."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from omegaconf import DictConfig

import src.mmdet_bridge.kernels  # noqa: F401
from tests.cascades import SMALL
from tests.datamodules.conftest import COLOURS, Data, data  # noqa: F401
from tests.test_configs import compose_config

CATEGORY_IDS = [*COLOURS, 0]


@pytest.fixture(autouse=True, scope="module")
def one_thread() -> Iterator[None]:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


def compose_training(images: Data, folder: Path, *overrides: str) -> DictConfig:
    """The configuration of ``src.train`` for a tiny cascade on the test's images."""
    values: dict[str, Any] = {
        "module.category_ids": CATEGORY_IDS,
        "datamodule.category_ids": CATEGORY_IDS,
        "datamodule.annotations": images.directory / "train.csv",
        "datamodule.images": images.directory / "train",
        "datamodule.split_file": folder / "split.json",
        "datamodule.cache_dir": images.directory / "cache",
        "datamodule.num_validation_images": 5,
        "datamodule.train_short_edge_px": [40, 60],
        "datamodule.train_long_edge_px": 100,
        "datamodule.predict_short_edge_px": 48,
        "datamodule.predict_long_edge_px": 80,
        "datamodule.num_workers": 0,
        "trainer.log_every_n_steps": 2,
        "trainer.limit_train_batches": 4,
        "num_torch_threads": 1,
        "name": "small",
        "paths.data_dir": folder,
        "paths.output_dir": folder,
    }
    return compose_config(
        "train",
        [
            "module=htc_tiny",
            "datamodule=tiny",
            "trainer=cpu",
            "optimizer=adamw",
            "scheduler=warmup_cosine",
            *SMALL,
            *(f"{key}={value}".replace(" ", "") for key, value in values.items()),
            *overrides,
        ],
    )
