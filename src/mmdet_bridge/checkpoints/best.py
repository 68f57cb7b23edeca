"""Find a run's best checkpoints, by their names or by what its callbacks kept."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from pathlib import Path

import torch

from src.errors import InputError
from src.mmdet_bridge.checkpoints.files import LAST_FILE, SCORE_IN_NAME
from src.mmdet_bridge.checkpoints.reading import load_checkpoint, read_run_id

log = logging.getLogger(__name__)


def best_checkpoints(directory: Path, count: int) -> list[Path]:
    """Return a run's checkpoints with the highest scores, best first, equal ones by name.

    Scores are in the names (``best_epoch_07_score_0.3312.ckpt``); if no name has one, they are read
    from the state of the ``ModelCheckpoint`` callbacks in ``last.ckpt``.

    Raises:
        InputError: There are fewer; the message says how many.
    """
    named = [(SCORE_IN_NAME.search(path.name), path) for path in directory.glob("*.ckpt")]
    of_runs = {path: read_run_id(path) for found, path in named if found}
    run_id = _newest_run_id(directory)
    scores = {path: float(found[1]) for found, path in named if found and of_runs[path] == run_id}
    if others := [path.name for path in of_runs if path not in scores]:
        log.warning("left out, because another run wrote them: %s", ", ".join(sorted(others)))
    if not scores and (directory / LAST_FILE).is_file():
        scores = _scores_of_callbacks(directory)
    if not 1 <= count <= len(scores):
        raise InputError(
            "ensemble.num_best must be at least 1 and at most the checkpoints with a score in "
            f"{directory}, {len(scores)} (best_epoch_07_score_0.3312.ckpt has the score 0.3312), "
            f"got {count}"
        )
    return sorted(scores, key=lambda path: (-scores[path], path.name))[:count]


def _newest_run_id(directory: Path) -> str:
    """Return the run id of a folder's last, or newest, checkpoint."""
    files = [path for path in directory.glob("*.ckpt") if path.is_file()]
    files.sort(key=lambda path: (path.name == LAST_FILE, path.stat().st_mtime), reverse=True)
    return next(filter(None, map(read_run_id, files)), "")


def _scores_of_callbacks(directory: Path) -> dict[Path, float]:
    """Read the scores that callbacks kept, of files by name, as a run may have been moved."""
    scores: dict[Path, float] = {}
    run_id = read_run_id(directory / LAST_FILE)
    for state in load_checkpoint(directory / LAST_FILE).callbacks.values():
        if isinstance(state, Mapping) and state.get("monitor") == "validation/competition_map":
            best = state.get("best_k_models")
            for name, score in best.items() if isinstance(best, Mapping) else ():
                path = directory / Path(str(name)).name
                is_own = path.is_file() and read_run_id(path) == run_id
                if is_own and isinstance(score, int | float | torch.Tensor):
                    scores[path] = float(score)
    return scores
