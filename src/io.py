"""File primitives: atomic writes, JSON that may be damaged, and text that comes from a file."""

from __future__ import annotations

import errno
import hashlib
import json
import os
import re
import socket
import stat
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from src.errors import InputError

PARTIAL_SUFFIX = ".part"
PARTIAL_EXPIRES_S = 24 * 3600.0
MAX_JSON_BYTES = 256 * 2**20
SEAL_KEY = "sha256"
_ENDED = -1
DISK_ERRORS = frozenset(
    {errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EACCES, errno.EPERM, errno.EIO, errno.EFBIG}
)


@contextmanager
def atomic_path(path: str | Path, *, sync: bool = False) -> Iterator[Path]:
    """Yield a temporary path beside ``path`` that takes its name when the block succeeds.

    On an exception the temporary file is removed and ``path`` stays as it was. Temporary files that
    killed processes left for the same ``path`` are removed first.

    Args:
        path: File to write; its directory is created where it is missing.
        sync: Whether to flush the file and its directory to the disk (fsync), so that a power cut
            cannot leave an empty file under the final name.

    Raises:
        InputError: ``path`` exists and is not a regular file (a directory, a device, a pipe).
        OSError: The directory cannot be created or written.
    """
    path = Path(path)
    check_output_file(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    remove_partial_files(path)
    partial = partial_path(path)
    try:
        yield partial
        if sync:
            fsync(partial)
        os.replace(partial, path)
        if sync:
            fsync(path.parent)
    finally:
        partial.unlink(missing_ok=True)


def partial_path(path: Path) -> Path:
    """Return the name under which this process writes ``path``: ``.NAME.HOST-PID-START.part``.

    The name is cut where it would exceed the 255 bytes that a file system takes.
    """
    owner = ".{host}-{pid}-{start}".format(**process_identity())
    room = 255 - len(f".{owner}{PARTIAL_SUFFIX}".encode())
    stem = path.name.encode()[:room].decode(errors="ignore")
    return path.with_name(f".{stem}{owner}{PARTIAL_SUFFIX}")


def remove_partial_files(path: Path) -> None:
    """Remove what killed processes left of ``path`` under temporary names.

    A file is removed where its process has ended on this host, and of other hosts where nothing was
    written to it for a day.
    """
    pattern = re.compile(
        re.escape("." + path.name)[:200]
        + r".*\.(?P<host>[\w-]+)-(?P<pid>\d+)-(?P<start>\d+)"
        + re.escape(PARTIAL_SUFFIX)
    )
    try:
        names = os.listdir(path.parent)
    except OSError:
        return
    for name in names:
        if not (found := pattern.fullmatch(name)):
            continue
        left = path.with_name(name)
        try:
            owner = {**found.groupdict(), "pid": int(found["pid"]), "start": int(found["start"])}
            expired = time.time() - left.lstat().st_mtime > PARTIAL_EXPIRES_S
            if expired or is_process_alive(owner) is False:
                left.unlink()
        except OSError:
            continue


def write_json(path: str | Path, content: Any, *, indent: int | None = 2) -> None:
    """Write ``content`` as JSON, atomically; keys of objects are sorted."""
    with atomic_path(path) as partial:
        text = json.dumps(content, indent=indent, sort_keys=True, ensure_ascii=False)
        partial.write_text(text + "\n", encoding="utf-8")


def read_json(path: str | Path, *, missing: str = "no such file") -> Any:
    """Read a JSON file.

    Args:
        path: Regular file of at most ``MAX_JSON_BYTES`` bytes.
        missing: What the error says where there is no such file.

    Returns:
        What the file holds: dict, list, str, int, float, bool or None. The caller checks the type.

    Raises:
        InputError: The file is missing, not a regular file, too large, not UTF-8, not JSON, or
            nested too deep; the message names the file.
    """
    path = Path(path)
    if not path.exists():
        raise InputError(f"{path}: {missing}")
    check_input_file(path)
    try:
        if (size := path.stat().st_size) > MAX_JSON_BYTES:
            raise InputError(f"{path}: JSON must be at most {MAX_JSON_BYTES} bytes, got {size}")
        return json.loads(path.read_text(encoding="utf-8-sig"))
    except RecursionError:
        raise InputError(f"{path}: damaged JSON (nested too deep)") from None
    except (OSError, ValueError) as error:
        raise InputError(f"{path}: damaged or no JSON ({error})") from None


def read_json_object(path: str | Path, *, missing: str = "no such file") -> dict[str, Any]:
    """Read a JSON file that holds one object; arguments and errors as ``read_json``."""
    content = read_json(path, missing=missing)
    if not isinstance(content, dict):
        raise InputError(f"{path}: must hold a JSON object, got {type(content).__name__}")
    return content


def seal(content: Mapping[str, Any]) -> dict[str, Any]:
    """Return ``content`` with its checksum under the key ``sha256``, to be written as JSON."""
    return {**content, SEAL_KEY: _digest(content)}


def check_seal(content: Mapping[str, Any], path: Path) -> dict[str, Any]:
    """Return what ``seal`` was given, as JSON gave it back.

    Raises:
        InputError: The checksum is missing or another one; the message names the file.
    """
    plain = {key: value for key, value in content.items() if key != SEAL_KEY}
    if content.get(SEAL_KEY) != _digest(plain):
        raise InputError(f"{path}: damaged (its checksum does not match)")
    return plain


def _digest(content: Mapping[str, Any]) -> str:
    text = json.dumps(content, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()


def check_input_file(path: Path) -> None:
    """Refuse anything but a regular file (or a link to one), which could block or never end.

    Raises:
        InputError: ``path`` does not exist or is a directory, pipe, socket or device.
    """
    try:
        mode = path.stat().st_mode
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror})") from error
    if not stat.S_ISREG(mode):
        raise InputError(f"{path}: must be a regular file, got a {_kind(mode)}")


def check_output_file(path: Path) -> None:
    """Refuse an output that exists and is not a regular file, so that a device is not replaced.

    Raises:
        InputError: ``path`` is a directory, pipe, socket or device.
    """
    try:
        mode = path.stat().st_mode
    except FileNotFoundError:
        return
    except OSError as error:
        raise InputError(f"{path}: cannot be written ({error.strerror})") from error
    if not stat.S_ISREG(mode):
        raise InputError(f"{path}: must be a regular file to write, got a {_kind(mode)}")


def _kind(mode: int) -> str:
    kinds = {
        stat.S_IFDIR: "directory",
        stat.S_IFIFO: "pipe",
        stat.S_IFSOCK: "socket",
        stat.S_IFCHR: "device",
        stat.S_IFBLK: "device",
    }
    return kinds.get(stat.S_IFMT(mode), "special file")


def fsync(path: Path) -> None:
    """Flush a file or a directory to the disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def describe_disk_error(error: OSError) -> str | None:
    """Return one line for an error of the disk (full, read-only, no permission); None for others.

    The line names the file where the operating system does, and how many bytes are free there.
    """
    if error.errno not in DISK_ERRORS:
        return None
    name = error.filename2 or error.filename
    reason = error.strerror or os.strerror(error.errno)
    place = f"{os.fsdecode(name)}: " if isinstance(name, str | bytes) else ""
    if error.errno not in (errno.ENOSPC, errno.EDQUOT):
        return f"{place}{reason}"
    return f"{place}{reason}{_free_space(name)}"


def _free_space(name: object) -> str:
    if not isinstance(name, str | bytes):
        return ""
    directory = Path(os.fsdecode(name)).absolute()
    while not directory.is_dir() and directory != directory.parent:
        directory = directory.parent
    status = os.statvfs(directory)
    return f" ({status.f_bavail * status.f_frsize / 2**20:.1f} MiB free in {directory})"


def printable(text: object, *, limit: int = 200) -> str:
    """Return text that a file supplied in a form that is safe to print.

    Control characters, escape sequences and line ends are written as ``\\x1b`` and the like, and
    what exceeds ``limit`` characters is cut. It does not escape rich markup or HTML: whoever prints
    with rich passes ``markup=False`` or ``rich.markup.escape``.
    """
    shown = "".join(c if c.isprintable() else repr(c)[1:-1] for c in str(text)[: limit + 1])
    return shown if len(shown) <= limit else shown[: limit - 3] + "..."


def process_identity() -> dict[str, Any]:
    """Return what tells this process from every other: ``host``, ``pid`` and ``start``.

    ``start`` is the kernel's start time of the process in clock ticks, 0 where it is not known; a
    recycled process id has another one.
    """
    host = re.sub(r"[^A-Za-z0-9_]", "_", socket.gethostname())[:40] or "host"
    return {"host": host, "pid": os.getpid(), "start": _start_ticks(os.getpid()) or 0}


def is_process_alive(identity: dict[str, Any]) -> bool | None:
    """Say whether the process of ``process_identity`` still runs; None where it is another host's.

    A zombie counts as ended.
    """
    if identity.get("host") != process_identity()["host"]:
        return None
    pid, start = int(identity.get("pid", 0)), int(identity.get("start", 0))
    if pid <= 0:
        return False
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except (PermissionError, OverflowError):
        pass
    ticks = _start_ticks(pid)
    return ticks is None or (ticks != _ENDED and start in (0, ticks))


def _start_ticks(pid: int) -> int | None:
    """Return field 22 of ``/proc/PID/stat``, None without it, ``_ENDED`` for a zombie."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except (OSError, UnicodeDecodeError):
        return None
    return _ENDED if fields[0] in "ZX" else int(fields[19])
