"""Write the tables of an annotation store, block by block from any source."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Hashable
from itertools import compress
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from src.annotations.exif import ExifReadings, HintComparison
from src.annotations.image_files import ImageSizes
from src.annotations.instances import ImageRecord
from src.annotations.rows import NO_INSTANCE, BadRow, BadRowHandler, RowBlock, Source
from src.annotations.store import (
    IMAGES_SCHEMA,
    INSTANCES_SCHEMA,
    RUNS_SCHEMA,
    image_digests,
    mask_digests,
)
from src.rle import RleBatch


class StoreWriter:
    """Writes the Arrow files of one store; only small columns and one block are in memory.

    An image belongs to the store if an instance of it was kept, or if it was named and lost none.

    Args:
        source: The annotations to read.
        sizes: Settles the size of each image.
        readings: Turns masks to the images as they are displayed.
        bad_rows: Takes the rows that are refused.
        drop_duplicates: Whether to leave out instances that have the image, category, attributes
            and mask of an earlier one. They are counted either way; masks without a pixel are not.
    """

    def __init__(
        self,
        source: Source,
        sizes: ImageSizes,
        readings: ExifReadings,
        bad_rows: BadRowHandler,
        *,
        drop_duplicates: bool,
    ) -> None:
        self._source, self._sizes, self._bad_rows = source, sizes, bad_rows
        self._readings = readings
        self._hints = HintComparison(readings)
        self._records: dict[ImageRecord, int] = {}
        # row number, record and place of rows without an instance
        self._naming_rows: list[tuple[int, int, str]] = []
        self._ids_with_bad_rows: set[str] = set()
        self._place_format = ""
        self._numbers: list[int] = []
        self._record_of_row: list[int] = []
        self._attribute_ids: list[tuple[int, ...]] = []
        self._columns: dict[str, list[npt.NDArray[np.generic]]] = defaultdict(list)
        self._drop_duplicates = drop_duplicates
        self._seen: set[Hashable] = set()
        self.duplicates = 0
        self.runs_batch_starts: list[int] = []
        self.images = self.instances = self.images_without_instances = 0
        self.empty_masks = self.crowd_regions = 0

    def write(self, directory: Path) -> None:
        """Read the whole source and write ``images``, ``instances`` and ``runs`` ``.arrow``."""
        with (
            pa.OSFile(str(directory / "runs.arrow"), "wb") as sink,
            pa.ipc.new_file(sink, RUNS_SCHEMA) as file,
        ):
            for block in self._source.blocks:
                first_row = len(self._numbers)
                batch = self._add(block)
                if batch.num_rows:
                    self.runs_batch_starts.append(first_row)
                    file.write_batch(batch)
        chosen = self._one_record_an_image()
        stays = chosen[np.array(self._record_of_row, dtype=np.int64)]
        if not stays.all():
            self._leave_out(stays, directory / "runs.arrow")
        self._write_tables(directory, chosen)

    def _add(self, block: RowBlock) -> pa.RecordBatch:
        """Check a block, keep its small columns, and return its masks."""
        self._place_format = block.place_format
        frames = self._sizes.resolve_sizes(block.images)
        masks, wrong = self._readings.read(block, frames)
        problems = {index: frame for index, frame in enumerate(frames) if isinstance(frame, str)}
        problems |= {index: f"{block.mask_field}: {reason}" for index, reason in wrong.items()}
        refused = [block.refuse(index, reason) for index, reason in problems.items()]
        self._refuse([*block.bad_rows, *refused])
        keep, records = [], []
        for index, frame in enumerate(frames):
            if index in problems or isinstance(frame, str):
                continue
            record = self._records.setdefault(frame.record, len(self._records))
            if block.category_ids[index] == NO_INSTANCE:
                self._naming_rows.append((block.numbers[index], record, block.place(index)))
                continue
            keep.append(index)
            records.append(record)
        masks = masks[keep]
        columns: dict[str, npt.NDArray[Any]] = {
            "box_xyxy": masks.boxes_xyxy(),
            "mask_digest": mask_digests(masks),
            "area_px": masks.areas_px(),
            "category_id": np.array([block.category_ids[at] for at in keep], dtype=np.int16),
            "is_crowd": np.array([block.is_crowd[at] for at in keep], dtype=np.uint8),
        }
        self._hints.add(block, keep, frames, masks)
        attribute_ids = [block.attribute_ids[at] for at in keep]
        stays = self._is_new(records, attribute_ids, columns)
        self.duplicates += int((~stays).sum())
        if not self._drop_duplicates:
            stays[:] = True
        for name, column in columns.items():
            self._columns[name].append(column[stays])
        self._numbers += compress((block.numbers[at] for at in keep), stays)
        self._record_of_row += compress(records, stays)
        self._attribute_ids += compress(attribute_ids, stays)
        return masks_as_arrow(masks[stays])

    def notes(self) -> list[str]:
        """Return notes on the masks for the user, a sentence each, when all is written."""
        notes = self._hints.notes()
        if self.duplicates:
            chosen = "drop" if self._drop_duplicates else "keep"
            notes.append(
                "exact duplicates of earlier instances (same image, category, attributes and "
                f"mask), duplicates={chosen}: {self.duplicates}"
            )
        return notes

    def _is_new(
        self,
        records: list[int],
        attribute_ids: list[tuple[int, ...]],
        columns: dict[str, npt.NDArray[Any]],
    ) -> npt.NDArray[np.bool_]:
        """Return whether each instance is new, not a duplicate, shape (N,) bool."""
        is_new = np.ones(len(records), dtype=np.bool_)
        values = zip(records, attribute_ids, *(c.tolist() for c in columns.values()), strict=True)
        for at, (record, attributes, box, digest, area, *label) in enumerate(values):
            if area == 0:
                continue
            key = (record, attributes, *box, digest, area, *label)
            is_new[at] = key not in self._seen
            self._seen.add(key)
        return is_new

    def _refuse(self, rows: list[BadRow]) -> None:
        self._ids_with_bad_rows.update(row.image_id for row in rows)
        self._bad_rows.take(rows)

    def _one_record_an_image(self) -> npt.NDArray[np.bool_]:
        """Choose one size for images whose rows disagree, and refuse the rows that have another.

        The size of the image wins, else the one that most rows have, else the first. Returns
        whether each record was chosen.
        """
        by_id: dict[str, list[int]] = defaultdict(list)
        records = list(self._records)
        for index, image in enumerate(records):
            by_id[image.image_id].append(index)
        chosen = np.ones(len(records), dtype=bool)
        if len(by_id) == len(records):
            return chosen
        named = [record for _, record, _ in self._naming_rows]
        votes = np.bincount([*self._record_of_row, *named], minlength=len(records))
        winner_of: dict[int, int] = {}
        for image_id, rivals in by_id.items():
            image_hw = self._sizes.image_hw(image_id)
            best = max(rivals, key=lambda index: (records[index].size_hw == image_hw, votes[index]))
            winner_of.update({index: best for index in rivals if index != best})
        chosen[list(winner_of)] = False
        losing = [
            (number, record, self._place_format.format(number))
            for number, record in zip(self._numbers, self._record_of_row, strict=True)
            if record in winner_of
        ]
        losing += [row for row in self._naming_rows if row[1] in winner_of]
        originals = self._source.reread({number for number, _, _ in losing})
        refused = []
        for number, record, place in losing:
            image, winner = records[record], records[winner_of[record]]
            reason = (
                f"Height and Width must be {winner.height_px} and {winner.width_px} as in other "
                f"rows of the image, got {image.height_px} and {image.width_px}"
            )
            original = originals.get(number, "")
            refused.append(BadRow(number, place, image.image_id, reason, original))
        self._refuse(refused)
        return chosen

    def _leave_out(self, stays: npt.NDArray[np.bool_], runs_path: Path) -> None:
        """Keep some of the instances, shape (N,), and write only their masks again."""
        whole = runs_path.with_name("all_runs.arrow")
        runs_path.rename(whole)
        self.runs_batch_starts, first, kept_so_far = [], 0, 0
        with (
            pa.OSFile(str(whole)) as source,
            pa.OSFile(str(runs_path), "wb") as sink,
            pa.ipc.new_file(sink, RUNS_SCHEMA) as file,
        ):
            reader = pa.ipc.open_file(source)
            for number in range(reader.num_record_batches):
                batch = reader.get_batch(number)
                kept = batch.filter(pa.array(stays[first : first + batch.num_rows]))
                first += batch.num_rows
                if kept.num_rows:
                    self.runs_batch_starts.append(kept_so_far)
                    file.write_batch(kept)
                kept_so_far += kept.num_rows
        whole.unlink()
        self._record_of_row = list(compress(self._record_of_row, stays))
        self._attribute_ids = list(compress(self._attribute_ids, stays))
        for name, parts in self._columns.items():
            self._columns[name] = [np.concatenate(parts)[stays]]

    def _write_tables(self, directory: Path, chosen: npt.NDArray[np.bool_]) -> None:
        records = list(self._records)
        record_of_row = np.array(self._record_of_row, dtype=np.int64)
        counts = np.bincount(record_of_row, minlength=len(records))
        belongs = [
            index
            for index, image in enumerate(records)
            if counts[index] or (chosen[index] and image.image_id not in self._ids_with_bad_rows)
        ]
        belongs.sort(key=lambda index: records[index].image_id)
        images = [records[index] for index in belongs]
        rank = np.full(len(records), -1, dtype=np.int32)
        rank[belongs] = np.arange(len(belongs), dtype=np.int32)
        self.images, self.instances = len(images), len(record_of_row)
        self.images_without_instances = int((counts[belongs] == 0).sum())
        self.crowd_regions = int(self._column("is_crowd", np.uint8).sum())
        self.empty_masks = int((self._column("area_px", np.int64) == 0).sum())

        order = np.argsort(rank[record_of_row], kind="stable")
        attribute_ids = [self._attribute_ids[row] for row in order.tolist()]
        boxes = self._column("box_xyxy", np.int32).reshape(-1, 4)
        instances = {
            "image_index": rank[record_of_row[order]],
            "category_id": self._column("category_id", np.int16)[order],
            "attribute_ids": attribute_ids,
            "box_xyxy": pa.FixedSizeListArray.from_arrays(pa.array(boxes[order].reshape(-1)), 4),
            "area_px": self._column("area_px", np.int64)[order],
            "is_crowd": self._column("is_crowd", np.uint8)[order],
            "runs_row": order,
        }
        _write_table(directory / "instances.arrow", instances, INSTANCES_SCHEMA)
        columns = [
            self._column("category_id", np.int16)[order],
            self._column("is_crowd", np.uint8)[order],
            self._column("mask_digest", np.uint32)[order],
        ]
        digests = image_digests(images, counts[belongs], columns, attribute_ids)
        table = {
            key: [getattr(image, key) for image in images] for key in IMAGES_SCHEMA.names[:4]
        } | {"instances": counts[belongs], "digest": digests}
        _write_table(directory / "images.arrow", table, IMAGES_SCHEMA)

    def _column(self, name: str, kind: type[np.generic]) -> npt.NDArray[np.generic]:
        parts = (part.reshape(-1) for part in self._columns[name])
        return np.concatenate([np.zeros(0, dtype=kind), *parts])


def masks_as_arrow(masks: RleBatch) -> pa.RecordBatch:
    """Return N masks as a record batch of ``runs.arrow``, without copying the runs."""
    flat = pa.FixedSizeListArray.from_arrays(pa.array(masks.runs.reshape(-1)), 2)
    lists = pa.ListArray.from_arrays(pa.array(masks.offsets.astype(np.int32)), flat)
    return pa.record_batch([lists], schema=RUNS_SCHEMA)


def _write_table(path: Path, columns: dict[str, Any], schema: pa.Schema) -> None:
    arrays = [
        values.cast(field.type) if isinstance(values, pa.Array) else pa.array(values, field.type)
        for field in schema
        for values in (columns[field.name],)
    ]
    with pa.OSFile(str(path), "wb") as sink, pa.ipc.new_file(sink, schema) as file:
        file.write_batch(pa.record_batch(arrays, schema=schema))
