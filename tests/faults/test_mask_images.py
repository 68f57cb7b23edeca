"""Damaged and hostile folders of mask images: each fault in one line with file and value."""

from __future__ import annotations

import csv
import os
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import scipy.io
from PIL import Image

from src.annotations import image_files
from src.annotations.conversion import convert
from src.annotations.formats import ReadingOptions
from src.annotations.mask_settings import MaskImageSettings
from src.errors import InputError
from tests.helpers.mask_folders import blocks, write_images, write_instance_files

ROOT = Path(__file__).parents[2]
SIZE_HW = (20, 30)
IDS = {"layout": "instance_ids", "classes": {1: "a", 2: "b"}, "class_divisor": 10}
LABELS = {"layout": "label_maps", "classes": {1: "a", 2: "b"}}


def read(source: Path, *, on_bad_rows: str = "error", images: Path | None = None, **values):
    return convert(
        source,
        source.parent / "out.json",
        ReadingOptions(
            on_bad_rows=on_bad_rows,
            images_directory=images,
            mask_images=MaskImageSettings.from_config(values),
        ),
    )


def save(values: np.ndarray, path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(values).save(path)


@pytest.fixture
def dsb(tmp_path) -> Path:
    """An image with a good mask, to which a test adds ``abc/masks/1.png``."""
    masks = {"abc": blocks(SIZE_HW, (2, 2, 9, 9)), "def": blocks(SIZE_HW, (1, 1, 3, 3))}
    return write_instance_files(tmp_path / "dsb", masks, size_hw=SIZE_HW)


def _truncated(path: Path) -> None:
    values = np.random.default_rng(0).integers(0, 2, SIZE_HW, dtype=np.uint8)
    save(values, path)
    path.write_bytes(path.read_bytes()[:-40])


def _colours(path: Path) -> None:
    values = np.zeros((*SIZE_HW, 4), dtype=np.uint8)
    values[0, 3] = (255, 0, 0, 255)
    save(values, path)


FAULTS = {
    "truncated": (_truncated, "the image is damaged or truncated"),
    "empty": (lambda path: path.write_bytes(b""), "not an image, or cut off in its header"),
    "text": (lambda path: path.write_text("no image"), "not an image"),
    "size": (
        lambda path: save(np.zeros((30, 20), dtype=np.uint8), path),
        "size must be that of the image, 20 x 30 px (height x width), got 30 x 20",
    ),
    "colours": (
        _colours,
        "red, green and blue must be equal in each pixel, got (255, 0, 0) in row 0, column 3",
    ),
    "values": (
        lambda path: save(np.arange(600, dtype=np.uint16).reshape(SIZE_HW), path),
        "values must be 0 and one other, got 1 beside 599 (598 pixels of values in between)",
    ),
    "link": (
        lambda path: path.symlink_to("/etc/hostname"),
        "must be a file of the folder, got one of the symbolic links that leave the folder",
    ),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_a_bad_mask_is_named_or_left_out_alone(dsb, fault):
    make, message = FAULTS[fault]
    make(dsb / "abc" / "masks" / "1.png")
    with pytest.raises(InputError, match=re.escape(message)) as caught:
        read(dsb)
    assert str(caught.value).startswith(f"{dsb}, abc/masks/1.png")
    assert "\n" not in str(caught.value)
    assert not (dsb.parent / "out.json").exists()
    report = read(dsb, on_bad_rows="skip")
    assert (report.images, report.instances, report.read.skipped_rows) == (2, 2, 1)
    (row,) = csv.DictReader(report.read.skipped_file.open())
    assert row["place"] == "abc/masks/1.png"
    assert message in row["reason"]


@pytest.mark.parametrize("what", ["no folder", "link", "two images", "no image"])
def test_an_image_that_cannot_be_told_is_named_and_the_others_stay(dsb, what):
    masks, images = dsb / "abc" / "masks", dsb / "abc" / "images"
    if what in ("no folder", "link"):
        (masks / "0.png").unlink()
        masks.rmdir()
        message = "abc: masks must be a folder of mask images, got none"
    if what == "link":
        masks.symlink_to(dsb / "def" / "masks")
        message = "abc: masks must be a folder of mask images, got none"
    if what == "two images":
        save(np.zeros(SIZE_HW, dtype=np.uint8), images / "other.png")
        message = "abc: images must hold one image, got 2: 'abc/images/abc.png', 'abc/images/other"
    if what == "no image":
        (images / "abc.png").unlink()
        message = "abc: images must hold the image of the masks, got none"
    with pytest.raises(InputError, match=re.escape(f"{dsb}, {message}")):
        read(dsb)
    report = read(dsb, on_bad_rows="skip")
    assert (report.images, report.instances) == (1, 1)


def test_an_image_folder_without_an_image_or_with_a_damaged_one(dsb, tmp_path):
    for mask in (dsb / "abc" / "masks").iterdir():
        mask.unlink()
    (dsb / "abc" / "images" / "abc.png").write_bytes(b"x")
    with pytest.raises(InputError, match=r"abc, .*must be readable where no mask tells the size"):
        read(dsb)
    save(np.zeros(SIZE_HW, dtype=np.uint8), dsb / "abc" / "masks" / "0.png")
    assert read(dsb).instances == 2  # the size is that of its mask
    with pytest.raises(InputError, match=r"abc\.png: not an image"):
        read(dsb, images=dsb)


def test_files_that_are_no_masks_are_counted_with_examples(dsb):
    (dsb / "abc" / "masks" / "Thumbs.db").write_text("x")
    (dsb / "abc" / "masks" / ".DS_Store").write_text("x")
    save(np.zeros(SIZE_HW, dtype=np.uint8), dsb / "abc" / "preview.png")
    os.mkfifo(dsb / "abc" / "masks" / "pipe.png")
    archived = dsb / "__MACOSX" / "abc" / "masks"  # of a zip that macOS made
    archived.mkdir(parents=True)
    (archived / "._0.png").write_bytes(b"Mac OS X")
    (note,) = read(dsb).read.notes
    for part in (
        "2 hidden ('__MACOSX/abc/masks/._0.png', 'abc/masks/.DS_Store')",
        "1 without an image suffix (",
        "'abc/masks/Thumbs.db'",
        "1 that are in no folder ID/images or ID/masks ('abc/preview.png')",
        "1 that are no regular files ('abc/masks/pipe.png')",
    ):
        assert part in note


@pytest.fixture
def maps(tmp_path) -> Path:
    """Label maps of two images in ``images``; a.png has a region of label 1."""
    write_images(tmp_path / "images", ["a.jpg", "b.jpg"], size_hw=SIZE_HW)
    labels = np.zeros(SIZE_HW, dtype=np.uint16)
    labels[3:6, 3:6] = 1
    save(labels, tmp_path / "maps" / "a.png")
    save(labels, tmp_path / "maps" / "b.png")
    return tmp_path / "maps"


def test_a_label_without_a_class_is_named_and_left_out_alone(maps):
    labels = np.array(Image.open(maps / "a.png"))
    labels[10:12, 0:4] = 9
    save(labels, maps / "a.png")
    images = maps.parent / "images"
    message = (
        f"{maps}, a.png, value 9, image 'a.jpg': label must be 1 to 2 (or one of "
        "mask_images.ignored_values), got 9 in 8 pixels"
    )
    with pytest.raises(InputError, match=re.escape(message)):
        read(maps, images=images, **LABELS)
    report = read(maps, images=images, on_bad_rows="skip", **LABELS)
    assert (report.instances, report.read.skipped_rows) == (2, 1)
    report = read(maps, images=images, ignored_values=[0, 9], **LABELS)
    assert (report.instances, report.read.notes) == (2, ())
    report = read(maps, images=images, ignored_values="all_others", **LABELS)
    assert report.read.notes == (
        "regions of labels that are no class, left out: 1 (the first: a.png, value 9)",
    )


def test_a_map_of_many_wrong_values_is_summed_up(maps):
    save(np.arange(600, dtype=np.uint16).reshape(SIZE_HW), maps / "b.png")
    report = read(maps, images=maps.parent / "images", on_bad_rows="skip", **LABELS)
    assert report.read.skipped_rows == 11
    rows = list(csv.DictReader(report.read.skipped_file.open()))
    assert rows[-1]["place"] == "b.png"
    assert rows[-1]["reason"] == "597 values are no class, 10 are named"


def test_folders_of_images_and_masks_side_by_side_are_taken_apart(maps):
    maps.rename(maps.parent / "masks")
    message = f"; annotations={maps.parent}/masks images={maps.parent}/images takes the folders"
    with pytest.raises(InputError, match=re.escape(message)):
        read(maps.parent)


def test_an_id_without_a_class_is_named(maps):
    save(np.full(SIZE_HW, 31, dtype=np.uint16), maps / "b.png")
    message = (
        "b.png, value 31, image 'b.jpg': class must be 1 to 2 (or one of "
        "mask_images.ignored_values), got 31 // 10 = 3"
    )
    with pytest.raises(InputError, match=re.escape(message)):
        read(maps, images=maps.parent / "images", **IDS)
    scipy.io.savemat(maps / "b.mat", {"ids": np.full(SIZE_HW, -1, dtype=np.int16)})
    (maps / "b.png").unlink()
    with pytest.raises(InputError, match=r"b\.mat, value -1, .*id must be 0 or more, got -1"):
        read(maps, images=maps.parent / "images", layout="instance_ids")


def test_a_map_of_another_size_or_without_its_image_is_named(maps):
    images = maps.parent / "images"
    save(np.zeros((10, 15), dtype=np.uint8), maps / "b.png")
    message = "b.png, image 'b.jpg': size must be that of the image, 20 x 30 px (height x width), g"
    with pytest.raises(InputError, match=re.escape(message)):
        read(maps, images=images, **LABELS)
    save(np.zeros(SIZE_HW, dtype=np.uint8), maps / "b.png")
    save(np.zeros(SIZE_HW, dtype=np.uint8), maps / "c.png")
    message = "c.png: images must hold one image c.jpg (or .png ...), got none"
    with pytest.raises(InputError, match=re.escape(message)):
        read(maps, images=images, **LABELS)
    write_images(images, ["c.jpg", "c.webp"], size_hw=SIZE_HW)
    message = "c.png: images must hold one image c.jpg (or .png ...), got 2: 'c.jpg', 'c.webp'"
    with pytest.raises(InputError, match=re.escape(message)):
        read(maps, images=images, **LABELS)


def test_a_missing_image_is_named_with_the_file_of_its_masks(maps):
    (maps.parent / "images" / "b.jpg").unlink()
    message = f"{maps}, b.png, image 'b.jpg': {maps.parent}/images/b.jpg: the image file is missing"
    with pytest.raises(InputError, match=re.escape(message)):
        read(maps, images=maps.parent / "images", image_suffix=".jpg", **LABELS)


def test_two_maps_of_an_image_are_refused(maps):
    scipy.io.savemat(maps / "a.mat", {"x": np.zeros(SIZE_HW)})
    message = "a.mat: must be the one mask image of 'a.jpg', got 2"
    with pytest.raises(InputError, match=re.escape(message)):
        read(maps, images=maps.parent / "images", **LABELS)
    assert read(maps, images=maps.parent / "images", on_bad_rows="skip", **LABELS).images == 1


def test_names_never_leave_the_image_folder(maps):
    secret = write_images(maps.parent / "secret", ["a.png"], size_hw=SIZE_HW)
    images = maps.parent / "linked"
    images.mkdir()
    (images / "a.png").symlink_to(secret / "a.png")
    values = {**LABELS, "image_suffix": ".png"}
    with pytest.raises(InputError, match=r"a\.png: file_name must lead to a file inside the image"):
        read(maps, images=images, **values)
    with pytest.raises(InputError, match=r"a\.png: images must hold one image a\.jpg .*, got none"):
        read(maps, images=images, **LABELS)


def test_a_large_mask_is_refused_before_its_pixels_are_read(maps, monkeypatch):
    monkeypatch.setattr(image_files, "_limit_megapixels", 0.001)
    Image.new("1", (400, 300)).save(maps / "a.png")
    with pytest.raises(InputError, match=r"a\.png, .*max_image_megapixels must be 1 or mor"):
        read(maps, images=maps.parent / "images", **LABELS)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        (
            {},
            "mask_images.layout must be instance_ids or label_maps for a folder without ID",
        ),
        ({"layout": "label_maps"}, "mask_images.classes must name the classes for"),
        ({"layout": "instance_ids", "class_divisor": 1000}, "must name the classes by id, from 1"),
        (
            {"layout": "instance_ids", "class_divisor": 9, "classes": {0: "a", 4: "b"}},
            "must name the classes by id, from 1 up, where mask_images.class_divisor=9, got [0, 4]",
        ),
        (
            {"layout": "instance_ids", "classes": {1: "a", 2: "b"}},
            "mask_images.classes must be one class, got 2 (1 to 2): of several classes",
        ),
        (
            {"layout": "instance_ids", "classes": {1: {"name": "a", "instances": "components"}}},
            "mask_images.classes.1.instances must be whole for mask_images.layout=instance_ids",
        ),
        (
            {"layout": "instance_files"},
            "must be a folder with a mask image, got none of mask_i",
        ),
    ],
)
def test_settings_that_a_layout_needs_are_named(maps, values, message):
    with pytest.raises(InputError, match=re.escape(message)):
        read(maps, images=maps.parent / "images", **values)


def test_a_folder_of_neither_kind_is_said_to_be_none(tmp_path):
    (tmp_path / "none").mkdir()
    (tmp_path / "none" / "a.txt").write_text("x")
    message = "or a folder of mask images, got a folder with neither store.json nor an image"
    with pytest.raises(InputError, match=message):
        read(tmp_path / "none")


def test_the_command_ends_in_one_line(dsb):
    (dsb / "abc" / "masks" / "1.png").write_bytes(b"\x89PNG\r\n\x1a\n")
    done = subprocess.run(
        [sys.executable, "-m", "src.convert", f"annotations={dsb}", f"output={dsb.parent}/o.json"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 2
    assert done.stderr.startswith(f"error: {dsb}, abc/masks/1.png, image 'abc/images/abc.png': not")
    assert done.stderr.count("\n") == 1
