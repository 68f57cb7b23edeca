"""The user's package index, by pip, which knows its address and its credentials."""

from __future__ import annotations

import shutil
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

from src.errors import InputError

TIMEOUT_S = 600


def find_pip() -> Sequence[str]:
    """Return how pip is started: by this Python, the one it was made from, or uv.

    Raises:
        InputError: There is none.
    """
    base = getattr(sys, "_base_executable", sys.executable)
    commands: list[Sequence[str]] = [
        (python, "-m", "pip") for python in dict.fromkeys([sys.executable, base])
    ]
    for uv in (shutil.which("uv"), str(Path(".make/uv/bin/uv").absolute())):
        if uv is not None:
            commands.append((uv, "run", "--quiet", "--no-project", "--with", "pip", "pip"))
    for command in commands:
        try:
            check = subprocess.run([*command, "--version"], capture_output=True, timeout=TIMEOUT_S)
        except (OSError, subprocess.TimeoutExpired):
            continue
        if check.returncode == 0:
            return command
    raise InputError("pip must be there to get a wheel, got none: neither python -m pip nor uv")


def failure_reason(stderr: str) -> str:
    """Return why pip failed, in one line of its own."""
    lines = [line for line in stderr.splitlines() if line.startswith("ERROR: ")]
    reason = (lines or ["pip found none"])[-1].removeprefix("ERROR: ")
    return f"it does not answer ({reason})" if "Retrying (" in stderr else reason
