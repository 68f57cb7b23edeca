from __future__ import annotations

import numpy as np
import pytest

from src.datamodules.loading import EpochSampler, make_loader
from src.mmdet_bridge.samples import Batch
from tests.datamodules.conftest import Data
from tests.datamodules.test_dataset import training_dataset


def keys(epoch: int, **changes) -> list[tuple[int, int]]:
    values = {"seed": 7, "rank": 0, "world_size": 1}
    sampler = EpochSampler(range(11), **(values | changes))
    sampler.set_epoch(epoch)
    return list(sampler)


def test_every_photo_once_an_epoch_in_another_order():
    first, second = keys(0), keys(1)
    assert sorted(first) == [(0, index) for index in range(11)]
    assert sorted(second) == [(1, index) for index in range(11)]
    assert [index for _, index in first] != [index for _, index in second]
    assert keys(1) == second
    assert keys(0, seed=8) != first


@pytest.mark.parametrize("world_size", [2, 3, 8])
def test_processes_share_an_epoch_evenly(world_size):
    parts = [keys(3, rank=rank, world_size=world_size) for rank in range(world_size)]
    assert {len(part) for part in parts} == {11 // world_size}
    together = [key for part in parts for key in part]
    assert len(set(together)) == len(together)


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
    sampler = EpochSampler(dataset, seed=7, rank=0, world_size=1)
    loader = make_loader(
        dataset,
        batch_size=3,
        sampler=sampler,
        drop_last=True,
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
    assert len(first) == 16 // 3
    assert first != second
    assert epochs(data, num_workers=2, numbers=(0, 1), persistent=True) == [first, second]
    assert epochs(data, num_workers=1, numbers=(1, 0), persistent=False) == [second, first]
