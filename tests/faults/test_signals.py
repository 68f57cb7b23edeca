"""Ctrl-C and SIGTERM: exit code 130 or 143 in time, one line, nobody left behind."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import psutil
import pytest

from src.processes import STARTS_AGAIN, command_of

PROJECT = Path(__file__).parents[2]
CODES = {signal.SIGINT: 130, signal.SIGTERM: 143}
# The process ends within two seconds on an idle machine; the tests' machine is shared.
DEADLINE_S = 30


def interrupt(
    number: int, is_time: Callable[[], bool], module: str, *arguments: str, whole_group: bool = True
) -> tuple[int, str, list[int]]:
    """Start a command, send it a signal twice; return exit code, stderr, processes left."""
    with subprocess.Popen(
        [sys.executable, "-m", module, *arguments],
        cwd=PROJECT,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
        # A shell ignores SIGINT for what it starts in the background, these tests as well.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    ) as process:
        deadline = time.monotonic() + DEADLINE_S
        while not is_time() and process.poll() is None:
            assert time.monotonic() < deadline
            time.sleep(0.02)
        for _ in range(2):
            if process.poll() is None:
                (os.killpg if whole_group else os.kill)(process.pid, number)
                time.sleep(0.1)
        _, stderr = process.communicate(timeout=DEADLINE_S)
    return process.returncode, stderr, _session(process.pid)


def _has_taken_over_signals(module: str) -> bool:
    """Return whether the command has got its second thread, which waits for signals."""
    commands = [one for one in psutil.Process().children() if module in one.cmdline()]
    return any(one.num_threads() > 1 for one in commands)


def _session(leader: int) -> list[int]:
    found = []
    for path in Path("/proc").glob("[0-9]*/stat"):
        try:
            fields = path.read_text().rpartition(")")[2].split()
        except OSError:
            continue
        if int(fields[3]) == leader and fields[0] != "Z":
            found.append(int(path.parent.name))
    return found


@pytest.mark.parametrize("number", CODES)
@pytest.mark.parametrize("module", ["src.train", "src.score"])
def test_a_signal_while_modules_load(module: str, number: int) -> None:
    code, stderr, left = interrupt(number, lambda: _has_taken_over_signals(module), module)
    assert code == CODES[signal.Signals(number)]
    told = "the same command resumes from the last checkpoint, where there is one"
    assert stderr == f"interrupted: {told if module == 'src.train' else STARTS_AGAIN}\n"
    assert left == []


@pytest.mark.parametrize("number", CODES)
def test_workers_end_with_the_command_and_what_is_done_is_kept(tmp_path: Path, number: int) -> None:
    output = tmp_path / "drawn"
    code, stderr, left = interrupt(
        number,
        lambda: len(list(output.glob("train/*.jpg"))) > 2,
        "src.synthesize",
        f"output={output}",
        *("num_train_images=4000", "num_test_images=1", "image_size=512", "num_workers=2"),
        whole_group=number == signal.SIGINT,
    )
    assert code == CODES[signal.Signals(number)]
    assert "Traceback" not in stderr
    assert stderr.endswith("interrupted: the same command draws the images that are missing\n")
    assert left == []
    assert len(list(output.glob("train/*.jpg"))) > 2


def test_workers_end_with_a_killed_command(tmp_path: Path) -> None:
    output = tmp_path / "drawn"
    _, _, left = interrupt(
        signal.SIGKILL,
        lambda: len(list(output.glob("train/*.jpg"))) > 2,
        "src.synthesize",
        f"output={output}",
        *("num_train_images=4000", "num_test_images=1", "image_size=512", "num_workers=2"),
        whole_group=False,
    )
    deadline = time.monotonic() + DEADLINE_S
    while any(Path(f"/proc/{one}/stat").exists() for one in left) and time.monotonic() < deadline:
        time.sleep(0.1)
    assert not any(Path(f"/proc/{one}/stat").exists() for one in left)


def test_the_command_of_a_process() -> None:
    assert command_of(["python", "-u", "-m", "src.train", "name=x"]) == "train"
    assert command_of(["python", "-m", "pytest", "-m", "src.train"]) is None
    assert command_of(["python", "-c", "import src"]) is None


@pytest.mark.parametrize("command", ["score", "postprocess"])
def test_a_reader_that_ends_first_ends_the_command_without_a_word(command: str) -> None:
    process = subprocess.Popen(
        [sys.executable, "-m", f"src.{command}", "--help"],
        cwd=PROJECT,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )
    assert process.stdout is not None
    assert process.stderr is not None
    process.stdout.close()
    assert process.stderr.read() == b""
    assert process.wait(timeout=60) == 128 + signal.SIGPIPE
