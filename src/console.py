"""Printing text from files: no markup, no escape sequence of theirs reaches the terminal."""

from __future__ import annotations

import functools
import logging
import sys
import unicodedata
from collections.abc import Iterable
from io import TextIOWrapper
from typing import Any, TextIO

from rich.console import Console, ConsoleOptions, RenderableType
from rich.progress import Progress, ProgressColumn
from rich.segment import Segment
from rich.text import Text

from src.io import printable
from src.processes import is_first_process

KEPT_CONTROLS = "\n\t"


class PlainConsole(Console):
    """A console of rich's, with its options, for which nothing is markup, emoji or control."""

    def __init__(self, **options: Any) -> None:
        super().__init__(**{**options, "markup": False, "emoji": False, "highlight": False})

    def render_str(self, text: str, **options: Any) -> Text:
        """Convert a string to text, and escape its control characters."""
        return super().render_str(escape_controls(text), **options)

    def render(
        self, renderable: RenderableType, options: ConsoleOptions | None = None
    ) -> Iterable[Segment]:
        """Render to segments; the text of ``Text`` objects is made harmless here."""
        for segment in super().render(renderable, options):
            text, style, control = segment
            if not (control or text.isprintable() or all(map(_is_harmless, text))):
                # One character for one, so that a table's columns stay in line.
                segment = Segment("".join(c if _is_harmless(c) else "\ufffd" for c in text), style)
            yield segment


def escape_unencodable() -> None:
    r"""Let stdout and stderr print ``\xe9`` for a character that their encoding has not.

    Names of categories and files have any character; a terminal that is not of UTF-8 would end the
    command with UnicodeEncodeError.
    """
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")


def progress_bar(*columns: ProgressColumn) -> Progress:
    """Return a progress bar on stderr that leaves no trace, and shows nothing in a file."""
    console = PlainConsole(stderr=True)
    return Progress(*columns, console=console, transient=True, disable=not console.is_terminal)


def say(text: object, *, file: TextIO | None = None) -> None:
    """Print a line that may hold text of a file; to stderr by default."""
    print(escape_controls(str(text)), file=sys.stderr if file is None else file)


@functools.cache
def say_once(text: str) -> None:
    """Print a line on many parts of a run to stderr, the first time in this process.

    Not in a command's own module: joblib cannot send a cached function of it to a sweep's jobs.
    """
    say(text)


def escape_controls(text: str) -> str:
    r"""Escape all control characters but line ends and tabs, as ``\x1b``."""
    if text.isprintable():
        return text
    return "".join(c if _is_harmless(c) else printable(c) for c in text)


def escape_log_records() -> None:
    """Escape the control characters in every record that the root logger's handlers get."""
    for handler in logging.getLogger().handlers:
        if not any(isinstance(known, _EscapeControls) for known in handler.filters):
            handler.addFilter(_EscapeControls())


class _EscapeControls(logging.Filter):
    def filter(self, record: logging.LogRecord) -> bool:
        message = record.getMessage()
        if not message.isprintable():
            record.msg, record.args = escape_controls(message), None
        return True


class StdoutHandler(logging.StreamHandler[TextIO]):
    """Write log lines to the current ``sys.stdout``.

    While rich shows a progress bar it replaces ``sys.stdout`` and prints lines above the bar; a
    handler that keeps the first stream writes into the bar. Of several processes of one run the
    first writes all lines, the others errors alone; the log file has everything.

    Args:
        stream: Ignored; Hydra's logging configuration gives one.
    """

    def __init__(self, stream: TextIO | None = None) -> None:  # noqa: ARG002
        logging.Handler.__init__(self)

    @property
    def stream(self) -> TextIO:  # type: ignore[override]
        """Return the current standard output."""
        return sys.stdout

    def emit(self, record: logging.LogRecord) -> None:
        """Write one record."""
        if record.levelno >= logging.ERROR or is_first_process():
            super().emit(record)


def _is_harmless(character: str) -> bool:
    # For Python, spaces beyond ASCII (U+00A0, U+3000) are not printable.
    return (
        character.isprintable()
        or character in KEPT_CONTROLS
        or unicodedata.category(character) == "Zs"
    )
