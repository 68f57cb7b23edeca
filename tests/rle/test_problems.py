"""Runs that are no mask are named, the first fault of each."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from src import rle as rl
from tests.helpers.masks import batch, many_examples, rle

BAD_RUNS = [
    (
        [[0, 3], [14, 3]],
        "run 2 (start 15, length 3) must end by pixel 16, the last of height 4 and width 4",
    ),
    ([[16, 1]], "run 1 (start 17, length 1) must end by pixel 16, the last"),
    (
        [[5, 2], [1, 2]],
        "run 2 (start 2, length 2) must start after run 1 (start 6, length 2): starts must ascend",
    ),
    (
        [[0, 1], [5, 2], [6, 2]],
        "run 3 (start 7, length 2) must not overlap run 2 (start 6, length 2)",
    ),
    ([[5, 2], [5, 2]], "run 2 (start 6, length 2) must not overlap run 1 (start 6, length 2)"),
    ([[-1, 2]], "run 1 (start 0, length 2) must start at 1 or later"),
    ([[2, 0]], "run 1 (start 3, length 0) must have a length of 1 or more"),
    ([[2, 2], [8, -3], [9, 1]], "run 2 (start 9, length -3) must have a length of 1 or more"),
    ([[2147483647, 2147483647]], "run 1 (start 2147483648, length 2147483647) must end by"),
]


def test_bad_runs_are_named():
    for runs, message in BAD_RUNS:
        assert batch([runs], (4, 4)).problems()[0].startswith(message)


def test_good_runs_pass():
    assert batch([[], [[0, 16]], [[0, 8], [8, 8]], [[15, 1]]], (4, 4)).problems() == {}


def test_a_batch_names_every_bad_mask_and_no_other():
    good = [[0, 8], [8, 8]]
    masks = [mask for runs, _ in BAD_RUNS for mask in (good, runs, [])]
    problems = batch(masks, (4, 4)).problems()
    assert sorted(problems) == list(range(1, len(masks), 3))
    for row, (_, message) in zip(sorted(problems), BAD_RUNS, strict=True):
        assert problems[row].startswith(message)


def test_each_mask_is_held_against_its_own_image():
    masks = [
        rle([[10, 2]], (3, 4)),
        rle([[10, 2]], (3, 3)),
        rle([], (1, 1)),
        rle([[3, 2]], (5, 1)),
    ]
    problems = rl.RleBatch.of(masks).problems()
    assert list(problems) == [1]
    assert "pixel 9, the last of height 3 and width 3" in problems[1]


@many_examples
@given(
    st.lists(st.lists(st.tuples(st.integers(-1, 14), st.integers(-1, 6)), max_size=4), max_size=5)
)
def test_any_runs_against_the_rule_in_a_loop(masks):
    bad = []
    for row, mask in enumerate(masks):
        end = 0
        for start, length in mask:
            if start < end or length < 1 or start + length > 15:
                bad.append(row)
                break
            end = start + length
    problems = batch(masks, (3, 5)).problems()
    assert sorted(problems) == bad
    for row in bad:
        assert batch([masks[row]], (3, 5)).problems() == {0: problems[row]}
        text = " ".join(f"{start + 1} {length}" for start, length in masks[row])
        assert next(rl.rle_problems(text, (3, 5)))[1] == problems[row]
        assert rl.parse_rle([text], (3, 5)).problems == {0: problems[row]}


def test_every_problem_of_a_text_is_found_in_its_order():
    text = "0 3 x 2 9 2 10 5 4 0 1 99 7"
    assert list(rl.rle_problems(text, (4, 4))) == [
        ("start", "run 1 (start 0, length 3) must start at 1 or later"),
        ("text", "value 3 must be a whole number, got 'x'"),
        ("overlaps", "run 4 (start 10, length 5) must not overlap run 3 (start 9, length 2)"),
        ("length", "run 5 (start 4, length 0) must have a length of 1 or more"),
        (
            "descends",
            "run 5 (start 4, length 0) must start after run 4 (start 10, length 5): starts must "
            "ascend",
        ),
        (
            "outside",
            "run 6 (start 1, length 99) must end by pixel 16, the last of height 4 and width 4",
        ),
        (
            "descends",
            "run 6 (start 1, length 99) must start after run 5 (start 4, length 0): starts must "
            "ascend",
        ),
        (
            "odd",
            "the number of values must be even, a length for each start, got 13; the last is '7'",
        ),
    ]
