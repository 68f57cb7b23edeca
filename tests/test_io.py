"""Atomic writes, JSON that may be damaged, text of files."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from src.errors import InputError
from src.io import (
    PARTIAL_EXPIRES_S,
    atomic_path,
    describe_difference,
    printable,
    read_json,
    read_json_object,
    working_directory,
    write_json,
)


def test_a_failed_write_keeps_the_old_file_and_leaves_nothing(tmp_path: Path) -> None:
    path = tmp_path / "a.json"
    write_json(path, {"b": 1, "a": "ä"})
    assert path.read_text(encoding="utf-8") == '{\n  "a": "ä",\n  "b": 1\n}\n'
    with pytest.raises(UnicodeEncodeError, match="surrogates"), atomic_path(path) as partial:
        partial.write_text("half \ud800", encoding="utf-8")
    assert read_json(path) == {"a": "ä", "b": 1}
    assert [path.name for path in tmp_path.iterdir()] == ["a.json"]


def test_the_next_write_removes_what_killed_processes_left(tmp_path: Path) -> None:
    code = (
        "import sys, os; from pathlib import Path; from src.io import partial_path;"
        "partial_path(Path(sys.argv[1])).write_text('left'); os._exit(9)"
    )
    path = tmp_path / "store.json"
    subprocess.run([sys.executable, "-c", code, str(path)], check=False)
    assert len([path.name for path in tmp_path.iterdir()]) == 1
    other = tmp_path / ".store.json.elsewhere-1-1.part"
    other.write_text("another host's, and at work")
    old = tmp_path / ".store.json.elsewhere-2-1.part"
    old.write_text("another host's, and forgotten")
    os.utime(old, (0, old.stat().st_mtime - PARTIAL_EXPIRES_S - 60))
    with atomic_path(path) as partial:
        partial.write_text("{}")
    assert sorted([path.name for path in tmp_path.iterdir()]) == [other.name, "store.json"]


def test_a_partial_name_fits_the_file_system(tmp_path: Path) -> None:
    path = tmp_path / ("ä" * 125 + ".json")
    with atomic_path(path) as partial:
        assert len(os.fsencode(partial.name)) <= 255
        partial.write_text("{}")
    assert path.exists()


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "damaged or no JSON"),
        (b'{"a": 1', "damaged or no JSON"),
        (b"\xff\xfe", "damaged or no JSON"),
        (b"[" * 100_000, "nested too deep"),
        (b'{"a":' * 100_000, "nested too deep"),
    ],
)
def test_damaged_json_is_named(tmp_path: Path, content: bytes, message: str) -> None:
    path = tmp_path / "a.json"
    path.write_bytes(content)
    with pytest.raises(InputError, match=rf"a\.json: .*{message}"):
        read_json(path)


def test_json_of_another_kind(tmp_path: Path) -> None:
    path = tmp_path / "a.json"
    path.write_bytes(b"\xef\xbb\xbf" + json.dumps([1]).encode())
    assert read_json(path) == [1]
    with pytest.raises(InputError, match="must hold a JSON object, got list"):
        read_json_object(path)
    with pytest.raises(InputError, match=r"there\.json: predict first"):
        read_json(tmp_path / "there.json", missing="predict first")


def test_pipes_and_devices_are_neither_read_nor_replaced(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(InputError, match="pipe: must be a regular file, got a pipe"):
        read_json(tmp_path / "pipe")
    with (
        pytest.raises(InputError, match=r"/dev/full: must be a regular file to write, got a dev"),
        atomic_path("/dev/full"),
    ):
        pass
    with pytest.raises(InputError, match="got a directory"), atomic_path(tmp_path):
        pass


def test_working_directories_of_killed_processes_are_removed(tmp_path: Path) -> None:
    code = (
        "import sys, os; from pathlib import Path; from src.io import working_directory\n"
        "with working_directory(next_to=Path(sys.argv[1])) as work:\n"
        "    (work / 'big').write_text('left'); os._exit(9)"
    )
    path = tmp_path / ("x" * 250)
    subprocess.run([sys.executable, "-c", code, str(path)], check=False)
    assert len([path.name for path in tmp_path.iterdir()]) == 1
    with working_directory(next_to=path) as one, working_directory(next_to=path) as other:
        assert len({one, other}) == len([path.name for path in tmp_path.iterdir()]) == 2
    assert not [path.name for path in tmp_path.iterdir()]


def test_text_of_a_file_is_printable() -> None:
    assert printable("a\x1b[31mb\nc") == "a\\x1b[31mb\\nc"
    assert printable("Ärmel [bold]") == "Ärmel [bold]"
    assert printable("x" * 300, limit=10) == "xxxxxxx..."


def test_a_difference_shows_the_beginning_of_a_long_value() -> None:
    there, here = {"a": {"b": list(range(100))}}, {"a": {"c": 1}}
    first, second = describe_difference(there, here)
    assert re.fullmatch(r"a\.b: \[0, 1, [\d, ]{70,80}\.\.\. there, absent here", first)
    assert second == "a.c: absent there, 1 here"
