"""Run lengths to text and back: exact for good rows, precise about bad ones, one by one or many."""

from __future__ import annotations

import re

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.testing import assert_array_equal

from src import rle as rl
from src.errors import InputError
from src.rle import text as run_length_blocks
from src.rle import text as run_length_text
from tests.helpers.masks import concatenated, many_examples, outcome, runs_with_size

BAD_TEXTS = [
    ("1", "an odd number of values, 1: each start needs a length; the last is '1'"),
    ("1 3 10", "an odd number of values, 3: each start needs a length; the last is '10'"),
    ("1 3 x 5", "value 3 of 4 is 'x', not a whole number"),
    ("1 3 10 5.0", "value 4 of 4 is '5.0', not a whole number"),
    ("1,3", "value 1 of 1 is '1,3', not a whole number"),
    ("1 3 1e3 2", "value 3 of 4 is '1e3', not a whole number"),
    ("nan", "value 1 of 1 is 'nan', not a whole number"),
    ("1 2/", "value 2 of 2 is '2/', not a whole number"),
    ("1: 2", "value 1 of 2 is '1:', not a whole number"),
    ("٣ 4", "value 1 of 2 is '٣', not a whole number"),
    ("1 " + "9x" * 40, "value 2 of 2 is '" + "9x" * 20 + "...', not a whole number"),
    ("0 3", "value 1 of 2, the start 0, is below 1"),
    ("1 3 10 0", "value 4 of 4, the length 0, is below 1"),
    ("-4 3", "value 1 of 2, the start -4, is below 1"),
    ("4 -3", "value 2 of 2, the length -3, is below 1"),
    ("-" + "9" * 5000 + " 3", r"value 1 of 2, the start -9{39}\.\.\., is below 1"),
    ("2147483648 1", "value 1 of 2, the start 2147483648, ends past any image"),
    ("2147483647 2", "value 2 of 2, the length 2, ends past any image"),
    ("9" * 5000 + " 3", r"value 1 of 2, the start 9{40}\.\.\., ends past any image"),
]


@pytest.mark.parametrize(("text", "message"), BAD_TEXTS)
def test_bad_text_is_named(text, message):
    pattern = message if "{" in message else re.escape(message)
    with pytest.raises(rl.RunLengthError, match=pattern):
        rl.parse_runs(text)
    with pytest.raises(InputError, match=pattern):
        rl.parse_runs(text.encode())


def test_one_bad_row_costs_no_other():
    good = ["1 3 10 5", "", "7 2"]
    texts = []
    for text, _ in BAD_TEXTS:
        texts += [*good, text]
    batch = rl.parse_runs_batch(texts)
    assert sorted(batch.problems) == list(range(3, len(texts), 4))
    for row, text in enumerate(texts):
        runs = batch.runs[batch.offsets[row] : batch.offsets[row + 1]]
        if row in batch.problems:
            assert len(runs) == 0
            with pytest.raises(rl.RunLengthError, match=f"^{re.escape(batch.problems[row])}$"):
                rl.parse_runs(text)
        else:
            assert_array_equal(runs, rl.parse_runs(text))


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
    wanted = np.array(runs, dtype=np.int32).reshape(-1, 2)
    for given_text in (text, text.encode()):
        parsed = rl.parse_runs(given_text)
        assert parsed.dtype == np.int32
        assert_array_equal(parsed, wanted)
    batch = rl.parse_runs_batch(["7 2", text, "", "8 9"])
    assert batch.problems == {}
    assert_array_equal(batch.runs, [[6, 2], *runs, [7, 9]])
    assert batch.offsets.tolist() == [0, 1, 1 + len(runs), 1 + len(runs), 2 + len(runs)]


@pytest.mark.parametrize(
    "texts",
    [
        ["1 3 10 5", None, "", "7 2"],
        [None, None],
        [],
    ],
)
def test_arrow_columns_of_every_kind(texts):
    wanted = rl.parse_runs_batch([text or "" for text in texts])
    columns = [pa.array(texts, type=kind) for kind in (pa.string(), pa.large_string(), pa.binary())]
    columns.append(pa.chunked_array([columns[0], columns[0].slice(0, 0)]))
    columns.append(pa.concat_arrays([pa.array(["9"]), columns[0]]).slice(1))
    columns.append(columns[0].dictionary_encode())
    for column in columns:
        batch = rl.parse_runs_batch(column)
        assert batch.problems == {}
        assert batch.offsets.dtype == np.int64
        assert_array_equal(batch.runs, wanted.runs)
        assert_array_equal(batch.offsets, wanted.offsets)


@many_examples
@given(st.lists(runs_with_size(), max_size=8), st.integers(1, 40))
def test_batches_agree_with_single_rows_at_any_block_size(cases, block):
    masks = [runs for runs, _ in cases]
    runs, offsets = concatenated(masks)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(run_length_blocks, "BLOCK_BYTES", block)
        patch.setattr(run_length_text, "BLOCK_RUNS", block)
        texts = rl.format_runs_batch(runs, offsets)
        batch = rl.parse_runs_batch(texts)
    assert texts.to_pylist() == [
        " ".join(f"{start + 1} {length}" for start, length in mask.tolist()) for mask in masks
    ]
    assert texts.to_pylist() == [rl.format_runs(mask) for mask in masks]
    assert batch.problems == {}
    assert_array_equal(batch.runs, runs)
    assert_array_equal(batch.offsets, offsets)


@many_examples
@given(st.lists(st.text(alphabet="0123456789 -+x.\té", max_size=24), max_size=8))
def test_any_text_gives_in_a_batch_what_it_gives_alone(texts):
    batch = rl.parse_runs_batch(texts)
    assert len(batch.offsets) == len(texts) + 1
    for row, text in enumerate(texts):
        runs = batch.runs[batch.offsets[row] : batch.offsets[row + 1]]
        wanted, message = outcome(rl.parse_runs, text)
        assert batch.problems.get(row) == message
        assert_array_equal(runs, wanted)


@many_examples
@given(
    st.lists(
        st.tuples(st.integers(0, 2**31 - 2), st.integers(1, 2**31 - 1)), min_size=1, max_size=20
    )
)
def test_numbers_of_every_width_are_written(pairs):
    runs = np.array(pairs, dtype=np.int32)
    wanted = " ".join(f"{start + 1} {length}" for start, length in pairs)
    assert rl.format_runs(runs) == wanted
    narrow = runs % 10 ** np.random.default_rng(0).integers(1, 9, size=runs.shape) + [0, 1]
    wanted = " ".join(f"{start + 1} {length}" for start, length in narrow.tolist())
    assert rl.format_runs(narrow.astype(np.int32)) == wanted


def test_runs_that_are_no_mask_are_written_as_they_are():
    runs = np.array([[3, 0], [-5, 7], [2, -1], [0, 1]], dtype=np.int32)
    assert rl.format_runs(runs) == "4 0 -4 7 3 -1 1 1"


def test_writing_a_slice_of_a_larger_batch():
    runs = np.array([[0, 3], [9, 5], [6, 2], [1, 1]], dtype=np.int32)
    offsets = np.array([1, 1, 3, 3])
    assert rl.format_runs_batch(runs, offsets).to_pylist() == ["", "10 5 7 2", ""]
    assert rl.format_runs_batch(runs, offsets[:1]).to_pylist() == []


def test_long_rows_by_the_thousand():
    rng = np.random.default_rng(3)
    masks = []
    for _ in range(400):
        lengths = rng.integers(1, 4000, rng.integers(0, 1500))
        starts = np.cumsum(lengths + rng.integers(0, 20_000, len(lengths))) - lengths
        masks.append(np.stack([starts, lengths], axis=1).astype(np.int32))
    runs, offsets = concatenated(masks)
    texts = [" ".join(f"{start + 1} {length}" for start, length in mask.tolist()) for mask in masks]
    assert rl.format_runs_batch(runs, offsets).to_pylist() == texts
    texts[200] += " 5"
    texts[201] = texts[201].replace(" ", "  ")
    batch = rl.parse_runs_batch(pa.array(texts))
    assert list(batch.problems) == [200]
    keep = np.ones(len(runs), dtype=bool)
    keep[offsets[200] : offsets[201]] = False
    assert_array_equal(batch.runs, runs[keep])
