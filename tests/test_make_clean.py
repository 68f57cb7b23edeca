"""`make clean` removes the demo's and the ladder's own folders, nothing else."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest

PROJECT = Path(__file__).parents[1]


@pytest.mark.skipif(shutil.which("make") is None, reason="make is not here")
def test_trainings_stay(tmp_path: Path) -> None:
    shutil.copy(PROJECT / "Makefile", tmp_path)
    kept = ["outputs/mine/checkpoints", "outputs/demo2", "multirun/postprocess", ".venv", ".cache"]
    for folder in [*kept, "outputs/demo/data", "outputs/ladder/s10"]:
        (tmp_path / folder).mkdir(parents=True)
    subprocess.run(["make", "clean"], cwd=tmp_path, check=True, capture_output=True)
    assert all((tmp_path / folder).is_dir() for folder in kept)
    assert sorted(path.name for path in (tmp_path / "outputs").iterdir()) == ["demo2", "mine"]
