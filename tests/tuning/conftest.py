"""A way to run a program in an empty folder."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import pytest
import wandb


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Any:
    """Run a program; gives its stdout, and for a user's mistake its line on stderr."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("WANDB_API_KEY", raising=False)

    def call(program: Any, *arguments: object, errors: list[str] | None = None) -> str:
        monkeypatch.setattr(sys, "argv", ["program", *map(str, arguments)])
        capsys.readouterr()
        code = None
        try:
            program()
        except SystemExit as stop:
            code = stop.code
        if "logger=wandb" in arguments:
            wandb.teardown()  # waits for the process that writes the files
        shown = capsys.readouterr()
        assert code in (None, 2), shown.err
        if errors is not None:
            errors.append(shown.err)
        return shown.out if code is None else shown.err.strip()

    return call
