"""Train a cascade: ``python -m src.train +experiment=htc_x101 trainer.devices=8``."""

from __future__ import annotations

import logging
from pathlib import Path

import lightning
import torch
from hydra.utils import instantiate
from omegaconf import DictConfig

from src.annotations.errors import InputError
from src.callbacks.run_record import RunRecordCallback, finishing
from src.config import entry_point, instantiate_all, to_plain
from src.mmdet_bridge.checkpoints import load_state_dict

log = logging.getLogger(__name__)


def resume_path(*, resume: str, output_dir: Path) -> Path | None:
    """Return the checkpoint to go on from, or None to start anew.

    Args:
        resume: ``auto`` (the run's last checkpoint where there is one), ``never``, or a path.
        output_dir: the run's folder.

    Raises:
        InputError: the path names no file.
    """
    if resume == "never":
        return None
    if resume == "auto":
        last = output_dir / "checkpoints" / "last.ckpt"
        return last if last.exists() else None
    path = Path(resume)
    if not path.is_file():
        raise InputError(f"resume={resume}: no such file; legal: auto, never, or a checkpoint")
    return path


def train(config: DictConfig) -> float | None:
    """Run the composed training.

    Returns:
        The best competition score on the validation photos, in [0, 1]; None without any.
    """
    if config.torch_threads is not None:
        torch.set_num_threads(config.torch_threads)
    lightning.seed_everything(config.seed, workers=True, verbose=False)
    datamodule = instantiate(config.datamodule)
    module = instantiate(config.module)
    checkpoint = resume_path(resume=config.resume, output_dir=Path(config.paths.output_dir))
    if checkpoint is not None:
        log.info("going on from %s", checkpoint)
    elif config.initial_weights is not None:
        module.load_weights(load_state_dict(config.initial_weights))
    loggers = instantiate_all(config.logger)
    record = RunRecordCallback(config=to_plain(config), directory=config.paths.output_dir)
    trainer = instantiate(
        config.trainer, callbacks=[*instantiate_all(config.callbacks), record], logger=loggers
    )
    with finishing(loggers):
        trainer.fit(
            module, datamodule=datamodule, ckpt_path=None if checkpoint is None else str(checkpoint)
        )
    return best_score(trainer)


def best_score(trainer: lightning.Trainer) -> float | None:
    """The best score that checkpoints were kept by, or the last one where none are kept."""
    scores = [getattr(kept, "best_model_score", None) for kept in trainer.checkpoint_callbacks]
    scores.append(trainer.callback_metrics.get("validation/competition_map"))
    return next((float(score) for score in scores if score is not None), None)


@entry_point("train")
def main(config: DictConfig) -> float | None:
    """Hydra's task: train."""
    return train(config)


if __name__ == "__main__":
    main()
