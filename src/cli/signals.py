"""Ctrl-C and SIGTERM in commands: exit code 130 or 143 within two seconds, and one line.

``src/__init__.py`` calls ``install`` before anything else of a command is imported, because the
imports take seconds. While they run there is nothing to clean up, so a signal ends the process at
once. In ``at_work`` it raises KeyboardInterrupt in the main thread, so that temporary files are
removed and what is done is kept. A thread is told of the signal even where the main thread is in
the middle of a long call or a library has replaced the handler; it ends the process where that has
not happened after ``GRACE_S``. Further signals do nothing.

It imports nothing that takes long: the standard library and ``src.processes``.
"""

from __future__ import annotations

import contextlib
import itertools
import os
import signal
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from types import FrameType
from typing import NoReturn

from src.processes import is_first_process

GRACE_S = 1.2
SIGNALS = (signal.SIGINT, signal.SIGTERM)
# What the same command does after it was interrupted, by command.
RESUMES = {
    "train": "the same command resumes from the last checkpoint, where there is one",
    "predict": "the same command predicts the images that are missing",
    "fuse": "the same command fuses the images that are missing",
    "search": "the same command resumes after the trials that are done",
    "postprocess": "the same command does what is missing (in a sweep, the jobs that are missing)",
    "synthesize": "the same command draws the images that are missing",
}
STARTS_AGAIN = "nothing is half-written; the same command starts again"


class _State:
    """The signals of this process; one object, because a handler has nothing else at hand."""

    def __init__(self) -> None:
        self.command = ""
        self.installed_in = 0  # process id
        self.is_started = False
        self.received: int | None = None
        self.is_said = False
        self.wakeup: tuple[int, int] | None = None


_state = _State()


def install(command: str) -> None:
    """Take over SIGINT and SIGTERM of this process; called in the main thread, once.

    Args:
        command: Its name, ``train``.
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
    """Return the command of ``python -m src.NAME``, None for other programs.

    Args:
        arguments: Of the interpreter, ``sys.orig_argv``.
    """
    for option, module in itertools.pairwise(arguments):
        if option == "-m":
            return module.removeprefix("src.") if module.startswith("src.") else None
    return None


def command() -> str:
    """Return the name of this process's command, empty outside one."""
    return _state.command


@contextlib.contextmanager
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


def received() -> int | None:
    """Return the number of the signal that this process was asked to end by, None without one."""
    return _state.received


def exit_code() -> int:
    """Return the exit code for the signal received: 130 for Ctrl-C, 143 for SIGTERM."""
    return 128 + (_state.received or signal.SIGINT)


def leave(details: str | None = None) -> NoReturn:
    """End the command after a signal, with one line.

    Args:
        details: What is said after "interrupted"; default: by the command, ``RESUMES``.
    """
    _say(details)
    if _state.installed_in != os.getpid():
        sys.exit(exit_code())
    # The interpreter takes seconds to end, and no thread could cut that short.
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(OSError, ValueError):
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
    """Wait for a signal; end the process where it has not ended a while after."""
    while (number := os.read(pipe, 1)) and number[0] not in SIGNALS:
        pass
    if not number:
        return
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
        with contextlib.suppress(OSError):
            os.write(2, line.encode(errors="replace"))


def _end_children() -> None:
    """Kill the processes that this one has started; the kernel lists them by thread."""
    for process in _descendants(os.getpid()):
        with contextlib.suppress(OSError):
            os.kill(process, signal.SIGKILL)


def _descendants(process: int) -> list[int]:
    found: list[int] = []
    with contextlib.suppress(OSError):
        for thread in Path(f"/proc/{process}/task").iterdir():
            for child in map(int, (thread / "children").read_text().split()):
                # wandb is writing its file, and ends then
                if not Path(f"/proc/{child}/comm").read_text().startswith("wandb"):
                    found += [child, *_descendants(child)]
    return found


def _forget_in_child() -> None:
    """Let a forked process end by SIGTERM at once, and leave Ctrl-C to the one that forked it."""
    if _state.wakeup is None:
        return
    with contextlib.suppress(ValueError):  # not the main thread's
        signal.set_wakeup_fd(-1)
        for number, action in zip(SIGNALS, (signal.SIG_IGN, signal.SIG_DFL), strict=True):
            if signal.getsignal(number) is _handle:
                signal.signal(number, action)
