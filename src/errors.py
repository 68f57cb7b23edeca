"""Errors: mistakes of the user, and failures of the disk in one line."""

from __future__ import annotations

import errno
import io
import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

MAX_MESSAGE_CHARACTERS = 2000


class InputError(ValueError):
    """Bad input from a user: a file, a row or a configuration value.

    The message names the file, row or key, the bad value, and what is legal. The middle of one that
    would be longer than ``MAX_MESSAGE_CHARACTERS`` is left out, since files hold names and ids of
    any length.

    Example:
        >>> from src import InputError, PostprocessSettings
        >>> try:
        ...     PostprocessSettings.preset("looser")
        ... except InputError as error:
        ...     print(error)
        preset must be one of default, ..., got 'looser'
    """

    def __str__(self) -> str:
        return shortened(super().__str__())


def shortened(message: str) -> str:
    """Return a message with at most ``MAX_MESSAGE_CHARACTERS``: its begin and its end."""
    half = (MAX_MESSAGE_CHARACTERS - 5) // 2
    is_short = len(message) <= MAX_MESSAGE_CHARACTERS
    return message if is_short else f"{message[:half]} ... {message[-half:]}"


SPACE_ERRORS = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EFBIG})
# and no permission, a damaged disk, a path that cannot be
DISK_ERRORS = SPACE_ERRORS | {
    *(errno.EROFS, errno.EACCES, errno.EPERM, errno.EIO),
    *(errno.ENAMETOOLONG, errno.ENOTDIR, errno.ELOOP),
}
# Libraries that report a full disk without its number: torch (the end of an archive that was cut
# short), SQLite, numpy's tofile, safetensors and errors of other processes, tempfile.
FULL_DISK = re.compile(
    r"unexpected pos \d+ vs|file write failed|database or disk is full|disk I/O error"
    r"|\d+ requested and \d+ written|No space left on device|Disk quota exceeded"
    r"|No usable temporary directory"
)


class WriteError(OSError):
    """An error of the disk with the file that was being written.

    Args:
        number: The operating system's ``errno``.
        path: File or directory that was being written.
        need: Bytes that it takes, in words; empty if not known.
    """

    def __init__(self, number: int, path: str | Path, need: str = "") -> None:
        super().__init__(number, os.strerror(number), str(path))
        self.need = need

    def __reduce__(self) -> tuple[Any, ...]:
        """Support pickling: a worker process sends it."""
        return WriteError, (self.errno, self.filename, self.need)


@contextmanager
def naming_disk_errors(
    path: Path, *, partial: Path | None = None, num_bytes: int | None = None
) -> Iterator[None]:
    """Raise an error of the disk in the block as a ``WriteError`` that names ``path``.

    Args:
        path: What the block writes.
        partial: Temporary name that errors may carry instead.
        num_bytes: Size of what is written, if it is known beforehand.

    Raises:
        WriteError: The disk is full or read-only, or may not be written.
    """
    try:
        yield
    except Exception as error:
        found = find_disk_error(error)
        if found is None or not _is_of(found, path, partial):
            raise
        need = getattr(found, "need", "")
        if num_bytes is not None:
            need = f"it takes {_describe_size(num_bytes)}"
        elif partial is not None and partial.is_file():
            need = f"it takes more than {_describe_size(partial.stat().st_size)}"
        raise WriteError(found.errno or errno.ENOSPC, path, need) from error


def _is_of(error: OSError, path: Path, partial: Path | None) -> bool:
    """Return whether an error of the disk concerns this file, or no known one."""
    if error.filename is None:
        return True
    place = Path(os.fsdecode(error.filename))
    return place == path or (partial is not None and place.is_relative_to(partial))


def find_disk_error(error: BaseException | None) -> OSError | None:
    """Find the error of the disk behind an exception; None if there is none.

    Libraries raise other exceptions while they clean up after a full disk, and some report it by a
    text alone.
    """
    plain: OSError | None = None
    is_cause = True
    while error is not None:
        if isinstance(error, WriteError):
            return error
        numbers = DISK_ERRORS if is_cause else SPACE_ERRORS
        if isinstance(error, OSError) and error.errno in numbers:
            plain = plain if plain is not None and plain.filename else _with_name(error)
        elif plain is None and isinstance(error, Exception) and FULL_DISK.search(str(error)):
            plain = OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        is_cause = is_cause and error.__cause__ is not None
        error = error.__cause__ or error.__context__
    return plain


def _with_name(error: OSError) -> OSError:
    """Add the name of the file whose writing raised an error, if it is found."""
    trace = error.__traceback__ if error.filename is None else None
    name = None
    while trace is not None:
        for value in trace.tb_frame.f_locals.values():
            of_file = getattr(value, "name", None) if isinstance(value, io.IOBase) else None
            name = of_file if isinstance(of_file, str) else name  # the innermost frame's in the end
        trace = trace.tb_next
    return error if name is None else OSError(error.errno, error.strerror, name)


def describe_disk_error(error: OSError) -> str | None:
    """Return one line for an error of the disk (full, read-only, no permission); None for others.

    The line names the file, if it is known, its size and the bytes that are free there; a line on a
    full disk says that the same command resumes.
    """
    if error.errno not in DISK_ERRORS:
        return None
    name = error.filename2 or error.filename
    reason = error.strerror or os.strerror(error.errno)
    place = f"{os.fsdecode(name)}: " if isinstance(name, str | bytes) else ""
    if error.errno not in SPACE_ERRORS:
        return f"{place}{reason}"
    details = ""
    if isinstance(name, str | bytes):
        # The part of the file that this command had written is removed by now.
        need = (isinstance(error, WriteError) and error.need) or "it takes more than that"
        details = f" ({_free_space(name)}, {need})"
    return (
        f"{place}{reason}{details}; nothing is half-written: free some space and run the same "
        "command again, it resumes from what is done"
    )


def _free_space(name: str | bytes) -> str:
    directory = Path(os.fsdecode(name)).absolute()
    while not directory.is_dir() and directory != directory.parent:
        directory = directory.parent
    status = os.statvfs(directory)
    return f"{_describe_size(status.f_bavail * status.f_frsize)} free in {directory}"


def _describe_size(num_bytes: int) -> str:
    return f"{num_bytes / 2**20:.1f} MiB" if num_bytes >= 2**20 else f"{num_bytes / 2**10:.1f} KiB"
