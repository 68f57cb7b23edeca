"""Write the prediction store of a split: ``python -m src.predict checkpoint=best.ckpt``.

Torch, Lightning and mmdet are imported in the functions that need them; see ``src.train``.
"""

from __future__ import annotations

import logging
import sys
from collections.abc import Collection, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from omegaconf import DictConfig

from src.annotations.categories import CLASS_NAMES_KEY, ClassList, check_categories
from src.annotations.image_names import list_images, read_image_ids
from src.annotations.store import AnnotationStore
from src.cli.derived_config import DATAMODULE, check_datamodule, open_data, use_own_data
from src.cli.entry_point import entry_point, overridden_keys, to_plain
from src.cli.locks import working_in
from src.cli.run_checks import (
    check_devices,
    check_multirun,
    check_precision,
    late_fusion_of,
    view_changes_of,
)
from src.datamodules.image_lists import check_directory
from src.datamodules.split import read_split
from src.errors import InputError
from src.io import check_writable, file_sha256
from src.mmdet_bridge.checkpoints.files import checkpoint_paths
from src.mmdet_bridge.options import ViewChange
from src.predictions.files import META_NAME, StoreMeta, read_expected
from src.predictions.store import PredictionStore, claim_folder
from src.processes import is_first_process
from src.tuning.sweeps import finish_job, is_sweep

if TYPE_CHECKING:
    from src.cli.carried_config import Carried

log = logging.getLogger(__name__)

# Keys of the datamodule that do not change the samples; a run may resume with others.
RUNTIME_KEYS = ("batch_size", "cache_dir", "num_workers", "persistent_workers", "prefetch_factor")
MAX_SHOWN = 10


def describe_store(
    config: DictConfig, paths: Sequence[Path], carried: Carried, view_changes: list[ViewChange]
) -> StoreMeta:
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
                **dict.fromkeys((c for c in view_changes if c != "flip"), True),
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
    if config.image is not None:
        from src.cli.drawn_images import place_image

        place_image(config)
    if config.predict_split == "validation":
        run = paths[0].parent
        use_own_data(config, run_directory=run.parent if run.name == "checkpoints" else run)
        if config.annotations is not None:
            for key in ("num_validation_images", "split_seed"):  # those of the run's split
                if f"datamodule.{key}" not in overridden_keys():
                    config.datamodule[key] = None
    elif config.images is not None:
        config.datamodule.test_images = config.images
        is_listed = config.image is not None and Path(config.image).is_file()  # by place_image
        if not is_listed and "datamodule.sample_submission" not in overridden_keys():
            config.datamodule.sample_submission = None
        if config.annotations is not None:
            log.warning(
                "annotations=%s is not read: predict_split=test takes all of %s; "
                "predict_split=validation takes the images that validated in training",
                config.annotations,
                config.images,
            )


def check_data(
    store: AnnotationStore, classes: ClassList, paths: Sequence[Path], *, source: str
) -> None:
    """Compare the models' classes with the categories of the annotated images."""
    for note in check_categories(
        classes,
        store.labels,
        instances=store.instances_by_category(),
        model=f"checkpoint {paths[0]}",
        data=source,
    ):
        log.warning(note)


def check_predicted(directory: Path, image_ids: Sequence[str], lowest_score: str) -> None:
    """Compare the store with the images, and name those that failed.

    Args:
        directory: Of the store.
        image_ids: Of the images of the split.
        lowest_score: The key and the value of the score that candidates are above.

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
            f"no image has a candidate: no class of any box scored above {lowest_score}; is the "
            "checkpoint a trained one?"
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


def listed_images(config: DictConfig) -> tuple[str, ...] | None:
    """Return the ids of the images to predict; None if the split is still to be made.

    None, too, for a data module that is not this project's.

    Raises:
        InputError: The folder of images or the list of their ids is missing or wrong.
    """
    datamodule = config.datamodule
    if datamodule._target_ != DATAMODULE:
        return None
    if config.predict_split == "validation":
        path = Path(datamodule.split_file)
        return read_split(path).validation if path.exists() else None
    given = datamodule.test_images
    directory = check_directory("datamodule.test_images", None if given is None else Path(given))
    if datamodule.sample_submission is not None:
        return tuple(read_image_ids(Path(datamodule.sample_submission)))
    return tuple(list_images(directory).names)


def is_finished(directory: Path, meta: StoreMeta, image_ids: Collection[str]) -> bool:
    """Return whether nothing is left to do for a store, so that no model has to be built.

    A store with another list of its images or none, which one of an earlier version lacks, takes
    the long way, and one without a candidate, which is refused.
    """
    wanted = set(image_ids)
    if not (directory / META_NAME).exists() or claim_folder(directory, meta) != wanted:
        return False
    store = PredictionStore(directory)
    listed = set(read_expected(directory) or ())
    return listed == wanted and any(map(store.count, range(len(store))))


def predict(config: DictConfig) -> Path:
    """Predict every image of the split and return the folder of the prediction store.

    Images that are in the folder already are not predicted again.
    """
    check_precision(config.trainer)
    check_devices(config.trainer)
    check_datamodule(config)
    view_changes, late_fusion = view_changes_of(config), late_fusion_of(config)
    directory = Path(config.predictions)
    check_writable(directory / META_NAME)
    paths = checkpoint_paths(
        to_plain(config.checkpoint),
        best=config.ensemble.num_best,
        directory=Path(config.ensemble.checkpoint_dir),
    )
    place_images(config, paths)
    store = open_data(config) if config.predict_split == "validation" else None
    image_ids = listed_images(config)
    from src.cli.carried_config import take_from_checkpoints

    carried = take_from_checkpoints(config, paths)
    meta = describe_store(config, paths, carried, view_changes)
    if store is not None:
        check_data(store, carried.classes, paths, source=str(config.datamodule.annotations))
    if image_ids and is_finished(directory, meta, image_ids):
        log.info("finished already: %s has all %d images", directory, len(image_ids))
        return directory
    from src.cli.prediction import predict_images

    predicted = predict_images(
        config,
        paths,
        carried=carried,
        meta=meta,
        view_changes=view_changes,
        late_fusion=late_fusion,
    )
    if predicted is not None:
        check_predicted(directory, *predicted)
    return directory


@entry_point("predict", lock=lambda config: working_in(config.predictions, key="predictions"))
def main(config: DictConfig) -> None:
    """Predict; the exit code is 1 if images failed."""
    check_multirun(config.trainer)
    directory = predict(config)
    # Lightning kills the first process when another ends with an error, so it alone reports one.
    if not is_first_process():
        return
    store = PredictionStore(directory)
    if config.image is not None:
        from src.cli.drawn_images import write_drawings

        write_drawings(config, store)
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
