"""Training samples beside mmdetection's own pipeline, on the same files, to the same sizes.

    python -m benchmarks.loading

mmdetection's side is LoadImageFromFile, LoadAnnotations with masks, Resize, RandomFlip and
PackDetInputs, fed with compressed run lengths as its COCO data sets are. Times are CPU time, the
least of several rounds, so that each figure is one of a core and stands on a busy machine. What the
two ways give is compared before a figure is reported.
"""

from __future__ import annotations

import json
import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt
from mmcv.transforms import Compose, LoadImageFromFile
from mmdet.datasets.transforms import LoadAnnotations, PackDetInputs, RandomFlip, Resize
from PIL import Image

from benchmarks.timing import timed
from src.annotations.formats import ReadingOptions
from src.annotations.store_builder import open_or_build
from src.datamodules.dataset import TrainingDataset
from src.datamodules.transforms import PixelAugmentation
from src.mmdet_bridge.cascade.detectors import Sample
from src.rle import RleBatch, encode, format_rle, to_coco

IMAGE_SIZES_HW = {"12_megapixels": (4000, 3000), "24_megapixels": (6000, 4000)}
OBJECTS = 7
SHORT_EDGE_PX, LONG_EDGE_PX = (600, 1200), 1900  # the winner's training scales
JPEG_QUALITY = 95
MOST_MEAN_DIFFERENCE = 4.0  # gray levels of 255, between the two ways' pixels
MOST_DIFFERING_MASK_PIXELS = 1e-3


def draw_image(size_hw: tuple[int, int], random: np.random.Generator) -> npt.NDArray[np.uint8]:
    """Clouds with sensor noise: their JPEG is about as long as one of a photograph."""
    height, width = size_hw
    image = np.full((height, width, 3), 128, dtype=np.float32)
    for octave in range(1, 12):
        grain = 2**octave
        coarse = random.standard_normal((height // grain + 2, width // grain + 2, 3))
        coarse = (0.6 * grain**0.7 * coarse).astype(np.float32)
        image += cv2.resize(coarse, (width, height), interpolation=cv2.INTER_CUBIC)
    image += 3 * random.standard_normal((height, width, 1), dtype=np.float32)
    return np.clip(image, 0, 255).astype(np.uint8)


def draw_mask(size_hw: tuple[int, int], random: np.random.Generator) -> npt.NDArray[np.bool_]:
    """A blob with an outline that wobbles, a tenth to a half of the image wide."""
    height, width = size_hw
    radii = random.uniform(0.05, 0.25, 2) * size_hw
    centre = random.uniform(0.3, 0.7, 2) * size_hw
    columns = np.arange(width)
    inside = np.clip(1 - ((columns - centre[1]) / radii[1]) ** 2, 0, None)
    half = radii[0] * np.sqrt(inside) + random.normal(0, 2, width) * (inside > 0)
    rows = np.arange(height)[:, None]
    return np.asarray((np.abs(rows - centre[0]) < half) & (inside > 0))


def run(
    *,
    sizes_hw: Mapping[str, tuple[int, int]] = IMAGE_SIZES_HW,
    images: int = 1,
    draws: int = 6,
    rounds: int = 3,
    seed: int = 0,
) -> dict[str, Any]:
    """Measure both ways at each image size.

    Args:
        sizes_hw: height and width of the images, by name.
        images: of each size.
        draws: training scales and flips of each image.
        rounds: of each sample and way; the fastest counts.
        seed: of images, objects and draws.

    Returns:
        For each image size a dict of plain values: milliseconds of CPU a sample in both ways, how
        many times faster ours is, the memory that a sample takes at its peak, beside that of the
        objects' bitmaps at the image's size, and how far the pixels of the two are apart.

    Raises:
        RuntimeError: the two ways give different sizes or labels, masks or pixels that are further
            apart than the constants above allow, or our masks are not the nearest resized bitmaps.
    """
    threads = cv2.getNumThreads()
    cv2.setNumThreads(0)
    try:
        return {
            name: _compare(size_hw, images=images, draws=draws, rounds=rounds, seed=seed)
            for name, size_hw in sizes_hw.items()
        }
    finally:
        cv2.setNumThreads(threads)


def _compare(
    size_hw: tuple[int, int], *, images: int, draws: int, rounds: int, seed: int
) -> dict[str, Any]:
    with tempfile.TemporaryDirectory() as folder:
        records = _write_data(Path(folder), size_hw, images=images, seed=seed)
        dataset = _training_dataset(Path(folder), seed=seed)
        usual_seconds, seconds, differences = [], [], []
        usual_peaks_mb, peaks_mb = [], []
        for epoch in range(draws):
            for index, record in enumerate(records):
                sample, spent = timed(lambda: dataset[epoch, index], rounds=rounds)  # noqa: B023
                seconds.append(spent)
                pipeline = _mmdetection_pipeline(sample)
                usual, spent = timed(lambda: pipeline(dict(record)), rounds=rounds)  # noqa: B023
                usual_seconds.append(spent)
                peaks_mb.append(_peak_mb(lambda: dataset[epoch, index]))  # noqa: B023
                usual_peaks_mb.append(_peak_mb(lambda: pipeline(dict(record))))  # noqa: B023
                differences.append(_check_same(sample, usual, record["bitmaps"]))
        marks_mb = []
        for first in (draws, 2 * draws):  # all scales have come up: the heap has its size
            _reset_high_water_mark()
            for epoch in range(first, first + draws):
                dataset[epoch, 0]
            marks_mb.append(_memory_mb("VmHWM"))
        bytes_a_pixel = np.mean([Path(r["img_path"]).stat().st_size for r in records])
    pixels, masks = zip(*differences, strict=True)
    return {
        "objects": OBJECTS,
        "jpeg_bytes_a_pixel": round(float(bytes_a_pixel) / (size_hw[0] * size_hw[1]), 3),
        "mmdetection_ms_a_sample": round(1e3 * float(np.mean(usual_seconds)), 1),
        "ours_ms_a_sample": round(1e3 * float(np.mean(seconds)), 1),
        "times_faster": round(sum(usual_seconds) / sum(seconds), 2),
        "bitmap_stack_mb": round(OBJECTS * size_hw[0] * size_hw[1] / 1e6, 1),
        "mmdetection_peak_mb": round(max(usual_peaks_mb), 1),
        "ours_peak_mb": round(max(peaks_mb), 1),
        "ours_grown_mb": round(marks_mb[1] - marks_mb[0], 1),
        "gray_levels_apart_in_the_mean": round(float(np.mean(pixels)), 2),
        "gray_levels_apart_at_most": round(max(pixels), 2),
        "mask_pixels_apart": float(f"{np.mean(masks):.1e}"),
        "our_masks_are_nearest_resized_bitmaps": True,  # or _check_same had raised
    }


def _write_data(
    folder: Path, size_hw: tuple[int, int], *, images: int, seed: int
) -> list[dict[str, Any]]:
    """Write images and train.csv; return them as mmdetection's COCO data set holds them."""
    random = np.random.default_rng(seed)
    (folder / "train").mkdir()
    records, lines = [], ["ImageId,EncodedPixels,Height,Width,ClassId"]
    for number in range(images):
        path = folder / "train" / f"{number}.jpg"
        Image.fromarray(draw_image(size_hw, random)).save(path, quality=JPEG_QUALITY)
        bitmaps = [draw_mask(size_hw, random) for _ in range(OBJECTS)]
        instances = []
        masks = RleBatch.of([encode(bitmap) for bitmap in bitmaps])
        columns = zip(bitmaps, format_rle(masks), to_coco(masks), strict=True)
        for label, (bitmap, text, counts) in enumerate(columns):
            lines.append(f"{path.name},{text},{size_hw[0]},{size_hw[1]},{label}")
            rows, columns = np.flatnonzero(bitmap.any(axis=1)), np.flatnonzero(bitmap.any(axis=0))
            instances.append(
                {
                    "bbox": [columns[0], rows[0], columns[-1] + 1, rows[-1] + 1],
                    "bbox_label": label,
                    "ignore_flag": 0,
                    "mask": {"size": [*size_hw], "counts": counts},
                }
            )
        records.append(
            {
                "img_path": str(path),
                "img_id": number,
                "height": size_hw[0],
                "width": size_hw[1],
                "instances": instances,
                "bitmaps": bitmaps,
            }
        )
    (folder / "train.csv").write_text("\n".join(lines) + "\n")
    return records


def _training_dataset(folder: Path, *, seed: int) -> TrainingDataset:
    store = open_or_build(
        folder / "train.csv", folder / "cache", ReadingOptions(images_directory=folder / "train")
    )
    return TrainingDataset(
        store=store,
        indices=np.arange(len(store)),
        images_directory=folder / "train",
        category_ids=store.category_ids,
        short_edge_px=SHORT_EDGE_PX,
        long_edge_px=LONG_EDGE_PX,
        flip_probability=0.5,
        pixel_augmentation=PixelAugmentation({}),
        seed=seed,
    )


def _mmdetection_pipeline(sample: Sample) -> Compose:
    """The pipeline that comes to the size and flip of a sample of ours."""
    height, width = sample["data_samples"].img_shape
    return Compose(
        [
            LoadImageFromFile(),
            LoadAnnotations(with_bbox=True, with_mask=True),
            Resize(scale=(width, height), keep_ratio=False),
            RandomFlip(prob=float(sample["data_samples"].flip)),
            PackDetInputs(),
        ]
    )


def _check_same(
    sample: Sample, usual: dict[str, Any], bitmaps: list[npt.NDArray[np.bool_]]
) -> tuple[float, float]:
    """Compare the two ways' samples.

    Returns:
        The mean absolute difference of their pixels, in gray levels, and the share of mask pixels
        that differ: OpenCV's nearest resizing, which mmdetection uses, multiplies by a rounded
        factor and so takes the neighbour of a row or column that falls on a whole number.
    """
    ours, theirs = sample["data_samples"].gt_instances, usual["data_samples"].gt_instances
    height, width = sample["data_samples"].img_shape
    masks = np.array([_nearest(bitmap, (height, width)) for bitmap in bitmaps])
    masks = masks[:, :, ::-1] if sample["data_samples"].flip else masks
    _check(usual["data_samples"].img_shape == (height, width), "sizes")
    _check(np.array_equal(ours.labels, theirs.labels), "labels")
    _check(np.array_equal(ours.masks.masks, masks), "masks and nearest resizing of the bitmaps")
    differing = float((theirs.masks.masks != masks).mean())
    _check(differing <= MOST_DIFFERING_MASK_PIXELS, f"masks ({differing:.2e} of the pixels)")
    pixels = usual["inputs"].flip(0).numpy().astype(np.int16)  # mmdetection reads BGR
    difference = float(np.abs(pixels - sample["inputs"].numpy()).mean())
    _check(difference <= MOST_MEAN_DIFFERENCE, f"pixels (by {difference:.2f} in the mean)")
    return difference, differing


def _check(same: bool, what: str) -> None:
    if not same:
        raise RuntimeError(f"the two ways differ: {what}")


def _nearest(bitmap: npt.NDArray[np.bool_], size_hw: tuple[int, int]) -> npt.NDArray[np.bool_]:
    """Nearest resizing by its definition: source index = floor(i * source / target)."""
    rows, columns = (np.arange(n) * s // n for n, s in zip(size_hw, bitmap.shape, strict=True))
    return bitmap[rows][:, columns]


def _peak_mb(task: Callable[[], Any]) -> float:
    """The most memory that a task takes in addition to what the process has (Linux)."""
    _reset_high_water_mark()
    before = _memory_mb("VmRSS")
    task()
    return _memory_mb("VmHWM") - before


def _reset_high_water_mark() -> None:
    Path("/proc/self/clear_refs").write_text("5", encoding="utf-8")


def _memory_mb(key: str) -> float:
    lines = Path("/proc/self/status").read_text(encoding="utf-8").splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith(f"{key}:")) / 1e3


if __name__ == "__main__":
    print(json.dumps(run(), indent=2))
