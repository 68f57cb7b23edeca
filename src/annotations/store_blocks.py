"""A whole store in the order of its source, a few thousand objects at a time, for writers."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from src.annotations.instances import ImageRecord, Runs
from src.annotations.store import AnnotationStore, runs_views


@dataclass(frozen=True, slots=True)
class StoredBlock:
    """N objects, in the order of the source."""

    images: list[ImageRecord]  # N, the image of each object
    image_indices: list[int]  # N, its position in the store's ``images``
    category_ids: list[int]  # N
    attribute_ids: list[tuple[int, ...]]  # N
    boxes_xyxy: npt.NDArray[np.int32]  # (N, 4) pixels, half-open
    areas_px: npt.NDArray[np.int64]  # (N,)
    is_crowd: list[bool]  # N
    runs: Runs  # (R, 2), all masks one after the other
    offsets: npt.NDArray[np.int64]  # (N + 1,), mask i has the runs offsets[i] to offsets[i + 1]


def iterate_blocks(store: AnnotationStore) -> Iterator[StoredBlock]:
    """Read all objects once, in the order of the source.

    Reads ``runs.arrow`` as an ordinary file and not through the mapping, so that the memory of a
    conversion does not grow with the pages touched.
    """
    with pa.memory_map(str(store.directory / "instances.arrow")) as file:
        table = pa.ipc.open_file(file).get_batch(0)
        in_source_order = np.argsort(table["runs_row"].to_numpy())
        first = 0
        with pa.OSFile(str(store.directory / "runs.arrow")) as runs_file:
            reader = pa.ipc.open_file(runs_file)
            for number in range(reader.num_record_batches):
                batch = reader.get_batch(number)
                offsets, runs = runs_views(batch)
                rows = table.take(pa.array(in_source_order[first : first + batch.num_rows]))
                first += batch.num_rows
                image_indices = rows["image_index"].to_pylist()
                yield StoredBlock(
                    images=[store.images[index] for index in image_indices],
                    image_indices=image_indices,
                    category_ids=rows["category_id"].to_pylist(),
                    attribute_ids=[tuple(ids) for ids in rows["attribute_ids"].to_pylist()],
                    boxes_xyxy=rows["box_xyxy"].flatten().to_numpy().reshape(-1, 4),
                    areas_px=rows["area_px"].to_numpy(),
                    is_crowd=[bool(flag) for flag in rows["is_crowd"].to_pylist()],
                    runs=runs,
                    offsets=offsets.astype(np.int64),
                )


def images_without_objects(store: AnnotationStore) -> list[ImageRecord]:
    """The images that have no object, ascending by image_id."""
    return [
        image
        for image, categories in zip(store.images, store.category_sets(), strict=True)
        if not categories
    ]
