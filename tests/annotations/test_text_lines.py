"""Lines and fields of CSV files against Python's csv module."""

from __future__ import annotations

import csv
import io

import pytest
from hypothesis import given
from hypothesis import strategies as st

from src.annotations.rows import iterate_lines, split_fields
from src.errors import InputError
from tests.helpers.masks import many_examples

fields_of_a_row = st.lists(st.text(alphabet='ab",. é', max_size=6), min_size=1, max_size=5)


@many_examples
@given(fields_of_a_row, st.sampled_from([csv.QUOTE_MINIMAL, csv.QUOTE_ALL]))
def test_fields_as_the_csv_module_writes_them(fields, quoting):
    text = io.StringIO()
    csv.writer(text, quoting=quoting, lineterminator="").writerow(fields)
    assert split_fields(text.getvalue().encode()) == [field.encode() for field in fields]


@pytest.mark.parametrize("line", [b'a,"b', b'a,b"c,d', b'a,"b"c,d', b'"', b'a,"b""'])
def test_misplaced_quotes_are_seen(line):
    assert split_fields(line) is None


@many_examples
@given(
    st.lists(st.binary(max_size=9).map(lambda line: line.translate(None, b"\r\n")), max_size=8),
    st.integers(1, 12),
    st.sampled_from([b"\n", b"\r\n"]),
    st.booleans(),
)
def test_lines_whatever_the_block(tmp_path_factory, lines, block_bytes, line_end, ended):
    path = tmp_path_factory.mktemp("lines") / "a.csv"
    path.write_bytes(line_end.join(lines) + (line_end if ended else b""))
    found = [line for block in iterate_lines(path, block_bytes=block_bytes) for line in block]
    expected = [
        (number, line.removesuffix(b"\r"))
        for number, line in enumerate(path.read_bytes().split(b"\n"), start=1)
        if line.removesuffix(b"\r")
    ]
    if block_bytes < 3:  # a byte order mark is only looked for in a whole first block
        return
    expected = [(n, line.removeprefix(b"\xef\xbb\xbf") if n == 1 else line) for n, line in expected]
    assert found == [(number, line) for number, line in expected if line]


def test_progress_ends_with_the_size(tmp_path):
    path = tmp_path / "a.csv"
    path.write_bytes(b"a\n" * 100)
    seen: list[tuple[int, int]] = []
    list(iterate_lines(path, block_bytes=64, on_progress=lambda *done: seen.append(done)))
    assert seen == [(64, 200), (128, 200), (192, 200), (200, 200)]


def test_unreadable_and_endless_lines(tmp_path):
    with pytest.raises(InputError, match=r"gone\.csv: cannot be read \(No such file"):
        list(iterate_lines(tmp_path / "gone.csv"))
    (tmp_path / "long.csv").write_bytes(b"a\nb\n" + b"c" * 100)
    with pytest.raises(
        InputError, match=r"at most 50 bytes, got a longer one \(.*long\.csv, row 3\)"
    ):
        list(iterate_lines(tmp_path / "long.csv", block_bytes=10, longest_line_bytes=50))
