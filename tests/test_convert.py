"""``python -m src.convert`` as a user types it."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
from PIL import Image

ROOT = Path(__file__).resolve().parents[1]
HEADER = "ImageId,EncodedPixels,Height,Width,ClassId"


def run_convert(*overrides: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "src.convert", *overrides],
        cwd=ROOT,
        env=os.environ | {"COLUMNS": "160"},
        capture_output=True,
        text=True,
        check=False,
    )


@pytest.fixture
def source(tmp_path):
    path = tmp_path / "rows.csv"
    path.write_text(f"{HEADER}\na.jpg,1 2,20,30,6_1\nb.jpg,1 x,4,5,6\na.jpg,8 1,20,30,0\n")
    (tmp_path / "images").mkdir()
    Image.new("RGB", (20, 30)).save(tmp_path / "images" / "a.jpg")
    Image.new("RGB", (5, 4)).save(tmp_path / "images" / "b.jpg")
    return path


def test_conversion_with_a_bad_row_and_a_transposed_image(tmp_path, source):
    done = run_convert(
        f"annotations={source}",
        f"output={tmp_path}/o.json",
        f"images={tmp_path}/images",
        "on_bad_rows=skip",
        f"skipped_rows={tmp_path}/left_out.csv",
    )
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    lines = done.stdout.splitlines()
    assert lines[:2] == [
        f"imaterialist_2019 -> coco: {tmp_path}/o.json",
        "2 instances on 1 images",
    ]
    assert "1 images are annotated with another size than their images have" in done.stdout
    row = next(line for line in lines if "a.jpg" in line)
    assert [cell.strip() for cell in row.strip("│┃").split("│")] == [
        "a.jpg",
        "20 x 30",
        "30 x 20",
        "repaired: exchanged",
    ]
    assert lines[-1] == f"1 bad rows skipped, listed in {tmp_path}/left_out.csv"
    assert (tmp_path / "left_out.csv").read_text().splitlines()[1].startswith("row 3,b.jpg,")


def test_mistakes_end_with_one_line(tmp_path, source):
    done = run_convert(f"annotations={source}", f"output={tmp_path}/o.json")
    assert done.returncode == 2
    assert done.stderr == (
        f"error: {source}, row 3, image 'b.jpg': EncodedPixels: "
        "value 2 must be a whole number, got 'x'\n"
    )
    assert not (tmp_path / "o.json").exists()


def test_help_explains_every_key():
    text = run_convert("--help").stdout
    for word in (
        "annotations",
        "output_format",
        "on_bad_rows",
        "python -m src.convert annotations=train.csv",
    ):
        assert word in text
