"""Sampler and loader: the images of each batch, and the worker processes that read them.

Workers pass images in shared memory (``/dev/shm``). If that is full, torch's own loader hangs: a
worker's background thread, which copies a batch there, fails silently. So its size is checked
first, the copy is made where an error reaches the reader, and waiting has a time limit.
"""

from __future__ import annotations

import os
import re
import traceback
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import cv2
import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, DistributedSampler, get_worker_info

from src.errors import InputError
from src.mmdet_bridge.cascade.detectors import collate
from src.processes import die_with_parent

SHARED_MEMORY = Path("/dev/shm")
SHARED_MEMORY_REMEDY = (
    "enlarge it (docker run --shm-size=2g, or --ipc=host), or lower datamodule.num_workers (0: no "
    "worker processes) or datamodule.prefetch_factor"
)
_ROUNDING_BITS = 32
_LONGEST_CHAIN = 20  # of exceptions


class SampleKey(NamedTuple):
    """Key of a training sample; all its randomness is drawn from this and the seed."""

    epoch: int
    position: int  # among the data set's images
    repetition: int = 0  # 0: the image comes up for the first time in the epoch


class EpochSampler(DistributedSampler[Any]):
    """Keys of one process, in an order drawn from seed and epoch only.

    The epoch is part of the key because workers that outlive an epoch hold copies of the dataset,
    which no ``set_epoch`` would reach. Lightning calls ``set_epoch`` before each epoch and, as this
    is a ``DistributedSampler``, wraps no other around it. So the sampler makes the batches: each
    ``batch_size`` keys in a row are one.

    Every process gets the same number of full batches in every epoch. Surplus samples are dropped
    uniformly at random, independently in each epoch.

    Args:
        batch_size: Images a batch and process.
        groups: Shape (N,), bool, the group of each image. Groups get batches of their own; at most
            one batch an epoch is mixed.
        repeat_factors: Shape (N,), float64, 1 or above: mean number of times each image comes up in
            an epoch; see ``repeat_factors``.
        first_epoch: First epoch of the run. Lightning makes the first iterator, whose workers start
            at once, before it calls ``set_epoch``:
            https://github.com/Lightning-AI/pytorch-lightning/issues/21938.
        batches_done: Number of this process's batches of that epoch to skip; all of them: the run
            resumes with the next epoch. ``len`` counts them, as Lightning expects.

    Raises:
        InputError: ``batches_done`` is more than an epoch has.
    """

    def __init__(
        self,
        *,
        batch_size: int,
        seed: int,
        rank: int,
        world_size: int,
        groups: npt.NDArray[np.bool_],
        repeat_factors: npt.NDArray[np.float64],
        first_epoch: int = 0,
        batches_done: int = 0,
    ) -> None:
        super().__init__(groups, num_replicas=world_size, rank=rank, seed=seed)  # type: ignore[arg-type]
        self.batch_size = batch_size
        self.groups = groups
        self._whole = np.floor(repeat_factors).astype(np.int64)
        # As integers, whose sum depends on no order: every epoch has the same length.
        rest = (repeat_factors - self._whole) * 2**_ROUNDING_BITS
        self._rest = np.round(rest).astype(np.int64)
        batches = len(self) // batch_size
        if batches_done > batches:
            raise InputError(
                f"the run to resume had trained on {batches_done} batches of its epoch, but an "
                f"epoch has {batches} now: resume with the data, datamodule.batch_size and devices "
                "of before"
            )
        if batches_done == batches:
            first_epoch, batches_done = first_epoch + 1, 0
        self.first_epoch, self.batches_done = first_epoch, batches_done
        self.set_epoch(self.first_epoch)

    def __len__(self) -> int:
        """Return the number of keys of a whole epoch on this process."""
        samples = int(self._whole.sum()) + (int(self._rest.sum()) >> _ROUNDING_BITS)
        return samples // (self.batch_size * self.num_replicas) * self.batch_size

    def __iter__(self) -> Iterator[SampleKey]:
        """Yield the keys of this epoch, or what is left of it."""
        positions, repetitions = self._order(self.epoch)
        begin = self.batches_done * self.batch_size if self.epoch == self.first_epoch else 0
        pairs = zip(positions[begin:].tolist(), repetitions[begin:].tolist(), strict=True)
        return (SampleKey(self.epoch, position, repetition) for position, repetition in pairs)

    def _order(self, epoch: int) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
        """Return this process's positions and repetitions of an epoch, shape (len(self),) each."""
        # The spawn key keeps this stream apart from those of the samples.
        generator = np.random.default_rng(np.random.SeedSequence([self.seed, epoch], spawn_key=[0]))
        counts = self._draw_counts(generator)
        positions = np.repeat(np.arange(len(counts)), counts)
        repetitions = np.arange(len(positions)) - np.repeat(np.cumsum(counts) - counts, counts)
        chosen = generator.permutation(len(positions))[: len(self) * self.num_replicas]
        # One group after the other, cut into batches: only one that spans the border is mixed.
        chosen = chosen[np.argsort(self.groups[positions[chosen]], kind="stable")]
        batches = generator.permutation(chosen.reshape(-1, self.batch_size))
        chosen = batches[self.rank :: self.num_replicas].ravel()
        return positions[chosen], repetitions[chosen]

    def _draw_counts(self, generator: np.random.Generator) -> npt.NDArray[np.int64]:
        """Round the repeat factors up or down at random, each with the factor as its mean.

        Systematic sampling: the fractions lie end to end on a line, in random order; images under
        marks at distance 1 are rounded up. The sum varies by less than 1, where independent
        rounding would change the length of the epoch.
        """
        order = generator.permutation(len(self._rest))
        ends = np.cumsum(self._rest[order]) + generator.integers(2**_ROUNDING_BITS)
        marks = ends >> _ROUNDING_BITS
        counts = self._whole.copy()
        counts[order] += np.diff(marks, prepend=0)
        return counts


def repeat_factors(
    category_sets: Sequence[frozenset[int]], *, threshold: float | None
) -> npt.NDArray[np.float64]:
    """Return how often each image comes up in an epoch, more often with rare categories.

    Repeat factor sampling of LVIS (Gupta, Dollar and Girshick, CVPR 2019): a category on a share f
    of the images has the factor max(1, sqrt(threshold / f)), an image that of its rarest category.

    Args:
        category_sets: The categories on each of N images.
        threshold: Share of the images, in (0, 1], below which a category is rare; None: none is.

    Returns:
        Shape (N,), float64, 1 or above; 1 for an image without instances.
    """
    images = Counter(category for categories in category_sets for category in categories)
    wanted = (threshold or 0.0) * len(category_sets)
    factor = {category: max(1.0, (wanted / count) ** 0.5) for category, count in images.items()}
    of_images = [map(factor.__getitem__, categories) for categories in category_sets]
    return np.array([max(factors, default=1.0) for factors in of_images])


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
        dataset: The images. A ``collate`` of its own takes the place of the detector's.
        sampler: Order of the keys; None: every position once, in order.
        num_workers: Loader processes; 0: none, and the next three values are unused.
        prefetch_factor: Batches that each process makes ahead.
        persistent_workers: Whether to keep the processes from epoch to epoch.
        timeout_s: Seconds the reader waits for a batch before it raises; 0: no limit.
        largest_sample_bytes: Upper bound of a sample's pixels, to check shared memory.

    Raises:
        InputError: The batches that the workers make ahead do not fit into shared memory.
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
    """Refuse worker processes whose batches do not fit into the free part of ``/dev/shm``.

    Raises:
        InputError: Says how much is free, how much is needed, and what to change.
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
    """Return the messages of an exception and of its causes, a line each.

    torch reports a killed worker by an exception from a signal handler, in the middle of any code,
    which may turn it into another exception.
    """
    messages: list[str] = []
    found: BaseException | None = error
    while found is not None and len(messages) < _LONGEST_CHAIN:
        messages.append(str(found))
        found = found.__cause__ or found.__context__
    return "\n".join(messages)


def explain_loader_failure(error: BaseException) -> InputError | None:
    """Return an error of one line for a worker that was killed or timed out; None for others.

    Parses the messages of torch 2.13 (torch/utils/data/dataloader.py, torch/csrc/DataLoader.cpp).
    """
    text = messages_behind(error)
    full = f"{SHARED_MEMORY} is full: {SHARED_MEMORY_REMEDY}"
    out_of_memory = "most often the system ran out of memory"
    lower = "lower datamodule.num_workers, prefetch_factor or batch_size"
    if found := re.search(r"DataLoader worker \(pid (\d+)\) is killed by signal: ([^.]+)\.", text):
        cause = full if "Bus error" in found[2] else f"{out_of_memory}: {lower}"
        return InputError(f"loader worker {found[1]} was ended by a signal ({found[2]}): {cause}")
    exited = re.search(r"DataLoader worker \(pid\(s\) ([\d, ]+)\) exited unexpectedly", text)
    if exited or _is_cut_off(error):
        worker = f"loader worker {exited[1]}" if exited else "a loader worker"
        return InputError(
            f"{worker} was ended before its work was done: {out_of_memory} ({lower}), or {full}"
        )
    if found := re.search(r"DataLoader timed out after (\S+) seconds", text):
        return InputError(
            f"no batch came from the loader's workers in {found[1]} s "
            f"(datamodule.loader_timeout_s): the disk does not answer, or {full}"
        )
    return None


def _is_cut_off(error: BaseException) -> bool:
    """Return whether a worker was gone when the loader fetched the memory of a batch of its own."""
    if not isinstance(error, EOFError | OSError):
        return False
    files = [frame.filename for frame in traceback.extract_tb(error.__traceback__)]
    return any("torch/utils/data/" in file for file in files) and any(
        file.endswith("multiprocessing/resource_sharer.py") for file in files
    )


def _begin_worker(_worker: int) -> None:
    """Keep OpenCV from starting a thread for each core in a worker; end it with its parent."""
    cv2.setNumThreads(0)
    die_with_parent()


def _collate(make_batch: Callable[[list[Any]], Any], samples: list[Any]) -> Any:
    """Make a batch; in a worker, move its tensors to shared memory.

    Otherwise the worker's sending thread would, and nobody would see its errors:
    https://github.com/pytorch/pytorch/issues/13246 is one of many.
    """
    batch = make_batch(samples)
    if get_worker_info() is not None:
        for tensor in _tensors(batch):
            try:
                tensor.share_memory_()  # type: ignore[no-untyped-call]
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
