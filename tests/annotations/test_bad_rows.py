"""Every kind of bad input: the exact words, nothing left behind, and no other row lost."""

from __future__ import annotations

import re

import pytest

from src.annotations.conversion import convert
from src.annotations.formats import ReadingOptions
from src.annotations.rows import describe_ids
from src.annotations.store import TABLES, AnnotationStore
from src.annotations.store_builder import build_store
from src.errors import InputError
from tests.helpers.annotation_files import (
    HEADER_2019,
    HEADER_2020,
    objects_of,
    read_rows,
    write_lines,
)

GOOD = ["a.jpg,1 2 10 3,5,4,6_1_0", "c.jpg,,7,7,", "a.jpg,20 1,5,4,0"]

INSIDE = "must be a path relative to the image folder and inside it"

# (row, the image as far as it can be read, what is said)
BAD_ROWS = [
    (
        "b.jpg,1 2 3,5,4,6",
        "b.jpg",
        "EncodedPixels: the number of values must be even, a length for each start, got 3",
    ),
    (
        "b.jpg,1 2 19 3,5,4,6",
        "b.jpg",
        "EncodedPixels: run 2 (start 19, length 3) must end by pixel 20",
    ),
    ("b.jpg,10 3 1 2,5,4,6", "b.jpg", "EncodedPixels: run 2 (start 1, length 2) must start after"),
    (
        "b.jpg,1 5 3 4,5,4,6",
        "b.jpg",
        "EncodedPixels: run 2 (start 3, length 4) must not overlap run 1",
    ),
    (
        "b.jpg,1 0,5,4,6",
        "b.jpg",
        "EncodedPixels: run 1 (start 1, length 0) must have a length of 1",
    ),
    (
        "b.jpg,4 -2,5,4,6",
        "b.jpg",
        "EncodedPixels: run 1 (start 4, length -2) must have a length of 1",
    ),
    (
        "b.jpg,0 2,5,4,6",
        "b.jpg",
        "EncodedPixels: run 1 (start 0, length 2) must start at 1 or later",
    ),
    ("b.jpg,1 two,5,4,6", "b.jpg", "EncodedPixels: value 2 must be a whole number, got 'two'"),
    ("b.jpg,1 2,5,4,46", "b.jpg", "category must be 0 to 45, got 46"),
    ("b.jpg,1 2,5,4,shoe", "b.jpg", "category must be a whole number from 0 to 32767, got 'shoe'"),
    ("b.jpg,1 2,5,4,-1", "b.jpg", "category must be a whole number from 0 to 32767, got -1"),
    ("b.jpg,1 2,5,4,6_92", "b.jpg", "attribute must be 0 to 91, got 92"),
    ("b.jpg,1 2,5,4,6_", "b.jpg", "attribute must be a whole number from 0 to 32767, got ''"),
    (
        "b.jpg,1 2,5,4,",
        "b.jpg",
        "the category must be given where EncodedPixels is, got an empty one",
    ),
    ("b.jpg,1 2,0,4,6", "b.jpg", "Height must be a whole number from 1 to 2147483647, got 0"),
    ("b.jpg,1 2,5,-4,6", "b.jpg", "Width must be a whole number from 1 to 2147483647, got -4"),
    (
        "b.jpg,1 2,tall,4,6",
        "b.jpg",
        "Height must be a whole number from 1 to 2147483647, got 'tall'",
    ),
    ("b.jpg,1 2,5,4.5,6", "b.jpg", "Width must be a whole number from 1 to 2147483647, got '4.5'"),
    ("b.jpg,1 2,,4,6", "b.jpg", "Height must be a whole number from 1 to 2147483647, got ''"),
    (
        "b.jpg,1 2,99999,99999,6",
        "b.jpg",
        "Height times Width must be at most 2147483647 pixels, got 99999 x 99999",
    ),
    ("../b.jpg,1 2,5,4,6", "../b.jpg", f"ImageId {INSIDE}, got '../b.jpg'"),
    ("x/../../b.jpg,1 2,5,4,6", "x/../../b.jpg", f"ImageId {INSIDE}, got 'x/../../b.jpg'"),
    ("x\\..\\..\\b,1 2,5,4,6", "x\\..\\..\\b", f"ImageId {INSIDE}, got "),
    ("/b.jpg,1 2,5,4,6", "/b.jpg", f"ImageId {INSIDE}, got '/b.jpg'"),
    ("C:\\b.jpg,1 2,5,4,6", "C:\\b.jpg", f"ImageId {INSIDE}, got "),
    ("s3://x/b.jpg,1 2,5,4,6", "s3://x/b.jpg", f"ImageId {INSIDE}, got 's3://x/b.jpg'"),
    ("..,1 2,5,4,6", "..", f"ImageId {INSIDE}, got '..'"),
    ("b\0.jpg,1 2,5,4,6", "b\0.jpg", "ImageId must be free of control characters, got"),
    (",1 2,5,4,6", "", "ImageId must name an image, got ''"),
    ("x/,1 2,5,4,6", "x/", "ImageId must name an image, got 'x/'"),
    ("b.jpg,1 2,5,4", "", "the row must have 5 values, got 4"),
    ("b.jpg,1 2,5,4,6,7", "", "the row must have 5 values, got 6"),
    ('b.jpg,"1 2,5,4,6', "", "quotes must enclose a value, got one misplaced or not closed"),
    (b"b.jpg,1 2,5,4,6\xff", "", "the row must be UTF-8 text, got byte 0xff at position 15"),
]


@pytest.mark.parametrize(("row", "image", "reason"), BAD_ROWS)
def test_error_names_file_row_image_and_value(tmp_path, row, image, reason):
    source = write_lines(tmp_path / "rows.csv", HEADER_2019, *GOOD[:2], row, GOOD[2])
    place = f"{source}, row 4, image {image!r}: " if image else f"{source}, row 4: "
    with pytest.raises(InputError, match="^" + re.escape(place + reason)):
        convert(source, tmp_path / "out" / "rows.json")
    assert list((tmp_path / "out").iterdir()) == []


@pytest.mark.parametrize(("row", "image", "reason"), BAD_ROWS)
def test_skipped_row_costs_no_other(tmp_path, row, image, reason):
    source = write_lines(tmp_path / "rows.csv", HEADER_2019, *GOOD[:2], row, GOOD[2])
    good = write_lines(tmp_path / "good.csv", HEADER_2019, *GOOD)
    report = build_store(source, tmp_path / "a.store", ReadingOptions(on_bad_rows="skip"))
    build_store(good, tmp_path / "good.store")
    store, expected = (
        AnnotationStore(tmp_path / "a.store"),
        AnnotationStore(tmp_path / "good.store"),
    )
    assert objects_of(store) == objects_of(expected)
    assert store.images == expected.images
    assert report.skipped_rows == 1
    assert report.skipped_file == tmp_path / "a.store.skipped.csv"
    (skipped,) = read_rows(report.skipped_file)
    assert (skipped["place"], skipped["image"]) == ("row 4", image)
    assert skipped["reason"].startswith(reason)
    original = row if isinstance(row, str) else row.decode(errors="backslashreplace")
    assert skipped["original"] == original


def test_all_of_them_at_once(tmp_path):
    rows = [row for row, _, _ in BAD_ROWS]
    source = write_lines(tmp_path / "rows.csv", HEADER_2019, *GOOD[:2], *rows, GOOD[2])
    report = convert(
        source,
        tmp_path / "o.csv",
        ReadingOptions(on_bad_rows="skip"),
        skipped_file=tmp_path / "s" / "bad.csv",
    )
    assert report.read.skipped_rows == len(BAD_ROWS)
    assert len(read_rows(tmp_path / "s" / "bad.csv")) == len(BAD_ROWS)
    good = write_lines(tmp_path / "good.csv", HEADER_2019, *GOOD)
    assert read_rows(tmp_path / "o.csv") == read_rows(good)


def test_lowest_row_is_the_one_named(tmp_path):
    # The first is found when runs are checked, the second earlier, when fields are.
    source = write_lines(tmp_path / "rows.csv", HEADER_2019, "a.jpg,1 99,5,4,6", "b.jpg,1 2,0,4,6")
    with pytest.raises(InputError, match=r"row 2, image 'a.jpg'"):
        build_store(source, tmp_path / "a.store")


def test_no_skipped_file_where_nothing_is_skipped(tmp_path):
    source = write_lines(tmp_path / "rows.csv", HEADER_2019, *GOOD)
    stale = write_lines(tmp_path / "o.json.skipped.csv", "place,image,reason,original")
    report = convert(source, tmp_path / "o.json", ReadingOptions(on_bad_rows="skip"))
    assert report.read.skipped_file is None
    assert not stale.exists()


def test_image_that_lost_all_its_rows_is_left_out(tmp_path):
    source = write_lines(
        tmp_path / "rows.csv", HEADER_2019, *GOOD, "d.jpg,1 99,5,4,6", "a.jpg,1 99,5,4,6"
    )
    build_store(source, tmp_path / "a.store", ReadingOptions(on_bad_rows="skip"))
    store = AnnotationStore(tmp_path / "a.store")
    assert [image.image_id for image in store.images] == ["a.jpg", "c.jpg"]


def test_rows_of_an_image_must_agree_on_its_size(tmp_path):
    lines = ["a.jpg,1 2,50,40,6", *GOOD, "b.jpg,1 1,1,1,1"]
    source = write_lines(tmp_path / "rows.csv", HEADER_2019, *lines)
    message = "row 2, image 'a.jpg': Height and Width must be 5 and 4 as in"
    with pytest.raises(InputError, match=re.escape(message)):
        build_store(source, tmp_path / "a.store")
    assert [path.name for path in tmp_path.iterdir()] == ["rows.csv"]
    report = build_store(source, tmp_path / "a.store", ReadingOptions(on_bad_rows="skip"))
    good = write_lines(tmp_path / "good.csv", HEADER_2019, *lines[1:])
    build_store(good, tmp_path / "good.store")
    assert objects_of(AnnotationStore(tmp_path / "a.store")) == objects_of(
        AnnotationStore(tmp_path / "good.store")
    )
    (skipped,) = read_rows(report.skipped_file)
    assert skipped["original"] == lines[0]


@pytest.mark.parametrize("block_bytes", [1, 2**20])
def test_nothing_of_rows_with_another_size_stays(tmp_path, monkeypatch, block_bytes):
    monkeypatch.setattr("src.annotations.imaterialist_csv.BLOCK_BYTES", block_bytes)
    good = [*GOOD, "b.jpg,1 1,1,1,1", "a.jpg,9 2,5,4,8", "a.jpg,4 1,5,4,7"]
    lines = ["a.jpg,1 1,6,4,3", *good[:3], "a.jpg,,7,4,", "a.jpg,2 1,6,4,3", "a.jpg,,6,4,2"]
    source = write_lines(tmp_path / "rows.csv", HEADER_2019, *lines, *good[3:])
    write_lines(tmp_path / "good.csv", HEADER_2019, *good)
    report = build_store(source, tmp_path / "a.store", ReadingOptions(on_bad_rows="skip"))
    wanted = build_store(tmp_path / "good.csv", tmp_path / "good.store")
    assert (report.skipped_rows, report.instances, report.empty_masks) == (4, wanted.instances, 0)
    for name in ("images.arrow", "instances.arrow"):
        written = (tmp_path / "a.store" / name).read_bytes()
        assert written == (tmp_path / "good.store" / name).read_bytes()
    assert sorted(path.name for path in (tmp_path / "a.store").iterdir()) == sorted(
        [*TABLES, "store.json"]
    )
    for name in ("a.json", "a.csv"):
        outputs = [tmp_path / f"{which}_{name}" for which in ("good", "source", "store")]
        convert(tmp_path / "good.csv", outputs[0])
        convert(source, outputs[1], ReadingOptions(on_bad_rows="skip"))
        convert(tmp_path / "a.store", outputs[2])
        first, *others = [path.read_bytes() for path in outputs]
        assert others == [first, first]


@pytest.mark.parametrize("name", HEADER_2019.split(","))
def test_missing_column(tmp_path, name):
    header = HEADER_2019.replace(name, "Other")
    source = write_lines(tmp_path / "rows.csv", header, *GOOD)
    expected = (
        "the first line must be the header of a CSV with the column ImageId"
        if name == "ImageId"
        else f"without {name} ({source}, row 1)"
    )
    with pytest.raises(InputError, match=re.escape(expected)):
        build_store(source, tmp_path / "a.store", ReadingOptions(on_bad_rows="skip"))


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", r"annotations must be a CSV or COCO JSON, got an empty file \(.*rows\.csv\)"),
        (b"\n\r\n", r"annotations must be a CSV or COCO JSON, got an empty file \(.*rows\.csv\)"),
        (HEADER_2019.encode(), r"must hold at least one row, got only a header \(.*rows\.csv\)"),
        (
            HEADER_2020.encode() + b"\r\n\n",
            r"must hold at least one row, got only a header \(.*rows\.csv\)",
        ),
        (b"a" * 100_000, r"at most 65536 bytes, got a longer one \(.*rows\.csv, row 1\)"),
        (b"%PDF-1.4 hello\n", r"object, got b'%PDF-1\.4 hello' \(.*rows\.csv, row 1\)"),
        (b"\xff\xfeI\0m\0", r"rows\.csv: not UTF-8 text"),
        (HEADER_2019.encode() + b",Width\n", r"columns must be different, got Width twice or more"),
    ],
)
def test_files_that_hold_no_rows(tmp_path, content, message):
    (tmp_path / "rows.csv").write_bytes(content)
    for on_bad_rows in ("error", "skip"):
        with pytest.raises(InputError, match=message):
            convert(
                tmp_path / "rows.csv", tmp_path / "o.json", ReadingOptions(on_bad_rows=on_bad_rows)
            )
    assert [path.name for path in tmp_path.iterdir()] == ["rows.csv"]


def test_missing_file_and_folders(tmp_path):
    with pytest.raises(InputError, match=r"gone\.csv: cannot be read \(No such file"):
        build_store(tmp_path / "gone.csv", tmp_path / "a.store")
    with pytest.raises(InputError, match=r"or a folder of mask images, got a folder with neither"):
        build_store(tmp_path, tmp_path / "a.store")
    source = write_lines(tmp_path / "rows.csv", HEADER_2019, *GOOD)
    (tmp_path / "mine").mkdir()
    with pytest.raises(
        InputError,
        match=r"output must be a new folder or an annotation store to replace, got .*mine",
    ):
        build_store(source, tmp_path / "mine")
    with pytest.raises(InputError, match=r"on_bad_rows must be one of error, skip, got 'warn'"):
        build_store(source, tmp_path / "a.store", ReadingOptions(on_bad_rows="warn"))
    with pytest.raises(InputError, match=r"gone: no such image folder"):
        build_store(
            source, tmp_path / "a.store", ReadingOptions(images_directory=tmp_path / "gone")
        )
    with pytest.raises(
        InputError, match=r"size_hw must be height and width in pixels, got \[0, 4\]"
    ):
        build_store(source, tmp_path / "a.store", ReadingOptions(size_hw=(0, 4)))


def test_a_single_legal_id_is_no_range():
    assert describe_ids({5: "a"}) == "5"
    assert describe_ids({5: "a", 6: "b"}) == "5 to 6"
    assert describe_ids({5: "a", 7: "b"}) == "5, 7"
