"""Objects that stand twice in a file, and polygons of fewer than three points: counted, chosen."""

from __future__ import annotations

import json
import re

import numpy as np
import pytest

from src.annotations.conversion import convert
from src.annotations.formats import ReadingOptions
from src.annotations.store import AnnotationStore, open_store
from src.annotations.store_builder import build_store, open_or_build
from src.errors import InputError
from src.metrics.scoring import open_ground_truth
from tests.helpers.annotation_files import HEADER_2019, write_lines

SQUARE = [10, 5, 30, 5, 30, 25, 10, 25]
NOTE = (
    "exact duplicates of earlier instances (same image, category, attributes and mask), duplicates"
)
ROWS = [
    "a.jpg,1 2,5,4,6",
    "a.jpg,1 2,5,4,6",
    "a.jpg,1 2,5,4,6_1",  # another attribute
    "a.jpg,1 2,5,4,7",  # another category
    "a.jpg,1 3,5,4,6",  # another mask
    "b.jpg,1 2,5,4,6",  # another image
    "a.jpg,,5,4,6",
    "a.jpg,,5,4,6",  # nothing says that two masks without a pixel are one object
    "a,1 2,5,4,6",  # the same image
]


@pytest.fixture
def source(tmp_path):
    return write_lines(tmp_path / "in.csv", HEADER_2019, *ROWS)


def test_duplicates_are_counted_and_kept(tmp_path, source):
    report = build_store(source, tmp_path / "a.store")
    assert report.instances == 9
    assert f"{NOTE}=keep: 2" in report.notes
    store = open_store(tmp_path / "a.store")
    assert f"{NOTE}=keep: 2" in store.notes


def test_duplicates_are_counted_and_dropped(tmp_path, source):
    report = build_store(source, tmp_path / "a.store", ReadingOptions(duplicates="drop"))
    assert report.instances == 7
    assert f"{NOTE}=drop: 2" in report.notes
    store = open_store(tmp_path / "a.store")
    assert [len(store.instances(at)) for at in range(len(store))] == [6, 1]
    runs = [mask.runs.tolist() for mask in store.instances(0).masks]
    assert runs == [[[0, 2]], [[0, 2]], [[0, 2]], [[0, 3]], [], []]


def test_polygons_and_run_lengths_of_one_mask_are_duplicates(tmp_path):
    path = tmp_path / "in.json"
    counts = {"size": [40, 60], "counts": [405, 20, *[20, 20] * 19, 1200 - 5 + 20]}
    counts["counts"][-1] = 2400 - sum(counts["counts"][:-1])
    annotations = [
        {"id": 1, "image_id": 1, "category_id": 1, "segmentation": [SQUARE]},
        {"id": 2, "image_id": 1, "category_id": 1, "segmentation": counts},
        {"id": 3, "image_id": 1, "category_id": 1, "segmentation": [SQUARE], "iscrowd": 1},
    ]
    images = [{"id": 1, "file_name": "a.jpg", "height": 40, "width": 60}]
    categories = [{"id": 1, "name": "c"}]
    path.write_text(
        json.dumps({"images": images, "annotations": annotations, "categories": categories})
    )
    report = build_store(path, tmp_path / "a.store", ReadingOptions(duplicates="drop"))
    assert (report.instances, report.crowd_regions) == (2, 1)


def test_each_choice_has_a_cache_of_its_own(tmp_path, source):
    counts = [
        open_or_build(
            source, tmp_path / "cache", ReadingOptions(duplicates=duplicates)
        ).num_instances
        for duplicates in ("keep", "drop", "keep")
    ]
    assert counts == [9, 7, 9]
    with open_ground_truth(source, duplicates="drop", cache_dir=tmp_path / "cache") as ground_truth:
        assert ground_truth.store.num_instances == 7


def test_duplicates_of_a_store_that_has_them_are_not_dropped_silently(tmp_path, source):
    build_store(source, tmp_path / "a.store")
    message = re.escape("duplicates must be keep for a store that was made with 2 exact duplicates")
    with pytest.raises(InputError, match=message):
        open_or_build(tmp_path / "a.store", tmp_path / "cache", ReadingOptions(duplicates="drop"))
    with pytest.raises(InputError, match=message):
        convert(tmp_path / "a.store", tmp_path / "out.csv", ReadingOptions(duplicates="drop"))
    build_store(source, tmp_path / "b.store", ReadingOptions(duplicates="drop"))
    assert (
        open_or_build(
            tmp_path / "b.store", tmp_path, ReadingOptions(duplicates="drop")
        ).num_instances
        == 7
    )


def test_a_choice_that_is_none_is_refused(tmp_path, source):
    for directory in (source, tmp_path / "in.csv"):
        with pytest.raises(InputError, match="duplicates must be one of keep, drop, got 'no'"):
            open_or_build(directory, tmp_path / "cache", ReadingOptions(duplicates="no"))


@pytest.mark.parametrize("short", [[], [1, 1], [1, 1, 2, 2]])
def test_a_polygon_of_fewer_than_three_points_is_dropped(tmp_path, short):
    path = tmp_path / "in.json"
    annotations = [
        {"id": 1, "image_id": 1, "category_id": 1, "segmentation": [SQUARE]},
        {"id": 2, "image_id": 1, "category_id": 1, "segmentation": [short, SQUARE, short]},
    ]
    content = {
        "images": [{"id": 1, "file_name": "a.jpg", "height": 40, "width": 60}],
        "annotations": annotations,
        "categories": [{"id": 1, "name": "c"}],
    }
    path.write_text(json.dumps(content))
    report = build_store(path, tmp_path / "a.store")
    first, second = AnnotationStore(tmp_path / "a.store").instances(0).masks
    np.testing.assert_array_equal(first, second)
    assert (
        "polygons of fewer than three points, left out of instances that have others: 2"
        in report.notes
    )
    content["annotations"][0]["segmentation"] = [short]
    path.write_text(json.dumps(content))
    with pytest.raises(
        InputError, match=rf"polygon 1 of 1 must be .*, got {len(short)} coordinates"
    ):
        build_store(path, tmp_path / "a.store")
