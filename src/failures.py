"""One line for a run that ends because one of its processes did."""

from __future__ import annotations

import logging
import re
import signal

from lightning import Trainer

from src.datamodules.loading import explain_loader_failure, messages_behind
from src.errors import InputError

# gloo and NCCL, when the process at the other end is gone:
# https://github.com/pytorch/gloo/blob/main/gloo/transport/tcp/pair.cc
_LOST_PROCESS = re.compile(
    r"gloo.*(Connection (closed|reset) by peer|Broken pipe|Timed out)|Connection closed by peer|"
    r"ncclRemoteError|NCCL (error|timeout)|DistBackendError",
    flags=re.S,
)
_LIGHTNINGS_LINE = re.compile(r"Child process with PID (\d+) terminated with code (-?\d+)\.")


def explain_failure(error: BaseException, trainer: Trainer) -> InputError | None:
    """Return one line for a killed loader worker, a killed rank or a loader that gives nothing.

    Returns:
        None where the error is another one, which keeps its traceback.
    """
    if (found := explain_loader_failure(error)) is not None:
        return found
    if trainer.world_size > 1 and _LOST_PROCESS.search(messages_behind(error)):
        launcher = trainer.strategy.launcher
        for rank, process in enumerate(getattr(launcher, "procs", []), start=1):
            if code := process.poll():
                return InputError(describe_ended_rank(rank, process.pid, code))
        return InputError(
            f"rank {trainer.global_rank} lost a process of this run ({_first_line(error)}): its "
            "own message, or the system's log, says why it ended"
        )
    return None


def describe_ended_rank(rank: int, pid: int, code: int) -> str:
    """Return what is known of a rank that ended: a signal with its likely cause, or its exit code.

    Args:
        rank: of the process, on this machine.
        pid: its process id.
        code: as ``subprocess`` has it: an exit code, or minus the number of a signal.
    """
    if code >= 0:
        return f"rank {rank} (process {pid}) ended with exit code {code}; its message stands above"
    try:
        name = signal.Signals(-code).name
    except ValueError:
        name = f"signal {-code}"
    cause = ": most often the system ran out of memory" if -code == signal.SIGKILL else ""
    return f"rank {rank} (process {pid}) was ended by {name}{cause}"


def rewrite_lightnings_line(record: logging.LogRecord) -> bool:
    """Say in Lightning's line about an ended rank, its last before it kills all, what it means.

    A filter of the logger ``lightning.fabric.strategies.launchers.subprocess_script``.
    """
    if found := _LIGHTNINGS_LINE.search(record.getMessage()):
        rank = re.search(r"\[rank: (\d+)\]", record.getMessage())
        what = describe_ended_rank(int(rank[1]) if rank else -1, int(found[1]), int(found[2]))
        record.msg, record.args = f"error: {what}; this run ends, the same command resumes it", ()
        record.levelno, record.levelname = logging.ERROR, "ERROR"
    return True


def _first_line(error: BaseException) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0][:200]
