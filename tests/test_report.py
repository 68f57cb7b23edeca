"""The program src.report: what it writes and says, what it refuses."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from hydra import compose, initialize_config_dir
from PIL import Image

from src.cli.entry_point import CONFIG_DIRECTORY
from src.errors import InputError
from src.predictions.candidates import Candidates
from src.predictions.store import PredictionStoreWriter
from src.report import check_config, report_sweep
from tests.helpers.report_files import write_sweep

ROOT = Path(__file__).parents[1]
HEADER = "ImageId,EncodedPixels,Height,Width,ClassId\n"
# Images of 8 x 8; on each, the upper left quarter is a shoe.
QUARTER = "1 4 9 4 17 4 25 4"
TRUTH = HEADER + "".join(f"{name}.jpg,{QUARTER},8,8,23\n" for name in ("a", "b", "c"))


def report(*arguments: object) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "src.report", "cache_dir=null", *map(str, arguments)]
    wide = os.environ | {"COLUMNS": "300"}
    return subprocess.run(command, cwd=ROOT, env=wide, capture_output=True, text=True, check=False)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("report")
    (folder / "train").mkdir()
    for name in ("a", "b"):
        Image.new("RGB", (8, 8), (90, 120, 150)).save(folder / "train" / f"{name}.jpg")
    (folder / "train.csv").write_text(TRUTH)
    (folder / "submission.csv").write_text(TRUTH.replace("b.jpg,1 4", "b.jpg,2 3"))
    split = {"validation": ["a.jpg", "b.jpg"], "train": ["c.jpg"], "seed": 1, "annotations": "t"}
    (folder / "split.json").write_text(json.dumps(split))
    return folder


def test_page_and_drawings_of_a_submission(folder, tmp_path):
    done = report(
        f"submission={folder}/submission.csv",
        f"annotations={folder}/train.csv",
        f"images={folder}/train",
        f"output={tmp_path}/pages/report.html",
        f"drawings_dir={tmp_path}/drawings",
        "title=Shoes",
        "num_worst=2",
        "num_best=5",
    )
    assert done.returncode == 0, done.stderr
    assert f"1 of 3 images could not be read in images={folder}/train" in done.stdout
    assert f"wrote 3 drawings to {tmp_path}/drawings" in done.stdout
    assert f"wrote {tmp_path}/pages/report.html" in done.stdout
    # 15 of 16 pixels are found in b: IoU 0.9375, a hit at nine thresholds.
    assert done.stdout.rstrip().endswith("score 0.9667 (per_class, 3 images)")
    names = sorted(path.name for path in (tmp_path / "drawings").iterdir())
    assert names == ["0.9000_b.jpg", "1.0000_a.jpg", "1.0000_c.jpg"]
    html = (tmp_path / "pages" / "report.html").read_text(encoding="utf-8")
    assert "<h1>Shoes</h1>" in html
    assert f"{folder}/train/c.jpg: the image file is missing" in html


def test_page_of_a_prediction_store(folder, tmp_path):
    """One good candidate in a, one below the threshold in b, which then has the filler."""
    with PredictionStoreWriter(tmp_path / "store", category_ids=[23], settings={}) as writer:
        for name, score in (("a", 0.9), ("b", 0.4)):
            writer.add(
                Candidates(
                    image_id=f"{name}.jpg",
                    size_hw=(8, 8),
                    boxes_xyxy=np.array([[0, 0, 4, 4]], dtype=np.float32),
                    scores=np.array([score], dtype=np.float32),
                    category_ids=np.array([23], dtype=np.int16),
                    mask_probabilities=np.ones((1, 28, 28), dtype=np.float16),
                    complete_above_score=0.0,
                )
            )
    command = (
        f"predictions={tmp_path}/store",
        "postprocess=winner",
        f"annotations={folder}/train.csv",
        f"output={tmp_path}/report.html",
    )
    for split in ((), (f"split={folder}/split.json",)):  # without one, the images of the store
        done = report(*command, *split)
        assert done.returncode == 0, done.stderr
        assert done.stdout.rstrip().endswith("score 0.5000 (per_class, 2 images)")
    html = (tmp_path / "report.html").read_text(encoding="utf-8")
    assert "score_threshold 0.5" in html
    assert f"validation part of {folder}/split.json" in html


def test_page_of_a_sweep(tmp_path):
    write_sweep(tmp_path / "sweep")
    done = report(f"sweep={tmp_path}/sweep", f"output={tmp_path}/report.html", "title=Grid")
    assert done.returncode == 0, done.stderr
    shown = f"wrote {tmp_path}/report.html: best of 12 jobs 0.4000 (0.3800 to 0.4300), 3\n"
    assert done.stdout == shown
    assert "<h1>Grid</h1>" in (tmp_path / "report.html").read_text()
    with initialize_config_dir(str(CONFIG_DIRECTORY), version_base="1.3"):
        config = compose("report", overrides=["sweep_dir=a", "submission=b.csv"])
    given = r"^one of sweep and submission must be given, got sweep=a submission=b\.csv$"
    with pytest.raises(InputError, match=given):
        report_sweep(config)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (
            [],
            "one of submission and predictions must be given, got submission=null predictions=null",
        ),
        (
            ["submission=a.csv", "predictions=b"],
            "one of submission and predictions must be given, got "
            "submission='a.csv' predictions='b'",
        ),
        (["submission=a.csv", "images=/no"], "images must be a folder, got /no: no such folder"),
        (
            ["submission=a.csv", "num_worst=-1"],
            "num_worst must be a whole number of at least 0, got -1",
        ),
        (
            ["submission=a.csv", "max_images=-1"],
            "max_images must be a whole number of at least 0, got -1",
        ),
        (
            ["submission=a.csv", "max_size_mb=0"],
            "max_size_mb must be a finite number above 0, got 0",
        ),
        (
            ["submission=a.csv", "image_px=9"],
            "image_px must be a whole number of pixels from 16 to 2048, got 9",
        ),
        (
            ["submission=a.csv", "num_best=few"],
            "num_best must be a whole number of at least 0, got 'few'",
        ),
        (
            ["submission=a.csv", "averaging=x"],
            "averaging must be one of per_class, pooled, got 'x'",
        ),
        (
            ["submission=a.csv", "num_resamples=0"],
            "num_resamples must be a whole number of at least 1, got 0",
        ),
    ],
)
def test_mistakes_are_refused_before_anything_is_read(arguments, message):
    with initialize_config_dir(str(CONFIG_DIRECTORY), version_base="1.3"):
        config = compose("report", overrides=["annotations=t.csv", *arguments])
    with pytest.raises(InputError, match=f"^{re.escape(message)}$"):
        check_config(config)


def test_a_mistake_is_one_line(tmp_path):
    output = tmp_path / "report.html"
    done = report("submission=a.csv", "annotations=t.csv", f"output={output}")
    assert done.returncode == 2
    assert "error: t.csv: cannot be read" in done.stderr
    assert "Traceback" not in done.stderr
    assert not output.exists()
