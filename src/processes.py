"""Processes: what tells one from another, whether it still runs, and how it ends.

Ctrl-C and SIGTERM end a command within two seconds, with exit code 130 or 143 and one line.
``src/__init__.py`` calls ``take_over_signals`` before anything else of a command is imported,
because the imports take seconds; so this module imports the standard library alone. Meanwhile there
is nothing to clean up, and a signal ends the process at once. In ``at_work`` it raises
KeyboardInterrupt in the main thread, so that temporary files are removed and what is done is kept.
A thread is told of the signal even if the main thread is in the middle of a long call or a library
has replaced the handler; it ends the process if that has not happened after ``GRACE_S``. Further
signals do nothing.
"""

from __future__ import annotations

import ctypes
import itertools
import multiprocessing
import os
import re
import signal
import socket
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from types import FrameType
from typing import Any, NoReturn

_ENDED = -1
_PARENT_VARIABLE = "INSTANCE_CASCADE_PARENT"
_RANK_VARIABLES = ("RANK", "LOCAL_RANK", "SLURM_PROCID", "NODE_RANK")
GRACE_S = 1.2
SIGNALS = (signal.SIGINT, signal.SIGTERM)
# What the same command does after an interruption, by command.
RESUMES = {
    "train": "the same command resumes from the last checkpoint, where there is one",
    "predict": "the same command predicts the images that are missing",
    "fuse": "the same command fuses the images that are missing",
    "search": "the same command resumes after the trials that are done",
    "postprocess": "the same command does what is missing (in a sweep, the jobs that are missing)",
    "bundle": "wheels that were downloaded are kept, and the same command makes the bundle",
    "lab": "the same command offers the state of the page again",
    "synthesize": "the same command draws the images that are missing",
}
STARTS_AGAIN = "nothing is half-written; the same command starts again"


def is_first_process() -> bool:
    """Return whether this is the first process of a run, as Lightning, torchrun, SLURM count."""
    return all(os.environ.get(name, "0") in ("", "0") for name in _RANK_VARIABLES)


def name_rank_of_task() -> None:
    """Tell torch and Lightning the rank of a task that submitit's local launcher started.

    They know SLURM's variables, not its own; without a rank each task would start all over again.
    """
    num_tasks = int(os.environ.get("SUBMITIT_LOCAL_NTASKS") or 1)
    if num_tasks < 2 or "LOCAL_RANK" in os.environ:
        return
    rank, job = os.environ["SUBMITIT_LOCAL_GLOBALID"], os.environ["SUBMITIT_LOCAL_JOB_ID"]
    os.environ |= {"RANK": rank, "LOCAL_RANK": rank, "WORLD_SIZE": str(num_tasks), "NODE_RANK": "0"}
    os.environ["MASTER_ADDR"] = "127.0.0.1"
    os.environ["MASTER_PORT"] = str(20_000 + int(job) % 10_000)  # one for all tasks of the job


def process_identity() -> dict[str, Any]:
    """Return what tells this process from every other: ``host``, ``pid`` and ``start``.

    ``start`` is the kernel's start time of the process in clock ticks, 0 if it is not known; a
    recycled process id has another one.
    """
    host = re.sub(r"[^A-Za-z0-9_]", "_", socket.gethostname())[:40] or "host"
    return {"host": host, "pid": os.getpid(), "start": _start_ticks(os.getpid()) or 0}


def is_process_alive(identity: dict[str, Any]) -> bool | None:
    """Return whether the process of ``process_identity`` still runs; None for another host's.

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
        fields = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8").rpartition(")")[2].split()
    except (OSError, UnicodeDecodeError):
        return None
    return _ENDED if fields[0] in "ZX" else int(fields[19])


def adopt_ranks() -> None:
    """Let the ranks that this process is about to start know it as the one that they end with."""
    os.environ[_PARENT_VARIABLE] = str(os.getpid())


def is_adopted_rank() -> bool:
    """Return whether the first process of the run started this one."""
    return os.environ.get(_PARENT_VARIABLE) not in (None, str(os.getpid()))


def die_with_parent() -> None:
    """Let the kernel end this process when the one that started it is killed (Linux).

    A worker that hands over its result then would wait for its reader for ever, and hold its
    memory: https://man7.org/linux/man-pages/man2/PR_SET_PDEATHSIG.2const.html
    A rank would wait for the others, or keep a device.
    """
    if sys.platform == "linux":
        pr_set_pdeathsig = 1
        ctypes.CDLL(None).prctl(pr_set_pdeathsig, signal.SIGKILL)
    parent = multiprocessing.parent_process()
    started_by = os.environ.get(_PARENT_VARIABLE) if parent is None else parent.pid
    if started_by is not None and os.getppid() != int(started_by):
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


class _State:
    """Signals of this process; one object, because a handler has nothing else at hand."""

    def __init__(self) -> None:
        self.command = ""
        self.installed_in = 0  # process id
        self.is_started = False
        self.received: int | None = None
        self.under_way: int | None = None  # received, and perhaps held up by another's handler
        self.is_said = False
        self.wakeup: tuple[int, int] | None = None


_state = _State()


def take_over_signals(command: str) -> None:
    """Take over SIGINT and SIGTERM of this process, a command such as ``train``.

    Called in the main thread, once.
    """
    _state.command = command
    _state.installed_in = os.getpid()
    read, write = os.pipe()
    os.set_blocking(write, False)
    _state.wakeup = (read, write)
    signal.set_wakeup_fd(write, warn_on_full_buffer=False)
    for number in SIGNALS:
        # A shell ignores SIGINT for what it starts in the background, and that stays so.
        if signal.getsignal(number) is not signal.SIG_IGN:
            signal.signal(number, _handle)
    threading.Thread(target=_watch, args=(read,), name="signals", daemon=True).start()
    os.register_at_fork(after_in_child=_forget_in_child)


def command_of(arguments: Sequence[str]) -> str | None:
    """Return NAME for ``sys.orig_argv`` of ``python -m src.NAME``, None for other programs."""
    for option, module in itertools.pairwise(arguments):
        if option == "-m":
            return module.removeprefix("src.") if module.startswith("src.") else None
    return None


def running_command() -> str:
    """Return the name of this process's command, empty outside one."""
    return _state.command


@contextmanager
def at_work() -> Iterator[None]:
    """Let a signal raise KeyboardInterrupt in the block, the command's own work."""
    _state.is_started = True
    try:
        yield
    except (KeyboardInterrupt, SystemExit):
        if _state.received is not None:
            leave()
        raise
    finally:
        _state.is_started = False


def received_signal() -> int | None:
    """Return the number of the signal that this process was asked to end by, None without one."""
    return _state.received or _state.under_way


def exit_code() -> int:
    """Return the exit code for the signal received: 130 for Ctrl-C, 143 for SIGTERM."""
    return 128 + (received_signal() or signal.SIGINT)


def leave(details: str | None = None) -> NoReturn:
    """End the command after a signal, with the line "interrupted: ``details``", or ``RESUMES``."""
    _say(details)
    if _state.installed_in != os.getpid():
        sys.exit(exit_code())
    # The interpreter takes seconds to end, and no thread could cut that short.
    for stream in (sys.stdout, sys.stderr):
        with suppress(OSError, ValueError):
            stream.flush()
    _end_children()
    os._exit(exit_code())


def _handle(number: int, _frame: FrameType | None) -> None:
    if os.getpid() != _state.installed_in:  # a fork that a library's handler passed it on to
        os._exit(128 + number)
    is_first = _state.received is None
    _state.received = _state.received or number
    if not _state.is_started:
        _say(None)
        os._exit(exit_code())
    if is_first:
        raise KeyboardInterrupt


def _watch(pipe: int) -> None:
    """Wait for a signal; end the process if it has not ended a while after."""
    while (number := os.read(pipe, 1)) and number[0] not in SIGNALS:
        pass
    if not number:
        return
    _state.under_way = number[0]
    time.sleep(GRACE_S)
    _state.received = _state.received or number[0]
    _say(None)
    _end_children()
    os._exit(exit_code())


def _say(details: str | None) -> None:
    if _state.is_said:
        return
    _state.is_said = True
    if is_first_process():
        line = f"interrupted: {details or RESUMES.get(_state.command, STARTS_AGAIN)}\n"
        with suppress(OSError):
            os.write(2, line.encode(errors="replace"))


def _end_children() -> None:
    """Kill the processes that this one has started; the kernel lists them by thread."""
    for process in _descendants(os.getpid()):
        with suppress(OSError):
            os.kill(process, signal.SIGKILL)


def _descendants(process: int) -> list[int]:
    found: list[int] = []
    with suppress(OSError):
        for thread in Path(f"/proc/{process}/task").iterdir():
            for child in map(int, (thread / "children").read_text().split()):
                # wandb is writing its file, and ends then
                if not Path(f"/proc/{child}/comm").read_text(encoding="utf-8").startswith("wandb"):
                    found += [child, *_descendants(child)]
    return found


def _forget_in_child() -> None:
    """Let a forked process end by SIGTERM at once, and leave Ctrl-C to the one that forked it."""
    if _state.wakeup is None:
        return
    with suppress(ValueError):  # not the main thread's
        signal.set_wakeup_fd(-1)
        for number, action in zip(SIGNALS, (signal.SIG_IGN, signal.SIG_DFL), strict=True):
            if signal.getsignal(number) is _handle:
                signal.signal(number, action)
