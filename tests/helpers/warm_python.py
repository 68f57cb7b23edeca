"""A Python that has imported the heavy packages, and forks a child for each command.

Importing torch and what stands on it takes seconds of CPU, which a hundred commands would spend a
hundred times. The project's own modules are imported by each child, from its working directory, as
``python -m`` does; a child ends as a program does.
"""

from __future__ import annotations

import contextlib
import gc
import importlib
import json
import os
import runpy
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

LIGHT = ("numpy", "pandas", "pyarrow", "hydra", "pydantic", "cv2", "optuna")
HEAVY = (
    *LIGHT,
    *("torch", "torchvision", "torchmetrics", "lightning.pytorch", "albumentations"),
    *("iterstrat.ml_stratifiers", "torch.utils.tensorboard", "pycocotools.mask"),
)
OWN = ("src", "tests", "experiments", "benchmarks")
ROOT = Path(__file__).parents[2]


@dataclass(frozen=True)
class Ended:
    """The end of a command: exit code (negative: a signal's number), CPU seconds, its output."""

    code: int
    cpu_seconds: float
    output: str


class WarmPython:
    """The test's end of the pipe to such a Python, which imports ``packages`` first."""

    def __init__(self, packages: Sequence[str]) -> None:
        self._server = subprocess.Popen(
            [sys.executable, "-m", __name__, *packages],
            cwd=ROOT,
            env=os.environ | {"OMP_NUM_THREADS": "1", "NO_ALBUMENTATIONS_UPDATE": "1"},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )

    def close(self) -> None:
        assert self._server.stdin is not None
        self._server.stdin.close()
        self._server.wait()

    def start(
        self,
        words: Sequence[str],
        *,
        cwd: Path,
        env: Mapping[str, str],
        output: Path,
        code: Path | None = None,
    ) -> int:
        """Start ``python WORDS`` and return its process id.

        Args:
            words: A file, or ``-m`` and a module, and arguments.
            cwd: The working directory.
            env: Added to the environment.
            output: The file of stdout and stderr.
            code: The folder to import from; None: the working directory.
        """
        job = {"words": list(words), "env": dict(env)}
        job |= {"cwd": str(cwd), "output": str(output), "code": str(code or cwd)}
        return int(self._ask({"start": job}))

    def wait(self, pid: int, *, output: Path, seconds: float = 600) -> Ended:
        """Wait for the end of a process, which is killed after so many seconds."""
        timer = threading.Timer(seconds, os.killpg, (pid, signal.SIGKILL))
        timer.start()
        try:
            code, cpu_seconds = self._ask({"wait": pid})
        finally:
            timer.cancel()
        return Ended(code, cpu_seconds, output.read_text(errors="replace"))

    def _ask(self, message: Any) -> Any:
        assert self._server.stdin is not None
        assert self._server.stdout is not None
        print(json.dumps(message), file=self._server.stdin, flush=True)
        return json.loads(self._server.stdout.readline())


@contextlib.contextmanager
def warm_python(packages: Sequence[str] = HEAVY) -> Iterator[WarmPython]:
    """Start such a Python, and end it."""
    python = WarmPython(packages)
    try:
        yield python
    finally:
        python.close()


def become(job: dict[str, Any]) -> None:
    """Make this process, a fork, one that was started with a command line; run it to its end."""
    os.setsid()
    signal.signal(signal.SIGINT, signal.default_int_handler)  # a background job's is ignored
    os.chdir(job["cwd"])
    os.environ.update(job["env"])
    nothing = os.open(os.devnull, os.O_RDONLY)
    written = os.open(job["output"], os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o666)
    for number, replaced in ((nothing, 0), (written, 1), (written, 2)):
        os.dup2(number, replaced)
    sys.stdout.reconfigure(line_buffering=True)  # type: ignore[union-attr]
    for name in [name for name in sys.modules if name.partition(".")[0] in OWN]:
        del sys.modules[name]
    sys.path[0] = job["code"]
    importlib.invalidate_caches()
    words = job["words"]
    sys.orig_argv = [sys.executable, *words]
    if words[0] == "-m":
        sys.argv = ["-m", *words[2:]]  # what a package sees that is imported for its module
        runpy.run_module(words[1], run_name="__main__", alter_sys=True)
    else:
        sys.argv = words
        runpy.run_path(words[0], run_name="__main__")


def main() -> None:
    """Serve until the pipe is closed; returns in a child, too, whose end is the interpreter's."""
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # what an import prints is no answer
    for name in sys.argv[1:]:
        importlib.import_module(name)
    gc.freeze()  # children need not look through it
    for line in sys.stdin:
        message = json.loads(line)
        if "wait" in message:
            _, status, usage = os.wait4(message["wait"], 0)
            answer: Any = [os.waitstatus_to_exitcode(status), usage.ru_utime + usage.ru_stime]
        else:
            answer = os.fork()
            if answer == 0:
                become(message["start"])
                return
        print(json.dumps(answer), file=answers, flush=True)
    os._exit(0)  # the end of an interpreter that has imported all of it takes seconds


if __name__ == "__main__":
    main()
