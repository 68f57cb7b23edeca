"""A tiny data set with predictions, for the examples in docstrings and for tests of notebooks."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from PIL import Image

from src.errors import InputError
from src.io import write_text
from src.predictions.candidates import Candidates
from src.predictions.files import META_NAME
from src.predictions.store import PredictionStoreWriter
from src.rle import encode, format_rle

SIZE_HW = (64, 64)
CATEGORY_IDS = (1, 23)  # top, shoe
NUM_IMAGES = 3
_BOXES_XYXY = np.array([[8, 8, 28, 56], [36, 8, 52, 56]], dtype=np.float32)  # of each image
_SHIFT_PX = np.array([[0, 0], [3, 0], [0, 0]])  # of the top and the shoe that are predicted
_SCORES = np.array([[0.9, 0.8], [0.9, 0.8], [0.9, 0.3]], dtype=np.float32)


def write_example(directory: str | Path) -> None:
    """Write three images of 64 px with a top and a shoe each, their annotations and predictions.

    The folders are those of ``make demo``: ``data/train``, ``data/train.csv`` and
    ``predictions_validation``.

    Args:
        directory: A new or empty folder, or one of an earlier call, which is left as it is.

    Raises:
        InputError: There is something else in the folder.

    Example:
        >>> from src import PredictionStore, write_example
        >>> write_example("example")
        >>> PredictionStore("example/predictions_validation").image_ids
        ('0.png', '1.png', '2.png')
    """
    directory = Path(directory)
    annotations, store = directory / "data" / "train.csv", directory / "predictions_validation"
    if directory.exists() and any(directory.iterdir()) and not (store / META_NAME).exists():
        raise InputError(f"directory must be a new or an empty folder, got {directory}")
    images = directory / "data" / "train"
    rows = ["ImageId,EncodedPixels,Height,Width,ClassId"]
    settings = {"class_names": ["top, t-shirt, sweatshirt", "shoe"]}
    with PredictionStoreWriter(store, category_ids=CATEGORY_IDS, settings=settings) as writer:
        images.mkdir(parents=True, exist_ok=True)
        for number in range(NUM_IMAGES):
            image_id = f"{number}.png"
            rgb = np.full((*SIZE_HW, 3), 230, dtype=np.uint8)
            for category, box in zip(CATEGORY_IDS, _BOXES_XYXY.astype(int), strict=True):
                mask = np.zeros(SIZE_HW, dtype=np.bool_)
                mask[box[1] : box[3], box[0] : box[2]] = True
                rgb[mask] = (40, 90 + 5 * category, 160)
                (text,) = format_rle([encode(mask)])
                rows.append(f"{image_id},{text},64,64,{category}")
            Image.fromarray(rgb).save(images / image_id)
            shift = np.zeros((2, 4), dtype=np.float32)
            shift[:, ::2] = _SHIFT_PX[number][:, None]
            writer.add(
                Candidates(
                    image_id=image_id,
                    size_hw=SIZE_HW,
                    boxes_xyxy=_BOXES_XYXY + shift,
                    scores=_SCORES[number],
                    category_ids=np.array(CATEGORY_IDS, dtype=np.int16),
                    mask_probabilities=np.ones((2, 28, 28), dtype=np.float32),
                    complete_above_score=0.0,
                )
            )
    write_text(annotations, "\n".join(rows) + "\n")
