"""Runs that are no mask are named, the first fault of each."""

from __future__ import annotations

import re

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from src import rle as rl
from tests.helpers.masks import concatenated, many_examples

BAD_RUNS = [
    (
        [[0, 3], [14, 3]],
        "run 2 (start 15, length 3) ends past the image: its last pixel is 17, an image of "
        "height 4 and width 4 has 16",
    ),
    ([[16, 1]], "run 1 (start 17, length 1) ends past the image: its last pixel is 17"),
    (
        [[5, 2], [1, 2]],
        "run 2 (start 2, length 2) descends: it starts before run 1 (start 6, length 2); "
        "starts must ascend",
    ),
    (
        [[0, 1], [5, 2], [6, 2]],
        "run 3 (start 7, length 2) overlaps run 2 (start 6, length 2); runs of a mask must not "
        "overlap",
    ),
    ([[5, 2], [5, 2]], "run 2 (start 6, length 2) overlaps run 1 (start 6, length 2)"),
    ([[-1, 2]], "run 1 (start 0, length 2): the start is below 1"),
    ([[2, 0]], "run 1 (start 3, length 0): the length is below 1"),
    ([[2, 2], [8, -3], [9, 1]], "run 2 (start 9, length -3): the length is below 1"),
    ([[2147483647, 2147483647]], "run 1 (start 2147483648, length 2147483647) ends past"),
]


@pytest.mark.parametrize(("runs", "message"), BAD_RUNS)
def test_bad_runs_are_named(runs, message):
    with pytest.raises(rl.RunLengthError, match=re.escape(message)):
        rl.check_runs(np.array(runs, dtype=np.int32), (4, 4))


def test_good_runs_pass():
    for runs in ([], [[0, 16]], [[0, 8], [8, 8]], [[15, 1]]):
        rl.check_runs(np.array(runs, dtype=np.int32).reshape(-1, 2), (4, 4))


def test_a_batch_names_every_bad_mask_and_no_other():
    good = np.array([[0, 8], [8, 8]], dtype=np.int32)
    masks = []
    for runs, _ in BAD_RUNS:
        masks += [good, np.array(runs, dtype=np.int32), good[:0]]
    runs, offsets = concatenated(masks)
    sizes_hw = np.full((len(masks), 2), 4)
    problems = rl.check_runs_batch(runs, offsets, sizes_hw)
    assert sorted(problems) == list(range(1, len(masks), 3))
    for row, (_, message) in zip(sorted(problems), BAD_RUNS, strict=True):
        assert problems[row].startswith(message)


def test_each_mask_is_held_against_its_own_image():
    runs = np.array([[10, 2], [10, 2], [3, 2]], dtype=np.int32)
    sizes_hw = np.array([[3, 4], [3, 3], [1, 1], [5, 1]])
    problems = rl.check_runs_batch(runs, np.array([0, 1, 2, 2, 3]), sizes_hw)
    assert list(problems) == [1]
    assert "an image of height 3 and width 3 has 9" in problems[1]


@many_examples
@given(
    st.lists(st.lists(st.tuples(st.integers(-1, 14), st.integers(-1, 6)), max_size=4), max_size=5)
)
def test_any_runs_against_the_rule_in_a_loop(masks):
    arrays = [np.array(mask, dtype=np.int32).reshape(-1, 2) for mask in masks]
    runs, offsets = concatenated(arrays)
    sizes_hw = np.full((len(masks), 2), (3, 5))
    bad = []
    for row, mask in enumerate(masks):
        end = 0
        for start, length in mask:
            if start < end or length < 1 or start + length > 15:
                bad.append(row)
                break
            end = start + length
    problems = rl.check_runs_batch(runs, offsets, sizes_hw)
    assert sorted(problems) == bad
    for row in bad:
        with pytest.raises(rl.RunLengthError, match=f"^{re.escape(problems[row])}$"):
            rl.check_runs(arrays[row], (3, 5))
