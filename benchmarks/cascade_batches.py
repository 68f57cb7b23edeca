"""Batches for training benchmarks: noise with ellipses on it, the ellipses being the objects."""

from __future__ import annotations

import numpy as np
from hydra import compose, initialize_config_dir
from omegaconf import DictConfig

from src.cli.entry_point import CONFIG_DIRECTORY, register_resolvers
from src.mmdet_bridge.cascade.detectors import Batch, collate, make_instances, make_sample

OBJECTS = 7  # of an image, as the competition's have in the mean
NUM_CLASSES = 46


def draw_batch(size_hw: tuple[int, int], *, images: int, seed: int) -> Batch:
    """Images of one size with objects a tenth to a half as wide and high; the seed decides all.

    Returns:
        What a loader gives: ``inputs``, ``data_samples``.
    """
    random = np.random.default_rng(seed)
    height, width = size_hw
    y, x = np.mgrid[:height, :width]
    samples = []
    for number in range(images):
        image = random.integers(0, 128, (height, width, 3), dtype=np.uint8)
        boxes, masks = [], []
        for _ in range(OBJECTS):
            radius_y, radius_x = random.uniform(0.05, 0.25, 2) * size_hw
            middle_y = random.uniform(radius_y, height - radius_y)
            middle_x = random.uniform(radius_x, width - radius_x)
            inside = ((y - middle_y) / radius_y) ** 2 + ((x - middle_x) / radius_x) ** 2 < 1
            rows, columns = np.flatnonzero(inside.any(axis=1)), np.flatnonzero(inside.any(axis=0))
            boxes.append((columns[0], rows[0], columns[-1] + 1, rows[-1] + 1))
            masks.append(inside.astype(np.uint8))
            image[inside] = image[inside] // 2 + random.integers(0, 128, 3, dtype=np.uint8)
        samples.append(
            make_sample(
                image=image,
                image_id=str(number),
                image_path=f"{number}.jpg",
                original_hw=size_hw,
                instances=make_instances(
                    labels=random.integers(0, NUM_CLASSES, OBJECTS),
                    boxes_xyxy=np.array(boxes, dtype=np.float32),
                    masks=np.stack(masks),
                ),
            )
        )
    return collate(samples)


def compose_training(*overrides: str) -> DictConfig:
    """The configuration of ``python -m src.train`` with these overrides."""
    register_resolvers()
    with initialize_config_dir(str(CONFIG_DIRECTORY), version_base="1.3"):
        return compose("train", overrides=["module.base_batch_size=null", *overrides])
