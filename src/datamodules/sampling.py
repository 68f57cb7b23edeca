"""Which photos an epoch trains on, in which order and in which batches."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
from torch.utils.data import DistributedSampler

from src.errors import InputError

_ROUNDING_BITS = 32


class SampleKey(NamedTuple):
    """Names a training sample; all that is random about it is drawn from this and the seed."""

    epoch: int
    position: int  # among the data set's photos
    repetition: int = 0  # 0 where the photo comes up for the first time in the epoch


class EpochSampler(DistributedSampler):
    """Keys of one process, in an order drawn from seed and epoch alone.

    The epoch travels in the key because workers that outlive an epoch hold copies of the dataset,
    which no ``set_epoch`` would reach. Lightning calls ``set_epoch`` of the sampler before each
    epoch, and, this being a ``DistributedSampler``, puts no other around it. So the sampler, not
    the loader, makes the batches: each ``batch_size`` keys in a row are one.

    Every process gets equally many full batches, in every epoch the same number. What is too much
    for that is left out first, each photo with the same probability, in each epoch others.

    Args:
        batch_size: photos a batch and process.
        seed: 0 or above.
        rank: this process, 0 to world_size - 1.
        world_size: number of processes.
        groups: shape (N,), which of two groups each photo belongs to. Each gets batches of its own;
            at most one batch an epoch is mixed.
        repeat_factors: shape (N,), float64, 1 or above: how often each photo comes up in an epoch,
            in the mean; see ``repeat_factors``.
        first_epoch: the epoch that the run begins or resumes with. It is set here because Lightning
            makes the first iterator, and so its workers begin, before it calls ``set_epoch``:
            https://github.com/Lightning-AI/pytorch-lightning/issues/21938
        batches_done: how many of this process's batches of that epoch are done and left out; all of
            them: the run resumes with the next epoch. ``len`` counts them, as Lightning expects.

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
        # As whole numbers, whose sum depends on no order: every epoch has the same length.
        rest = (repeat_factors - self._whole) * 2**_ROUNDING_BITS
        self._rest = np.round(rest).astype(np.int64)
        batches = len(self) // batch_size
        if batches_done > batches:
            raise InputError(
                f"the run to resume had trained on {batches_done} batches of its epoch, but an "
                f"epoch has {batches} now: resume with the data, datamodule.batch_size and devices "
                "of before"
            )
        done = batches_done == batches
        self.first_epoch, self.batches_done = (
            (first_epoch + 1, 0) if done else (first_epoch, batches_done)
        )
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
        """Round the repeat factors up or down at random, so that each mean is the factor.

        Systematic sampling: the fractions lie end to end on a line, in random order; the photos
        that marks at distance 1 fall on are rounded up. So the sum varies by less than 1, where
        rounding each for itself would give every epoch another length.
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
    """Return how often each photo should come up in an epoch, so that rare categories are seen.

    Repeat factor sampling of LVIS (Gupta, Dollar and Girshick, CVPR 2019): a category on a share f
    of the photos has the factor max(1, sqrt(threshold / f)), a photo that of its rarest category.

    Args:
        category_sets: the categories on each of N photos.
        threshold: share of the photos, in (0, 1], below which a category counts as rare; None:
            no category is.

    Returns:
        Shape (N,), float64, 1 or above; 1 for a photo without objects.
    """
    photos = Counter(category for categories in category_sets for category in categories)
    factor = {
        category: max(1.0, ((threshold or 0.0) * len(category_sets) / count) ** 0.5)
        for category, count in photos.items()
    }
    return np.array(
        [
            max((factor[category] for category in categories), default=1.0)
            for categories in category_sets
        ]
    )
