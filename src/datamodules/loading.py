"""The loader that makes batches of samples in worker processes, and what it says when they fail.

Workers hand images over in shared memory (``/dev/shm``). Where that is full, torch's own loader
waits for ever: the thread of a worker that copies a batch there fails alone. Here its size is
checked first, the copy is made where an error reaches the reader, and a wait has an end.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterable
from functools import partial
from pathlib import Path
from typing import Any

import cv2
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, get_worker_info

from src.datamodules.sampling import EpochSampler
from src.errors import InputError
from src.mmdet_bridge.samples import collate
from src.processes import end_with_parent

SHARED_MEMORY = Path("/dev/shm")
SHARED_MEMORY_REMEDY = (
    "enlarge it (docker run --shm-size=2g, or --ipc=host), or lower datamodule.num_workers (0: no "
    "worker processes) or datamodule.prefetch_factor"
)

_LONGEST_CHAIN = 20  # of exceptions


def make_loader(
    dataset: Dataset[Any],
    *,
    batch_size: int,
    sampler: EpochSampler | None = None,
    num_workers: int,
    prefetch_factor: int,
    persistent_workers: bool,
    timeout_s: float = 0,
    largest_sample_bytes: int = 0,
) -> DataLoader[Any]:
    """Make a loader of batches for the detector.

    Args:
        dataset: of the photos; one whose items are no samples has its own function ``collate``.
        batch_size: photos a batch.
        sampler: the order of the keys; None: every position once, in order.
        num_workers: loader processes; 0: none, and the next three values mean nothing.
        prefetch_factor: batches that each process makes ahead.
        persistent_workers: keep the processes from epoch to epoch.
        timeout_s: how long the reader waits for a batch before it raises, in seconds; 0: for ever.
        largest_sample_bytes: upper bound of a sample's pixels, to check shared memory by.

    Raises:
        InputError: the batches that the workers make ahead do not fit into shared memory.
    """
    if num_workers:
        ahead = num_workers * prefetch_factor + 1
        check_shared_memory(ahead * batch_size * largest_sample_bytes, batches=ahead)
    return DataLoader(
        dataset,
        batch_size=batch_size,
        sampler=sampler,
        collate_fn=partial(_collate, getattr(dataset, "collate", collate)),
        num_workers=num_workers,
        prefetch_factor=prefetch_factor if num_workers else None,
        persistent_workers=persistent_workers and num_workers > 0,
        timeout=timeout_s if num_workers else 0,
        worker_init_fn=_begin_worker,
        pin_memory=torch.cuda.is_available(),
    )


def check_shared_memory(needed_bytes: int, *, batches: int) -> None:
    """Refuse worker processes whose batches do not fit into what is left of ``/dev/shm``.

    Args:
        needed_bytes: what the batches take.
        batches: how many there are at a time.

    Raises:
        InputError: says how much is free, how much is needed, and what to change.
    """
    try:
        status = os.statvfs(SHARED_MEMORY)
    except OSError:
        return  # no such file system here: torch then shares memory in another way
    free_bytes = status.f_bavail * status.f_frsize
    if needed_bytes > free_bytes:
        raise InputError(
            f"{SHARED_MEMORY} must have {needed_bytes / 2**20:.0f} MiB free for the {batches} "
            f"batches that datamodule.num_workers make ahead, got {free_bytes / 2**20:.0f} MiB: "
            f"{SHARED_MEMORY_REMEDY}"
        )


def messages_behind(error: BaseException) -> str:
    """Return the messages of an exception and of those that it was raised from, a line each.

    torch says that a worker was killed by an exception out of a signal handler, so in the middle of
    whatever runs, and that may make another exception of it.
    """
    messages: list[str] = []
    found: BaseException | None = error
    while found is not None and len(messages) < _LONGEST_CHAIN:
        messages.append(str(found))
        found = found.__cause__ or found.__context__
    return "\n".join(messages)


def explain_loader_failure(error: BaseException) -> InputError | None:
    """Return one line for a loader whose worker was killed or gave nothing; None for other errors.

    torch's messages, by its version 2.13: torch/utils/data/dataloader.py and
    torch/csrc/DataLoader.cpp.
    """
    text = messages_behind(error)
    if found := re.search(r"DataLoader worker \(pid (\d+)\) is killed by signal: ([^.]+)\.", text):
        cause = (
            f"{SHARED_MEMORY} is full: {SHARED_MEMORY_REMEDY}"
            if "Bus error" in found[2]
            else "most often the system ran out of memory: lower datamodule.num_workers, "
            "prefetch_factor or batch_size"
        )
        return InputError(f"loader worker {found[1]} was ended by a signal ({found[2]}): {cause}")
    if found := re.search(r"DataLoader worker \(pid\(s\) ([\d, ]+)\) exited unexpectedly", text):
        return InputError(
            f"loader worker {found[1]} was ended before its work was done: most often the system "
            "ran out of memory (lower datamodule.num_workers, prefetch_factor or batch_size), or "
            f"{SHARED_MEMORY} is full: {SHARED_MEMORY_REMEDY}"
        )
    if found := re.search(r"DataLoader timed out after (\S+) seconds", text):
        return InputError(
            f"no batch came from the loader's workers in {found[1]} s "
            f"(datamodule.loader_timeout_s): the disk does not answer, or {SHARED_MEMORY} is full: "
            f"{SHARED_MEMORY_REMEDY}"
        )
    return None


def _begin_worker(_worker: int) -> None:
    """Keep OpenCV from starting a thread a core in each worker; leave no worker behind."""
    cv2.setNumThreads(0)
    end_with_parent()


def _collate(make_batch: Callable[[list[Any]], Any], samples: list[Any]) -> Any:
    """Make a batch, in a worker with its tensors in shared memory already.

    The thread of a worker that sends the batch would copy them there itself, and nobody would hear
    of its errors: https://github.com/pytorch/pytorch/issues/13246 is one of many.
    """
    batch = make_batch(samples)
    if get_worker_info() is not None:
        for tensor in _tensors(batch):
            try:
                tensor.share_memory_()
            except RuntimeError as error:
                raise InputError(
                    f"{SHARED_MEMORY} is full ({str(error).splitlines()[0]}): "
                    f"{SHARED_MEMORY_REMEDY}"
                ) from error
    return batch


def _tensors(batch: Any) -> Iterable[Tensor]:
    """Yield the tensors of a ``Batch``, or of the batches of a ``ViewsBatch``."""
    for one in batch.get("views", [batch]):
        yield from one["inputs"]
        for sample in one["data_samples"]:
            if "gt_instances" in sample:
                yield from (sample.gt_instances.bboxes, sample.gt_instances.labels)
