"""The annotation store against a plain reading of its source."""

from __future__ import annotations

import multiprocessing
import os
import pickle
import random

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from src.annotations.categories import IMATERIALIST_2019_LABELS
from src.annotations.conversion import convert
from src.annotations.formats import ReadingOptions
from src.annotations.image_files import ImageSizes
from src.annotations.store import AnnotationStore
from src.annotations.store_builder import build_store, open_or_build
from src.errors import InputError
from tests.helpers.annotation_files import (
    HEADER_2019,
    bitmap_of,
    objects_of,
    read_rows,
    write_lines,
)
from tests.helpers.masks import many_examples, rle_by_pixel_loop

ROWS = [
    "b.jpg,1 2 10 3,5,4,6_13_2",
    "a.jpg,3 4 7 1,3,3,31",
    "b.jpg,20 1,5,4,0",
    "d.jpg,,9,8,",
    "a.jpg,,3,3,32",
    "c.jpg,1 6,2,3,45",
    "a.jpg,9 1,3,3,31",
]


@pytest.fixture
def source(tmp_path):
    return write_lines(tmp_path / "rows.csv", HEADER_2019, *ROWS)


def test_store_holds_what_the_rows_say(tmp_path, source):
    report = build_store(source, tmp_path / "a.store")
    store = AnnotationStore(tmp_path / "a.store")
    assert [image.image_id for image in store.images] == ["a.jpg", "b.jpg", "c.jpg", "d.jpg"]
    assert [image.size_hw for image in store.images] == [(3, 3), (5, 4), (2, 3), (9, 8)]
    assert (len(store), store.num_instances, report.instances, report.images) == (4, 6, 6, 4)
    assert (report.images_without_instances, report.empty_masks, report.skipped_rows) == (1, 1, 0)
    assert store.category_sets() == [{31, 32}, {6, 0}, {45}, set()]
    assert store.labels == IMATERIALIST_2019_LABELS
    assert store.category_ids == tuple(range(46))
    assert store.index_of("c.jpg") == 2
    b = store.instances(1)
    assert b.category_ids.tolist() == [6, 0]
    assert b.attribute_ids == ((13, 2), ())
    assert [mask.runs.tolist() for mask in b.masks] == [[[0, 2], [9, 3]], [[19, 1]]]
    assert b.boxes_xyxy.tolist() == [[0, 0, 3, 5], [3, 4, 4, 5]]
    assert b.areas_px.tolist() == [5, 1]
    a = store.instances(0)
    assert a.category_ids.tolist() == [31, 32, 31]
    assert a.masks[1].runs.shape == (0, 2)
    assert a.boxes_xyxy[1].tolist() == [0, 0, 0, 0]
    assert len(store.instances(3)) == 0
    assert store.is_crowd(0).tolist() == [False] * 3


def test_views_are_typed_and_mapped(tmp_path, source):
    build_store(source, tmp_path / "a.store")
    objects = AnnotationStore(tmp_path / "a.store").instances(1)
    assert objects.category_ids.dtype == np.int16
    assert objects.boxes_xyxy.dtype == np.int32
    assert objects.areas_px.dtype == np.int64
    for array in (objects.category_ids, objects.boxes_xyxy, objects.areas_px):
        assert not array.flags.owndata
        assert not array.flags.writeable
    assert objects.masks.runs.dtype == np.int32


@settings(many_examples, max_examples=40)
@given(st.data())
def test_any_rows_in_any_order(tmp_path_factory, data):
    folder = tmp_path_factory.mktemp("store")
    sizes = {f"{n}.jpg": data.draw(st.tuples(st.integers(1, 9), st.integers(1, 9))) for n in "abc"}
    rows = []
    for _ in range(data.draw(st.integers(1, 8))):
        name = data.draw(st.sampled_from(sorted(sizes)))
        height, width = sizes[name]
        bits = data.draw(st.lists(st.booleans(), min_size=height * width, max_size=height * width))
        runs = rle_by_pixel_loop(np.array(bits).reshape(width, height).T).runs
        text = " ".join(f"{start + 1} {length}" for start, length in runs.tolist())
        rows.append((name, text, height, width, data.draw(st.integers(0, 45))))
    source = write_lines(
        folder / "rows.csv", HEADER_2019, *(",".join(map(str, row)) for row in rows)
    )
    build_store(source, folder / "a.store")
    store = AnnotationStore(folder / "a.store")
    assert [image.image_id for image in store.images] == sorted({row[0] for row in rows})
    for index, image in enumerate(store.images):
        objects = store.instances(index)
        expected = [row for row in rows if row[0] == image.image_id]
        assert objects.category_ids.tolist() == [row[4] for row in expected]
        for row, mask, box, area in zip(
            expected, objects.masks, objects.boxes_xyxy, objects.areas_px, strict=True
        ):
            bitmap = bitmap_of(row[1], height=row[2], width=row[3])
            assert mask == rle_by_pixel_loop(bitmap)
            assert area == bitmap.sum()
            ys, xs = bitmap.nonzero()
            limits = [xs.min(), ys.min(), xs.max() + 1, ys.max() + 1] if len(xs) else [0] * 4
            assert box.tolist() == limits


def test_many_blocks(tmp_path, monkeypatch):
    monkeypatch.setattr("src.annotations.imaterialist_csv.BLOCK_BYTES", 100)
    rows = [f"{number % 7}.jpg,{number + 1} 3,50,50,{number % 46}" for number in range(300)]
    source = write_lines(tmp_path / "rows.csv", HEADER_2019, *rows)
    build_store(source, tmp_path / "a.store")
    store = AnnotationStore(tmp_path / "a.store")
    assert len(store.description["runs_batch_starts"]) > 20
    starts = [mask.runs[0, 0] for mask in store.instances(3).masks]
    assert starts == list(range(3, 300, 7))
    random.Random(0).shuffle(rows)
    shuffled = write_lines(tmp_path / "shuffled.csv", HEADER_2019, *rows)
    build_store(shuffled, tmp_path / "b.store")
    assert sorted(objects_of(store)) == sorted(objects_of(AnnotationStore(tmp_path / "b.store")))


def test_pickled_store_reopens(tmp_path, source):
    build_store(source, tmp_path / "a.store")
    store = AnnotationStore(tmp_path / "a.store")
    again = pickle.loads(pickle.dumps(store))
    assert len(pickle.dumps(store)) < 500
    assert objects_of(again) == objects_of(store)


def test_open_or_build_follows_its_source(tmp_path, source, monkeypatch):
    built = []
    resolve_sizes = ImageSizes.resolve_sizes
    monkeypatch.setattr(
        ImageSizes, "resolve_sizes", lambda *args: built.append(1) or resolve_sizes(*args)
    )
    first = open_or_build(source, tmp_path / "cache")
    assert (len(built), first.num_instances) == (1, 6)
    open_or_build(source, tmp_path / "cache")
    assert len(built) == 1
    write_lines(source, HEADER_2019, *ROWS[:3])
    os.utime(source, ns=(1, 1))
    assert open_or_build(source, tmp_path / "cache").num_instances == 3
    assert first.instances(0).category_ids.tolist() == [31, 32, 31]  # still mapped
    assert (
        open_or_build(source, tmp_path / "cache", ReadingOptions(on_bad_rows="skip")).num_instances
        == 3
    )
    assert len(built) == 3
    open_or_build(source, tmp_path / "cache")
    assert len(built) == 3  # other arguments, another folder
    store = open_or_build(source, tmp_path / "cache")
    assert open_or_build(store.directory, tmp_path / "other").directory == store.directory


def _count_objects(source, cache):
    return open_or_build(source, cache).num_instances


def test_processes_share_one_build(tmp_path, source):
    with multiprocessing.get_context("fork").Pool(4) as pool:
        counts = pool.starmap(_count_objects, [(source, tmp_path / "cache")] * 8)
    assert counts == [6] * 8
    assert len([path for path in (tmp_path / "cache").iterdir() if path.is_dir()]) == 1


def test_rebuild_replaces_the_store_or_leaves_it(tmp_path, source):
    build_store(source, tmp_path / "a.store")
    bad = write_lines(tmp_path / "bad.csv", HEADER_2019, ROWS[0], "x.jpg,1 1,0,0,0")
    with pytest.raises(InputError, match="row 3"):
        build_store(bad, tmp_path / "a.store")
    assert AnnotationStore(tmp_path / "a.store").num_instances == 6
    build_store(write_lines(bad, HEADER_2019, ROWS[0]), tmp_path / "a.store")
    assert AnnotationStore(tmp_path / "a.store").num_instances == 1
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.store", "bad.csv", "rows.csv"]


def test_sizes_given_for_a_submission(tmp_path):
    source = write_lines(
        tmp_path / "submission.csv", "ImageId,EncodedPixels,ClassId", "a.jpg,262144 1,23"
    )
    with pytest.raises(InputError, match=r"columns must be .* without Height"):
        build_store(source, tmp_path / "a.store")
    build_store(source, tmp_path / "a.store", ReadingOptions(size_hw=(512, 512)))
    store = AnnotationStore(tmp_path / "a.store")
    assert store.images[0].size_hw == (512, 512)
    assert store.instances(0).boxes_xyxy.tolist() == [[511, 511, 512, 512]]


def test_unknown_image_and_damaged_stores(tmp_path, source):
    build_store(source, tmp_path / "a.store")
    store = AnnotationStore(tmp_path / "a.store")
    with pytest.raises(InputError, match=r"rows\.csv: no image has the id 'z\.jpg'"):
        store.index_of("z.jpg")
    with pytest.raises(InputError, match=r"gone: not an annotation store"):
        AnnotationStore(tmp_path / "gone")
    (tmp_path / "a.store" / "images.arrow").write_bytes(b"")
    with pytest.raises(InputError, match=r"images\.arrow: damaged \(.*\); build the store again"):
        AnnotationStore(tmp_path / "a.store")
    description = tmp_path / "a.store" / "store.json"
    description.write_text(description.read_text().replace('"format_version": 2', '"x": 1'))
    with pytest.raises(InputError, match=r"of format version None; this program reads version 2"):
        AnnotationStore(tmp_path / "a.store")


def test_images_without_any_object(tmp_path):
    source = write_lines(tmp_path / "rows.csv", HEADER_2019, "b.jpg,,9,8,", "a.jpg,,3,4,")
    build_store(source, tmp_path / "a.store")
    store = AnnotationStore(tmp_path / "a.store")
    assert [image.size_hw for image in store.images] == [(3, 4), (9, 8)]
    assert store.category_sets() == [set(), set()]
    assert store.instances(0).boxes_xyxy.shape == (0, 4)
    assert store.instances(1).attribute_ids == ()
    convert(tmp_path / "a.store", tmp_path / "o.json")
    convert(tmp_path / "o.json", tmp_path / "back.csv")
    assert read_rows(tmp_path / "back.csv") == read_rows(source)


def test_every_row_skipped_leaves_an_empty_store(tmp_path):
    source = write_lines(tmp_path / "rows.csv", HEADER_2019, "b.jpg,1 1,0,0,0")
    report = build_store(source, tmp_path / "a.store", ReadingOptions(on_bad_rows="skip"))
    assert (report.images, report.instances, report.skipped_rows) == (0, 0, 1)
    assert len(AnnotationStore(tmp_path / "a.store")) == 0
