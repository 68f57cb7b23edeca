"""Write the prediction store of a split: ``python -m src.predict checkpoint=best.ckpt``."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

import torch
from hydra.utils import instantiate
from omegaconf import DictConfig

from src.annotations.errors import InputError
from src.callbacks.prediction_writer import PredictionWriter
from src.config import entry_point, instantiate_all, to_plain
from src.mmdet_bridge.checkpoints import file_sha256, load_state_dict
from src.quiet import leave_out_irrelevant_messages

log = logging.getLogger(__name__)


def checkpoint_path(checkpoint: Any) -> Path:
    """Return the one checkpoint of ``checkpoint=``, given as a path or as a list of one.

    Raises:
        InputError: more than one path, or no such file.
    """
    paths = [checkpoint] if isinstance(checkpoint, str) else list(to_plain(checkpoint))
    if len(paths) != 1:
        raise InputError(f"checkpoint={paths}: one checkpoint is legal here, got {len(paths)}")
    path = Path(str(paths[0]))
    if not path.is_file():
        raise InputError(f"checkpoint={path}: no such file")
    return path


def predict(config: DictConfig) -> Path:
    """Predict every photo of the split and return the folder of the prediction store."""
    leave_out_irrelevant_messages()
    if config.torch_threads is not None:
        torch.set_num_threads(config.torch_threads)
    path = checkpoint_path(config.checkpoint)
    datamodule = instantiate(config.datamodule)
    module = instantiate(config.module)
    module.load_weights(load_state_dict(path))
    writer = PredictionWriter(
        directory=Path(config.predictions),
        settings={
            "checkpoint": path.name,
            "checkpoint_sha256": file_sha256(path),
            "predict_split": config.predict_split,
            "detector": to_plain(config.module.detector),
            "datamodule": to_plain(config.datamodule),
        },
    )
    progress = {name: config.callbacks.get(name) for name in ("progress", "progress_log")}
    callbacks = [writer, *instantiate_all(progress)]
    trainer = instantiate(config.trainer, callbacks=callbacks, logger=False)
    trainer.predict(module, datamodule=datamodule, return_predictions=False)
    log.info("wrote %s", config.predictions)
    return Path(config.predictions)


@entry_point("predict")
def main(config: DictConfig) -> None:
    """Hydra's task: predict."""
    predict(config)


if __name__ == "__main__":
    main()
