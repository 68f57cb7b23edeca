"""The work of ``python -m src.predict``, whose imports take seconds."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from pathlib import Path

from hydra.utils import instantiate
from omegaconf import DictConfig

from src.callbacks.prediction_writer import PredictionWriter
from src.cli.carried_config import Carried
from src.cli.entry_point import instantiate_all, to_plain
from src.cli.preflight import explain_failure, start_process
from src.errors import InputError
from src.mmdet_bridge.options import ViewChange
from src.modules.ensemble import CascadeEnsemble, load_models
from src.postprocess.late_fusion import LateFusion
from src.predictions.files import StoreMeta
from src.predictions.store import claim_folder
from src.processes import RESUMES

log = logging.getLogger(__name__)


def build_ensemble(
    config: DictConfig,
    paths: Sequence[Path],
    *,
    carried: Carried,
    view_changes: list[ViewChange],
    late_fusion: LateFusion | None,
) -> CascadeEnsemble:
    """Build the models of the checkpoints, and their ensemble."""
    module = config.module
    floor = module.min_score
    models = load_models(
        paths,
        detector=to_plain(module.detector),
        num_classes=module.num_classes,
        category_ids=to_plain(module.category_ids),
        own_inference=carried.own_inference,
    )
    return CascadeEnsemble(
        models,
        category_ids=carried.classes.category_ids,
        min_score=max(floor, late_fusion.score_threshold) if late_fusion else floor,
        max_candidates=module.max_candidates,
        mask_stages=module.mask_stages,
        model_weights=to_plain(config.ensemble.model_weights),
        view_changes=view_changes,
        seed_proposals=config.seed_proposals,
        feature_memory_gb=config.feature_memory_gb,
        feature_memory_cpu_gb=config.feature_memory_cpu_gb,
        max_low_score_candidates=None if late_fusion else config.max_low_score_candidates,
        late_fusion=late_fusion,
    )


def predict_images(
    config: DictConfig,
    paths: Sequence[Path],
    *,
    carried: Carried,
    meta: StoreMeta,
    view_changes: list[ViewChange],
    late_fusion: LateFusion | None,
) -> tuple[Sequence[str], str] | None:
    """Predict every image of the split that is not in the store yet.

    Args:
        config: The composed configuration with the checkpoints' classes and sizes.
        paths: The checkpoints.
        carried: See ``take_from_checkpoints``.
        meta: Of the store.
        view_changes: Changes of each view.
        late_fusion: Settings of ``fusion=late``.

    Returns:
        The ids of the split's images, and the key and the value of the score that candidates are
        above; None in another process than the first.
    """
    start_process(config)
    directory = Path(config.predictions)
    datamodule = instantiate(config.datamodule)
    datamodule.fallback_directory = Path(config.paths.output_dir)
    ensemble = build_ensemble(
        config, paths, carried=carried, view_changes=view_changes, late_fusion=late_fusion
    )
    # Every process asks before the first of them writes: they wait until all are connected.
    datamodule.predicted_image_ids = claim_folder(directory, meta)
    if datamodule.predicted_image_ids:
        log.info("%s has %d images", directory, len(datamodule.predicted_image_ids))
    writer = PredictionWriter(
        directory=directory, meta=meta, images_per_shard=config.images_per_shard
    )
    progress = {name: config.callbacks.get(name) for name in ("progress", "progress_log")}
    callbacks = [writer, *instantiate_all(progress)]
    trainer = instantiate(config.trainer, callbacks=callbacks, logger=False)
    # SLURM's signal to requeue has Lightning save a checkpoint, which would lie among a training's;
    # a prediction resumes from its store.
    trainer.save_checkpoint = lambda *_, **__: None
    try:
        trainer.predict(ensemble, datamodule=datamodule, return_predictions=False)
    except InputError:
        raise
    except Exception as error:  # any line can raise the end of a worker
        if (failure := explain_failure(error, trainer)) is None:
            raise
        raise InputError(f"{failure}; {RESUMES['predict']}") from error
    if not trainer.is_global_zero:
        return None
    is_late = late_fusion is not None and late_fusion.score_threshold >= config.module.min_score
    key = "fusion.score_threshold" if is_late else "module.min_score"
    return datamodule.images_to_predict.image_ids, f"{key}={ensemble.min_score:g}"
