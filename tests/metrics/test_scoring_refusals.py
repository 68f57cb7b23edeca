"""Submissions and truths that are no such thing, and what is said of them."""

from __future__ import annotations

import numpy as np
import pytest

from src.errors import InputError
from tests.helpers import annotation_files as files
from tests.helpers.scoring import score_files


@pytest.mark.parametrize(
    ("header", "row", "message"),
    [
        (
            "ImageId,EncodedPixels",
            ("a", "1 1"),
            r"columns must have ClassId for 46 categories, got ImageId, .* \(.*s\.csv, row 1\)",
        ),
        (
            "ImageId,EncodedPixels,ClassId",
            ("a", "1 2 3", 1),
            r"s\.csv, row 3, image 'a': EncodedPixels: the number of values must be even",
        ),
        (
            "ImageId,EncodedPixels,ClassId",
            ("a", "262144 2", 1),
            r"s\.csv, row 3, image 'a': EncodedPixels.*start 262144, length 2",
        ),
        (
            "ImageId,EncodedPixels,ClassId",
            ("a", "10 2 5 2", 1),
            r"s\.csv, row 3, image 'a': EncodedPixels.*start 5, length 2",
        ),
        (
            "ImageId,EncodedPixels,ClassId",
            ("a", "x 2", 1),
            r"s\.csv, row 3, image 'a': EncodedPixels.*'x'",
        ),
        (
            "ImageId,EncodedPixels,ClassId",
            ("a", "1 1", 46),
            r"s\.csv, row 3, image 'a': category must be 0 to 45, got 46",
        ),
        (
            "ImageId,EncodedPixels,ClassId",
            ("a", "1 1", "shoe"),
            r"s\.csv, row 3, image 'a': category must be a whole number .* got 'shoe'",
        ),
    ],
)
def test_a_bad_submission_is_refused(tmp_path, header, row, message):
    ground_truth = files.write_truth(tmp_path / "t.csv", [("a", np.ones((9, 9)), "1")])
    rows = [("a", "1 1", 1)[: len(row)], row]
    with pytest.raises(InputError, match=message):
        score_files(files.write_csv(tmp_path / "s.csv", header, rows), ground_truth)


def test_a_submission_of_other_images_is_refused(circles, tmp_path):
    other = files.write_submission(tmp_path / "o.csv", [("o.jpg", np.ones((512, 512)), "1")])
    with pytest.raises(
        InputError, match=r"o\.csv: it has none of the 4 images to be scored; its first is 'o\.jpg'"
    ):
        score_files(other, circles[1])


def test_unknown_ids_are_refused(circles):
    with pytest.raises(InputError, match=r"train\.csv: no image has the id 'x', .* 1 others"):
        score_files(*circles, image_ids=["x", "y"])


def test_missing_files_are_refused(circles, tmp_path):
    for submission, ground_truth in ((tmp_path / "no", circles[1]), (circles[0], tmp_path / "no")):
        with pytest.raises(InputError, match=r"no: cannot be read"):
            score_files(submission, ground_truth)
