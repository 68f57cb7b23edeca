"""Run ``make demo``, record what it gives, and draw the README's image.

``python -m experiments.measure_demo`` times the whole of ``make demo``; where outputs/demo is
there already, it takes that run and its time stays unknown. It writes
``experiments/demo/result.json`` and ``docs/images/demo.jpg``: two validation images whose scores
are near the mean, each as image, ground truth and detections.
"""

from __future__ import annotations

import csv
import os
import platform
import subprocess
import sys
import time
from pathlib import Path

from PIL import Image

from experiments.running import ROOT, current_commit
from src.io import read_json_object, write_json

DEMO = ROOT / "outputs" / "demo"
RESULT = ROOT / "experiments" / "demo" / "result.json"
IMAGE = ROOT / "docs" / "images" / "demo.jpg"
HEIGHT_PX, MARGIN_PX = 420, 28


def run_demo() -> float | None:
    """Run ``make demo`` and return its seconds; None where it has been run before."""
    if (DEMO / "score.json").exists():
        return None
    start = time.monotonic()
    subprocess.run(["make", "demo"], cwd=ROOT, check=True)
    return time.monotonic() - start


def typical_images(scores: dict[str, float], mean: float) -> list[str]:
    """Return, of the images with three or more categories, the two that score nearest the mean."""
    categories: dict[str, set[str]] = {}
    with (DEMO / "data" / "train.csv").open(newline="") as file:
        for row in csv.DictReader(file):
            categories.setdefault(row["ImageId"], set()).add(row["ClassId"])
    rich = [image_id for image_id in scores if len(categories.get(image_id, ())) >= 3]
    return sorted(rich, key=lambda image_id: (abs(scores[image_id] - mean), image_id))[:2]


def draw(image_ids: list[str], num_images: int) -> None:
    """Draw images side by side, each as image, ground truth and detections."""
    drawings = DEMO / "drawings"
    command = (
        f"-m src.report submission={DEMO}/validation.csv annotations={DEMO}/data/train.csv "
        f"images={DEMO}/data/train split={DEMO}/data/split.json output={DEMO}/all_images.html "
        f"drawings_dir={drawings} num_worst={num_images} num_best=0"
    )
    subprocess.run([sys.executable, *command.split()], cwd=ROOT, check=True)
    rows = []
    for image_id in image_ids:
        path = next(drawings.glob(f"*_{Path(image_id).stem}.jpg"))
        with Image.open(path) as drawing:
            rows.append(drawing.resize((drawing.width * HEIGHT_PX // drawing.height, HEIGHT_PX)))
    width = sum(row.width for row in rows) + MARGIN_PX * (len(rows) - 1)
    canvas, left = Image.new("RGB", (width, HEIGHT_PX), "white"), 0
    for row in rows:
        canvas.paste(row, (left, 0))
        left += row.width + MARGIN_PX
    IMAGE.parent.mkdir(exist_ok=True)
    canvas.save(IMAGE, quality=88)


def main() -> None:
    """Run, record and draw."""
    seconds = run_demo()
    score = read_json_object(DEMO / "score.json")
    image_ids = typical_images(score["per_image"], score["competition_map"])
    draw(image_ids, len(score["per_image"]))
    result = {
        "commit": current_commit(),
        "machine": f"{platform.machine()}, {os.cpu_count()} cores",
        "minutes": None if seconds is None else round(seconds / 60, 1),
        "images_drawn": image_ids,
        **{key: value for key, value in score.items() if key != "per_image"},
    }
    write_json(RESULT, result, sort_keys=False)
    print(f"wrote {RESULT.relative_to(ROOT)} and {IMAGE.relative_to(ROOT)}")


if __name__ == "__main__":
    main()
