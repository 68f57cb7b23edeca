"""Check that a store of unknown origin holds no more than a CSV or COCO file may hold."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from src.annotations.categories import LARGEST_ID
from src.annotations.exif import AS_DISPLAYED, AUTO, Frame
from src.annotations.image_names import image_path
from src.annotations.image_sizes import ImageSizes
from src.annotations.rows import RowError, check_size, describe_ids
from src.annotations.store import (
    AnnotationStore,
    check_batch,
    image_digests,
    mask_digests,
    masks_of,
    open_table,
    view,
)
from src.errors import InputError


def open_store(directory: str | Path) -> AnnotationStore:
    """Open a store that a user gives, and check all of it.

    Its checksums say that it is as it was written; whoever wrote it can have written anything.

    Raises:
        InputError: Not a store, damaged, or with a value that no annotation file may have; the
            message names file, row and value.
    """
    store = AnnotationStore(directory)
    _check_images(store)
    _check_instances(store)
    _check_runs(store)
    return store


def check_store_sizes(
    store: AnnotationStore, images_directory: str | Path | None, *, exif: str = AUTO
) -> None:
    """Refuse a store made without images where the images turn out to be turned.

    Its masks are drawn, so that nothing tells any longer on which image they were.

    Raises:
        InputError: An image has an EXIF orientation (``as_displayed`` accepts it), or its size has
            height and width exchanged.
    """
    if images_directory is None or store.description.get("sizes_compared"):
        return
    frames = ImageSizes(images_directory, missing_are_kept=True).resolve_sizes(store.images)
    turned = [
        frame
        for frame in frames
        if isinstance(frame, Frame)
        and frame.grids
        and (exif != AS_DISPLAYED or frame.record.size_hw != frame.annotated_hw)
    ]
    if turned:
        raise InputError(
            f"{store.directory}: made without the images, of which {len(turned)} have an EXIF "
            f"orientation or height and width exchanged (the first: {turned[0].record.image_id}); "
            f"make it again: python -m src.convert annotations={store.description['source']} "
            f"images={images_directory} output={store.directory}"
        )


def _check_images(store: AnnotationStore) -> None:
    path = store.directory / "images.arrow"
    previous = ""
    for row, image in enumerate(store.images, start=1):
        try:
            for key in ("image_id", "file_name"):
                text = getattr(image, key)
                if image_path(text, key=key) != text:
                    raise RowError(f"{key} must be in its one spelling, got {text!r:.120}")
            check_size(str(image.height_px), str(image.width_px), ("height_px", "width_px"))
        except RowError as error:
            raise InputError(f"{error} ({path}, row {row})") from error
        if row > 1 and image.image_id <= previous:
            raise InputError(
                f"image_id must ascend, got {image.image_id!r:.120} after {previous!r:.120} "
                f"({path}, row {row})"
            )
        previous = image.image_id
    if (store.instance_counts < 0).any():
        raise InputError(f"instances must be 0 or more, got a count below 0 ({path})")


def _check_instances(store: AnnotationStore) -> None:
    """Check each object's labels, and that the objects lie in the order of the images."""
    path = store.directory / "instances.arrow"
    table = store.table
    index = view(table["image_index"], np.int32)
    wanted = np.repeat(np.arange(len(store)), store.instance_counts)
    if not np.array_equal(index, wanted):
        raise InputError(f"{path}: image_index must go with the counts in images.arrow")
    labels = store.labels
    categories = view(table["category_id"], np.int16)
    _check_known("category_id", categories, labels.category_names, path)
    attributes = table["attribute_ids"].flatten().to_numpy(zero_copy_only=False)
    known = labels.attribute_names or dict.fromkeys(range(LARGEST_ID + 1), "")
    _check_known("attribute_ids", attributes, known, path)
    if not np.isin(view(table["is_crowd"], np.uint8), (0, 1)).all():
        raise InputError(f"is_crowd must be 0 or 1, got another value ({path})")
    rows = np.sort(view(table["runs_row"], np.int64))
    if not np.array_equal(rows, np.arange(len(rows))):
        raise InputError(f"{path}: runs_row must name each row of runs.arrow once")


def _check_known(
    key: str, values: npt.NDArray[np.integer], known: dict[int, str], path: Path
) -> None:
    unknown = np.setdiff1d(values, list(known))
    if len(unknown):
        raise InputError(f"{key} must be {describe_ids(known)}, got {unknown[0]} ({path})")


def _check_runs(store: AnnotationStore) -> None:
    """Check each mask against its image's size, and its object's box and area against the mask."""
    path = store.directory / "runs.arrow"
    rows = view(store.table["runs_row"], np.int64)
    in_source_order = np.argsort(rows)
    sizes_hw = np.array([image.size_hw for image in store.images], np.int64).reshape(-1, 2)
    sizes_hw = np.repeat(sizes_hw, store.instance_counts, axis=0)[in_source_order]
    boxes = view(store.table["box_xyxy"].values, np.int32).reshape(-1, 4)[in_source_order]
    areas = view(store.table["area_px"], np.int64)[in_source_order]
    reader, first, starts = open_table(path), 0, []
    digests = [np.zeros(0, np.uint32)]
    for number in range(reader.num_record_batches):
        try:
            batch = reader.get_batch(number)
            check_batch(batch)
        except (OSError, pa.ArrowException, ValueError) as error:
            raise InputError(f"{path}: damaged at record batch {number} ({error})") from error
        starts.append(first)
        chosen = slice(first, first + batch.num_rows)
        if chosen.stop > len(rows):
            break
        masks = masks_of(batch, sizes_hw[chosen])
        if wrong := masks.problems():
            row = min(wrong)
            raise InputError(f"runs: {wrong[row]} ({path}, row {first + row + 1})")
        for key, stored, of_masks in (
            ("box_xyxy", boxes, masks.boxes_xyxy()),
            ("area_px", areas, masks.areas_px()),
        ):
            differs = np.flatnonzero((stored[chosen] != of_masks).reshape(len(of_masks), -1).any(1))
            if len(differs):
                row = int(differs[0])
                raise InputError(
                    f"{key} must be that of the mask, {of_masks[row].tolist()}, got "
                    f"{stored[chosen][row].tolist()} ({path.with_name('instances.arrow')}, "
                    f"runs_row {first + row})"
                )
        digests.append(mask_digests(masks))
        first += batch.num_rows
    if first != len(rows) or starts != list(store.description["runs_batch_starts"]):
        raise InputError(f"{path}: must hold a row for each of the {len(rows)} objects")
    digest = image_digests(
        store.images,
        store.instance_counts,
        [
            view(store.table["category_id"], np.int16),
            view(store.table["is_crowd"], np.uint8),
            np.concatenate(digests)[rows],
        ],
        store.table["attribute_ids"].to_pylist(),
    )
    if not np.array_equal(digest, store.digests):
        raise InputError(f"{path.with_name('images.arrow')}: digest must be that of the objects")
