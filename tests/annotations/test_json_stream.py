"""The streamed reading of JSON against Python's json."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from src.annotations import json_stream
from src.annotations.json_stream import iterate_members
from src.errors import InputError
from tests.helpers.masks import many_examples

values = st.recursive(
    st.none() | st.booleans() | st.integers(-(10**20), 10**20) | st.floats(allow_nan=False)
    | st.text(max_size=8),
    lambda children: st.lists(children, max_size=3)
    | st.dictionaries(st.text(max_size=3), children, max_size=3),
    max_leaves=6,
)  # fmt: skip


def collect(path, streamed: str) -> dict:
    found: dict = {}
    for name, position, value in iterate_members(path, streamed=streamed):
        if position < 0:
            found[name] = value
        else:
            assert position == len(found[name])
            found[name].append(value)
    return found


@many_examples
@given(
    st.dictionaries(st.sampled_from(["a", "items", "ü", ""]), values, max_size=4),
    st.lists(values, max_size=4),
    st.integers(1, 9),
    st.sampled_from([None, 1]),
    st.booleans(),
)
def test_any_object_in_any_chunks(tmp_path_factory, parts, items, chunk_bytes, indent, plain):
    parts = {**parts, "items": items}
    path = tmp_path_factory.mktemp("json") / "a.json"
    path.write_text(json.dumps(parts, indent=indent, ensure_ascii=plain) + "\n", encoding="utf-8")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(json_stream, "_CHUNK_BYTES", chunk_bytes)
        assert collect(path, streamed="items") == parts


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("[1]", r"line 1, column 1: must be a JSON object \{ \.\.\. \}"),
        ("{1: 2}", r"line 1, column 2: a member must begin with its name"),
        ('{"a" 2}', r"line 1, column 6: a colon must follow"),
        ('{"a": 2 "b": 3}', r"line 1, column 9: a comma or the closing \} must follow"),
        ('{"a": 2}}', r"line 1, column 9: the file continues after the closing \}"),
        ('{"a": 2', r"line 1, column 8: a comma or the closing \}"),
        ('{"items": [1 2]}', r"line 1, column 14: a comma or the closing \] must follow"),
        ('{"items": [1,\n 2,\n {"x": tru}]}', r"line 3, column 8: Expecting value"),
        ('{"items": [\n"open]}', r"line 2, column 1: Unterminated string"),
        ('{"items": [{"x": 1,}]}', r"line 1, column \d+: .*(property name|trailing comma)"),
        ("", r"line 1, column 1: must be a JSON object"),
        ('{"a": ' + "[" * 100_000, r"nested too deeply|Expecting value"),
    ],
)
@pytest.mark.parametrize("chunk_bytes", [3, 1 << 20])
def test_syntax_errors_name_their_place(tmp_path, monkeypatch, text, message, chunk_bytes):
    monkeypatch.setattr(json_stream, "_CHUNK_BYTES", chunk_bytes)
    (tmp_path / "a.json").write_text(text)
    with pytest.raises(InputError, match=rf"a\.json: not valid JSON.*{message}"):
        collect(tmp_path / "a.json", streamed="items")


def test_broken_value_does_not_read_the_whole_file(tmp_path, monkeypatch):
    monkeypatch.setattr(json_stream, "_CHUNK_BYTES", 1000)
    (tmp_path / "a.json").write_text('{"items": [{"x": nul}, ' + "1, " * 100_000 + "1]}")
    read: list[int] = []
    with pytest.raises(InputError, match="line 1, column 18: Expecting value"):
        list(
            iterate_members(
                tmp_path / "a.json", streamed="items", on_progress=lambda done, _: read.append(done)
            )
        )
    assert max(read) <= 2000


def test_not_utf8(tmp_path):
    (tmp_path / "a.json").write_bytes(b'{"a": "\xff"}')
    with pytest.raises(InputError, match=r"a\.json: not UTF-8 text"):
        collect(tmp_path / "a.json", streamed="items")
