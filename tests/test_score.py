"""The program src.score: what it prints, what it refuses."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

ROOT = Path(__file__).parents[1]
HEADER = "ImageId,EncodedPixels,Height,Width,ClassId\n"
# Three images of 8 x 8. On each: the left half is a shoe, a box in it a pocket of two attributes.
TRUTH = HEADER + "".join(
    f"{name}.jpg,1 32,8,8,23\n{name}.jpg,9 8,8,8,32_5_7\n" for name in ("a", "b", "c")
)


def score(*arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "src.score", *arguments]
    wide = os.environ | {"COLUMNS": "300"}
    return subprocess.run(command, cwd=ROOT, env=wide, capture_output=True, text=True, check=False)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("score")
    (folder / "train.csv").write_text(TRUTH)
    # a: right. b: the pocket is missing. c: the pocket has another attribute.
    rows = [line for line in TRUTH.splitlines() if line != "b.jpg,9 8,8,8,32_5_7"]
    submission = "\n".join(rows).replace("c.jpg,9 8,8,8,32_5_7", "c.jpg,9 8,8,8,32_5") + "\n"
    (folder / "submission.csv").write_text(submission)
    split = {"validation": ["c.jpg", "a.jpg"], "train": ["b.jpg"], "seed": 1, "annotations": "t"}
    (folder / "split.json").write_text(json.dumps(split))
    return folder


def test_last_line_is_the_result(folder):
    done = score(
        f"submission={folder}/submission.csv",
        f"annotations={folder}/train.csv",
        f"cache_dir={folder}/cache",
        "averaging=pooled",
        "num_resamples=200",
    )
    assert done.returncode == 0, done.stderr
    *tables, last = done.stdout.splitlines()
    result = json.loads(last)
    # 1, 1/2 and 1 of three images.
    assert result["competition_map"] == pytest.approx(2.5 / 3, abs=1e-15)
    assert result["averaging"] == "pooled"
    assert result["use_attributes"] is False
    assert result["images"] == 3
    assert result["per_threshold"] == pytest.approx([2.5 / 3] * 10, abs=1e-15)
    assert result["per_class"] == {"23": 1.0, "32": pytest.approx(2 / 3, abs=1e-15)}
    assert result["interval"]["low"] <= result["competition_map"] <= result["interval"]["high"]
    assert result["interval"]["resamples"] == 200
    text = "\n".join(tables)
    assert "32 pocket" in text
    assert "0.83333" in text
    assert "(pooled, 3 images, 95% interval" in text


def test_split_attributes_and_images(folder):
    """The images say that nothing is exchanged, and one of them is missing."""
    Image.fromarray(np.zeros((8, 8, 3), dtype=np.uint8)).save(folder / "a.jpg")
    done = score(
        f"submission={folder}/submission.csv",
        f"annotations={folder}/train.csv",
        "cache_dir=null",
        f"split={folder}/split.json",
        f"images={folder}",
        "use_attributes=true",
    )
    assert done.returncode == 0, done.stderr
    result = json.loads(done.stdout.splitlines()[-1])
    # a: 1. c: shoe 1, pocket with the right and with the wrong attributes 0.
    assert result["competition_map"] == pytest.approx((1 + 1 / 3) / 2, abs=1e-15)
    assert result["per_class"] == {"23": 1.0, "32_5": 0.0, "32_5_7": 0.5}
    assert result["use_attributes"] is True
    assert (
        f"images of {folder}/submission.csv that are not among those scored: 1 (the first: b.jpg)"
        in done.stdout
    )


def test_a_mistake_is_one_line(folder):
    done = score(
        f"submission={folder}/submission.csv",
        f"annotations={folder}/none.csv",
        "cache_dir=null",
    )
    assert done.returncode == 2
    assert done.stdout == ""
    assert f"error: {folder}/none.csv: cannot be read (No such file or directory)" in done.stderr
    assert "Traceback" not in done.stderr
