from __future__ import annotations

from collections import Counter
from types import SimpleNamespace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from mmengine.dataset import ClassBalancedDataset

from src.datamodules.loading import EpochSampler, SampleKey, repeat_factors
from src.errors import InputError


def sampler(images: int = 11, **changes) -> EpochSampler:
    values = {
        "batch_size": 1,
        "seed": 7,
        "rank": 0,
        "world_size": 1,
        "groups": np.zeros(images, dtype=bool),
        "repeat_factors": np.ones(images),
    }
    return EpochSampler(**(values | changes))


def keys(epoch: int, images: int = 11, **changes) -> list[SampleKey]:
    of_epoch = sampler(images, **changes)
    of_epoch.set_epoch(epoch)
    found = list(of_epoch)
    assert len(found) == len(of_epoch)
    return found


def batches(epoch: int, batch_size: int, world_size: int, **changes) -> list[list[SampleKey]]:
    """The batches of every process."""
    found = []
    for rank in range(world_size):
        values = {"batch_size": batch_size, "rank": rank, "world_size": world_size}
        of_rank = keys(epoch, **(values | changes))
        found += [of_rank[i : i + batch_size] for i in range(0, len(of_rank), batch_size)]
    return found


def test_every_image_once_an_epoch_in_another_order():
    first, second = keys(0), keys(1)
    assert sorted(first) == [(0, position, 0) for position in range(11)]
    assert sorted(second) == [(1, position, 0) for position in range(11)]
    assert [key.position for key in first] != [key.position for key in second]
    assert keys(1) == second
    assert keys(0, seed=8) != first
    assert [key.position for key in keys(0, seed=8)] != [key.position for key in second]


@settings(deadline=None)
@given(
    wide=st.lists(st.booleans(), min_size=1, max_size=60),
    batch_size=st.integers(1, 5),
    world_size=st.integers(1, 4),
    epoch=st.integers(0, 3),
    seed=st.integers(0, 2**40),
    repeat=st.booleans(),
)
def test_processes_share_an_epoch_of_grouped_batches(
    wide, batch_size, world_size, epoch, seed, repeat
):
    groups = np.array(wide)
    factors = np.ones(len(wide))
    if repeat:
        factors = 1 + 2 * np.random.default_rng(seed).random(len(wide))
    changes = {"images": len(wide), "seed": seed, "groups": groups, "repeat_factors": factors}
    found = batches(epoch, batch_size, world_size, **changes)
    # Every process has the same number of full batches; fewer than one of each are left out.
    samples = int(factors.sum()) if repeat else len(wide)
    assert len(found) == samples // (batch_size * world_size) * world_size
    assert {len(batch) for batch in found} <= {batch_size}
    # No sample twice; repetitions number those of an image from 0.
    together = [key for batch in found for key in batch]
    assert len(set(together)) == len(together)
    assert all(key.epoch == epoch for key in together)
    assert all(key.repetition < np.ceil(factors[key.position]) for key in together)
    # At most one batch of the epoch holds images of both groups.
    assert sum(len({wide[key.position] for key in batch}) > 1 for batch in found) <= 1


def test_no_image_is_left_out_more_often_than_others():
    """One wide image among 12 others in pairs: 6 batches of 13 images, one left out an epoch."""
    groups = np.arange(13) == 12
    seen = Counter(
        key.position
        for epoch in range(650)
        for key in keys(epoch, images=13, batch_size=2, groups=groups)
    )
    left_out = [650 - seen[position] for position in range(13)]
    assert sum(left_out) == 650
    assert min(left_out) > 25  # 50 in the mean, standard deviation 7
    assert max(left_out) < 75


def test_groups_change_batches_but_not_what_an_epoch_shows():
    groups = np.arange(40) % 3 == 0
    grouped = keys(2, images=40, batch_size=3, groups=groups)
    plain = keys(2, images=40, batch_size=3)
    assert len(grouped) == 39
    assert sorted(grouped) == sorted(plain)
    of_batches = [groups[key.position] for key in grouped[::3]]
    assert of_batches not in (sorted(of_batches), sorted(of_batches, reverse=True))


def padded_pixels(found: list[list[SampleKey]], sizes_hw: np.ndarray) -> int:
    """Pixels of a batch that belong to no image: all are padded to the highest and the widest."""
    total = 0
    for batch in found:
        of_batch = sizes_hw[[key.position for key in batch]]
        total += len(batch) * int(of_batch.max(axis=0).prod()) - int(of_batch.prod(axis=1).sum())
    return total


def test_grouping_saves_padding():
    """Images of 3:4 and 4:3 at 1200 px: grouped, one pair of an epoch is padded, else a third."""
    groups = np.random.default_rng(0).random(1000) < 0.25
    sizes_hw = np.where(groups[:, None], (1200, 1600), (1600, 1200))
    assert groups.sum() % 2 == 1  # so that one pair is mixed
    of_a_mixed_pair = 2 * (1600 * 1600 - 1600 * 1200)
    changes = {"images": 1000, "groups": groups}
    assert padded_pixels(batches(0, 2, 1, **changes), sizes_hw) == of_a_mixed_pair
    plain = batches(0, 2, 1, images=1000)
    mixed = sum(len({groups[key.position] for key in batch}) == 2 for batch in plain)
    assert mixed > 150  # of 500: 2 * 0.25 * 0.75 in the mean
    assert padded_pixels(plain, sizes_hw) == mixed * of_a_mixed_pair


class CategorySets:
    """The part of a dataset of mmengine that its repeat factors ask for."""

    def __init__(self, category_sets: list[frozenset[int]]) -> None:
        self.category_sets = category_sets

    def __len__(self) -> int:
        return len(self.category_sets)

    def get_cat_ids(self, index: int) -> list[int]:
        return [*self.category_sets[index], *self.category_sets[index]]


@given(
    category_sets=st.lists(st.frozensets(st.integers(0, 9), max_size=5), min_size=1, max_size=60),
    threshold=st.floats(1e-3, 1.0),
)
def test_repeat_factors_are_those_of_mmengine(category_sets, threshold):
    dataset = CategorySets(category_sets)
    expected = ClassBalancedDataset._get_repeat_factors(
        SimpleNamespace(dataset=dataset), dataset, threshold
    )
    found = repeat_factors(category_sets, threshold=threshold)
    np.testing.assert_allclose(found, expected, rtol=1e-12)
    assert repeat_factors(category_sets, threshold=None).tolist() == [1.0] * len(category_sets)


def test_repeat_factors_by_hand():
    """100 images: all with category 1, 4 with 2, 1 with 3 too; a quarter is rare."""
    category_sets = [frozenset({1})] * 95 + [frozenset({1, 2})] * 4 + [frozenset({1, 2, 3})]
    found = repeat_factors(category_sets, threshold=0.2)
    np.testing.assert_allclose(found, [1.0] * 95 + [2.0] * 4 + [20**0.5])


def test_repeats_are_rounded_at_random_to_the_mean():
    factors = np.array([1.0, 1.25, 1.5, 2.0, 2.9, 1.1, 3.0])  # 12.75 in all
    epochs = 2000
    counts = np.zeros((epochs, len(factors)))
    for epoch in range(epochs):
        found = keys(epoch, images=len(factors), repeat_factors=factors)
        assert len(found) == 12
        for position in range(len(factors)):
            repetitions = sorted(key.repetition for key in found if key.position == position)
            counts[epoch, position] = len(repetitions)
            assert set(repetitions) <= set(range(int(np.ceil(factors[position]))))
    # Three epochs of four draw 13 and leave one out.
    expected = factors * (0.25 + 0.75 * 12 / 13)
    np.testing.assert_allclose(counts.mean(axis=0), expected, atol=0.06)
    exact = np.array([1.5, 2.5, 1.0, 1.0, 3.25, 1.75])  # 11 in all: nothing left out
    counts = np.zeros((epochs, len(exact)))
    for epoch in range(epochs):
        for key in keys(epoch, images=len(exact), repeat_factors=exact):
            counts[epoch, key.position] += 1
    assert (counts >= np.floor(exact)).all()
    assert (counts <= np.ceil(exact)).all()
    np.testing.assert_allclose(counts.mean(axis=0), exact, atol=0.04)
    assert np.corrcoef(counts[:, 0], counts[:, 5])[0, 1] > -0.5  # not one against the other


def test_an_epoch_begun_late_goes_on_as_it_would_have():
    for rank in range(2):
        changes = {"images": 23, "batch_size": 3, "rank": rank, "world_size": 2}
        whole = {epoch: keys(epoch, **changes) for epoch in (4, 5)}
        late = sampler(first_epoch=4, batches_done=2, **changes)
        assert list(late) == whole[4][6:]
        assert list(late) == whole[4][6:]
        assert len(late) == len(whole[4])
        late.set_epoch(5)
        assert list(late) == whole[5]
        assert list(sampler(first_epoch=4, batches_done=3, **changes)) == whole[5]
    with pytest.raises(
        InputError, match=r"had trained on 3 batches of its epoch, but .* has 2 now"
    ):
        sampler(images=6, batch_size=3, batches_done=3)
