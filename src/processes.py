"""Processes: what tells one from another, whether it still runs, how it ends with its parent."""

from __future__ import annotations

import ctypes
import multiprocessing
import os
import re
import signal
import socket
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

_ENDED = -1
_RANK_VARIABLES = ("RANK", "LOCAL_RANK", "SLURM_PROCID", "NODE_RANK")


def is_first_process() -> bool:
    """Return whether this process is the first of the ones that work on one run.

    Lightning, torchrun and SLURM number them in the environment.
    """
    return all(os.environ.get(name, "0") in ("", "0") for name in _RANK_VARIABLES)


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


def die_with_parent() -> None:
    """Let the kernel end this process when the one that started it is killed (Linux).

    A worker that is handing over its result then would wait for its reader for ever, and hold its
    memory: https://man7.org/linux/man-pages/man2/PR_SET_PDEATHSIG.2const.html
    """
    if sys.platform == "linux":
        pr_set_pdeathsig = 1
        ctypes.CDLL(None).prctl(pr_set_pdeathsig, signal.SIGKILL)
    parent = multiprocessing.parent_process()
    if parent is not None and os.getppid() != parent.pid:
        os._exit(1)  # it ended before


@contextmanager
def hidden_from_children() -> Iterator[None]:
    """Keep Ctrl-C from the processes that the block starts; this one ends them.

    A terminal sends it to all processes of a command, and a worker that is still importing would
    print a traceback.
    """
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
