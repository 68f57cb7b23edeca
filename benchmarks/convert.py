"""Annotations: rows to stored masks and boxes against the usual way, and whole files converted.

    python -m benchmarks.convert

The rows are generated with the lengths of the real ones (about 10 KB of text and 770 runs an object
on photos of 17 to 19 megapixels).
"""

from __future__ import annotations

import json
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from pycocotools import mask as coco_mask

from src.annotations.coco_runs import to_coco_compressed
from src.annotations.formats import convert
from src.annotations.run_lengths import format_runs
from src.annotations.store import AnnotationStore
from src.annotations.store_builder import build_store

PHOTO_SIZES_HW = ((5214, 3676), (3076, 5468), (4900, 3744))
OBJECTS_PER_IMAGE = 7
_MEAN_LOG_COLUMNS, _SPREAD_LOG_COLUMNS = 6.25, 0.65  # columns an object spans, log-normal


def generated_row(random: np.random.Generator, image: int) -> bytes:
    """A CSV line with an outline that wobbles from column to column and is cut in two here and
    there.
    """
    height_px, width_px = PHOTO_SIZES_HW[image % len(PHOTO_SIZES_HW)]
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
    text = f"{image:032x}.jpg,{format_runs(runs)},{height_px},{width_px},{random.integers(46)}\n"
    return text.encode()


def write_generated_csv(path: Path, rows: int, *, distinct: int = 700, seed: int = 0) -> None:
    """Write a 2019 CSV of any length; masks repeat after ``distinct`` rows, on other images."""
    random = np.random.default_rng(seed)
    distinct = min(distinct - distinct % (3 * OBJECTS_PER_IMAGE), rows) or rows
    tails = [
        generated_row(random, image=row // OBJECTS_PER_IMAGE).partition(b",")[2]
        for row in range(distinct)
    ]
    with open(path, "wb") as file:
        file.write(b"ImageId,EncodedPixels,Height,Width,ClassId\n")
        file.writelines(
            b"%032x.jpg,%s" % (row // OBJECTS_PER_IMAGE, tails[row % distinct])
            for row in range(rows)
        )


def decode_encode_box(line: bytes) -> tuple[bytes, list[float]]:
    """The usual way with a row: a bitmap of the photo, pycocotools' encoding of it, and its box.

    Returns:
        Compressed counts, and the box as x, y, width, height in pixels.
    """
    _, text, height, width, _ = line.decode().rstrip("\n").split(",")
    values = np.array(text.split(), dtype=np.int64)
    bitmap = np.zeros(int(height) * int(width), dtype=np.uint8)
    for start, length in zip(values[0::2] - 1, values[1::2], strict=True):
        bitmap[start : start + length] = 1
    encoded = coco_mask.encode(bitmap.reshape((int(height), int(width)), order="F"))
    return encoded["counts"], coco_mask.toBbox(encoded).tolist()


def run(
    *, rows: int = 7000, rows_the_usual_way: int = 42, folder: Path | None = None
) -> dict[str, Any]:
    """Measure both ways on the same rows and check that they agree.

    Args:
        rows: length of the generated file; ours reads it all, disk included.
        rows_the_usual_way: the first rows of it, which the usual way gets.
        folder: where to work, default a temporary one.
    """
    with tempfile.TemporaryDirectory(dir=folder) as work:
        return _run(Path(work), rows, rows_the_usual_way)


def _run(work: Path, rows: int, rows_the_usual_way: int) -> dict[str, Any]:
    source = work / "rows.csv"
    write_generated_csv(source, rows)
    megabytes = source.stat().st_size / 1e6
    # Arrow and the page cache are warm for both ways.
    build_store(source, work / "rows.store")
    seconds = {
        name: _cpu_seconds(task)
        for name, task in {
            "csv to store": lambda: build_store(source, work / "rows.store"),
            "csv to coco": lambda: convert(source, work / "rows.json"),
            "coco to csv": lambda: convert(work / "rows.json", work / "back.csv"),
            "csv to 2020 csv": lambda: convert(
                source, work / "rows_2020.csv", output_format="imaterialist_2020"
            ),
        }.items()
    }
    with open(source, "rb") as file:
        lines = [next(file) for _ in range(rows_the_usual_way + 1)][1:]
    usual: list[tuple[bytes, list[float]]] = []
    seconds_usual = _cpu_seconds(lambda: usual.extend(map(decode_encode_box, lines)))
    _check_equal(AnnotationStore(work / "rows.store"), usual)
    ours_per_row, usual_per_row = seconds["csv to store"] / rows, seconds_usual / len(lines)
    return {
        "rows": rows,
        "megabytes": round(megabytes, 1),
        "kilobytes_a_row": round(1000 * megabytes / rows, 2),
        "usual_ms_a_row": round(1000 * usual_per_row, 3),
        "ours_ms_a_row": round(1000 * ours_per_row, 4),
        "times_faster": round(usual_per_row / ours_per_row, 1),
        "csv_back_is_the_same": source.read_bytes() == (work / "back.csv").read_bytes(),
        "megabytes_a_second_and_core": {
            name: round(megabytes / value, 1) for name, value in seconds.items()
        },
    }


def _cpu_seconds(task: Callable[[], Any]) -> float:
    """CPU seconds of this process, all its threads together, so a figure is one of a core."""
    start = time.process_time()
    task()
    return time.process_time() - start


def _check_equal(store: AnnotationStore, usual: list[tuple[bytes, list[float]]]) -> None:
    ours: list[tuple[bytes, list[float]]] = []
    for index, image in enumerate(store.images):
        if len(ours) >= len(usual):
            break
        objects = store.instances(index)
        boxes: npt.NDArray[np.float64] = objects.boxes_xyxy.astype(np.float64)
        boxes[:, 2:] -= boxes[:, :2]
        for runs, box in zip(objects.runs, boxes.tolist(), strict=True):
            ours.append((to_coco_compressed(runs, image.size_hw).encode(), box))
    if ours[: len(usual)] != usual:
        raise AssertionError("the two ways disagree")


if __name__ == "__main__":
    print(json.dumps(run(), indent=2))
