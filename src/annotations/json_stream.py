"""Read a JSON object or list too large for memory, value by value."""

from __future__ import annotations

import codecs
import itertools
import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from src.annotations.rows import LONGEST_LINE_BYTES, ProgressCallback
from src.errors import InputError
from src.io import check_characters, refuse_special_file

_CHUNK_BYTES = 4 << 20
_LARGEST_VALUE_CHARACTERS = 1 << 30
_LARGEST_ELEMENT_CHARACTERS = LONGEST_LINE_BYTES  # an annotation: what a row is in a CSV
_SPACE = re.compile(r"[ \t\r\n]*")
# A value whose error is this far before the end of what was read is wrong, not cut off.
_CUT_OFF_CHARACTERS = 64


def iterate_members(
    path: Path, *, streamed: str, on_progress: ProgressCallback | None = None
) -> Iterator[tuple[str, int, Any]]:
    """Read the members of the JSON object in a UTF-8 file, in its order.

    Args:
        path: The file.
        streamed: Name of the member whose list is given an element at a time.
        on_progress: Called with the number of bytes read and their total.

    Yields:
        (name, -1, value) for a member, (``streamed``, position, element) for each element of the
        streamed list; (``streamed``, -1, []) comes before its elements.

    Raises:
        InputError: Unreadable, not UTF-8, not JSON (with line and column), or no object.
    """
    refuse_special_file(path)
    text = _Text(path, on_progress)
    try:
        yield from _members(text, streamed)
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror})") from error
    finally:
        text.close()


def starts_with_list(path: Path) -> bool:
    """Return whether a file begins like a JSON list, as COCO's results do."""
    refuse_special_file(path)
    with path.open("rb") as file:
        return file.read(4096).removeprefix(b"\xef\xbb\xbf").lstrip()[:1] == b"["


def iterate_list(
    path: Path, *, on_progress: ProgressCallback | None = None
) -> Iterator[tuple[int, Any]]:
    """Yield (position, element) for each element of the JSON list in a UTF-8 file.

    Raises:
        InputError: As for ``iterate_members``; no list.
    """
    refuse_special_file(path)
    text = _Text(path, on_progress)
    try:
        if text.peek() != "[":
            raise text.error("must be a JSON list [ ... ]")
        yield from _elements(text)
        if text.peek():
            raise text.error("the file continues after the closing ]")
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror})") from error
    finally:
        text.close()


def _members(text: _Text, streamed: str) -> Iterator[tuple[str, int, Any]]:
    if text.peek() != "{":
        raise text.error("must be a JSON object { ... }")
    text.skip()
    while True:
        if text.peek() != '"':
            raise text.error("a member must begin with its name in double quotes")
        name = text.value()
        if text.peek() != ":":
            raise text.error("a colon must follow the name of a member")
        text.skip()
        if name == streamed and text.peek() == "[":
            yield name, -1, []
            yield from ((name, *element) for element in _elements(text))
        else:
            yield name, -1, text.value()
        if _ends(text, "}", "a member"):
            break
    if text.peek():
        raise text.error("the file continues after the closing }")


def _elements(text: _Text) -> Iterator[tuple[int, Any]]:
    text.skip()
    if text.peek() == "]":
        text.skip()
        return
    for position in itertools.count():
        yield position, text.value(longest=_LARGEST_ELEMENT_CHARACTERS)
        if _ends(text, "]", "an element of a list"):
            return


def _ends(text: _Text, closing: str, entry: str) -> bool:
    """Skip the comma or closing bracket that follows an entry; return whether it was the latter."""
    if (separator := text.peek()) not in (",", closing):
        raise text.error(f"a comma or the closing {closing} must follow {entry}")
    text.skip()
    return separator == closing


class _Text:
    """A window on the text of a file, moved forward as values are taken."""

    def __init__(self, path: Path, on_progress: ProgressCallback | None) -> None:
        self.path = path
        self._file = path.open("rb")
        self._size = path.stat().st_size
        self._decoder = codecs.getincrementaldecoder("utf-8-sig")()
        self._scan = json.JSONDecoder().raw_decode
        self._on_progress = on_progress
        self._text, self._at, self._ended = "", 0, False
        self._lines_before, self._characters_before = 0, 0  # of the window; column of its start

    def close(self) -> None:
        self._file.close()

    def peek(self) -> str:
        """Return the next character that is not white space; empty at the end."""
        while True:
            self._at = _SPACE.match(self._text, self._at).end()  # type: ignore[union-attr]
            if self._at < len(self._text):
                return self._text[self._at]
            if self._ended:
                return ""
            self._read(_CHUNK_BYTES)

    def skip(self) -> None:
        """Skip one character."""
        self._at += 1

    def value(self, *, longest: int = _LARGEST_VALUE_CHARACTERS) -> Any:
        """Take the next value, of at most ``longest`` characters."""
        self.peek()
        wanted = _CHUNK_BYTES
        while True:
            try:
                value, end = self._scan(self._text, self._at)
                if self._text.find("\\u", self._at, end) >= 0:
                    check_characters(value)
            except json.JSONDecodeError as error:
                cut_off = error.msg.startswith("Unterminated string") or (
                    error.pos >= len(self._text) - _CUT_OFF_CHARACTERS
                )
                if self._ended or not cut_off:
                    raise self._error(error.msg, error.pos) from error
            except RecursionError as error:
                raise self.error("nested too deeply") from error
            except ValueError as error:  # a number of thousands of digits, or no text
                raise self.error(str(error).partition(";")[0]) from error
            else:
                # A number may go on in what was not read yet, by as little as the 5 of 1e+5.
                if end + 3 <= len(self._text) or self._ended:
                    self._at = end
                    return value
            if len(self._text) - self._at > longest:
                raise self.error(f"a value is longer than {longest} characters")
            self._read(wanted)
            wanted *= 2

    def error(self, message: str) -> InputError:
        return self._error(message, self._at)

    def _error(self, message: str, position: int) -> InputError:
        line, column = (number + 1 for number in self._place(position))
        return InputError(f"{self.path}: not valid JSON at line {line}, column {column}: {message}")

    def _place(self, position: int) -> tuple[int, int]:
        """Return line and column of a position in the window, counted from 0."""
        if newlines := self._text.count("\n", 0, position):
            column = position - self._text.rfind("\n", 0, position) - 1
            return self._lines_before + newlines, column
        return self._lines_before, self._characters_before + position

    def _read(self, wanted: int) -> None:
        self._lines_before, self._characters_before = self._place(self._at)
        data = self._file.read(wanted)
        self._ended = not data
        try:
            self._text = self._text[self._at :] + self._decoder.decode(data, final=self._ended)
        except UnicodeDecodeError as error:
            raise InputError(f"{self.path}: not UTF-8 text ({error})") from error
        self._at = 0
        if self._on_progress is not None:
            self._on_progress(self._file.tell(), self._size)
