"""The loader that makes batches of samples."""

from __future__ import annotations

import cv2
import torch
from torch.utils.data import DataLoader, Dataset

from src.datamodules.sampling import EpochSampler
from src.mmdet_bridge.samples import Sample, collate


def make_loader(
    dataset: Dataset[Sample],
    *,
    batch_size: int,
    sampler: EpochSampler | None = None,
    num_workers: int,
    prefetch_factor: int,
    persistent_workers: bool,
) -> DataLoader[Sample]:
    """Make a loader of batches for the detector.

    Args:
        dataset: of the photos.
        batch_size: photos a batch.
        sampler: the order of the keys; None: every position once, in order.
        num_workers: loader processes; 0: none, and the next two values mean nothing.
        prefetch_factor: batches that each process makes ahead.
        persistent_workers: keep the processes from epoch to epoch.
    """
    return DataLoader(
        dataset,
        batch_size=batch_size,
        sampler=sampler,
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
