from __future__ import annotations

import pytest

from tests.helpers import annotation_files as files


@pytest.fixture
def circles(tmp_path):
    ground_truth, prediction = files.circles(images=4, sizes_hw=[(300, 200), (90, 700), (512, 512)])
    return (
        files.write_submission(tmp_path / "submission.csv", prediction),
        files.write_truth(tmp_path / "train.csv", ground_truth),
    )
