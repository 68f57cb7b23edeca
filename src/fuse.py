"""Fuse prediction stores: ``python -m src.fuse predictions=[STORE_A,STORE_B] output=STORE_C``."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path

from omegaconf import DictConfig
from rich.progress import track

from src.annotations.categories import CLASS_NAMES_KEY
from src.cli.entry_point import entry_point, to_plain
from src.cli.locks import working_in
from src.console import PlainConsole, say
from src.errors import InputError
from src.io import check_writable
from src.postprocess.late_fusion import LateFusion, fuse
from src.predictions.files import META_NAME, to_json
from src.predictions.store import PredictionStore, PredictionStoreWriter
from src.validation import check_weights

MAX_SHOWN = 12


def open_stores(
    directories: Sequence[str], *, partial: bool = False
) -> tuple[list[PredictionStore], list[str]]:
    """Open stores that fit together.

    Args:
        directories: Folders of the stores.
        partial: Whether stores that lack images suffice.

    Returns:
        The stores, and notes on images that they lack.

    Raises:
        InputError: No store, one that cannot be read or has fixed masks, or two of different
            classes, images or masks.
    """
    if isinstance(directories, str) or not directories:
        raise InputError(
            "predictions must be a list of prediction stores, as [STORE_A,STORE_B], got "
            f"{directories!r}"
        )
    stores = [PredictionStore(directory) for directory in directories]
    notes = []
    for store in stores:
        if (reason := store.fixed_masks) is not None:
            raise InputError(
                "predictions must be stores with mask probabilities, which fusing averages, got "
                f"{store.directory}: {reason}"
            )
        notes += store.check_whole(partial=partial)
        if not partial:
            store.check_none_failed()
    for store in stores[1:]:
        _check_fits(stores[0], store, partial=partial)
    return stores, notes


def _check_fits(first: PredictionStore, other: PredictionStore, *, partial: bool) -> None:
    for key in ("category_ids", "mask_size_hw"):
        wanted, own = (list(getattr(store.meta, key)) for store in (first, other))
        if wanted != own:
            raise InputError(
                f"{key} of {other.directory} must be {_shortened(wanted)}, as {first.directory} "
                f"has, got {_shortened(own)}"
            )
    if not partial:
        other.check_image_ids(first.image_ids, source=str(first.directory))
        first.check_image_ids(other.image_ids, source=str(other.directory))
    for image_id in images_of_all([first, other]):
        wanted_hw, own_hw = (store.size_hw(store.index_of(image_id)) for store in (first, other))
        if wanted_hw != own_hw:
            raise InputError(
                f"size of image {image_id} must be {wanted_hw} px (height, width), as in "
                f"{first.directory}, got {own_hw} ({other.directory})"
            )


def images_of_all(stores: Sequence[PredictionStore]) -> list[str]:
    """Return the ids of the images that every store has, ascending."""
    return sorted(set.intersection(*(set(store.image_ids) for store in stores)))


def _shortened(values: Sequence[int]) -> str:
    shown = ", ".join(map(str, values[:MAX_SHOWN]))
    return f"[{shown}]" if len(values) <= MAX_SHOWN else f"[{shown}, ...] ({len(values)})"


@entry_point("fuse", lock=lambda config: working_in(config.output, key="output"))
def main(config: DictConfig) -> None:
    """Fuse the stores; images that are in the output already are not fused again."""
    check_writable(Path(config.output) / META_NAME)
    keys = ("score_threshold", "nms_iou_threshold", "max_per_image", "iou_threshold")
    settings = LateFusion(**{key: config[key] for key in keys})
    stores, notes = open_stores(to_plain(config.predictions), partial=config.partial)
    if (weights := to_plain(config.weights)) is not None:
        check_weights("weights", weights, len(stores))
    writer = PredictionStoreWriter(
        Path(config.output),
        category_ids=stores[0].category_ids,
        settings={
            "fusion": {"kind": "late", **settings.model_dump()},
            "weights": weights,
            "predictions": [to_json(store.meta) for store in stores],
            CLASS_NAMES_KEY: stores[0].classes.names,
        },
        mask_size_hw=stores[0].meta.mask_size_hw,
        expected_image_ids={
            image_id
            for store in stores
            for image_id in (*store.image_ids, *store.failed, *(store.missing or ()))
        },
    )
    with writer:
        for store in stores:
            for image_id, reason in store.failed.items():
                writer.add_failed(image_id, reason)
        written = writer.written_image_ids
        left = [image_id for image_id in images_of_all(stores) if image_id not in written]
        for image_id in track(left, console=PlainConsole(stderr=True), transient=True):
            writer.add(
                fuse(
                    [store.candidates(store.index_of(image_id)) for store in stores],
                    settings,
                    weights=weights,
                    category_ids=stores[0].category_ids,
                )
            )
    fused = PredictionStore(config.output)
    objects = sum(fused.count(index) for index in range(len(fused)))
    PlainConsole(file=sys.stdout, soft_wrap=True).print(
        f"{config.output}: {objects} detections in {len(fused)} images, of {len(stores)} stores"
    )
    for note in notes:
        say(f"note: {note}")


if __name__ == "__main__":
    main()
