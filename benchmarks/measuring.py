"""Commands as processes: their wall time, CPU time and peak memory, children included."""

from __future__ import annotations

import contextlib
import os
import resource
import shlex
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psutil

ROOT = Path(__file__).parents[1]
_INTERVAL_S = 0.1
_TAIL = 2000  # characters of the output of a command that failed


class PeakMemory:
    """The greatest memory of a process and its children, looked at ten times a second.

    Pages that several processes share count once (PSS). Of the process itself the kernel's own
    record is read as well, so that no short peak is missed.
    """

    def __init__(self, process_id: int) -> None:
        self._process = psutil.Process(process_id)
        self.peak_bytes = self.own_peak_bytes = 0
        self.files_bytes = 0  # of the peak: pages of mapped files, which the kernel can drop
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._watch, daemon=True)
        self._thread.start()

    def _watch(self) -> None:
        while True:
            with contextlib.suppress(psutil.Error, OSError):
                self._look()
            if self._stop.wait(_INTERVAL_S):
                return

    def _look(self) -> None:
        total = files = 0
        for one in [self._process, *self._process.children(recursive=True)]:
            with contextlib.suppress(OSError):
                found = _kilobytes(Path(f"/proc/{one.pid}/smaps_rollup"))
                total += 1024 * found["Pss"]
                files += 1024 * found["Pss_File"]
        if total > self.peak_bytes:
            self.peak_bytes, self.files_bytes = total, files
        status = _kilobytes(Path(f"/proc/{self._process.pid}/status"))
        self.own_peak_bytes = max(self.own_peak_bytes, 1024 * status.get("VmHWM", 0))

    def stop(self) -> dict[str, float]:
        """Return the peak in GiB, and how much of it were pages of mapped files."""
        self._stop.set()
        self._thread.join()
        peak = max(self.peak_bytes, self.own_peak_bytes)
        return {
            "peak_gib": round(peak / 2**30, 2),
            "of_it_files_gib": round(self.files_bytes / 2**30, 2),
        }


def _kilobytes(path: Path) -> dict[str, int]:
    """Read a file of lines ``NAME: NUMBER kB``."""
    lines = (line.split() for line in path.read_text(encoding="utf-8").splitlines())
    return {line[0].rstrip(":"): int(line[1]) for line in lines if line[-1] == "kB"}


@dataclass
class Running:
    """A command that runs, and what was measured once it has ended."""

    process: subprocess.Popen[str]
    figures: dict[str, Any] = field(default_factory=dict)


@contextlib.contextmanager
def running(line: list[str], folder: Path, output: Any) -> Iterator[Running]:
    """Start Python in a folder, measure until it ends, and end it if the block is left early."""
    before, start = resource.getrusage(resource.RUSAGE_CHILDREN), time.perf_counter()
    process = subprocess.Popen(
        [sys.executable, *line],
        cwd=folder,
        stdout=output,
        stderr=subprocess.STDOUT,
        text=True,
        env={
            **os.environ,
            **dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS"), "1"),
            "PYTHONPATH": str(ROOT),
            "XDG_CACHE_HOME": str(folder / "cache"),
        },
    )
    memory, found = PeakMemory(process.pid), Running(process)
    try:
        yield found
        process.wait()
    finally:
        if process.poll() is None:
            process.terminate()
            try:
                process.wait(30)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        cpu = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
        found.figures = {
            "command": shlex.join(["python", *line]),
            "s": round(time.perf_counter() - start, 1),
            "cpu_s": round(cpu, 1),
            **memory.stop(),
        }


def measure(command: str, *words: str, folder: Path) -> dict[str, Any]:
    """Run ``python -m src.COMMAND`` in a folder.

    Returns:
        The command, seconds of wall and of CPU time, and the peak memory.

    Raises:
        RuntimeError: The command fails; the end of its output is in the message.
    """
    path = folder / "output.txt"
    with path.open("w") as file, running(["-m", f"src.{command}", *words], folder, file) as found:
        pass
    if found.process.returncode != 0:
        text = path.read_text(errors="replace")[-_TAIL:]
        raise RuntimeError(
            f"{found.figures['command']}: exit code {found.process.returncode}\n{text}"
        )
    return found.figures


def link_or_copy(source: Path, target: Path) -> None:
    """Give a file a second name; where links are not possible, or too many, copy it."""
    try:
        os.link(source, target)
    except OSError:
        target.write_bytes(source.read_bytes())


def summary(figures: Mapping[str, Any]) -> str:
    """Return figures of a command in a line."""
    return (
        f"{figures['s']:8.1f} s  {figures['cpu_s']:8.1f} s CPU  {figures['peak_gib']:5.2f} GiB  "
        f"{figures['command'][:90]}"
    )
