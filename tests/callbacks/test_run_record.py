"""The commit of a run, and the end of W&B's."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
from lightning.pytorch.loggers import CSVLogger, WandbLogger

from src.callbacks.run_record import finishing
from src.commit import describe_commit, read_commit


def git(folder: Path, *arguments: str) -> str:
    identity = ["-c", "user.name=someone", "-c", "user.email=someone@example.org"]
    command = ["git", "-C", str(folder), *identity, *arguments]
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip()


def test_commit_and_whether_files_differ_from_it(tmp_path: Path) -> None:
    git(tmp_path, "init", "--quiet")
    (tmp_path / "file").write_text("one")
    git(tmp_path, "add", "file")
    git(tmp_path, "commit", "--quiet", "--message", "first")
    commit = git(tmp_path, "rev-parse", "HEAD")
    (tmp_path / "notes").write_text("a file that git does not follow")
    assert read_commit(tmp_path) == {"commit": commit, "commit_is_dirty": False}
    (tmp_path / "file").write_text("two")
    assert read_commit(tmp_path) == {"commit": commit, "commit_is_dirty": True}
    assert describe_commit(tmp_path) == f"{commit[:12]}-dirty"
    assert describe_commit(tmp_path, ":!file") == commit[:12]


def test_no_commit_where_git_knows_of_none(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GIT_CEILING_DIRECTORIES", str(tmp_path.parent))
    nothing = {"commit": None, "commit_is_dirty": None}
    assert read_commit(tmp_path) == nothing
    assert describe_commit(tmp_path) is None
    monkeypatch.setenv("PATH", str(tmp_path))  # no git at all
    assert read_commit(tmp_path) == nothing


@pytest.fixture
def exit_codes(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """With which exit code W&B's run was finished; a stand-in for the package."""
    codes: list[int] = []
    stand_in = SimpleNamespace(run=object(), finish=lambda *, exit_code: codes.append(exit_code))
    monkeypatch.setitem(sys.modules, "wandb", stand_in)  # type: ignore[misc]
    return codes


def test_a_run_is_finished_however_the_training_ends(tmp_path: Path, exit_codes: list[int]) -> None:
    loggers = [CSVLogger(tmp_path), WandbLogger(save_dir=tmp_path, offline=True)]
    with finishing(loggers):
        pass
    for error in (ValueError, KeyboardInterrupt, SystemExit):
        with pytest.raises(error, match="the end"), finishing(loggers):
            raise error("the end")
    assert exit_codes == [0, 1, 1, 1]


def test_without_its_logger_wandb_is_left_alone(tmp_path: Path, exit_codes: list[int]) -> None:
    with finishing([CSVLogger(tmp_path)]):
        pass
    assert exit_codes == []
