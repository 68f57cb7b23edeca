from __future__ import annotations

import time

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from src.datamodules.split import (
    Split,
    choose_validation,
    class_shares,
    load_or_make_split,
    make_split,
    read_split,
    total_deviation,
)
from src.errors import InputError
from tests.helpers.category_sets import draw_images


def deviation(ids: list[str], sets: list[frozenset[int]], validation: list[str]) -> float:
    """Total deviation, by a plain loop."""
    chosen = set(validation)
    total = 0.0
    for category in set().union(*sets):
        with_class = {image_id for image_id, s in zip(ids, sets, strict=True) if category in s}
        total += abs(
            len(with_class & chosen) / len(chosen)
            - len(with_class - chosen) / (len(ids) - len(chosen))
        )
    return total


@settings(max_examples=60, deadline=None)
@given(
    sets=st.lists(st.frozensets(st.integers(0, 5)), min_size=2, max_size=25),
    seed=st.integers(0, 2**31),
    data=st.data(),
)
def test_exactly_as_many_as_asked_in_any_order(sets, seed, data):
    ids = [f"image{number}" for number in range(len(sets))]
    wanted = data.draw(st.integers(1, len(sets) - 1))
    order = data.draw(st.permutations(range(len(sets))))
    options = {"num_validation_images": wanted, "seed": seed}
    chosen = choose_validation(image_ids=ids, category_sets=sets, **options)
    again = choose_validation(
        image_ids=[ids[i] for i in order], category_sets=[sets[i] for i in order], **options
    )
    assert chosen == again == sorted(set(chosen))
    assert len(chosen) == wanted
    assert set(chosen) <= set(ids)


@pytest.mark.parametrize(("images", "wanted"), [(2000, 20), (2000, 450), (600, 420)])
def test_shares_deviate_far_less_than_at_random(images, wanted):
    ids, sets = draw_images(images, 30, seed=1)
    chosen = choose_validation(
        image_ids=ids, category_sets=sets, num_validation_images=wanted, seed=777
    )
    generator = np.random.default_rng(2)
    random_splits = [
        deviation(ids, sets, generator.permutation(ids)[:wanted].tolist()) for _ in range(40)
    ]
    found = deviation(ids, sets, chosen)
    assert found < 0.5 * np.mean(random_splits)
    assert found < min(random_splits)


def test_moving_to_the_exact_count_does_no_harm():
    ids, sets = draw_images(1000, 20, seed=3)
    nearby = [
        deviation(
            ids,
            sets,
            choose_validation(image_ids=ids, category_sets=sets, num_validation_images=n, seed=777),
        )
        for n in (96, 98, 100, 102, 104)
    ]
    assert max(nearby) < 0.3


def test_seed_changes_the_split():
    ids, sets = draw_images(200, 8, seed=4)
    splits = {
        tuple(
            choose_validation(
                image_ids=ids, category_sets=sets, num_validation_images=20, seed=seed
            )
        )
        for seed in range(5)
    }
    assert len(splits) == 5


def test_global_random_state_is_neither_used_nor_changed():
    ids, sets = draw_images(100, 8, seed=5)
    results = set()
    for state in (0, 1):
        np.random.seed(state)
        before = np.random.get_state()[1].tobytes()
        results.add(
            tuple(
                choose_validation(
                    image_ids=ids, category_sets=sets, num_validation_images=9, seed=7
                )
            )
        )
        assert np.random.get_state()[1].tobytes() == before
    assert len(results) == 1


def test_single_class_and_no_class_at_all():
    ids = list("abcdef")
    for sets in ([frozenset({3})] * 6, [frozenset()] * 6, [frozenset({3}), *[frozenset()] * 5]):
        chosen = choose_validation(
            image_ids=ids, category_sets=sets, num_validation_images=2, seed=0
        )
        assert len(chosen) == 2


@pytest.mark.parametrize("wanted", [0, -1, 3, 4])
def test_impossible_counts_are_refused(wanted):
    with pytest.raises(InputError, match=f"must be from 1 to 2, .* 3 images .*got {wanted}"):
        choose_validation(
            image_ids=list("abc"),
            category_sets=[frozenset({1})] * 3,
            num_validation_images=wanted,
            seed=0,
        )


def test_no_images_are_refused():
    with pytest.raises(InputError, match=r"train\.csv: holds no images"):
        make_split(
            image_ids=[], category_sets=[], num_validation_images=1, seed=0, annotations="train.csv"
        )


def test_class_shares_by_hand():
    split = Split(validation=("a", "b"), train=("c", "d", "e", "f"), seed=0, annotations="x.csv")
    shares = class_shares(
        split,
        image_ids=["f", "a", "b", "c", "d", "e", "in no part"],
        category_sets=[*map(frozenset, ([7], [7, 2], [7], [7, 2], [7], [], [2]))],
    )
    assert [(s.category_id, s.images, s.validation_share, s.train_share) for s in shares] == [
        (2, 2, 0.5, 0.25),
        (7, 5, 1.0, 0.75),
    ]
    assert total_deviation(shares) == 0.5


def test_split_is_made_once_then_read(tmp_path):
    ids, sets = draw_images(30, 5, seed=6)
    options = {
        "image_ids": ids,
        "category_sets": sets,
        "annotations": tmp_path / "train.csv",
    }
    path = tmp_path / "new" / "split.json"
    made = load_or_make_split(path, num_validation_images=5, seed=1, **options)
    assert read_split(path) == made
    assert load_or_make_split(path, num_validation_images=None, seed=None, **options) == made
    assert [p.name for p in path.parent.iterdir()] == ["split.json"]
    with pytest.raises(InputError, match=r"datamodule\.num_validation_images must be 5 .*, got 6"):
        load_or_make_split(path, num_validation_images=6, seed=1, **options)
    with pytest.raises(InputError, match=r"datamodule\.split_seed must be 1 .*, got 2"):
        load_or_make_split(path, num_validation_images=5, seed=2, **options)
    with pytest.raises(
        InputError, match=r"split_file must exist, got .*none\.json: no such file; to have it made"
    ):
        load_or_make_split(tmp_path / "none.json", num_validation_images=5, seed=None, **options)


def test_full_size_takes_seconds():
    ids, sets = draw_images(45_625, 46, seed=7)
    start = time.perf_counter()
    chosen = choose_validation(
        image_ids=ids, category_sets=sets, num_validation_images=450, seed=777
    )
    assert time.perf_counter() - start < 30
    assert len(chosen) == 450
