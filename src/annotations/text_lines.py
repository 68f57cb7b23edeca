"""The lines of a large CSV file, a block at a time, each with its number in the file."""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterator
from pathlib import Path

from src.errors import InputError
from src.io import refuse_special_file

BLOCK_BYTES = 1 << 20  # about a hundred rows: their arrays fit in a core's cache
LONGEST_LINE_BYTES = 8 << 20  # a mask of half a million runs
_BYTE_ORDER_MARK = b"\xef\xbb\xbf"
# A field in quotes (a quote within is doubled) or without any, and the comma or end behind it.
_FIELD = re.compile(rb'(?:"([^"]*(?:""[^"]*)*)"|([^",]*))(,|\Z)')

Lines = list[tuple[int, bytes]]
ProgressCallback = Callable[[int, int], None]
"""Called with the number of bytes of the source read so far, and its size in bytes."""


def iterate_lines(
    path: Path,
    *,
    block_bytes: int = BLOCK_BYTES,
    longest_line_bytes: int = LONGEST_LINE_BYTES,
    on_progress: ProgressCallback | None = None,
) -> Iterator[Lines]:
    r"""Read a file as blocks of (line number, line).

    Lines end with ``\n`` or ``\r\n``, which is removed, and are numbered from 1; blank lines are
    left out but counted. A byte order mark is removed. Only a block is in memory at a time.

    Raises:
        InputError: the file cannot be read, or a line is longer than ``longest_line_bytes``.
    """
    refuse_special_file(path)
    number, done = 1, 0
    unended: list[bytes] = []  # pieces of a line whose end was not read yet
    try:
        with open(path, "rb") as file:
            while chunk := file.read(block_bytes):
                if done == 0:
                    chunk = chunk.removeprefix(_BYTE_ORDER_MARK)
                done = file.tell()
                head, newline, tail = chunk.rpartition(b"\n")
                if not newline:
                    unended.append(chunk)
                    if len(unended) * block_bytes > longest_line_bytes:
                        raise InputError(
                            f"{path}, row {number}: longer than {longest_line_bytes} bytes; "
                            "a CSV file with a row a line is wanted"
                        )
                    continue
                lines = b"".join((*unended, head)).split(b"\n")
                unended = [tail]
                yield _numbered(lines, number)
                number += len(lines)
                if on_progress is not None:
                    on_progress(done, os.fstat(file.fileno()).st_size)
            if last := b"".join(unended):
                yield _numbered([last], number)
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror})") from error


def _numbered(lines: list[bytes], first: int) -> Lines:
    stripped = (line[:-1] if line.endswith(b"\r") else line for line in lines)
    return [(number, line) for number, line in enumerate(stripped, start=first) if line]


def split_fields(line: bytes) -> list[bytes] | None:
    """The fields of a CSV line, quotes removed; None where a quote is not closed or misplaced.

    A row is a line: no field of the formats read here can hold a line break.
    """
    if b'"' not in line:
        return line.split(b",")
    fields, position = [], 0
    while True:
        match = _FIELD.match(line, position)
        if match is None:
            return None
        quoted, plain, separator = match.groups()
        fields.append(plain if quoted is None else quoted.replace(b'""', b'"'))
        if not separator:
            return fields
        position = match.end()
