"""RLE strings to masks and back: exact for good ones, precise about bad ones, at any block size."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from src import rle as rl
from src.rle import text as rle_text
from tests.helpers.masks import batch, many_examples, masks, rle

LARGE = (1, 2**31 - 1)  # height and width of the largest image
ODD = "the number of values must be even, a length for each start, got "
WHOLE = "must be a whole number, got "
BAD_TEXTS = [
    ("1", f"{ODD}1; the last is '1'"),
    ("1 3 10", f"{ODD}3; the last is '10'"),
    ("1 3 x 5", f"value 3 {WHOLE}'x'"),
    ("1 3 10 5.0", f"value 4 {WHOLE}'5.0'"),
    ("1,3", f"value 1 {WHOLE}'1,3'"),
    ("1 3 1e3 2", f"value 3 {WHOLE}'1e3'"),
    ("nan", f"value 1 {WHOLE}'nan'"),
    ("1 2/", f"value 2 {WHOLE}'2/'"),
    ("1: 2", f"value 1 {WHOLE}'1:'"),
    ("٣ 4", f"value 1 {WHOLE}'٣'"),
    ("1 " + "9x" * 40, f"value 2 {WHOLE}'" + "9x" * 20 + "...'"),
    ("0 3", "run 1 (start 0, length 3) must start at 1 or later"),
    ("1 3 10 0", "run 2 (start 10, length 0) must have a length of 1 or more"),
    ("-4 3", "run 1 (start -4, length 3) must start at 1 or later"),
    ("4 -3", "run 1 (start 4, length -3) must have a length of 1 or more"),
    ("-" + "9" * 5000 + " 3", "run 1 (start -" + "9" * 39 + "..., length 3) must start at 1"),
    ("2147483648 1", "run 1 (start 2147483648, length 1) must end by pixel 2147483647"),
    ("2147483647 2", "run 1 (start 2147483647, length 2) must end by pixel 2147483647"),
    ("9" * 5000 + " 3", "run 1 (start " + "9" * 40 + "..., length 3) must end by"),
]


@pytest.mark.parametrize(("text", "message"), BAD_TEXTS)
def test_bad_text_is_named(text, message):
    for given_text in (text, text.encode()):
        found, problems = rl.parse_rle([given_text], LARGE)
        assert problems[0].startswith(message)
        assert len(found[0].runs) == 0


def test_half_of_a_surrogate_pair_is_no_number():
    masks, problems = rl.parse_rle(["1 \ud800", "1 3"], LARGE)
    assert problems[0].startswith(f"value 2 {WHOLE}")
    assert masks[1].area_px == 3
    assert list(rl.from_coco(["\ud800"], LARGE)[1]) == [0]


def test_runs_of_whole_numbers_that_are_no_mask_are_kept_beside_their_problem():
    found, problems = rl.parse_rle(["9 2 1 3", "1 1"], (4, 4))
    assert list(problems) == [0]
    assert found == batch([[[8, 2], [0, 3]], [[0, 1]]], (4, 4))


def test_one_bad_row_costs_no_other():
    good = {"1 3 10 5": [[0, 3], [9, 5]], "": [], "7 2": [[6, 2]]}
    texts = []
    for text, _ in BAD_TEXTS:
        texts += [*good, text]
    found, problems = rl.parse_rle(texts, LARGE)
    assert sorted(problems) == list(range(3, len(texts), 4))
    for row, text in enumerate(texts):
        if row in problems:
            assert len(found[row].runs) == 0
            assert rl.parse_rle([text], LARGE).problems == {0: problems[row]}
        else:
            assert found[row] == rle(good[text], LARGE)


@pytest.mark.parametrize(
    ("text", "runs"),
    [
        ("", []),
        ("  ", []),
        ("1 1", [[0, 1]]),
        (" 1  3 10 5 ", [[0, 3], [9, 5]]),
        ("1 3\t10 5\n", [[0, 3], [9, 5]]),
        ("0001 03", [[0, 3]]),
        ("99999999 12345678", [[99999998, 12345678]]),
        ("100000000 1", [[99999999, 1]]),
        ("000000000100000000 1", [[99999999, 1]]),
        ("2147483647 1", [[2147483646, 1]]),
        ("1 2147483647", [[0, 2147483647]]),
    ],
)
def test_text_that_is_unusual_but_right(text, runs):
    for given_text in (text, text.encode()):
        parsed = rl.parse_rle([given_text], LARGE).masks[0]
        assert parsed.runs.dtype == np.int32
        assert parsed == rle(runs, LARGE)
    found, problems = rl.parse_rle(["7 2", text, "", b"8 9"], LARGE)
    assert problems == {}
    assert found == batch([[[6, 2]], runs, [], [[7, 9]]], LARGE)


@many_examples
@given(st.lists(masks(), max_size=8), st.integers(1, 40))
def test_batches_agree_with_single_rows_at_any_block_size(given_masks, block):
    together = rl.RleBatch.of(given_masks)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(rle_text, "BLOCK_BYTES", block)
        patch.setattr(rle_text, "BLOCK_RUNS", block)
        texts = rl.format_rle(together)
        found, problems = rl.parse_rle(texts, together.sizes_hw)
    assert texts == [
        " ".join(f"{start + 1} {length}" for start, length in mask.runs.tolist())
        for mask in given_masks
    ]
    assert texts == [rl.format_rle([mask])[0] for mask in given_masks]
    assert problems == {}
    assert found == together
    assert found.offsets.dtype == np.int64


@many_examples
@given(st.lists(st.text(alphabet="0123456789 -+x.\té", max_size=24), max_size=8))
def test_any_text_gives_in_a_batch_what_it_gives_alone(texts):
    found, problems = rl.parse_rle(texts, (40, 50))
    assert len(found) == len(texts)
    for row, text in enumerate(texts):
        alone, problem = rl.parse_rle([text], (40, 50))
        assert problems.get(row) == problem.get(0)
        assert found[row] == alone[0]


@many_examples
@given(
    st.lists(
        st.tuples(st.integers(0, 2**31 - 2), st.integers(1, 2**31 - 1)), min_size=1, max_size=20
    )
)
def test_numbers_of_every_width_are_written(pairs):
    runs = np.array(pairs, dtype=np.int32)
    wanted = " ".join(f"{start + 1} {length}" for start, length in pairs)
    assert rl.format_rle([rle(runs, LARGE)]) == [wanted]
    narrow = runs % 10 ** np.random.default_rng(0).integers(1, 9, size=runs.shape) + [0, 1]
    wanted = " ".join(f"{start + 1} {length}" for start, length in narrow.tolist())
    assert rl.format_rle([rle(narrow, LARGE)]) == [wanted]


def test_runs_that_are_no_mask_are_written_as_they_are():
    mask = rle([[3, 0], [-5, 7], [2, -1], [0, 1]], (4, 4))
    assert rl.format_rle([mask]) == ["4 0 -4 7 3 -1 1 1"]


def test_writing_a_slice_of_a_larger_batch():
    runs = np.array([[0, 3], [9, 5], [6, 2], [1, 1]], dtype=np.int32)
    offsets = np.array([1, 1, 3, 3])
    sizes_hw = np.full((3, 2), 4)
    assert rl.format_rle(rl.RleBatch(runs, offsets, sizes_hw)) == ["", "10 5 7 2", ""]
    assert rl.format_rle(rl.RleBatch(runs, offsets[:1], sizes_hw[:0])) == []


def test_long_rows_by_the_thousand():
    rng = np.random.default_rng(3)
    given_masks = []
    for _ in range(400):
        lengths = rng.integers(1, 4000, rng.integers(0, 1500))
        starts = np.cumsum(lengths + rng.integers(0, 20_000, len(lengths))) - lengths
        given_masks.append(rle(np.stack([starts, lengths], axis=1), LARGE))
    texts = [
        " ".join(f"{start + 1} {length}" for start, length in mask.runs.tolist())
        for mask in given_masks
    ]
    assert rl.format_rle(given_masks) == texts
    texts[200] += " 5"
    texts[201] = texts[201].replace(" ", "  ")
    found, problems = rl.parse_rle(texts, LARGE)
    assert list(problems) == [200]
    given_masks[200] = rle([], LARGE)
    assert found == rl.RleBatch.of(given_masks)
