"""Annotations: rows to stored masks and boxes against the usual way, and whole files converted.

    python -m benchmarks.convert

The rows are generated with the lengths of the real ones (about 10 KB of text and 770 runs an object
on images of 17 to 19 megapixels).
"""

from __future__ import annotations

import itertools
import json
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import pyarrow as pa
from pycocotools import mask as coco_mask

from benchmarks.timing import timed
from src.annotations.conversion import convert
from src.annotations.store import masks_of
from src.annotations.store_builder import build_store
from src.annotations.store_writer import masks_as_arrow
from src.rle import Rle, format_rle, parse_rle, to_coco

IMAGE_SIZES_HW = ((5214, 3676), (3076, 5468), (4900, 3744))
OBJECTS_PER_IMAGE = 7
_ROWS_A_BLOCK = 64
_MEAN_LOG_COLUMNS, _SPREAD_LOG_COLUMNS = 6.25, 0.65  # columns an object spans, log-normal


class Row(NamedTuple):
    """What both ways begin with."""

    text: bytes  # run lengths
    height_px: int
    width_px: int


class MaskBlock(NamedTuple):
    """N masks of our way."""

    masks: pa.RecordBatch  # N rows of the store's ``runs.arrow``
    boxes_xyxy: npt.NDArray[np.int32]  # (N, 4) pixels, half-open
    areas_px: npt.NDArray[np.int64]  # (N,)
    sizes_hw: npt.NDArray[np.int64]  # (N, 2) pixels


def generated_row(random: np.random.Generator, image: int) -> bytes:
    """A CSV line with an outline that wobbles from column to column and is cut in two here and
    there.
    """
    height_px, width_px = IMAGE_SIZES_HW[image % len(IMAGE_SIZES_HW)]
    columns = int(
        np.clip(random.lognormal(_MEAN_LOG_COLUMNS, _SPREAD_LOG_COLUMNS), 40, width_px - 2)
    )
    x = int(random.integers(0, width_px - columns)) + np.arange(columns)
    thickness = random.uniform(20, height_px / 3) * np.sin(np.linspace(0.02, np.pi - 0.02, columns))
    length = np.maximum(thickness + random.normal(0, 2, columns), 1).astype(np.int64)
    middle = height_px / 2 + np.cumsum(random.normal(0, 1.5, columns))
    top = np.clip(middle - length / 2, 0, height_px - length - 1).astype(np.int64)
    cut = (random.random(columns) < 0.3) & (length > 20)
    first = np.where(cut, length // 2 - 4, length)
    upper = np.stack([x * height_px + top, first], axis=1)
    lower = np.stack([x * height_px + top + first + 5, length - first - 5], axis=1)[cut]
    runs = np.concatenate([upper, lower]).astype(np.int32)
    runs = runs[np.argsort(runs[:, 0])]
    (text,) = format_rle([Rle(runs, (height_px, width_px))])
    line = f"{image:032x}.jpg,{text},{height_px},{width_px},{random.integers(46)}\n"
    return line.encode()


def write_generated_csv(path: Path, rows: int, *, distinct: int = 700, seed: int = 0) -> None:
    """Write a 2019 CSV of any length; masks repeat after ``distinct`` rows, on other images."""
    random = np.random.default_rng(seed)
    distinct = min(distinct - distinct % (3 * OBJECTS_PER_IMAGE), rows) or rows
    tails = [
        generated_row(random, image=row // OBJECTS_PER_IMAGE).partition(b",")[2]
        for row in range(distinct)
    ]
    with path.open("wb") as file:
        file.write(b"ImageId,EncodedPixels,Height,Width,ClassId\n")
        file.writelines(
            b"%032x.jpg,%s" % (row // OBJECTS_PER_IMAGE, tails[row % distinct])
            for row in range(rows)
        )


def decode_encode_box(row: Row) -> tuple[bytes, list[float]]:
    """The usual way with a row: a bitmap of the image, pycocotools' encoding of it, and its box.

    Returns:
        Compressed counts, and the box as x, y, width, height in pixels.
    """
    values = np.array(row.text.split(), dtype=np.int64)
    bitmap = np.zeros(row.height_px * row.width_px, dtype=np.uint8)
    for start, length in zip(values[0::2] - 1, values[1::2], strict=True):
        bitmap[start : start + length] = 1
    encoded = coco_mask.encode(bitmap.reshape((row.height_px, row.width_px), order="F"))
    return encoded["counts"], coco_mask.toBbox(encoded).tolist()


def masks_and_boxes(rows: list[Row]) -> list[MaskBlock]:
    """Our way with rows: masks as the store keeps them, checked, with their areas and boxes."""
    blocks = []
    for first in range(0, len(rows), _ROWS_A_BLOCK):
        block = rows[first : first + _ROWS_A_BLOCK]
        sizes_hw = np.array([(row.height_px, row.width_px) for row in block])
        masks, problems = parse_rle([row.text for row in block], sizes_hw)
        if problems:
            raise AssertionError("generated rows are valid")
        blocks.append(
            MaskBlock(
                masks=masks_as_arrow(masks),
                boxes_xyxy=masks.boxes_xyxy(),
                areas_px=masks.areas_px(),
                sizes_hw=sizes_hw,
            )
        )
    return blocks


def run(
    *,
    rows: int = 7000,
    rows_compared: int = 63,
    rounds: int = 30,
    folder: Path | None = None,
) -> dict[str, Any]:
    """Measure both ways on the same rows, check that they agree, and convert the whole file.

    Times are CPU seconds of this process, all its threads together: figures of a core, that a busy
    machine hardly changes.

    Args:
        rows: length of the generated file, of which whole conversions are measured.
        rows_compared: the first rows of it, of which both ways make masks and boxes.
        rounds: the fastest counts, of ours; the usual way, slow enough to be steady, gets 3.
        folder: where to work, default a temporary one.
    """
    with tempfile.TemporaryDirectory(dir=folder) as work:
        source = Path(work) / "rows.csv"
        write_generated_csv(source, rows)
        with source.open("rb") as file:
            compared = [
                Row(text=fields[1], height_px=int(fields[2]), width_px=int(fields[3]))
                for fields in (
                    line.split(b",") for line in itertools.islice(file, 1, rows_compared + 1)
                )
            ]
        return {
            "rows": rows,
            "kilobytes_a_row": round(source.stat().st_size / 1000 / rows, 2),
            "rows_to_masks_and_boxes": _compare_ways(compared, rounds),
            "megabytes_a_second_and_core": _convert_files(source),
        }


def _compare_ways(rows: list[Row], rounds: int) -> dict[str, float]:
    usual = [decode_encode_box(row) for row in rows]
    ours = masks_and_boxes(rows)
    if [pair for block in ours for pair in _as_coco(block)] != usual:
        raise AssertionError("the two ways disagree")
    _, usual_seconds = timed(lambda: [decode_encode_box(row) for row in rows], rounds=3)
    _, our_seconds = timed(lambda: masks_and_boxes(rows), rounds=rounds)
    return {
        "usual_ms_a_row": round(1000 * usual_seconds / len(rows), 3),
        "ours_ms_a_row": round(1000 * our_seconds / len(rows), 4),
        "times_faster": round(usual_seconds / our_seconds, 1),
    }


def _convert_files(source: Path) -> dict[str, float]:
    work, megabytes = source.parent, source.stat().st_size / 1e6
    build_store(source, work / "rows.store")  # Arrow is loaded and the file is in the page cache
    tasks: dict[str, Callable[[], Any]] = {
        "csv_to_store": lambda: build_store(source, work / "rows.store"),
        "csv_to_coco": lambda: convert(source, work / "rows.json"),
        "coco_to_csv": lambda: convert(work / "rows.json", work / "back.csv"),
        "csv_to_2020_csv": lambda: convert(
            source, work / "rows_2020.csv", output_format="imaterialist_2020"
        ),
    }
    figures = {name: round(megabytes / timed(task)[1], 1) for name, task in tasks.items()}
    if source.read_bytes() != (work / "back.csv").read_bytes():
        raise AssertionError("a CSV that went to COCO and back is not the same")
    return figures


def _as_coco(block: MaskBlock) -> Iterator[tuple[bytes, list[float]]]:
    """Compressed counts and box as x, y, width, height of each mask, to compare."""
    texts = to_coco(masks_of(block.masks, block.sizes_hw))
    for text, box in zip(texts, block.boxes_xyxy.astype(float).tolist(), strict=True):
        yield text.encode(), [*box[:2], box[2] - box[0], box[3] - box[1]]


if __name__ == "__main__":
    print(json.dumps(run(), indent=2))
