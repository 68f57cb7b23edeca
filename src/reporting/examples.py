"""Example images of a report, drawn once: for files, and for a page whose script does not run."""

from __future__ import annotations

import base64
import itertools
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from src.annotations.image_names import is_image_name
from src.io import write_bytes
from src.metrics.competition import CompetitionScore
from src.reporting.drawing import (
    DrawnComparison,
    RgbImage,
    compare_instances,
    draw_alone,
    draw_instances,
    draw_side_by_side,
    fit,
    fitting_hw,
)
from src.reporting.thumbnails import PageImages, encode_jpeg, read_small

EXAMPLE_EDGE_PX = 640
_CARD_EDGE_PX = {False: 1040, True: 520}  # longer edge; True: of the detections alone
_QUALITY = 84
_CANVAS_GRAY = 150
_LONGEST_STEM_BYTES = 200


def choose_examples(
    score: CompetitionScore, worst: int, best: int
) -> tuple[list[tuple[str, float]], list[tuple[str, float]]]:
    """Return (image id, score) of the worst images, and of the best among the others.

    The worst come worst first, the best come best first, equal scores by image id.
    """
    ranked = sorted(zip(score.per_image.tolist(), score.image_ids, strict=True))
    low = ranked[:worst]
    rest = sorted(ranked[worst:], key=lambda item: (-item[0], item[1]))
    return [(name, value) for value, name in low], [(name, value) for value, name in rest[:best]]


@dataclass(frozen=True)
class Example:
    """An image of a report, drawn."""

    image_id: str
    score: float | None  # None: there is no ground truth
    image: RgbImage  # longer edge 640 px; gray if it cannot be read
    image_problem: str | None  # why it cannot be read
    drawn: DrawnComparison

    @property
    def picture(self) -> RgbImage:
        """Image, ground truth and detections side by side; without ground truth, the detections."""
        if self.score is None:
            return draw_instances(self.image, self.drawn.prediction)
        return draw_side_by_side(self.image, self.drawn.ground_truth, self.drawn.prediction)


def load_examples(
    images: PageImages,
    chosen: Sequence[tuple[str, float | None]],
    images_directory: str | Path | None,
    category_names: Mapping[int, str],
) -> list[Example]:
    """Read the chosen images and compare their detections with the ground truth.

    An image that is missing or damaged is replaced by a gray canvas, and the example says why.

    Args:
        images: Their ground truth and detections.
        chosen: (image id, score) of each image.
        images_directory: Folder of the images; None: a gray canvas for all.
        category_names: Name by category id.
    """
    examples = []
    for image_id, score in chosen:
        ground_truth, prediction = images.pair(image_id)
        record = images.record(image_id)
        pixels, problem = read_small(images_directory, record, EXAMPLE_EDGE_PX)
        if pixels is None:
            canvas_hw = fitting_hw(record.size_hw, EXAMPLE_EDGE_PX)
            pixels = np.full((*canvas_hw, 3), _CANVAS_GRAY, dtype=np.uint8)
        drawn = (
            draw_alone(prediction, category_names)
            if ground_truth is None
            else compare_instances(ground_truth, prediction, category_names, images.rule)
        )
        image = fit(pixels, EXAMPLE_EDGE_PX)
        examples.append(Example(image_id, score, image, problem, drawn))
    return examples


def write_drawings(examples: Sequence[Example], directory: str | Path) -> list[Path]:
    """Write the picture of each example as a JPEG.

    Files are named by score, ``0.1234_IMAGE.jpg``, so a sorted folder starts with the worst; ``/``
    in an image id becomes ``_``.
    """
    directory = Path(directory)
    written: list[Path] = []
    for example in examples:
        path = directory / _drawing_name(example, taken={path.name for path in written})
        write_bytes(path, encode_jpeg(example.picture, _QUALITY))
        written.append(path)
    return written


def _drawing_name(example: Example, *, taken: Collection[str]) -> str:
    """Return a file name of at most 255 bytes that no other drawing has."""
    image_id = example.image_id
    stem = image_id.rpartition(".")[0] if is_image_name(image_id) else image_id
    stem = stem.replace("/", "_").encode()[:_LONGEST_STEM_BYTES].decode(errors="ignore")
    suffixes = itertools.chain([""], (f"_{number}" for number in itertools.count(2)))
    score = "" if example.score is None else f"{example.score:.4f}_"
    names = (f"{score}{stem}{suffix}.jpg" for suffix in suffixes)
    return next(name for name in names if name not in taken)


def describe_cards(examples: Sequence[Example]) -> list[dict[str, Any]]:
    """Return what the page shows of examples where no script runs."""
    return [
        {
            "image_id": example.image_id,
            "score": example.score,
            "classes": example.drawn.classes,
            "caption": _caption(example),
            "size_hw": picture.shape[:2],
            "uri": jpeg_data_uri(picture),
        }
        for example in examples
        for picture in [fit(example.picture, _CARD_EDGE_PX[example.score is None])]
    ]


def jpeg_data_uri(image_rgb: RgbImage) -> str:
    """Return an image, (H, W, 3) uint8 RGB, as a ``data:`` address of a JPEG."""
    encoded = base64.b64encode(encode_jpeg(image_rgb, _QUALITY)).decode("ascii")
    return f"data:image/jpeg;base64,{encoded}"


def _caption(example: Example) -> str:
    drawn, found = example.drawn, _count(len(example.drawn.prediction), "detection")
    kind = "" if example.image_problem is None else "no image, "
    if example.score is None:
        return f"{kind}{found}"
    instances = _count(len(drawn.ground_truth), "ground-truth instance")
    return f"{kind}{instances}, {found}, {drawn.matched} matched"


def _count(number: int, what: str) -> str:
    return f"{number} {what}{'' if number == 1 else 's'}"
