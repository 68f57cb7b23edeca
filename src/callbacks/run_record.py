"""Run records: a run's id, commit, configuration and data, in its folder and checkpoints."""

from __future__ import annotations

import hashlib
import json
import logging
import sys
import uuid
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import torch
import yaml
from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.callbacks import Callback, EarlyStopping, ModelCheckpoint, WeightAveraging
from lightning.pytorch.callbacks.early_stopping import EarlyStoppingReason
from lightning.pytorch.loggers import Logger, TensorBoardLogger, WandbLogger

from src.annotations.image_files import look_at_images
from src.commit import read_commit
from src.datamodules.datamodule import CompetitionDataModule
from src.errors import InputError
from src.io import printable, read_json, write_json
from src.mmdet_bridge.checkpoints.reading import CONFIG_KEY, RUN_ID_KEY, read_run_id

log = logging.getLogger(__name__)

PROJECT = Path(__file__).resolve().parents[2]
FINGERPRINT_KEY = "data_fingerprint"
PARTS = ("training", "validation")
State = Mapping[str, Any]  # plain values and tensors of a checkpoint


class RunRecord(Callback):
    """Log the composed configuration and the commit, and record each start in ``run.json``.

    Checkpoints also hold the configuration, as plain values, for a comparison on resume.
    """

    def __init__(self, *, config: Mapping[str, Any], directory: str | Path) -> None:
        self.config = dict(config)
        self.directory = Path(directory)

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Record the start and log once, before anything is measured."""
        if stage != "fit" or not trainer.is_global_zero:
            return
        version, path = read_commit(PROJECT), self.directory / "run.json"
        time = datetime.now(UTC).isoformat(timespec="seconds")
        start = {"time": time, "command": sys.argv, **version}
        write_json(path, [*_read_starts(path), start], sort_keys=False)
        for logger in trainer.loggers:
            logger.log_hyperparams({**self.config, **version})
            if isinstance(logger, TensorBoardLogger):
                text = yaml.safe_dump({**version, **self.config}, sort_keys=False)
                logger.experiment.add_text("config", f"```\n{text.replace('`', chr(39))}```")
            if isinstance(logger, WandbLogger) and logger.experiment.offline:
                folder = Path(logger.experiment.dir).parent
                log.info("W&B is offline (no WANDB_API_KEY); later: wandb sync %s", folder)

    def on_save_checkpoint(self, trainer: Trainer, _: Any, checkpoint: dict[str, Any]) -> None:
        """Add the configuration."""
        checkpoint[CONFIG_KEY] = self.config


def _read_starts(path: Path) -> list[Any]:
    """Return the starts so far; a damaged file is renamed, since no run depends on it."""
    if not path.exists():
        return []
    try:
        starts = read_json(path)
        if not isinstance(starts, list):
            raise InputError(f"run.json must be a list, got {type(starts).__name__} ({path})")
    except InputError as error:
        aside = path.with_name(f"{path.name}.damaged")
        path.replace(aside)
        log.warning("%s; moved to %s, a new record begins", error, aside.name)
        return []
    return starts


@contextmanager
def finishing(loggers: Sequence[Logger]) -> Iterator[None]:
    """End W&B's run with the block, even on an exception, so that the next job starts its own."""
    exit_code = 1
    try:
        yield
        exit_code = 0
    finally:
        if any(isinstance(logger, WandbLogger) for logger in loggers):
            import wandb  # takes a second, and most runs do not use it

            if wandb.run is not None:
                wandb.finish(exit_code=exit_code)


class DataFingerprint(Callback):
    """Keep a fingerprint of each image and its annotations in checkpoints; compare it on resume.

    Annotations are compared by content, image files by their size in bytes and in pixels. A
    checkpoint without a fingerprint, of an earlier version, is not compared.
    """

    def __init__(self) -> None:
        self._now: dict[str, dict[str, Any]] = {}
        self._image_ids: dict[str, Sequence[str]] = {}

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Compute the fingerprint, once the data is open."""
        datamodule = trainer.datamodule  # type: ignore[attr-defined]
        if stage != "fit" or not isinstance(datamodule, CompetitionDataModule):
            return
        store = datamodule.store
        validation = map(store.index_of, datamodule.validation_dataset.image_ids)
        positions = (datamodule.train_dataset.indices.tolist(), list(validation))
        for part, indices in zip(PARTS, positions, strict=True):
            self._image_ids[part] = [store.images[index].image_id for index in indices]
            self._now[part] = _fingerprint(datamodule, indices)

    def on_save_checkpoint(self, trainer: Trainer, _: Any, checkpoint: dict[str, Any]) -> None:
        """Add the fingerprint."""
        checkpoint[FINGERPRINT_KEY] = self._now

    def on_load_checkpoint(self, trainer: Trainer, _: Any, checkpoint: dict[str, Any]) -> None:
        """Compare the fingerprint with the current data.

        Raises:
            InputError: Annotations or files of images changed; gives their number and the first.
        """
        saved = checkpoint.get(FINGERPRINT_KEY) or {}
        for part in PARTS:
            if part in saved and part in self._now:
                _compare(part, self._image_ids[part], saved[part], self._now[part])


def _fingerprint(datamodule: CompetitionDataModule, indices: Sequence[int]) -> dict[str, Any]:
    """Return a digest of all ids, and each image's digest of annotations, bytes, height, width."""
    assert datamodule.images is not None  # checked in setup
    store = datamodule.store
    records = [store.images[index] for index in indices]
    names = [record.file_name for record in records]
    files = look_at_images(datamodule.images, names, store.image_files())
    found = map(files.get, names)
    sizes = [(0, 0, 0) if file is None else (file.num_bytes, *file.size_hw) for file in found]
    ids = json.dumps([record.image_id for record in records])
    return {
        "image_ids_sha256": hashlib.sha256(ids.encode()).hexdigest(),
        "annotations": torch.from_numpy(store.digests[list(indices)].astype(np.int64)),
        "files": torch.tensor(sizes, dtype=torch.int64).reshape(-1, 3),
    }


def _compare(part: str, image_ids: Sequence[str], saved: State, now: State) -> None:
    if saved["image_ids_sha256"] != now["image_ids_sha256"]:
        return  # another split, which RunCheckpoint checks
    for kind in ("annotations", "files"):
        differs = (saved[kind] != now[kind]).reshape(len(now[kind]), -1).any(dim=1)
        if not differs.any():
            continue
        first, sizes = int(differs.nonzero()[0]), ""
        if kind == "files":
            values = [*saved[kind][first].tolist(), *now[kind][first].tolist()]
            sizes = " (then {} bytes, {} x {} px, now {} bytes, {} x {} px)".format(*values)
        raise InputError(
            f"the {kind} of the {part} images must be those of the checkpoint, got others for "
            f"{int(differs.sum())} of {len(image_ids)} images, the first is "
            f"{printable(image_ids[first])}{sizes}: give those, or start another run with name=..."
        )


def new_run_id() -> str:
    """Return a random id."""
    return uuid.uuid4().hex[:12]


class RunFolder(Callback):
    """Mark a run's checkpoints with its id, and move others out of its folder before the first.

    Nothing is moved before this start writes a checkpoint: a start that is refused, or killed while
    it reads its data, leaves the folder as it was.

    A checkpoint lists the best files by their paths at that time. They are looked up in the current
    folder; missing files, and those of another run, do not count.

    Args:
        run_id: Id of this run; a resumed run keeps its own.
        clear: Moves checkpoints that the run will not resume from. Takes the best ones, which stay;
            None if no callback ranks: all of this run's stay.
        ranks_anew: Whether to reset the best score so far, and the patience of early stopping,
            because new scores are not comparable with those of the checkpoint.
    """

    def __init__(self, *, run_id: str, clear: Callable[..., None], ranks_anew: bool) -> None:
        self.run_id, self.ranks_anew = run_id, ranks_anew
        self._clear: Callable[..., None] | None = clear
        self._best: set[Path] | None = None

    def on_load_checkpoint(self, trainer: Trainer, module: Any, checkpoint: dict[str, Any]) -> None:
        """Adapt the state that callbacks restore to the current folder and configuration."""
        states = checkpoint["callbacks"]
        for callback in trainer.callbacks:  # type: ignore[attr-defined]
            key = callback.state_key
            if key not in states:
                continue
            if isinstance(callback, ModelCheckpoint):
                kept = {} if self.ranks_anew else self._own_files(callback, states[key])
                states[key] = _ranking(callback, states[key], kept)
            elif isinstance(callback, EarlyStopping):
                if self.ranks_anew:
                    del states[key]
                else:  # Lightning would restore the checkpoint's patience
                    reason = EarlyStoppingReason.NOT_STOPPED.value
                    own = {"patience": callback.patience, "stopping_reason": reason}
                    states[key] = {**states[key], **own}
        _fit_moving_average(trainer, module, checkpoint)

    def on_train_start(self, trainer: Trainer, *_: Any) -> None:
        """Remember the best checkpoints before others are made."""
        for callback in trainer.checkpoint_callbacks:
            if isinstance(callback, ModelCheckpoint):
                self._best = (self._best or set()) | {Path(name) for name in callback.best_k_models}

    def on_save_checkpoint(self, trainer: Trainer, _: Any, checkpoint: dict[str, Any]) -> None:
        """Add the id; before the first checkpoint of this start, clear the folder."""
        checkpoint[RUN_ID_KEY] = self.run_id
        clear, self._clear = self._clear, None
        if clear is not None and trainer.is_global_zero:
            clear(best=self._best)

    def _own_files(self, callback: ModelCheckpoint, state: State) -> dict[str, Any]:
        """Return the scores of the best checkpoints that still exist, by path."""
        known = state.get("best_k_models")
        scores = known if isinstance(known, Mapping) else {}
        here = {Path(str(callback.dirpath)) / Path(name).name: scores[name] for name in scores}
        own = [path for path in here if path.is_file() and read_run_id(path) == self.run_id]
        return {str(path): here[path] for path in own}


def _ranking(callback: ModelCheckpoint, state: State, scores: State) -> dict[str, Any]:
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


def _fit_moving_average(trainer: Trainer, module: LightningModule, checkpoint: State) -> None:
    """Log that a moving average was switched on or off; if off, restore the trained weights.

    The ``state_dict`` of a checkpoint with a moving average is the average.
    """
    has_average = any(isinstance(callback, WeightAveraging) for callback in trainer.callbacks)  # type: ignore[attr-defined]
    if has_average and "current_model_state" not in checkpoint:
        log.warning("callbacks.ema: the checkpoint has no moving average, so it begins here")
    elif not has_average and "current_model_state" in checkpoint:
        module.load_state_dict(checkpoint["current_model_state"])
        log.warning(
            "the checkpoint's moving average is dropped, because +callbacks=ema is not given now: "
            "training resumes from the weights that were averaged"
        )
