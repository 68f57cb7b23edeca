"""Log lines that do not collide with a progress bar."""

from __future__ import annotations

import logging
import sys
from typing import TextIO

from src.cli.signals import is_first_process


class StdoutHandler(logging.StreamHandler[TextIO]):
    """Write log lines to what ``sys.stdout`` is at that moment.

    While rich shows a progress bar it stands in for ``sys.stdout`` and prints lines above the bar;
    a handler that keeps the stream of its first moment writes into the bar. Of several processes of
    one run the first writes all lines, the others errors alone; the log file has everything.

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
