"""Run ``make demo``, record what it gives, and draw the README's image.

``python -m experiments.measure_demo`` times the whole of ``make demo``; where outputs/demo is
there already, it takes that run and its time stays unknown. It writes
``experiments/demo/result.json`` and ``docs/images/demo.jpg``: of the validation images the one
whose score is nearest to the mean, as image, ground truth and prediction.
"""

from __future__ import annotations

import os
import platform
import shutil
import subprocess
import sys
import time
from pathlib import Path

from experiments.running import ROOT, current_commit
from src.io import read_json_object, write_json

DEMO = ROOT / "outputs" / "demo"
RESULT = ROOT / "experiments" / "demo" / "result.json"
IMAGE = ROOT / "docs" / "images" / "demo.jpg"


def run_demo() -> float | None:
    """Run ``make demo`` and return its seconds; None where it has been run before."""
    if (DEMO / "score.json").exists():
        return None
    start = time.monotonic()
    subprocess.run(["make", "demo"], cwd=ROOT, check=True)
    return time.monotonic() - start


def draw_typical_image(score: dict[str, float], mean: float) -> str:
    """Draw the image whose score is nearest to the mean, and return its id."""
    name = min(score, key=lambda image_id: (abs(score[image_id] - mean), image_id))
    drawings = DEMO / "drawings"
    command = (
        f"-m src.report submission={DEMO}/validation.csv annotations={DEMO}/data/train.csv "
        f"images={DEMO}/data/train split={DEMO}/data/split.json output={DEMO}/all_images.html "
        f"drawings_dir={drawings} num_worst={len(score)} num_best=0"
    )
    subprocess.run([sys.executable, *command.split()], cwd=ROOT, check=True)
    IMAGE.parent.mkdir(exist_ok=True)
    shutil.copy(next(drawings.glob(f"*_{Path(name).stem}.jpg")), IMAGE)
    return name


def main() -> None:
    """Run, record and draw."""
    seconds = run_demo()
    score = read_json_object(DEMO / "score.json")
    name = draw_typical_image(score["per_image"], score["competition_map"])
    result = {
        "commit": current_commit(),
        "machine": f"{platform.machine()}, {os.cpu_count()} cores",
        "minutes": None if seconds is None else round(seconds / 60, 1),
        "image_drawn": name,
        **{key: value for key, value in score.items() if key != "per_image"},
    }
    write_json(RESULT, result, sort_keys=False)
    print(f"wrote {RESULT.relative_to(ROOT)} and {IMAGE.relative_to(ROOT)}")


if __name__ == "__main__":
    main()
