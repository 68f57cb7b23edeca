"""Run lengths beside bitmaps: reading masks, drawing them small, counting shared pixels.

    python -m benchmarks.run_lengths

Rows are generated with the lengths of the real ones, on images of 17 to 19 megapixels. Each figure
is the least CPU time of several rounds, so it is one of a core and stands on a busy machine; what
the two ways give is compared before a figure is reported.
"""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import numpy.typing as npt
from pycocotools import mask as coco_mask

from benchmarks.convert import OBJECTS_PER_IMAGE, generated_row
from benchmarks.timing import timed
from src.rle import Bitmasks, Rle, RleBatch, decode, decode_resized, format_rle, parse_rle, to_coco

TRAINING_EDGE_PX = 1200
RASTER_HW = (512, 512)

Sizes = npt.NDArray[np.int64]


def run(
    *, rows: int = 420, rows_the_usual_way: int = 42, rounds: int = 20, seed: int = 0
) -> dict[str, Any]:
    """Measure both ways.

    Args:
        rows: masks to read our way in a round.
        rows_the_usual_way: the first of them, which the usual way gets.
        rounds: of ours, the fastest counts; the usual way, slow enough to be steady, gets 3.
        seed: of the generated rows.

    Returns:
        A dict of plain values for each comparison: both times, and how many times faster ours is.
    """
    texts, sizes_hw = _generated(rows=rows, seed=seed)
    few = min(rows_the_usual_way, rows)
    batch = parse_rle(texts, sizes_hw).masks
    masks = list(batch[:few])
    return {
        "rows": rows,
        "runs_a_row": round(len(batch.runs) / rows, 1),
        "read": _compare_reading(texts, sizes_hw, few=few, rounds=rounds),
        "text": _measure_text(texts, batch, rounds=rounds),
        "draw_for_training": _compare_drawing(masks, rounds=rounds),
        "shared_pixels": _compare_shared_pixels(masks, rounds=rounds),
    }


def _generated(*, rows: int, seed: int) -> tuple[list[bytes], Sizes]:
    random = np.random.default_rng(seed)
    lines = [generated_row(random, image=row // OBJECTS_PER_IMAGE) for row in range(rows)]
    fields = [line.split(b",") for line in lines]
    sizes_hw = np.array([(int(field[2]), int(field[3])) for field in fields], dtype=np.int64)
    return [field[1] for field in fields], sizes_hw


def _compare_reading(
    texts: list[bytes], sizes_hw: Sizes, *, few: int, rounds: int
) -> dict[str, Any]:
    usual, usual_seconds = timed(
        lambda: [_read_as_bitmap(texts[row], sizes_hw[row]) for row in range(few)], rounds=3
    )
    ours, seconds = timed(lambda: _read_as_runs(texts, sizes_hw), rounds=rounds)
    batch, areas, boxes = ours
    counts = to_coco(batch)
    boxes_xywh = np.concatenate([boxes[:, :2], boxes[:, 2:] - boxes[:, :2]], axis=1)
    for row, (usual_counts, usual_area, usual_box) in enumerate(usual):
        same = usual_counts == counts[row] and usual_area == areas[row]
        _check(
            same and usual_box == boxes_xywh[row].tolist(), f"masks, areas or boxes of row {row}"
        )
    return _compared(usual_seconds / few, seconds / len(texts), unit="ms_a_row")


def _read_as_bitmap(text: bytes, size_hw: npt.NDArray[np.int64]) -> tuple[str, int, list[float]]:
    """The usual way with a row: a bitmap of the image, then pycocotools."""
    values = np.array(text.split(), dtype=np.int64)
    bitmap = np.zeros(size_hw[0] * size_hw[1], dtype=np.uint8)
    for start, length in zip(values[0::2] - 1, values[1::2], strict=True):
        bitmap[start : start + length] = 1
    encoded = coco_mask.encode(bitmap.reshape(size_hw, order="F"))
    area, box = coco_mask.area(encoded), coco_mask.toBbox(encoded)
    return encoded["counts"].decode("ascii"), int(area), box.tolist()


def _read_as_runs(
    texts: list[bytes], sizes_hw: Sizes
) -> tuple[RleBatch, npt.NDArray[np.int64], npt.NDArray[np.int32]]:
    """All that a store keeps of a row's mask, and the check that it is one."""
    batch, problems = parse_rle(texts, sizes_hw)
    _check(not problems, "generated rows")
    return batch, batch.areas_px(), batch.boxes_xyxy()


def _measure_text(texts: list[bytes], batch: RleBatch, *, rounds: int) -> dict[str, Any]:
    megabytes = sum(map(len, texts)) / 1e6
    _, parse_seconds = timed(lambda: parse_rle(texts, batch.sizes_hw), rounds=rounds)
    written, format_seconds = timed(lambda: format_rle(batch), rounds=rounds)
    _check(written == [text.decode() for text in texts], "text written and read")
    return {
        "megabytes": round(megabytes, 1),
        "read_megabytes_a_second": round(megabytes / parse_seconds, 1),
        "written_megabytes_a_second": round(megabytes / format_seconds, 1),
    }


def _compare_drawing(masks: list[Rle], *, rounds: int) -> dict[str, Any]:
    """Masks at a training scale: the whole bitmap and nearest resizing, or read off the runs."""

    def usual() -> list[npt.NDArray[np.bool_]]:
        drawn = []
        for mask in masks:
            grid_hw = _training_size(mask.size_hw)
            sizes = zip(grid_hw, mask.size_hw, strict=True)
            rows, columns = (np.arange(n) * s // n for n, s in sizes)
            drawn.append(decode(mask)[rows][:, columns])
        return drawn

    def ours() -> list[npt.NDArray[np.bool_]]:
        return [decode_resized(mask, _training_size(mask.size_hw)) for mask in masks]

    usual_drawn, usual_seconds = timed(usual, rounds=3)
    drawn, seconds = timed(ours, rounds=rounds)
    for row, (one, other) in enumerate(zip(usual_drawn, drawn, strict=True)):
        _check(np.array_equal(one, other), f"drawn masks of row {row}")
    return _compared(usual_seconds / len(masks), seconds / len(masks), unit="ms_a_mask")


def _training_size(size_hw: tuple[int, int]) -> tuple[int, int]:
    scale = TRAINING_EDGE_PX / min(size_hw)
    return round(size_hw[0] * scale), round(size_hw[1] * scale)


def _compare_shared_pixels(masks: list[Rle], *, rounds: int) -> dict[str, Any]:
    """Pixels that each two masks share on the submission raster: bitmaps, or packed bits."""
    packed = Bitmasks(
        np.concatenate([Bitmasks.of([mask], RASTER_HW).bits for mask in masks]), RASTER_HW
    )
    bitmaps = packed.unpack()
    usual, usual_seconds = timed(
        lambda: [[int((a & b).sum()) for b in bitmaps] for a in bitmaps], rounds=3
    )
    shared, seconds = timed(lambda: packed.intersections_px(packed), rounds=rounds)
    _check(shared.tolist() == usual, "shared pixels")
    pairs = len(masks) ** 2
    return _compared(usual_seconds / pairs, seconds / pairs, unit="ms_a_pair")


def _compared(usual_seconds: float, seconds: float, *, unit: str) -> dict[str, Any]:
    return {
        f"usual_{unit}": round(1e3 * usual_seconds, 4),
        f"ours_{unit}": round(1e3 * seconds, 4),
        "times_faster": round(usual_seconds / seconds, 1),
        "same_result": True,  # or _check had raised
    }


def _check(same: bool, what: str) -> None:
    if not same:
        raise AssertionError(f"the two ways disagree: {what}")


if __name__ == "__main__":
    print(json.dumps(run(), indent=2))
