"""What a run was: its configuration, commit and command; told to every logger and to a file."""

from __future__ import annotations

import logging
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import yaml
from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.callbacks import Callback
from lightning.pytorch.loggers import Logger, TensorBoardLogger, WandbLogger

from src.errors import InputError
from src.io import read_json, write_json

log = logging.getLogger(__name__)

PROJECT = Path(__file__).resolve().parents[2]


class RunRecordCallback(Callback):
    """Log the composed configuration and the commit, and note each start in ``run.json``.

    Args:
        config: the composed configuration as plain values.
        directory: the run's folder.
    """

    def __init__(self, *, config: Mapping[str, Any], directory: str | Path) -> None:
        self.config = dict(config)
        self.directory = Path(directory)

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Tell the loggers, once, before anything is measured."""
        if stage != "fit" or not trainer.is_global_zero:
            return
        version = read_commit(PROJECT)
        self._note_start(version)
        for logger in trainer.loggers:
            logger.log_hyperparams({**self.config, **version})
            if isinstance(logger, TensorBoardLogger):
                text = yaml.safe_dump({**version, **self.config}, sort_keys=False)
                logger.experiment.add_text("config", f"```\n{text.replace('`', chr(39))}```")
            if isinstance(logger, WandbLogger) and logger.experiment.offline:
                folder = Path(logger.experiment.dir).parent
                log.info("W&B is offline (no WANDB_API_KEY); later: wandb sync %s", folder)

    def _note_start(self, version: Mapping[str, Any]) -> None:
        """Add this start to the run's earlier ones; the file is replaced as a whole."""
        path = self.directory / "run.json"
        starts = _read_starts(path)
        time = datetime.now(UTC).isoformat(timespec="seconds")
        starts.append({"time": time, "command": sys.argv, **version})
        write_json(path, starts, sort_keys=False)


def _read_starts(path: Path) -> list[Any]:
    """Return the starts noted so far; a damaged file is set aside, the run needs it for nothing."""
    if not path.exists():
        return []
    try:
        starts = read_json(path)
        if not isinstance(starts, list):
            raise InputError(f"{path}: must hold a list of starts, got {type(starts).__name__}")
    except InputError as error:
        aside = path.with_name(f"{path.name}.damaged")
        path.replace(aside)
        log.warning("%s; moved to %s, the record begins anew", error, aside.name)
        return []
    return starts


def read_commit(directory: Path) -> dict[str, Any]:
    """The commit of a working tree, and whether files that git follows differ from it.

    Returns:
        ``commit`` (40 hex digits) and ``commit_is_dirty``; both None where git knows of none.
    """
    try:
        commit = _git(directory, "rev-parse", "HEAD")
        dirty = bool(_git(directory, "status", "--porcelain", "--untracked-files=no"))
    except (OSError, subprocess.CalledProcessError):
        return {"commit": None, "commit_is_dirty": None}
    return {"commit": commit, "commit_is_dirty": dirty}


@contextmanager
def finishing(loggers: Sequence[Logger]) -> Iterator[None]:
    """End W&B's run with the block, however that ends, so that the next job starts its own."""
    exit_code = 1
    try:
        yield
        exit_code = 0
    finally:
        if any(isinstance(logger, WandbLogger) for logger in loggers):
            import wandb  # takes a second, and most runs do without

            if wandb.run is not None:
                wandb.finish(exit_code=exit_code)


def _git(directory: Path, *arguments: str) -> str:
    command = ["git", "-C", str(directory), *arguments]
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip()
