"""Choose an ensemble's checkpoints, without torch until one has to be read."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from src.errors import InputError
from src.mmdet_bridge.checkpoints.files import check_checkpoint_file, find_checkpoint

SCORE_IN_NAME = re.compile(r"_score_(\d+(?:\.\d+)?)(?:-v\d+)?\.ckpt$")
INFERENCE_KEYS = ("test_cfg", "sizes")  # taken from the configuration, not from a checkpoint


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
        from src.modules.best_checkpoints import best_checkpoints  # torch takes seconds

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
