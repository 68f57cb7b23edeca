"""Programs in a network namespace without a route, not even to this machine."""

from __future__ import annotations

import functools
import shutil
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path

import pytest

UNSHARE = ("unshare", "--map-root-user", "--net")


@functools.cache
def is_allowed() -> bool:
    if shutil.which("unshare") is None:
        return False
    return subprocess.run([*UNSHARE, "true"], capture_output=True, check=False).returncode == 0


def run_without_network(
    command: Sequence[str | Path], *, cwd: Path, env: Mapping[str, str]
) -> subprocess.CompletedProcess[str]:
    """Run a command; the test is skipped where the kernel allows no such namespace."""
    if not is_allowed():
        pytest.skip(
            "unshare --net is not allowed here, so nothing would show that no network is used"
        )
    return subprocess.run(
        [*UNSHARE, *map(str, command)],
        capture_output=True,
        text=True,
        check=False,
        cwd=cwd,
        env=dict(env),
    )
