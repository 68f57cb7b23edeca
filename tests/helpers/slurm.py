"""A job of SLURM's with one task, and a program in place of its ``scontrol``."""

from __future__ import annotations

from pathlib import Path

import pytest

JOB = {
    "SLURM_JOB_ID": "4711",
    "SLURM_JOB_NAME": "train",
    "SLURM_NTASKS": "1",
    "SLURM_PROCID": "0",
    "SLURM_LOCALID": "0",
    "SLURM_NODEID": "0",
}


def slurm_job(folder: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Let this process be the job's task; return the file of its requests to ``scontrol``."""
    program, requests = folder / "bin" / "scontrol", folder / "requests"
    program.parent.mkdir()
    program.write_text(f'#!/bin/sh\necho "$@" >> "{requests}"\n')
    program.chmod(0o755)
    monkeypatch.setenv("PATH", str(program.parent), prepend=":")
    for name, value in JOB.items():
        monkeypatch.setenv(name, value)
    return requests
