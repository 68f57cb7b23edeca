"""The commit of the code that runs, as results and checkpoints record it."""

from __future__ import annotations

import subprocess
from pathlib import Path
from typing import Any


def read_commit(directory: Path, *pathspecs: str) -> dict[str, Any]:
    """Return ``commit`` (40 hex digits) and ``commit_is_dirty``; both None outside of git.

    A commit is dirty where files that git follows differ from it; ``pathspecs`` name those that
    count, none: all of them.
    """

    def git(*arguments: str) -> str:
        command = ["git", "-C", str(directory), *arguments]
        return subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip()

    try:
        changes = git("status", "--porcelain", "--untracked-files=no", "--", *pathspecs)
        return {"commit": git("rev-parse", "HEAD"), "commit_is_dirty": bool(changes)}
    except (OSError, subprocess.CalledProcessError):
        return {"commit": None, "commit_is_dirty": None}


def describe_commit(directory: Path, *pathspecs: str) -> str | None:
    """Return the commit as 12 hex digits, with ``-dirty`` as in :func:`read_commit`, or None."""
    found = read_commit(directory, *pathspecs)
    if found["commit"] is None:
        return None
    return f"{found['commit'][:12]}{'-dirty' if found['commit_is_dirty'] else ''}"
