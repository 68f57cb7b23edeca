"""Write the prediction store of a split: ``python -m src.predict checkpoint=best.ckpt``."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from pathlib import Path

import torch
from hydra.utils import instantiate
from omegaconf import DictConfig

from src.annotations.errors import InputError
from src.callbacks.prediction_writer import PredictionWriter
from src.config import entry_point, instantiate_all, to_plain
from src.mmdet_bridge.checkpoints import file_sha256
from src.modules.ensemble import CascadeEnsemble
from src.modules.members import checkpoint_paths, load_members
from src.quiet import leave_out_irrelevant_messages

log = logging.getLogger(__name__)


def build_ensemble(config: DictConfig, paths: Sequence[Path]) -> CascadeEnsemble:
    """Build the models of the checkpoints, and what predicts with them."""
    module = config.module
    members = load_members(
        paths,
        detector=to_plain(module.detector),
        num_classes=module.num_classes,
        category_ids=to_plain(module.category_ids),
    )
    return CascadeEnsemble(
        members,
        category_ids=to_plain(module.category_ids) or range(module.num_classes),
        score_floor=module.score_floor,
        max_candidates=module.max_candidates,
        mask_stages=module.mask_stages,
        model_weights=to_plain(config.ensemble.model_weights),
        flip=config.tta.flip,
        seed_proposals=config.seed_proposals,
        feature_memory_gb=config.feature_memory_gb,
        feature_memory_cpu_gb=config.feature_memory_cpu_gb,
    )


def check_predicted(writer: PredictionWriter, score_floor: float) -> None:
    """Name the photos that failed, after everything else has been stored.

    Raises:
        InputError: photos failed, or not one has a candidate.
    """
    for image_id, failure in sorted(writer.failures.items()):
        log.error("no prediction of %s: %s", image_id, failure)
    if writer.failures:
        first = min(writer.failures)
        raise InputError(
            f"{len(writer.failures)} photos could not be predicted, the rest is in "
            f"{writer.directory}; the first is {first}: {writer.failures[first]}"
        )
    if not writer.candidates_found:
        raise InputError(
            f"no photo has a candidate: no class of any box scored above module.score_floor="
            f"{score_floor}; is the checkpoint a trained one?"
        )


def predict(config: DictConfig) -> Path:
    """Predict every photo of the split and return the folder of the prediction store."""
    leave_out_irrelevant_messages()
    if config.torch_threads is not None:
        torch.set_num_threads(config.torch_threads)
    paths = checkpoint_paths(
        to_plain(config.checkpoint),
        best=config.ensemble.best,
        directory=Path(config.ensemble.directory),
    )
    datamodule = instantiate(config.datamodule)
    ensemble = build_ensemble(config, paths)
    writer = PredictionWriter(
        directory=Path(config.predictions),
        settings={
            "checkpoints": [{"name": path.name, "sha256": file_sha256(path)} for path in paths],
            "model_weights": to_plain(config.ensemble.model_weights),
            "tta": to_plain(config.tta),
            "seed_proposals": config.seed_proposals,
            "mask_stages": config.module.mask_stages,
            "predict_split": config.predict_split,
            "detector": to_plain(config.module.detector),
            "datamodule": to_plain(config.datamodule),
        },
    )
    progress = {name: config.callbacks.get(name) for name in ("progress", "progress_log")}
    callbacks = [writer, *instantiate_all(progress)]
    trainer = instantiate(config.trainer, callbacks=callbacks, logger=False)
    trainer.predict(ensemble, datamodule=datamodule, return_predictions=False)
    check_predicted(writer, ensemble.score_floor)
    log.info("wrote %s", config.predictions)
    return Path(config.predictions)


@entry_point("predict")
def main(config: DictConfig) -> None:
    """Hydra's task: predict."""
    predict(config)


if __name__ == "__main__":
    main()
