"""Names of a run's checkpoints; apart from the callbacks that write them, which need Lightning."""

from __future__ import annotations

from pathlib import Path

EPOCH_FILES, STEP_FILES, LAST_FILE = "epoch_*.ckpt", "step_*.ckpt", "last.ckpt"
LINKS = ("last.ckpt", "best.ckpt")
REQUEUE_FILES = "hpc_ckpt_*.ckpt"  # Lightning's, in the folder above, when SLURM stops a job
STEP_FILES_KEPT = 2  # the newest, and the one before in case that the newest gets damaged
POSITION_KEY = "position"


def files_of_run(directory: Path) -> list[Path]:
    """Return a run's checkpoints; ``last.ckpt`` only if it is a file of its own."""
    files = sorted([*directory.glob(EPOCH_FILES), *directory.glob(STEP_FILES)])
    files += sorted(directory.parent.glob(REQUEUE_FILES))
    last = directory / LAST_FILE
    if last.exists() and not any(last.samefile(path) for path in files):
        files.append(last)
    return files
