"""What happens to rows that are wrong: stop at the first, or set them aside in a file."""

from __future__ import annotations

import csv
import os
from collections.abc import Iterable
from pathlib import Path
from types import TracebackType
from typing import IO, Any

from src.annotations.rows import BadRow
from src.disk_errors import naming_disk_errors
from src.errors import InputError
from src.io import check_output_file, partial_path, remove_partial_files

ON_BAD_ROWS = ("error", "skip")
_COLUMNS = ("place", "image", "reason", "original")


class BadRowHandler:
    """Takes the bad rows of one source. A context: its file appears at a good end, or not at all.

    Args:
        source: the file, for messages.
        on_bad_rows: ``error`` stops at the first bad row, ``skip`` writes each to ``skipped_file``.
        skipped_file: a CSV with the columns place, image, reason, original. Written only where a
            row was skipped; one left by an earlier run is removed otherwise.

    Raises:
        InputError: ``on_bad_rows`` is neither.
    """

    def __init__(self, *, source: Path, on_bad_rows: str, skipped_file: Path) -> None:
        if on_bad_rows not in ON_BAD_ROWS:
            raise InputError(f"on_bad_rows={on_bad_rows!r}; {' or '.join(ON_BAD_ROWS)} is legal")
        self._source = source
        self._skip = on_bad_rows == "skip"
        self.skipped_file = skipped_file
        self._partial = partial_path(skipped_file)
        self._file: IO[str] | None = None
        self._writer: Any = None
        self.count = 0

    def take(self, rows: Iterable[BadRow]) -> None:
        """Deal with bad rows, lowest first.

        Raises:
            InputError: ``on_bad_rows`` is ``error`` and there is one; it names file, row, image.
        """
        for row in sorted(rows, key=lambda row: row.number):
            if not self._skip:
                image = f", image {row.image_id!r:.120}" if row.image_id else ""
                raise InputError(f"{self._source}, {row.place}{image}: {row.reason}")
            with naming_disk_errors(self.skipped_file, partial=self._partial):
                self._write(row)
            self.count += 1

    def _write(self, row: BadRow) -> None:
        if self._file is None:
            check_output_file(self.skipped_file)
            self._partial.parent.mkdir(parents=True, exist_ok=True)
            remove_partial_files(self.skipped_file)
            self._file = self._partial.open("w", encoding="utf-8", newline="")
            self._writer = csv.writer(self._file)
            self._writer.writerow(_COLUMNS)
        self._writer.writerow((row.place, row.image_id, row.reason, row.original))

    def __enter__(self) -> BadRowHandler:
        return self

    def __exit__(
        self,
        error_type: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        if self._file is not None:
            try:
                with naming_disk_errors(self.skipped_file, partial=self._partial):
                    self._file.close()
                    if error_type is None:
                        os.replace(self._partial, self.skipped_file)
            finally:
                self._partial.unlink(missing_ok=True)
        elif self._skip and error_type is None:
            self.skipped_file.unlink(missing_ok=True)
