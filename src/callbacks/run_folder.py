"""Whose checkpoints lie in a run's folder: each carries its run's id, and only its own count."""

from __future__ import annotations

import logging
import uuid
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.callbacks import Callback, EarlyStopping, ModelCheckpoint, WeightAveraging
from lightning.pytorch.callbacks.early_stopping import EarlyStoppingReason

from src.mmdet_bridge.checkpoints.reading import RUN_ID_KEY, read_run_id

log = logging.getLogger(__name__)


def new_run_id() -> str:
    """Return an id that no other run has."""
    return uuid.uuid4().hex[:12]


class RunFolderCallback(Callback):
    """Mark a run's checkpoints with its id, and clear its folder of others before the first.

    Nothing is moved before this start has a checkpoint of its own to write: one that is refused, or
    killed while it reads its data, leaves the folder as it was.

    A checkpoint that is resumed from knows which files are the best by a score, under the paths of
    then. They are looked for in the folder of now, and those of another run, or gone, do not count.

    Args:
        run_id: Of this run; a run that resumes keeps its own.
        clear: Moves checkpoints that the run will not resume from out of its folder. Takes the best
            ones, which stay; None where nothing is ranked now: all of this run's.
        ranks_anew: Whether scores of the checkpoint are not comparable with those to come: the best
            so far, and the patience of an early stopping, are forgotten.
    """

    def __init__(
        self,
        *,
        run_id: str,
        clear: Callable[..., None],
        ranks_anew: bool = False,
    ) -> None:
        self.run_id, self.ranks_anew = run_id, ranks_anew
        self._clear: Callable[..., None] | None = clear
        self._best: set[Path] | None = None

    def on_load_checkpoint(
        self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]
    ) -> None:
        """Fit what the callbacks will restore to the folder and the configuration of now."""
        states = checkpoint["callbacks"]
        for callback in trainer.callbacks:  # type: ignore[attr-defined]
            state = states.get(callback.state_key)
            if state is None:
                continue
            if isinstance(callback, ModelCheckpoint):
                kept = {} if self.ranks_anew else self._own_files(callback, state)
                states[callback.state_key] = _ranking(callback, state, kept)
            elif isinstance(callback, EarlyStopping):
                if self.ranks_anew:
                    del states[callback.state_key]
                else:  # Lightning would restore the patience of then
                    states[callback.state_key] = {
                        **state,
                        "patience": callback.patience,
                        "stopping_reason": EarlyStoppingReason.NOT_STOPPED.value,
                    }
        _fit_moving_average(trainer, pl_module, checkpoint)

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Note the best checkpoints before others are made."""
        for callback in trainer.checkpoint_callbacks:
            if isinstance(callback, ModelCheckpoint):
                self._best = (self._best or set()) | {Path(name) for name in callback.best_k_models}

    def on_save_checkpoint(
        self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]
    ) -> None:
        """Add the id; before the first checkpoint of this start, clear the folder."""
        checkpoint[RUN_ID_KEY] = self.run_id
        clear, self._clear = self._clear, None
        if clear is not None and trainer.is_global_zero:
            clear(best=self._best)

    def _own_files(self, callback: ModelCheckpoint, state: Mapping[str, Any]) -> dict[str, Any]:
        """Return the scores of the best checkpoints that are still there, by path."""
        scores = {}
        known = state.get("best_k_models")
        for name, score in known.items() if isinstance(known, Mapping) else ():
            path = Path(str(callback.dirpath)) / Path(name).name
            if path.is_file() and read_run_id(path) == self.run_id:
                scores[str(path)] = score
        return scores


def _ranking(
    callback: ModelCheckpoint, state: Mapping[str, Any], scores: Mapping[str, Any]
) -> dict[str, Any]:
    """Return the state of a ``ModelCheckpoint`` whose best checkpoints are these."""
    best = max if callback.mode == "max" else min
    worst = min if callback.mode == "max" else max
    ranking = {
        **state,
        "dirpath": callback.dirpath,
        "best_k_models": dict(scores),
        "best_model_path": "",
        "best_model_score": None,
        "kth_best_model_path": "",
        "kth_value": callback.kth_value,
        "last_model_path": "",
    }
    if callback.monitor is None:
        newest = Path(str(callback.dirpath)) / Path(str(state.get("best_model_path", ""))).name
        ranking["best_model_path"] = str(newest) if newest.is_file() else ""
    elif scores:
        first = best(scores, key=lambda path: float(scores[path]))
        ranking |= {"best_model_path": first, "best_model_score": scores[first]}
        if len(scores) == callback.save_top_k:
            last = worst(scores, key=lambda path: float(scores[path]))
            ranking |= {"kth_best_model_path": last, "kth_value": scores[last]}
    return ranking


def _fit_moving_average(
    trainer: Trainer, pl_module: LightningModule, checkpoint: Mapping[str, Any]
) -> None:
    """Say that a moving average was switched on or off; without it, train the trained weights on.

    With one, the checkpoint's ``state_dict`` is the average, which nothing was trained to be.
    """
    has_average = any(isinstance(callback, WeightAveraging) for callback in trainer.callbacks)  # type: ignore[attr-defined]
    if has_average and "current_model_state" not in checkpoint:
        log.warning("callbacks.ema: the checkpoint has no moving average, so it begins here")
    elif not has_average and "current_model_state" in checkpoint:
        pl_module.load_state_dict(checkpoint["current_model_state"])
        log.warning(
            "the checkpoint's moving average is dropped, because +callbacks=ema is not given now: "
            "training resumes from the weights that it was made of"
        )
