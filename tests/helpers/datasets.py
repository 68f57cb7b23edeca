"""Training data sets of the drawn images, and the competition's pixel augmentations."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from hydra.utils import instantiate
from omegaconf import OmegaConf

from src.annotations.formats import ReadingOptions
from src.annotations.store_builder import open_or_build
from src.cli.entry_point import CONFIG_DIRECTORY
from src.datamodules.dataset import TrainingDataset
from src.datamodules.transforms import PixelAugmentation


def competition(*names: str, **changes: object) -> PixelAugmentation:
    """The transforms of conf/datamodule/competition.yaml, all or some."""
    config = OmegaConf.load(CONFIG_DIRECTORY / "datamodule" / "competition.yaml")
    node = {n: v for n, v in config.pixel_augmentations.items() if not names or n in names}
    return PixelAugmentation(
        {name: instantiate(value, _convert_="all", **changes) for name, value in node.items()}
    )


CATEGORY_IDS = (31, 3, 6, 23)


def training_dataset(directory: Path, **changes) -> TrainingDataset:
    store = open_or_build(
        changes.pop("annotations", directory / "train.csv"),
        directory / "cache",
        ReadingOptions(images_directory=directory / "train"),
    )
    values = {
        "indices": np.arange(len(store)),
        "images_directory": directory / "train",
        "category_ids": CATEGORY_IDS,
        "short_edge_px": (40, 60),
        "long_edge_px": 100,
        "flip_probability": 0.5,
        "pixel_augmentation": PixelAugmentation({}),
        "seed": 1,
    }
    return TrainingDataset(store=store, **(values | changes))
