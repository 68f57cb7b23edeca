"""``python -m src.validate_submission``: what it prints, and its exit code."""

from __future__ import annotations

import functools
import json
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from src.submission.validation import validate_submission
from src.validate_submission import main

SAMPLE = "ImageId,EncodedPixels,ClassId\na.jpg,1 1,23\nb.jpg,1 1,23\n"


@pytest.fixture
def run(call_program: Any) -> Any:
    """Run the program in an empty folder; gives exit code, stdout and stderr."""
    return functools.partial(call_program, main)


def test_valid(run: Any, tmp_path: Path) -> None:
    (tmp_path / "sample.csv").write_text(SAMPLE)
    code, out, _ = run("submission=sample.csv", "sample_submission=sample.csv")
    assert (code, out) == (None, "sample.csv: valid (2 rows of 2 images, imaterialist_2019)\n")
    code, out, _ = run("submission=sample.csv")
    assert code is None
    assert "image ids not checked, for there is no sample" in out


def test_every_violation_is_listed(run: Any, tmp_path: Path) -> None:
    (tmp_path / "sample.csv").write_text(SAMPLE)
    (tmp_path / "sub.csv").write_text(SAMPLE.replace("b.jpg,1 1,23", "x.jpg,1 2 2 9,46"))
    code, out, _ = run("submission=sub.csv", "sample_submission=sample.csv")
    assert code == 1
    assert out.splitlines() == [
        "row 3, image x.jpg: ImageId must be one of the sample's, got 'x.jpg'",
        "row 3, image x.jpg: category must be a whole number from 0 to 45, got '46'",
        "row 3, image x.jpg: run 2 (start 2, length 9) must not overlap run 1 (start 1, length 2)",
        "the file, image b.jpg: each image of the sample must have a row, got none",
        "sub.csv: 4 violations (2 rows of 2 images, imaterialist_2019)",
    ]


def test_2020_is_told_by_its_column_and_images_give_the_raster(run: Any, tmp_path: Path) -> None:
    sample = "ImageId,EncodedPixels,ClassId,AttributesIds\na,1 1,23,\n"
    (tmp_path / "sample.csv").write_text(sample)
    (tmp_path / "sub.csv").write_text(sample.replace("1 1", "1000000 1"))
    assert run("submission=sub.csv", "sample_submission=sample.csv")[0] is None
    Image.new("L", (200, 100)).save(tmp_path / "a.jpg")
    code, out, _ = run("submission=sub.csv", "sample_submission=sample.csv", f"images={tmp_path}")
    assert code == 1
    assert "must end by pixel 524288, the last of height 512 and width 1024" in out
    code, out, _ = run("submission=sub.csv", "competition=imaterialist_2019")
    assert code == 1
    assert "the header must be ImageId,EncodedPixels,ClassId, got" in out


def test_an_empty_file_is_invalid(run: Any, tmp_path: Path) -> None:
    (tmp_path / "sub.csv").write_text("")
    code, out, _ = run("submission=sub.csv")
    assert code == 1
    assert "the file: the header must be ImageId,EncodedPixels,ClassId, got an empty" in out


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((), "these values have no default and must be given: submission=..."),
        (("submission=no.csv",), "submission=no.csv: no such file"),
        (("submission=s.csv", "sample_submission=no.csv"), "no.csv: no such file"),
        (("submission=s.csv", "images=no"), "images=no: no such folder"),
        (
            ("submission=s.csv", "format=coco"),
            "format was renamed: use competition (command line)",
        ),
        (("submission=s.csv", "label_descriptions=no.json"), "no.json: no such file"),
    ],
)
def test_mistakes_end_in_one_line_and_exit_code_2(
    run: Any, tmp_path: Path, arguments: tuple[str, ...], message: str
) -> None:
    (tmp_path / "s.csv").write_text(SAMPLE)
    code, _, err = run(*arguments)
    assert code == 2
    assert err.startswith(f"error: {message}")
    assert err.count("\n") == 1


def test_coco_results_are_checked_entry_by_entry(tmp_path: Path) -> None:
    right = {"image_id": 1, "category_id": 2, "score": 0.5, "bbox": [0, 0, 2, 2]}
    right["segmentation"] = {"size": [4, 4], "counts": [0, 5, 11]}
    wrong: list[Any] = [right | {"score": 2}, right | {"segmentation": [[1, 2, 3]]}, 7]
    wrong += [right | {"segmentation": None, "image_id": None}]
    path = tmp_path / "results.json"
    path.write_text(json.dumps([right, *wrong, right | {"image_id": "b"}]))
    found = validate_submission(path, competition="coco")
    assert (found.rows, found.images, found.format) == (6, 2, "coco")
    assert [str(violation).partition(", got")[0] for violation in found.violations] == [
        "row 2, image 1: score must be a number from 0 to 1",
        "row 3, image 1: segmentation: polygon 1 of 1 must be x1, y1, x2, y2, ... of at least 3 "
        "points",
        "row 4: an entry must be an object",
        "row 5: image_id must be a whole number or a text",
        "row 5: segmentation must be RLE or polygons",
    ]
    path.write_text(json.dumps([right]))
    assert validate_submission(path, competition="coco").violations == ()
    (violation,) = validate_submission(path).violations
    assert str(violation) == (
        "row 1: the header must be ImageId,EncodedPixels,ClassId, got a JSON list, as COCO results "
        "are; competition=coco checks those"
    )
