"""The loader that makes batches of samples."""

from __future__ import annotations

import ctypes
import signal
import sys
from typing import Any

import cv2
import torch
from torch.utils.data import DataLoader, Dataset

from src.datamodules.sampling import EpochSampler
from src.mmdet_bridge.samples import collate


def make_loader(
    dataset: Dataset[Any],
    *,
    batch_size: int,
    sampler: EpochSampler | None = None,
    num_workers: int,
    prefetch_factor: int,
    persistent_workers: bool,
) -> DataLoader[Any]:
    """Make a loader of batches for the detector.

    Args:
        dataset: of the photos; one whose items are no samples has its own function ``collate``.
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
        collate_fn=getattr(dataset, "collate", collate),
        num_workers=num_workers,
        prefetch_factor=prefetch_factor if num_workers else None,
        persistent_workers=persistent_workers and num_workers > 0,
        worker_init_fn=_begin_worker,
        pin_memory=torch.cuda.is_available(),
    )


def end_with_parent() -> None:
    """Let the kernel end this process when the one that started it is killed (Linux).

    A loader process that is handing over a batch then would wait for its reader for ever, and hold
    its memory: https://man7.org/linux/man-pages/man2/PR_SET_PDEATHSIG.2const.html
    """
    if sys.platform == "linux":
        pr_set_pdeathsig = 1
        ctypes.CDLL(None).prctl(pr_set_pdeathsig, signal.SIGKILL)


def _begin_worker(_worker: int) -> None:
    """Keep OpenCV from starting a thread a core in each worker; leave no worker behind."""
    cv2.setNumThreads(0)
    end_with_parent()
