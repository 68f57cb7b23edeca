"""Reading COCO JSON of every dialect, against pycocotools; its faults; what is written."""

from __future__ import annotations

import copy
import json
import re
import shutil

import numpy as np
import pytest
from numpy.testing import assert_array_equal
from pycocotools import mask as coco_mask
from pycocotools.coco import COCO

from src.annotations.conversion import convert
from src.annotations.formats import ReadingOptions
from src.annotations.store import AnnotationStore
from src.annotations.store_builder import build_store
from src.errors import InputError
from src.rle import decode
from tests.helpers.annotation_files import (
    HEADER_2019,
    objects_of,
    read_rows,
    write_lines,
)
from tests.helpers.real_data import real_data

SQUARE = [1.0, 1.0, 6.0, 1.0, 6.0, 7.0, 1.0, 7.0]
TRIANGLE = [10.5, 2.0, 15.0, 9.0, 9.0, 9.0]


def compressed(bitmap: np.ndarray) -> dict:
    encoded = coco_mask.encode(np.asfortranarray(bitmap.astype(np.uint8)))
    return {"size": list(encoded["size"]), "counts": encoded["counts"].decode()}


def noise(height: int, width: int) -> np.ndarray:
    return np.random.default_rng(5).random((height, width)) < 0.4


@pytest.fixture
def content() -> dict:
    """Images of 12 x 20 and 30 x 9 (height x width), one without objects, masks of all kinds."""
    return {
        "info": {"year": 2020},
        "annotations": [
            {"id": 1, "image_id": 7, "category_id": 3, "segmentation": [SQUARE], "iscrowd": 0,
             "attribute_ids": [9, 4]},
            {"id": 2, "image_id": 7, "category_id": 0, "segmentation": [SQUARE, TRIANGLE]},
            {"id": 3, "image_id": 9, "category_id": 3, "segmentation": compressed(noise(30, 9))},
            {"id": 3, "image_id": 7, "category_id": 3, "iscrowd": 1,
             "segmentation": {"size": [12, 20], "counts": [3, 4, 0, 5, 228]}},
            {"id": 4, "image_id": 9, "category_id": 0, "segmentation": []},
        ],
        "images": [
            {"id": 7, "file_name": "a.jpg", "height": 12, "width": 20},
            {"id": 8, "file_name": "b.png", "height": 5, "width": 5},
            {"id": 9, "file_name": "c.jpg", "height": 30, "width": 9},
        ],
        "categories": [{"id": 3, "name": "hat", "supercategory": "a"}, {"id": 0, "name": "shoe"}],
        "attributes": [{"id": 4, "name": "red"}, {"id": 9, "name": "old"}],
    }  # fmt: skip


def build(tmp_path, content, **options):
    path = tmp_path / "coco.json"
    path.write_text(json.dumps(content))
    report = build_store(path, tmp_path / "a.store", ReadingOptions(**options))
    return AnnotationStore(tmp_path / "a.store"), report


def test_masks_of_all_kinds(tmp_path, content):
    store, report = build(tmp_path, content)
    assert [image.image_id for image in store.images] == ["a.jpg", "b.png", "c.jpg"]
    assert store.category_ids == (0, 3)
    assert store.category_sets() == [{0, 3}, set(), {0, 3}]
    a, c = store.instances(0), store.instances(2)
    assert a.category_ids.tolist() == [3, 0, 3]
    assert a.attribute_ids == ((9, 4), (), ())
    square = coco_mask.decode(coco_mask.merge(coco_mask.frPyObjects([SQUARE], 12, 20)))
    both = coco_mask.decode(coco_mask.merge(coco_mask.frPyObjects([SQUARE, TRIANGLE], 12, 20)))
    assert_array_equal(decode(a.masks[0]), square)
    assert_array_equal(decode(a.masks[1]), both)
    assert a.masks[2].runs.tolist() == [[3, 4], [7, 5]]
    assert store.is_crowd(0).tolist() == [False, False, True]
    assert_array_equal(decode(c.masks[0]), noise(30, 9))
    assert len(c.masks[1].runs) == 0
    assert (report.kind, report.images, report.instances, report.empty_masks) == ("coco", 3, 5, 1)
    assert report.images_without_instances == 1
    assert report.notes == (
        "1 annotation ids had occurred before; instances are numbered again when written",
    )


def test_order_of_members_does_not_matter(tmp_path, content):
    first, _ = build(tmp_path, content)
    expected = objects_of(first)
    turned, _ = build(tmp_path, dict(reversed(content.items())))
    assert objects_of(turned) == expected


BAD_ANNOTATIONS = [
    ({"segmentation": [[1, 2, 3, 4]]}, "segmentation: polygon 1 of 1 must be x1, y1"),
    ({"segmentation": [SQUARE, [1, 2, 3, 4, 5]]}, "segmentation: polygon 2 of 2 must be x1, y1"),
    ({"segmentation": [[1, 2, 3, "x", 5, 6]]}, "segmentation: polygon 1 of 1"),
    ({"segmentation": [[1, 2, 3, float("nan"), 5, 6]]}, "segmentation: polygon 1 of 1"),
    ({"segmentation": {"size": [20, 12], "counts": [240]}}, "segmentation: size must be that"),
    ({"segmentation": {"size": [12, 20], "counts": [3, 4]}}, "segmentation: counts must sum"),
    ({"segmentation": {"size": [12, 20], "counts": [3, -4, 241]}}, "segmentation: count 2 of 3"),
    ({"segmentation": {"size": [12, 20], "counts": [3, "x"]}}, "segmentation: counts must be"),
    ({"segmentation": {"size": [12, 20], "counts": "ab~"}}, "segmentation: compressed counts:"),
    ({"segmentation": {"size": [12, 20], "counts": "T"}}, "segmentation: compressed counts must"),
    ({"segmentation": {"size": [12, 20]}}, "segmentation: counts must be a list or a text"),
    ({"segmentation": None}, "segmentation: must be a list of polygons, or an object"),
    ({"category_id": 5}, "category must be 0, 3, got 5"),
    ({"category_id": "3"}, "category must be 0, 3, got '3'"),
    ({"attribute_ids": [4, 5]}, "attribute must be 4, 9, got 5"),
    ({"attribute_ids": ["4"]}, "attribute must be a whole number from 0 to 32767, got '4'"),
    ({"attribute_ids": 4}, "attribute_ids must be a list, got 4"),
    ({"iscrowd": 2}, "iscrowd must be 0 or 1, got 2"),
    ({"image_id": 70}, "image_id must be that of a usable image, got 70"),
    ({"image_id": None}, "image_id must be that of a usable image, got None"),
]  # fmt: skip


@pytest.mark.parametrize(("change", "reason"), BAD_ANNOTATIONS)
def test_bad_annotation_is_named_and_costs_no_other(tmp_path, content, change, reason):
    good, _ = build(tmp_path, content)
    expected = objects_of(good)
    bad = {"id": 50, "image_id": 7, "category_id": 3, "segmentation": [SQUARE]} | change
    content["annotations"].insert(1, bad)
    image = "'a.jpg'" if bad["image_id"] == 7 else ""
    with pytest.raises(
        InputError, match=rf"coco\.json, annotations\[1\](, image {image}.*)?: "
    ) as info:
        build(tmp_path, content)
    assert reason in str(info.value)
    store, report = build(tmp_path, content, on_bad_rows="skip")
    assert objects_of(store) == expected
    (skipped,) = read_rows(report.skipped_file)
    assert skipped["reason"].startswith(reason)
    assert skipped["original"] == json.dumps(bad)


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"height": 0}, "height must be a whole number from 1 to 2147483647, got 0"),
        ({"width": "x"}, "width must be a whole number from 1 to 2147483647, got 'x'"),
        ({"width": None}, "width must be a whole number from 1 to 2147483647, got 'None'"),
        ({"file_name": "../c.jpg"}, "file_name must be a path relative to the image folder and"),
        ({"file_name": "/c.jpg"}, "file_name must be a path relative to the image folder and"),
        ({"file_name": None}, "file_name must be a text, got None"),
        ({"id": None}, "id must be a whole number, got None"),
    ],
)
def test_bad_image_is_named_and_costs_only_its_objects(tmp_path, content, change, reason):
    content["images"][2] |= change
    with pytest.raises(InputError, match=r"coco\.json, images\[2\].*: " + re.escape(reason)):
        build(tmp_path, content)
    store, report = build(tmp_path, content, on_bad_rows="skip")
    assert [image.image_id for image in store.images] == ["a.jpg", "b.png"]
    assert report.skipped_rows == 3


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"categories": None}, r"categories must be a list .*coco\.json"),
        ({"images": None}, r"images must be a list .*coco\.json"),
        ({"annotations": None}, r"annotations must be a list .*coco\.json"),
        ({"annotations": {"a": 1}}, r"annotations must be a list .*coco\.json"),
        ({"categories": []}, r"categories must hold at least one category"),
    ],
)
def test_missing_lists(tmp_path, content, change, message):
    with pytest.raises(InputError, match=message):
        build(tmp_path, content | change)


def test_labels_may_come_from_elsewhere(tmp_path, content):
    labels = tmp_path / "labels.json"
    labels.write_text(json.dumps({key: content.pop(key) for key in ("categories", "attributes")}))
    with pytest.raises(InputError, match="categories must be a list"):
        build(tmp_path, content)
    store, _ = build(tmp_path, content, label_descriptions=labels)
    assert store.category_ids == (0, 3)


def test_results_are_no_annotations(tmp_path):
    (tmp_path / "results.json").write_text('[{"image_id": 1}]')
    with pytest.raises(
        InputError, match=r"got a JSON list, as COCO results are: predictions \(.*results.json\)"
    ):
        build_store(tmp_path / "results.json", tmp_path / "a.store")


def test_written_file_is_what_pycocotools_reads(tmp_path, content):
    store, _ = build(tmp_path, content)
    convert(tmp_path / "coco.json", tmp_path / "out.json")
    written = json.loads((tmp_path / "out.json").read_text())
    assert [image["file_name"] for image in written["images"]] == ["a.jpg", "b.png", "c.jpg"]
    assert [entry["id"] for entry in written["annotations"]] == [1, 2, 3, 4, 5]
    assert written["annotations"][0]["attribute_ids"] == [9, 4]
    assert [entry["iscrowd"] for entry in written["annotations"]] == [0, 0, 0, 1, 0]
    coco = COCO(str(tmp_path / "out.json"))
    for index in range(len(store)):
        objects = store.instances(index)
        entries = coco.loadAnns(coco.getAnnIds(imgIds=[index + 1]))
        assert len(entries) == len(objects)
        for entry, mask, box in zip(entries, objects.masks, objects.boxes_xyxy, strict=True):
            assert_array_equal(coco.annToMask(entry), decode(mask))
            assert entry["area"] == coco_mask.area(coco.annToRLE(entry))
            if entry["area"]:
                assert entry["bbox"] == coco_mask.toBbox(coco.annToRLE(entry)).tolist()
            assert entry["bbox"] == [*box[:2], box[2] - box[0], box[3] - box[1]]
    again = build_store(tmp_path / "out.json", tmp_path / "b.store")
    assert objects_of(AnnotationStore(tmp_path / "b.store")) == objects_of(store)
    assert again.notes == ()


def test_backslash_in_the_counts(tmp_path):
    # Some counts are written with a backslash, the one character that JSON escapes.
    rows = [f"a.jpg,{start} {length},200,200,1" for start in range(1, 90) for length in (1, 44, 92)]
    source = write_lines(tmp_path / "rows.csv", HEADER_2019, *rows)
    convert(source, tmp_path / "out.json")
    assert "\\\\" in (tmp_path / "out.json").read_text()
    convert(tmp_path / "out.json", tmp_path / "back.csv")
    assert (tmp_path / "back.csv").read_bytes() == source.read_bytes()


def test_every_annotation_bad_leaves_images_out(tmp_path, content):
    broken = copy.deepcopy(content)
    for entry in broken["annotations"]:
        entry["category_id"] = 77
    store, report = build(tmp_path, broken, on_bad_rows="skip")
    assert report.skipped_rows == 5
    assert [image.image_id for image in store.images] == ["b.png"]


def test_fashionpedia_sample(tmp_path):
    sample = real_data("fashionpedia_sample")
    shutil.copy(sample / "annotations.json", tmp_path / "coco.json")
    report = build_store(
        tmp_path / "coco.json",
        tmp_path / "a.store",
        ReadingOptions(images_directory=sample / "images"),
    )
    assert (report.images, report.instances, report.size_findings) == (2, 12, ())
    store = AnnotationStore(tmp_path / "a.store")
    coco = COCO(str(tmp_path / "coco.json"))
    for image_id, image in coco.imgs.items():
        index = store.index_of(image["file_name"])
        objects = store.instances(index)
        entries = coco.loadAnns(coco.getAnnIds(imgIds=[image_id]))
        assert objects.category_ids.tolist() == [entry["category_id"] for entry in entries]
        assert objects.attribute_ids == tuple(tuple(entry["attribute_ids"]) for entry in entries)
        for mask, entry in zip(objects.masks, entries, strict=True):
            assert_array_equal(decode(mask), coco.annToMask(entry))
