"""Processes: their identities."""

from __future__ import annotations

import subprocess
from pathlib import Path

from src.processes import is_process_alive, process_identity


def test_processes_are_told_apart() -> None:
    here = process_identity()
    assert is_process_alive(here) is True
    assert is_process_alive({**here, "start": here["start"] + 1}) is False
    assert is_process_alive({**here, "host": "elsewhere"}) is None
    ended = subprocess.Popen(["true"])
    while Path(f"/proc/{ended.pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z":
        pass
    assert is_process_alive({**here, "pid": ended.pid, "start": 0}) is False
    ended.wait()
    assert is_process_alive({**here, "pid": ended.pid, "start": 0}) is False
