"""Photos of a report's images, and drawings on them as files."""

from __future__ import annotations

import base64
import io
import itertools
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image

from src.annotations.image_headers import read_image_rgb
from src.annotations.image_names import find_image, is_image_name
from src.errors import InputError
from src.io import write_bytes
from src.metrics.scoring import Comparison
from src.reporting.drawing import Picture, draw_side_by_side, fit
from src.reporting.examples import DrawnComparison, compare_objects

_JPEG_QUALITY = 84
PICTURE_EDGE_PX = 640
_CANVAS_GRAY = 150
_LONGEST_STEM_BYTES = 200


@dataclass(frozen=True)
class Example:
    """One image of the report."""

    image_id: str
    score: float
    photo: Picture  # longer edge 640 px; gray where there is none
    photo_problem: str | None  # why there is no photo
    drawn: DrawnComparison


def load_examples(
    comparison: Comparison,
    chosen: Sequence[tuple[str, float]],
    images_directory: str | Path | None,
) -> list[Example]:
    """Read the photos of the chosen images and compare their objects.

    A photo that is missing or damaged is replaced by a gray canvas, and the example says why.

    Args:
        comparison: truth and prediction.
        chosen: (image id, score) of each image.
        images_directory: the photos; None where there are none.
    """
    examples = []
    for image_id, score in chosen:
        truth, prediction = comparison.pair(image_id)
        record = comparison.truth.record(image_id)
        photo, problem = blank_canvas(record.size_hw), None
        if images_directory is not None:
            try:
                path = find_image(images_directory, record.file_name)
                photo = fit(read_image_rgb(path), PICTURE_EDGE_PX)
            except InputError as error:
                problem = str(error)
        drawn = compare_objects(truth, prediction, comparison.labels.category_names)
        examples.append(Example(image_id, score, photo, problem, drawn))
    return examples


def write_drawings(examples: Sequence[Example], directory: str | Path) -> list[Path]:
    """Write photo, truth and prediction of each image side by side as a JPEG.

    Files are named by score, ``0.1234_IMAGE.jpg``, so a sorted folder starts with the worst; in an
    image id with folders ``/`` becomes ``_``.
    """
    directory = Path(directory)
    written: list[Path] = []
    for example in examples:
        path = directory / _drawing_name(example, taken={path.name for path in written})
        picture = draw_side_by_side(example.photo, example.drawn.truth, example.drawn.prediction)
        write_bytes(path, _jpeg(picture))
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


def blank_canvas(size_hw: tuple[int, int]) -> Picture:
    """Return a gray picture in the proportions of a photo that is not there. (H, W, 3) uint8."""
    scale = PICTURE_EDGE_PX / max(size_hw)
    height, width = (max(1, round(edge * scale)) for edge in size_hw)
    return np.full((height, width, 3), _CANVAS_GRAY, dtype=np.uint8)


def _jpeg(picture: Picture) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(picture).save(buffer, "JPEG", quality=_JPEG_QUALITY, optimize=True)
    return buffer.getvalue()


def jpeg_data_uri(picture: Picture) -> str:
    """Return a picture, (H, W, 3) uint8 RGB, as a ``data:`` address of a JPEG."""
    return "data:image/jpeg;base64," + base64.b64encode(_jpeg(picture)).decode("ascii")
