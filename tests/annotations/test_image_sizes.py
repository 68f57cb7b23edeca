"""Annotated sizes against the images' own: exchanged ones are repaired, others reported."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.testing import assert_array_equal
from PIL import Image

from src.annotations.formats import ReadingOptions
from src.annotations.store import AnnotationStore
from src.annotations.store_builder import build_store
from src.errors import InputError
from tests.helpers.annotation_files import HEADER_2019, bitmap_of, read_rows, write_lines


@pytest.fixture
def images(tmp_path):
    """right.jpg and sideways.jpg are 30 x 20 (height x width) as displayed, small.jpg 15 x 10."""
    folder = tmp_path / "images"
    folder.mkdir()
    Image.new("RGB", (20, 30)).save(folder / "right.jpg")
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.new("RGB", (30, 20)).save(folder / "sideways.jpg", exif=exif)
    noise = np.random.default_rng(0).integers(256, size=(15, 10), dtype=np.uint8)
    Image.fromarray(noise).save(folder / "small.jpg", quality=95)
    return folder


def test_exchanged_sizes_are_repaired_and_others_reported(tmp_path, images):
    source = write_lines(
        tmp_path / "rows.csv",
        HEADER_2019,
        "right.jpg,1 35,30,20,6",
        "sideways.jpg,35 20 65 20 95 20 125 20,20,30,6",
        "small.jpg,1 35,30,20,6",
        "sideways.jpg,569 2 599 2,20,30,6",
    )
    report = build_store(source, tmp_path / "a.store", ReadingOptions(images_directory=images))
    store = AnnotationStore(tmp_path / "a.store")
    assert [image.size_hw for image in store.images] == [(30, 20)] * 3
    assert [(f.image_id, f.annotated_hw, f.image_hw, f.repaired) for f in report.size_findings] == [
        ("sideways.jpg", (20, 30), (30, 20), True),
        ("small.jpg", (30, 20), (15, 10), False),
    ]
    objects = store.instances(store.index_of("sideways.jpg"))
    assert_array_equal(objects.masks[0].runs, [[34, 20], [64, 20], [94, 20], [124, 20]])
    bitmap = bitmap_of("35 20 65 20 95 20 125 20", height=30, width=20)
    rows, columns = bitmap.nonzero()
    box = [columns.min(), rows.min(), columns.max() + 1, rows.max() + 1]
    assert objects.boxes_xyxy[0].tolist() == box
    assert objects.boxes_xyxy[1].tolist() == [18, 28, 20, 30]


def test_size_of_the_image_wins_a_vote(tmp_path, images):
    source = write_lines(
        tmp_path / "rows.csv",
        HEADER_2019,
        "right.jpg,1 5,40,40,6",
        "right.jpg,1 6,40,40,6",
        "right.jpg,1 7,20,30,6",
        "right.jpg,1 8,30,20,6",
    )
    report = build_store(
        source, tmp_path / "a.store", ReadingOptions(images_directory=images, on_bad_rows="skip")
    )
    store = AnnotationStore(tmp_path / "a.store")
    assert store.images[0].size_hw == (30, 20)
    assert [mask.runs.tolist() for mask in store.instances(0).masks] == [[[0, 7]], [[0, 8]]]
    assert [row["place"] for row in read_rows(report.skipped_file)] == ["row 2", "row 3"]


@pytest.mark.parametrize(
    ("fault", "message"),
    [
        ("missing", "small.jpg: the image file is missing"),
        ("truncated", "small.jpg: .*truncated"),
        ("foreign", "small.jpg: not an image"),
    ],
)
def test_missing_and_damaged_images(tmp_path, images, fault, message):
    source = write_lines(
        tmp_path / "rows.csv",
        HEADER_2019,
        "right.jpg,1 5,30,20,6",
        "small.jpg,1 6,15,10,6",
        "right.jpg,1 7,30,20,6",
        "small.jpg,1 8,15,10,6",
    )
    path = images / "small.jpg"
    if fault == "missing":
        path.unlink()
    else:
        path.write_bytes(path.read_bytes()[:-20] if fault == "truncated" else b"hello")
    with pytest.raises(InputError, match=rf"row 3, image 'small.jpg': .*{message}"):
        build_store(source, tmp_path / "a.store", ReadingOptions(images_directory=images))
    report = build_store(
        source, tmp_path / "a.store", ReadingOptions(images_directory=images, on_bad_rows="skip")
    )
    assert [image.image_id for image in AnnotationStore(tmp_path / "a.store").images] == [
        "right.jpg"
    ]
    assert report.instances == 2
    assert [row["place"] for row in read_rows(report.skipped_file)] == ["row 3", "row 5"]
