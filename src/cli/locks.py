"""One run in a folder at a time: a lock that names the process that holds it, and since when.

The kernel holds the lock of a file for the process, so it is free at once when the process is
killed, in another container of the same machine too. File systems of a cluster may not hold locks
for all machines; so the file also names its owner, who renews its time of change.
"""

from __future__ import annotations

import fcntl
import json
import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from datetime import datetime
from pathlib import Path
from typing import Any

from src.errors import InputError, naming_disk_errors
from src.io import fitting_name, make_directory, parse_json, partial_path, printable
from src.processes import (
    is_first_process,
    is_process_alive,
    process_identity,
    running_command,
)

LOCK_NAME = ".lock"
HEARTBEAT_S = 15.0
EXPIRES_S = 60.0
_held: dict[Path, int] = {}


@contextmanager
def working_in(folder: str | Path, *, key: str) -> Iterator[None]:
    """Hold a folder while the block runs.

    Only the first process of a run takes the lock; its other ranks share the folder with it.

    Args:
        folder: Made if it is missing.
        key: Its key on the command line, for the message.

    Raises:
        InputError: Another run is at work in it; the message says which, and since when.
        WriteError: The folder cannot be written.
    """
    with _locked(Path(folder) / LOCK_NAME, f"{key}={folder}"):
        yield


@contextmanager
def writing(output: str | Path, *, key: str) -> Iterator[None]:
    """Hold an output file, or an output folder that is replaced as a whole; as ``working_in``."""
    path = Path(output)
    with _locked(path.with_name(fitting_name(f".{path.name}", LOCK_NAME)), f"{key}={output}"):
        yield


@contextmanager
def _locked(path: Path, named: str) -> Iterator[None]:
    path = path.absolute()
    if not is_first_process() or path in _held:
        yield
        return
    made = [folder for folder in path.parents if not folder.exists()]
    with naming_disk_errors(path):
        make_directory(path.parent)
        descriptor = _take(path, named)
    _held[path] = descriptor
    is_done = threading.Event()
    threading.Thread(target=_beat, args=(path, is_done), name="lock", daemon=True).start()
    try:
        yield
    finally:
        is_done.set()
        del _held[path]
        with suppress(OSError):
            path.unlink()
            for folder in made:  # if nothing was written, nothing is left
                folder.rmdir()
        os.close(descriptor)


def _take(path: Path, named: str) -> int:
    """Return the descriptor of the lock's file, which this process owns now."""
    while True:
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o666)
        try:
            is_free = _try_lock(descriptor)
            if is_free and not _is_the_file(descriptor, path):
                os.close(descriptor)  # the one before has just removed it
                continue
            owner = _read(descriptor)
            if is_free is False or _is_at_work(owner, path, is_locked=is_free is None):
                raise InputError(_refusal(owner, path, named))
            content = {**process_identity(), "boot": _boot(), "command": running_command()}
            content["since"] = datetime.now().isoformat(" ", timespec="seconds")
            os.ftruncate(descriptor, 0)
            os.pwrite(descriptor, json.dumps(content).encode(), 0)
        except BaseException:
            os.close(descriptor)
            raise
        return descriptor


def _try_lock(descriptor: int) -> bool | None:
    """Return whether this process has the kernel's lock now; None if it knows no locks."""
    try:
        fcntl.lockf(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except (BlockingIOError, PermissionError):
        return False
    except OSError:
        return None
    return True


def _is_the_file(descriptor: int, path: Path) -> bool:
    with suppress(OSError):
        return os.path.samestat(os.fstat(descriptor), path.stat())
    return False


def _read(descriptor: int) -> dict[str, Any]:
    """Return the lock's owner; empty if the file does not name one."""
    with suppress(OSError, ValueError, RecursionError):
        content = parse_json(os.pread(descriptor, 4096, 0))
        if isinstance(content, dict):
            return content
    return {}


def _is_at_work(owner: dict[str, Any], path: Path, *, is_locked: bool) -> bool:
    """Return whether the owner still runs, though the lock could be had.

    ``is_locked`` says that the file system knows no locks, so that there is no other sign.
    """
    if not owner or (owner.get("boot") == _boot() and not is_locked):
        return False
    with suppress(TypeError, ValueError):
        if (alive := is_process_alive(owner)) is not None:
            return alive and owner.get("boot") == _boot()
    return _age_s(path) < EXPIRES_S


def _age_s(path: Path) -> float:
    """Return the seconds since the lock was renewed, by the clock of the file system."""
    probe = partial_path(path, unique=True)
    try:
        probe.touch()
        return probe.stat().st_mtime - path.stat().st_mtime
    finally:
        probe.unlink(missing_ok=True)


def _refusal(owner: dict[str, Any], path: Path, named: str) -> str:
    if not owner:
        return f"{named}: another run is at work in it ({path} is locked); wait for it to end"
    keys = ("command", "since", "pid", "host")
    command, since, process, host = (printable(owner.get(key), limit=60) for key in keys)
    line = (
        f"{named}: another run is at work in it ({command}, process {process} on {host}, since "
        f"{since}); wait for it to end, or give another {named.partition('=')[0]}"
    )
    if owner.get("boot") == _boot():
        return line
    return (
        f"{line}; if that was killed, its lock expires {EXPIRES_S:g} s after its last sign of life"
    )


def _beat(path: Path, is_done: threading.Event) -> None:
    while not is_done.wait(HEARTBEAT_S):
        with suppress(OSError):
            os.utime(path)


def _boot() -> str:
    """Return the id of this start of the machine; empty if it is not known."""
    with suppress(OSError):
        return Path("/proc/sys/kernel/random/boot_id").read_text(encoding="utf-8").strip()
    return ""
