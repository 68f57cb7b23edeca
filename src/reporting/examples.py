"""Example images of a report, as thumbnails and as files."""

from __future__ import annotations

import base64
import io
import itertools
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
from PIL import Image

from src.annotations.image_files import read_image_rgb
from src.annotations.image_names import find_image, is_image_name
from src.errors import InputError
from src.io import write_bytes
from src.metrics.competition import (
    ClassKey,
    CompetitionScore,
    ImageInstances,
    match_instances,
    split_key,
)
from src.metrics.scoring import Comparison
from src.reporting.drawing import (
    DrawnInstance,
    Rgb,
    RgbImage,
    class_colours,
    draw_side_by_side,
    fit,
)


@dataclass(frozen=True, slots=True)
class ClassInImage:
    """Result of one class in one image."""

    name: str  # short
    attributes: tuple[int, ...]  # where they are part of the class
    colour: Rgb
    num_ground_truth: int
    num_detections: int
    value: float  # mean over thresholds of TP / (TP + FP + FN), in [0, 1]


@dataclass(frozen=True, slots=True)
class DrawnComparison:
    """Ground truth and detections of one image, ready to be drawn."""

    ground_truth: tuple[DrawnInstance, ...]
    prediction: tuple[DrawnInstance, ...]
    classes: tuple[ClassInImage, ...]
    matched: int  # pairs with IoU > 0.5


def choose_examples(
    score: CompetitionScore, worst: int, best: int
) -> tuple[list[tuple[str, float]], list[tuple[str, float]]]:
    """Choose the worst images, worst first, and of the others the best ones, best first.

    Equal scores are ordered by image id.

    Returns:
        Two lists of (image id, score).
    """
    ranked = sorted(zip(score.per_image.tolist(), score.image_ids, strict=True))
    low = ranked[:worst]
    rest = sorted(ranked[worst:], key=lambda item: (-item[0], item[1]))
    return [(name, value) for value, name in low], [(name, value) for value, name in rest[:best]]


def compare_instances(
    ground_truth: ImageInstances, prediction: ImageInstances, category_names: Mapping[int, str]
) -> DrawnComparison:
    """Match the objects of one image and give each its label, colour and outline.

    A class has the same colour on both sides. A detection's label ends with the IoU of its match;
    objects without a match get a dashed outline.
    """
    matches = match_instances(ground_truth, prediction)
    colours = class_colours(matches.class_keys)
    names = {key: short_name(category_names[split_key(key)[0]]) for key in matches.class_keys}
    counts = (matches.num_ground_truth(), matches.num_detections())
    columns = (*counts, matches.class_values().mean(axis=1))
    return DrawnComparison(
        ground_truth=_drawn(ground_truth, matches.ground_truth_iou, colours, names, show_iou=False),
        prediction=_drawn(prediction, matches.prediction_iou, colours, names, show_iou=True),
        classes=tuple(
            ClassInImage(names[key], split_key(key)[1], colours[key], true, predicted, value)
            for key, true, predicted, value in zip(
                matches.class_keys, *(column.tolist() for column in columns), strict=True
            )
        ),
        matched=int(np.count_nonzero(matches.ground_truth_iou)),
    )


def short_name(name: str) -> str:
    """Return what fits on a drawing: ``headband`` of ``headband, head covering``."""
    return name.split(",")[0]


def _drawn(
    objects: ImageInstances,
    ious: npt.NDArray[np.float64],
    colours: Mapping[ClassKey, Rgb],
    names: Mapping[ClassKey, str],
    show_iou: bool,
) -> tuple[DrawnInstance, ...]:
    return tuple(
        DrawnInstance(
            mask=mask,
            label=f"{names[key]} {iou:.2f}" if show_iou and iou else names[key],
            colour=colours[key],
            matched=bool(iou),
        )
        for key, mask, iou in zip(
            objects.class_keys, objects.bitmasks.unpack(), ious.tolist(), strict=True
        )
    )


_JPEG_QUALITY = 84
IMAGE_EDGE_PX = 640
_CANVAS_GRAY = 150
_LONGEST_STEM_BYTES = 200


@dataclass(frozen=True)
class Example:
    """One image of the report."""

    image_id: str
    score: float
    image: RgbImage  # longer edge 640 px; gray where there is none
    image_problem: str | None  # why there is no image
    drawn: DrawnComparison


def load_examples(
    comparison: Comparison,
    chosen: Sequence[tuple[str, float]],
    images_directory: str | Path | None,
) -> list[Example]:
    """Read the images of the chosen images and compare their objects.

    An image that is missing or damaged is replaced by a gray canvas, and the example says why.

    Args:
        comparison: Ground truth and prediction.
        chosen: (image id, score) of each image.
        images_directory: The images; None where there are none.
    """
    examples = []
    for image_id, score in chosen:
        ground_truth, prediction = comparison.pair(image_id)
        record = comparison.ground_truth.record(image_id)
        image, problem = blank_canvas(record.size_hw), None
        if images_directory is not None:
            try:
                path = find_image(images_directory, record.file_name)
                image = fit(read_image_rgb(path), IMAGE_EDGE_PX)
            except InputError as error:
                problem = str(error)
        drawn = compare_instances(ground_truth, prediction, comparison.labels.category_names)
        examples.append(Example(image_id, score, image, problem, drawn))
    return examples


def write_drawings(examples: Sequence[Example], directory: str | Path) -> list[Path]:
    """Write image, ground truth and detections of each image side by side as a JPEG.

    Files are named by score, ``0.1234_IMAGE.jpg``, so a sorted folder starts with the worst; in an
    image id with folders ``/`` becomes ``_``.
    """
    directory = Path(directory)
    written: list[Path] = []
    for example in examples:
        path = directory / _drawing_name(example, taken={path.name for path in written})
        image_rgb = draw_side_by_side(
            example.image, example.drawn.ground_truth, example.drawn.prediction
        )
        write_bytes(path, _jpeg(image_rgb))
        written.append(path)
    return written


def _drawing_name(example: Example, *, taken: Collection[str]) -> str:
    """Return a file name of at most 255 bytes that no other drawing has."""
    image_id = example.image_id
    stem = image_id.rpartition(".")[0] if is_image_name(image_id) else image_id
    stem = stem.replace("/", "_").encode()[:_LONGEST_STEM_BYTES].decode(errors="ignore")
    for number in itertools.count(1):
        name = f"{example.score:.4f}_{stem}{f'_{number}' if number > 1 else ''}.jpg"
        if name not in taken:
            break
    return name


def blank_canvas(size_hw: tuple[int, int]) -> RgbImage:
    """Return a gray image in the proportions of an image that is not there. (H, W, 3) uint8."""
    scale = IMAGE_EDGE_PX / max(size_hw)
    height, width = (max(1, round(edge * scale)) for edge in size_hw)
    return np.full((height, width, 3), _CANVAS_GRAY, dtype=np.uint8)


def _jpeg(image_rgb: RgbImage) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(image_rgb).save(buffer, "JPEG", quality=_JPEG_QUALITY, optimize=True)
    return buffer.getvalue()


def jpeg_data_uri(image_rgb: RgbImage) -> str:
    """Return an image, (H, W, 3) uint8 RGB, as a ``data:`` address of a JPEG."""
    return "data:image/jpeg;base64," + base64.b64encode(_jpeg(image_rgb)).decode("ascii")
