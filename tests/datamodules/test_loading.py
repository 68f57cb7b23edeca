from __future__ import annotations

import numpy as np

from src.datamodules.loading import EpochSampler, make_loader, repeat_factors
from src.mmdet_bridge.cascade.detectors import Batch
from tests.helpers.datasets import training_dataset
from tests.helpers.images import Data


def describe(batch: Batch) -> list:
    return [
        (
            sample.img_id,
            pixels.numpy().tobytes(),
            sample.gt_instances.bboxes.tolist(),
            sample.gt_instances.labels.tolist(),
            np.packbits(sample.gt_instances.masks.masks).tobytes(),
        )
        for pixels, sample in zip(batch["inputs"], batch["data_samples"], strict=True)
    ]


def epochs(data: Data, *, num_workers: int, numbers: tuple[int, ...], persistent: bool) -> list:
    dataset = training_dataset(data.directory)
    sampler = EpochSampler(
        batch_size=3,
        seed=7,
        rank=0,
        world_size=1,
        groups=dataset.is_wide(),
        repeat_factors=repeat_factors(dataset.category_sets(), threshold=0.7),
    )
    loader = make_loader(
        dataset,
        batch_size=3,
        sampler=sampler,
        num_workers=num_workers,
        prefetch_factor=2,
        persistent_workers=persistent,
    )
    found = []
    for number in numbers:
        sampler.set_epoch(number)
        found.append([describe(batch) for batch in loader])
    return found


def test_batches_depend_neither_on_workers_nor_on_history(data: Data):
    first, second = epochs(data, num_workers=0, numbers=(0, 1), persistent=False)
    assert len(first) > 16 // 3  # images with rare categories come again
    assert first != second
    assert epochs(data, num_workers=2, numbers=(0, 1), persistent=True) == [first, second]
    assert epochs(data, num_workers=1, numbers=(1, 0), persistent=False) == [second, first]
