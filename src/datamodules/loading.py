"""The order in which photos are trained on, and the loader that makes batches of samples."""

from __future__ import annotations

from collections.abc import Iterator, Sized

import cv2
import torch
from torch.utils.data import DataLoader, Dataset, DistributedSampler

from src.mmdet_bridge.samples import Sample, collate


class EpochSampler(DistributedSampler):
    """Pairs (epoch, index) of one process, in an order drawn from seed and epoch.

    The epoch travels with the index because workers that outlive an epoch hold copies of the
    dataset, which no ``set_epoch`` would reach. Lightning calls ``set_epoch`` of the sampler before
    each epoch, and, this being a ``DistributedSampler``, puts no other around it.

    Every process gets equally many; what does not divide by their number is left out, in each epoch
    others.

    Args:
        photos: anything with the length of the dataset.
        seed: 0 or above.
        rank: this process, 0 to world_size - 1.
        world_size: number of processes.
    """

    def __init__(self, photos: Sized, *, seed: int, rank: int, world_size: int) -> None:
        super().__init__(
            photos,  # type: ignore[arg-type]
            num_replicas=world_size,
            rank=rank,
            seed=seed,
            shuffle=True,
            drop_last=True,
        )

    def __iter__(self) -> Iterator[tuple[int, int]]:
        """Yield the pairs of this epoch."""
        return ((self.epoch, index) for index in super().__iter__())


def make_loader(
    dataset: Dataset[Sample],
    *,
    batch_size: int,
    sampler: EpochSampler | None,
    drop_last: bool,
    num_workers: int,
    prefetch_factor: int,
    persistent_workers: bool,
) -> DataLoader[Sample]:
    """Make a loader of batches for the detector.

    Args:
        dataset: of the photos.
        batch_size: photos a batch.
        sampler: the order of the keys; None: every position once, in order.
        drop_last: leave out a last batch that is not full.
        num_workers: loader processes; 0: none, and the next two values mean nothing.
        prefetch_factor: batches that each process makes ahead.
        persistent_workers: keep the processes from epoch to epoch.
    """
    return DataLoader(
        dataset,
        batch_size=batch_size,
        sampler=sampler,
        drop_last=drop_last,
        collate_fn=collate,
        num_workers=num_workers,
        prefetch_factor=prefetch_factor if num_workers else None,
        persistent_workers=persistent_workers and num_workers > 0,
        worker_init_fn=_use_one_thread,
        pin_memory=torch.cuda.is_available(),
    )


def _use_one_thread(_worker: int) -> None:
    """Keep OpenCV from starting a thread a core in each worker."""
    cv2.setNumThreads(0)
