"""A small data set in COCO's format, with any categories."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image


def write_data(
    folder: Path, categories: dict[int, str], instances: list[int], images: int = 6
) -> Path:
    """A COCO file with an instance of each of these categories on every image, and the images."""
    (folder / "images").mkdir(parents=True, exist_ok=True)
    content: dict[str, list[Any]] = {
        "categories": [{"id": key, "name": name} for key, name in categories.items()],
        "images": [],
        "annotations": [],
    }
    for number in range(images):
        name = f"{number}.png"
        Image.fromarray(np.full((48, 40, 3), 20 * number, np.uint8)).save(folder / "images" / name)
        content["images"].append({"id": number, "file_name": name, "height": 48, "width": 40})
        content["annotations"] += [
            {
                "id": len(content["annotations"]) + place,
                "image_id": number,
                "category_id": category,
                "segmentation": [[2, 2, 30, 2, 30, 20 + place, 2, 20 + place]],
                "bbox": [2, 2, 28, 18 + place],
                "area": 28 * (18 + place),
                "iscrowd": 0,
            }
            for place, category in enumerate(instances)
        ]
    (folder / "a.json").write_text(json.dumps(content))
    return folder / "a.json"
