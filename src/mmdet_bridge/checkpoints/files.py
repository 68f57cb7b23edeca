"""Files of weights and checkpoints: find and check them by their paths, which needs no torch."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from src.errors import InputError
from src.io import check_input_file
from src.validation import check_weights

EPOCH_FILES, STEP_FILES = "epoch_*.ckpt", "step_*.ckpt"
LAST_FILE, BEST_FILE = "last.ckpt", "best.ckpt"  # links to the files of a run, or copies of them
REQUEUE_FILES = "hpc_ckpt_*.ckpt"  # Lightning's, in the folder above, when SLURM stops a job
SCORE_IN_NAME = re.compile(r"_score_(\d+(?:\.\d+)?)(?:-v\d+)?\.ckpt$")
RUN_CHECKPOINTS = (BEST_FILE, LAST_FILE)  # a run's folder stands for the first that exists
WEIGHTS_SUFFIX = ".safetensors"
SAME_WEIGHTS_CURE = "; weights= says how much each counts"  # of an average


def find_checkpoint(path: str | Path, *, key: str = "checkpoint") -> Path:
    """Resolve a path to a checkpoint: itself, or one of the run whose folder it names.

    ``RUN`` is its best checkpoint, else its last; ``RUN/best.ckpt`` is in ``RUN/checkpoints``.

    Args:
        path: The user's path.
        key: Its name in the message.

    Raises:
        InputError: There is no such file.
    """
    path = Path(path)
    places = [path, path.parent / "checkpoints" / path.name]
    if path.is_dir():
        places = [
            folder / name for name in RUN_CHECKPOINTS for folder in (path, path / "checkpoints")
        ]
    for place in places:
        if place.exists() and not place.is_dir():
            return place
    folders = (path if path.is_dir() else path.parent, places[-1].parent)
    there = sorted(file.name for folder in {*folders} for file in folder.glob("*.ckpt"))
    hint = f"; there are {', '.join(there[:5])}" if there else ""
    raise InputError(
        f"{key} must be a file of weights, or the folder of a run that has one, got {path}: no "
        f"such file{hint}"
    )


def files_of_run(directory: Path) -> list[Path]:
    """Return a run's checkpoints; ``last.ckpt`` only if it is a file of its own."""
    files = sorted([*directory.glob(EPOCH_FILES), *directory.glob(STEP_FILES)])
    files += sorted(directory.parent.glob(REQUEUE_FILES))
    last = directory / LAST_FILE
    if last.exists() and not any(last.samefile(path) for path in files):
        files.append(last)
    return files


def checkpoint_paths(checkpoint: Any, *, best: int | None, directory: Path) -> list[Path]:
    """Return the paths of an ensemble's checkpoints.

    Args:
        checkpoint: The value of ``checkpoint=``: a path, a list of paths, or None.
        best: Number of the folder's best checkpoints to take; None: those of ``checkpoint``.
        directory: A run's folder of checkpoints.

    Raises:
        InputError: Checkpoints are given in neither way or in both, or a file does not exist.
    """
    if best is not None:
        if checkpoint is not None:
            key = f"ensemble.num_best={best}"
            raise InputError(f"checkpoint must be null with {key}, got {checkpoint}")
        from src.mmdet_bridge.checkpoints.best import best_checkpoints  # torch takes seconds

        return best_checkpoints(directory, best)
    names = [checkpoint] if isinstance(checkpoint, str) else list(checkpoint or [])
    if not names:
        raise InputError(
            "checkpoint must be the trained weights, a path or a list of paths, got null; or give "
            "ensemble=top3, which takes a run's best"
        )
    paths = [find_checkpoint(str(name)) for name in names]
    for path in paths:
        check_checkpoint_file(path)
    return paths


def check_checkpoint_file(path: Path) -> None:
    """Refuse a path that is missing or no regular file, before anything of it is read.

    Raises:
        InputError: It is missing, a folder, a pipe, a device.
    """
    if not path.exists():
        raise InputError(f"checkpoint {path} does not exist")
    if path.is_dir():
        raise InputError(f"checkpoint {path} is a folder; give one of the files in it")
    try:
        check_input_file(path)
    except InputError as error:
        raise InputError(f"checkpoint {error}") from error


def check_weights_path(path: str | Path) -> Path:
    """Return the path of a file of weights to write.

    Raises:
        InputError: It does not end in ``.safetensors``.
    """
    path = Path(path)
    if path.suffix != WEIGHTS_SUFFIX:
        raise InputError(f"output must end in {WEIGHTS_SUFFIX}, got {path}")
    return path


def check_shares(paths: Sequence[str | Path], weights: Sequence[float] | None) -> list[float]:
    """Return the weight of each file of an average.

    Raises:
        InputError: One file alone, a file twice, or weights that do not fit.
    """
    if len(paths) < 2:
        raise InputError(f"checkpoint must be 2 or more files to average, got {len(paths)}")
    known: dict[Path, str | Path] = {}
    for path in paths:
        if (place := Path(path).resolve()) in known:
            raise InputError(
                f"checkpoint must be different checkpoints, got {known[place]} and {path}, which "
                f"hold the same weights{SAME_WEIGHTS_CURE}"
            )
        known[place] = path
    shares = [1.0] * len(paths) if weights is None else list(weights)
    check_weights("weights", shares, len(paths), of="checkpoint")
    return shares
