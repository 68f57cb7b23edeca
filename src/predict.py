"""Write the prediction store of a split: ``python -m src.predict checkpoint=best.ckpt``."""

from __future__ import annotations

import logging
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from hydra.utils import instantiate
from lightning.pytorch.utilities import rank_zero_only
from omegaconf import DictConfig

from src.annotations.categories import CLASS_NAMES_KEY, ClassList, check_categories
from src.callbacks.prediction_writer import PredictionWriter
from src.cli.derived_config import Carried, take_from_checkpoints, use_own_data
from src.cli.entry_point import entry_point, instantiate_all, overridden_keys, to_plain
from src.cli.locks import working_in
from src.cli.preflight import check_multirun, explain_failure, start_process
from src.datamodules.datamodule import CompetitionDataModule
from src.errors import InputError
from src.io import check_writable
from src.mmdet_bridge.cascade.detectors import VIEW_CHANGES, ViewChange
from src.mmdet_bridge.checkpoints.reading import file_sha256
from src.modules.ensemble import CascadeEnsemble, checkpoint_paths, load_models
from src.postprocess.late_fusion import LateFusion
from src.predictions.files import META_NAME, StoreMeta
from src.predictions.store import PredictionStore, claim_folder
from src.processes import RESUMES
from src.tuning.sweeps import finish_job, is_sweep
from src.validation import Flag, check_values, shown

log = logging.getLogger(__name__)

# Keys of the datamodule that do not change the samples; a run may resume with others.
RUNTIME_KEYS = ("batch_size", "cache_dir", "num_workers", "persistent_workers", "prefetch_factor")
MAX_SHOWN = 10


def build_ensemble(config: DictConfig, paths: Sequence[Path], carried: Carried) -> CascadeEnsemble:
    """Build the models of the checkpoints, and their ensemble."""
    module, late_fusion = config.module, late_fusion_of(config)
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
        view_changes=view_changes_of(config),
        seed_proposals=config.seed_proposals,
        feature_memory_gb=config.feature_memory_gb,
        feature_memory_cpu_gb=config.feature_memory_cpu_gb,
        max_low_score_candidates=None if late_fusion else config.max_low_score_candidates,
        late_fusion=late_fusion,
    )


def view_changes_of(config: DictConfig) -> list[ViewChange]:
    """Return the changes of the views that ``tta`` asks for.

    Raises:
        InputError: A value that is not legal; names its key.
    """
    flags: dict[str, Any] = {change: config.tta.get(change, False) for change in VIEW_CHANGES}
    check_values(dict.fromkeys(VIEW_CHANGES, Flag), flags, prefix="tta.")
    return [change for change in VIEW_CHANGES if flags[change]]


def late_fusion_of(config: DictConfig) -> LateFusion | None:
    """Return the settings of ``fusion=late``; None for ``fusion=cascade``."""
    values = to_plain(config.fusion)
    kind = values.pop("kind")
    if kind not in ("cascade", "late"):
        raise InputError(f"fusion.kind must be cascade or late, got {shown(kind)}")
    try:
        return LateFusion(**values) if kind == "late" else None
    except InputError as error:
        raise InputError(f"fusion.{error}") from error


def describe_store(config: DictConfig, paths: Sequence[Path], carried: Carried) -> StoreMeta:
    """Return the store's record of everything that its content depends on."""
    module = config.module
    fusion = to_plain(config.fusion)
    is_late = fusion["kind"] == "late"
    datamodule = to_plain(config.datamodule)
    return StoreMeta(
        category_ids=carried.classes.category_ids,
        settings={
            CLASS_NAMES_KEY: carried.classes.names,
            "checkpoints": [{"name": path.name, "sha256": file_sha256(path)} for path in paths],
            "model_weights": to_plain(config.ensemble.model_weights),
            # changes that are off are left out, so that stores from before they existed resume
            "tta": {
                "scales": to_plain(config.tta.scales),
                "flip": config.tta.flip,
                **dict.fromkeys((c for c in view_changes_of(config) if c != "flip"), True),
            },
            "fusion": fusion,
            "seed_proposals": config.seed_proposals,
            "mask_stages": module.mask_stages,
            "max_low_score_candidates": config.max_low_score_candidates,
            "precision": config.trainer.precision,
            "predict_split": config.predict_split,
            # null: each checkpoint's own
            "detector": None if carried.own_inference else to_plain(module.detector),
            "datamodule": {k: v for k, v in datamodule.items() if k not in RUNTIME_KEYS},
        },
        mask_size_hw=(28, 28),
        mask_dtype="float16",
        min_score=0.0 if is_late else module.min_score,
        max_candidates=None if is_late else module.max_candidates,
    )


def place_images(config: DictConfig, paths: Sequence[Path]) -> None:
    """Copy ``images`` and ``annotations`` to the datamodule's keys, if they are given."""
    if config.predict_split == "validation":
        run = paths[0].parent
        use_own_data(config, run_directory=run.parent if run.name == "checkpoints" else run)
        if config.annotations is not None:
            for key in ("num_validation_images", "split_seed"):  # those of the run's split
                if f"datamodule.{key}" not in overridden_keys():
                    config.datamodule[key] = None
    elif config.images is not None:
        config.datamodule.test_images = config.images
        if "datamodule.sample_submission" not in overridden_keys():
            config.datamodule.sample_submission = None
        if config.annotations is not None:
            log.warning(
                "annotations=%s is not read: predict_split=test takes all of %s; "
                "predict_split=validation takes the images that validated in training",
                config.annotations,
                config.images,
            )


def check_data(
    datamodule: CompetitionDataModule, classes: ClassList, paths: Sequence[Path]
) -> None:
    """Compare the models' classes with the categories of the annotated images."""
    store = datamodule.open_store()
    for note in check_categories(
        classes,
        store.labels,
        instances=store.instances_by_category(),
        model=f"checkpoint {paths[0]}",
        data=str(datamodule.annotations),
    ):
        log.warning(note)


def check_predicted(directory: Path, image_ids: Sequence[str], min_score: float) -> None:
    """Compare the store with the images, and name those that failed.

    Raises:
        InputError: The store lacks an image that did not fail, or has no candidate.
    """
    store = PredictionStore(directory)
    lost = sorted({*image_ids}.difference(store.image_ids, store.failed))
    if lost:
        listed = ", ".join(lost[:MAX_SHOWN]) + ", ..." * (len(lost) > MAX_SHOWN)
        raise InputError(
            f"{directory}: {len(lost)} of the {len(image_ids)} images are not there: {listed}; run "
            "the same command again, it predicts what is missing"
        )
    if len(store) and not any(store.count(index) for index in range(len(store))):
        raise InputError(
            f"no image has a candidate: no class of any box scored above module.min_score="
            f"{min_score}; is the checkpoint a trained one?"
        )
    log.info("wrote %s: %d images", directory, len(store))
    if store.failed:
        log.error(
            "%d of the %d images could not be predicted; run the same command again when they are "
            "repaired, it predicts these alone:",
            len(store.failed),
            len(image_ids),
        )
    for image_id, reason in store.failed.items():
        log.error("no prediction of %s: %s", image_id, reason)


def predict(config: DictConfig) -> Path:
    """Predict every image of the split and return the folder of the prediction store.

    Images that are in the folder already are not predicted again.
    """
    start_process(config)
    check_writable(Path(config.predictions) / META_NAME)
    paths = checkpoint_paths(
        to_plain(config.checkpoint),
        best=config.ensemble.num_best,
        directory=Path(config.ensemble.checkpoint_dir),
    )
    carried = take_from_checkpoints(config, paths)
    place_images(config, paths)
    directory, meta = Path(config.predictions), describe_store(config, paths, carried)
    datamodule = instantiate(config.datamodule)
    datamodule.fallback_directory = Path(config.paths.output_dir)
    if config.predict_split == "validation":
        check_data(datamodule, carried.classes, paths)
    ensemble = build_ensemble(config, paths, carried)
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
    try:
        trainer.predict(ensemble, datamodule=datamodule, return_predictions=False)
    except InputError:
        raise
    except Exception as error:  # any line can raise the end of a worker
        if (failure := explain_failure(error, trainer)) is None:
            raise
        raise InputError(f"{failure}; {RESUMES['predict']}") from error
    if trainer.is_global_zero:
        check_predicted(directory, datamodule.images_to_predict.image_ids, ensemble.min_score)
    return directory


@entry_point("predict", lock=lambda config: working_in(config.predictions, key="predictions"))
def main(config: DictConfig) -> None:
    """Predict; the exit code is 1 if images failed."""
    check_multirun(config.trainer)
    directory = predict(config)
    # Lightning kills the first process when another ends with an error, so it alone reports one.
    if rank_zero_only.rank != 0:  # type: ignore[attr-defined]
        return
    store = PredictionStore(directory)
    if is_sweep():
        finish_job(
            Path(config.paths.output_dir),
            identity=to_plain(config),
            result={
                "competition_map": None,
                "predictions": str(directory),
                "num_images": len(store),
                "num_candidates": sum(store.count(index) for index in range(len(store))),
                "num_failed": len(store.failed),
            },
        )
    if store.failed:
        sys.exit(1)


if __name__ == "__main__":
    main()
