"""Errors of the disk, as they are and as libraries put them."""

from __future__ import annotations

import errno
import re
from pathlib import Path

import pytest

from src.errors import WriteError, describe_disk_error
from src.io import atomic_path


def test_errors_of_the_disk_in_one_line(tmp_path: Path) -> None:
    full = OSError(errno.ENOSPC, "No space left on device", str(tmp_path / "a" / "b"))
    line = describe_disk_error(full)
    assert line is not None
    assert re.fullmatch(
        rf"{tmp_path}/a/b: No space left on device \([\d.]+ .iB free in {tmp_path}, it takes more "
        r"than that\); nothing is half-written: free some space and run the same command again, it "
        r"resumes from what is done",
        line,
    )

    def write_half() -> None:
        with atomic_path(tmp_path / "c") as partial:
            partial.write_bytes(b"x" * 2**20)
            raise RuntimeError("unexpected pos 9349888 vs 9349776")

    with pytest.raises(WriteError, match=rf"No space left on device: '{tmp_path}/c'") as caught:
        write_half()
    assert ", it takes more than 1.0 MiB); " in str(describe_disk_error(caught.value))
    with (
        pytest.raises(WriteError, match=rf"No space left on device: '{tmp_path}/c'") as caught,
        atomic_path(tmp_path / "c", num_bytes=3 << 20),
    ):
        raise OSError("262144 requested and 0 written")
    assert ", it takes 3.0 MiB); " in str(describe_disk_error(caught.value))
    read_only = OSError(errno.EROFS, "Read-only file system", "x")
    assert describe_disk_error(read_only) == "x: Read-only file system"
    assert describe_disk_error(OSError(errno.ENOENT, "No such file", "x")) is None
    with pytest.raises(KeyError, match="no error of the disk"), atomic_path(tmp_path / "c"):
        raise KeyError("no error of the disk")
