"""Hydra's callback that gathers the results of a sweep when its last job is done."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from hydra.experimental.callback import Callback
from omegaconf import DictConfig

from src.tuning.sweep_results import RESULT_NAME, write_table


class SweepTable(Callback):
    """Writes ``results.csv`` and ``results.parquet`` into the sweep's folder.

    It runs in the process that launched the jobs, whatever launcher ran them.
    """

    def on_multirun_end(self, config: DictConfig, **kwargs: Any) -> None:
        """Gather what the jobs, of this run and of those before it, have found."""
        directory = Path(config.hydra.sweep.dir)
        if any(directory.glob(f"*/{RESULT_NAME}")):
            path, _ = write_table(directory)
            print(f"wrote {path} and {path.with_suffix('.parquet').name}")
