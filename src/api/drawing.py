"""Drawings of detections."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np
import numpy.typing as npt
from PIL import Image

from src.annotations.image_files import read_image_rgb
from src.api.ground_truth import Annotations
from src.errors import InputError
from src.io import atomic_path
from src.postprocess.detections import Detections
from src.reporting.drawing import (
    DrawnInstance,
    class_colours,
    draw_instances,
    draw_side_by_side,
    fit,
)
from src.reporting.examples import compare_instances, short_name
from src.tuning.evaluated_image import as_submitted


def draw(
    image: str | Path | npt.NDArray[np.uint8],
    detections: Detections,
    annotations: Annotations | None = None,
    *,
    category_names: Mapping[int, str] | None = None,
    edge_px: int = 640,
    output: str | Path | None = None,
) -> npt.NDArray[np.uint8]:
    """Draw detections over their image; with annotations beside image and ground truth.

    Args:
        image: File of the image, or its pixels: (H, W, 3) uint8, RGB.
        detections: Of this image.
        annotations: The ground truth: image, ground truth and detections are drawn in a row. A
            detection's label ends with its IoU, and what has no match has a dashed outline.
        category_names: Name of each category, for the labels; None: those of the annotations, or
            the ids.
        edge_px: Longer edge of each drawing in pixels.
        output: Image file to write as well, its format by the suffix; None: none.

    Returns:
        (h, w, 3) uint8, RGB.

    Raises:
        InputError: The image cannot be read, or has no annotations.

    Example:
        >>> from src import PredictionStore, PostprocessSettings, draw, postprocess, write_example
        >>> write_example("example")
        >>> store = PredictionStore("example/predictions_validation")
        >>> detections = postprocess(store, PostprocessSettings.preset("winner_all_classes"))
        >>> draw("example/data/train/0.png", detections["0.png"], edge_px=320, output="0.jpg").shape
        (320, 320, 3)
    """
    pixels = image if isinstance(image, np.ndarray) else read_image_rgb(image)
    if annotations is not None:
        ground_truth = annotations.named_as([detections.image_id])
        if detections.image_id not in ground_truth:
            raise InputError(f"{ground_truth.source}: no image has the id {detections.image_id!r}")
        drawn = compare_instances(
            ground_truth[detections.image_id],
            as_submitted(
                detections, with_filler=False, use_attributes=annotations.objects.use_attributes
            ),
            category_names or annotations.category_names,
        )
        drawing = draw_side_by_side(pixels, drawn.ground_truth, drawn.prediction, edge_px=edge_px)
    else:
        categories = detections.category_ids.tolist()
        colours = class_colours(categories)
        names = {number: short_name(name) for number, name in (category_names or {}).items()}
        columns = (detections.masks, categories, detections.scores.tolist())
        drawing = draw_instances(
            fit(pixels, edge_px),
            [
                DrawnInstance(
                    mask, f"{names.get(category, category)} {value:.2f}", colours[category]
                )
                for mask, category, value in zip(*columns, strict=True)
            ],
        )
    if output is not None:
        _save(drawing, Path(output))
    return drawing


def _save(drawing: npt.NDArray[np.uint8], path: Path) -> None:
    legal = Image.registered_extensions()
    kind = legal.get(path.suffix.lower())
    if kind not in Image.SAVE:
        raise InputError(f"output must be an image file such as a.png or a.jpg, got {path}")
    with atomic_path(path) as partial:
        Image.fromarray(drawing).save(partial, kind)
