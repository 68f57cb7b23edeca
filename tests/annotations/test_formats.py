"""From each format to each other and back."""

from __future__ import annotations

import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from src.annotations.conversion import convert
from src.annotations.formats import detect_format
from src.annotations.store import AnnotationStore
from src.errors import InputError
from src.rle import format_rle
from tests.helpers.annotation_files import (
    HEADER_2019,
    HEADER_2020,
    objects_of,
    read_rows,
    write_lines,
)
from tests.helpers.masks import many_examples, masks
from tests.helpers.real_data import real_data

ROWS_2019 = [
    "b.jpg,1 2 3 3 10 3,5,4,6_13_2",
    "a b.jpg,3 4 7 1,3,3,31",
    "b.jpg,20 1,5,4,0",
    '"c,""d.jpg",1 6,2,3,45_0',
    "a b.jpg,,3,3,32",
    "e.png,4 1,2,3,1",
    "z.jpg,,9,8,",
]
ROWS_2020 = [
    'b,1 2 3 3 10 3,5,4,6,"2,13,300"',
    "a,3 4 7 1,3,3,31,",
    "b,20 1,5,4,0,7",
    "z,,9,8,,",
]


@pytest.fixture
def csv_2019(tmp_path):
    return write_lines(tmp_path / "a_2019.csv", HEADER_2019, *ROWS_2019)


@pytest.fixture
def csv_2020(tmp_path):
    return write_lines(tmp_path / "a_2020.csv", HEADER_2020, *ROWS_2020)


def test_kind_goes_by_content(tmp_path, csv_2019, csv_2020):
    convert(csv_2019, tmp_path / "x", output_format="coco")
    convert(csv_2019, tmp_path / "y", output_format="store")
    assert detect_format(csv_2019) == "imaterialist_2019"
    assert detect_format(csv_2020) == "imaterialist_2020"
    assert detect_format(tmp_path / "x") == "coco"
    assert detect_format(tmp_path / "y") == "store"
    (tmp_path / "marked.json").write_bytes(b"\xef\xbb\xbf \n" + (tmp_path / "x").read_bytes())
    assert detect_format(tmp_path / "marked.json") == "coco"
    assert convert(tmp_path / "marked.json", tmp_path / "out.csv").instances == 6


def test_2019_to_coco_and_back_is_the_same_file(tmp_path, csv_2019):
    convert(csv_2019, tmp_path / "o.json")
    convert(tmp_path / "o.json", tmp_path / "back.csv")
    # Not only the same rows: in the same order too.
    assert (tmp_path / "back.csv").read_bytes() == csv_2019.read_bytes()


def test_2020_to_coco_and_back_is_the_same_file(tmp_path, csv_2020):
    convert(csv_2020, tmp_path / "o.json")
    entries = json.loads((tmp_path / "o.json").read_text())
    assert [image["file_name"] for image in entries["images"]] == ["a.jpg", "b.jpg", "z.jpg"]
    assert entries["annotations"][0]["attribute_ids"] == [2, 13, 300]
    convert(tmp_path / "o.json", tmp_path / "back.csv", output_format="imaterialist_2020")
    assert (tmp_path / "back.csv").read_bytes() == csv_2020.read_bytes()


def test_2020_to_2019_and_back_is_the_same_file(tmp_path, csv_2020):
    report = convert(csv_2020, tmp_path / "o.csv", output_format="imaterialist_2019")
    rows = {row["EncodedPixels"]: row for row in read_rows(tmp_path / "o.csv")}
    assert rows["1 2 3 3 10 3"]["ClassId"] == "6_2_13_300"
    assert rows["20 1"]["ImageId"] == "b.jpg"
    # Attribute 300 is none of 2019's, so the labels are kept beside.
    assert report.labels_file == tmp_path / "o.csv.label_descriptions.json"
    convert(tmp_path / "o.csv", tmp_path / "back.csv", output_format="imaterialist_2020")
    assert (tmp_path / "back.csv").read_bytes() == csv_2020.read_bytes()


def test_2019_to_2020_sorts_attributes(tmp_path, csv_2019):
    convert(csv_2019, tmp_path / "o.csv", output_format="imaterialist_2020")
    rows = {row["EncodedPixels"]: row for row in read_rows(tmp_path / "o.csv")}
    assert rows["1 2 3 3 10 3"] == {
        "ImageId": "b",
        "EncodedPixels": "1 2 3 3 10 3",
        "Height": "5",
        "Width": "4",
        "ClassId": "6",
        "AttributesIds": "2,13",
    }
    assert rows["4 1"]["ImageId"] == "e.png"
    convert(tmp_path / "o.csv", tmp_path / "back.csv", output_format="imaterialist_2019")
    expected = csv_2019.read_text().replace("6_13_2", "6_2_13")
    assert (tmp_path / "back.csv").read_text() == expected


def test_number_formatting_is_the_only_difference(tmp_path):
    plain = write_lines(tmp_path / "plain.csv", HEADER_2019, "b.jpg,1 2 10 3,5,4,6_13")
    odd = tmp_path / "odd.csv"
    odd.write_bytes(
        b"\xef\xbb\xbfClassId,Extra,Width, ImageId ,Height,EncodedPixels\r\n"
        b'6.0_13,"x,y",4.0,b.jpg,05,"01 2  10 3 "\r\n\r\n'
    )
    convert(odd, tmp_path / "back.csv")
    assert (tmp_path / "back.csv").read_bytes() == plain.read_bytes()


@settings(many_examples, max_examples=40)
@given(data=st.data())
def test_any_rows_come_back(tmp_path_factory, data):
    folder = tmp_path_factory.mktemp("formats")
    rows = []
    for number in range(data.draw(st.integers(1, 5))):
        mask = data.draw(masks())
        height, width = mask.size_hw
        labels = [
            data.draw(st.integers(0, 45)),
            *data.draw(st.lists(st.integers(0, 91), max_size=3)),
        ]
        rows.append(
            f"{number}.jpg,{format_rle([mask])[0]},{height},{width},{'_'.join(map(str, labels))}"
        )
    source = write_lines(folder / "rows.csv", HEADER_2019, *rows)
    convert(source, folder / "o.json")
    convert(folder / "o.json", folder / "again.json")
    convert(folder / "again.json", folder / "back.csv")
    assert (folder / "back.csv").read_bytes() == source.read_bytes()
    assert (folder / "again.json").read_bytes() == (folder / "o.json").read_bytes()


def test_store_as_output_and_input(tmp_path, csv_2019):
    assert convert(csv_2019, tmp_path / "a.store").output_format == "store"
    assert AnnotationStore(tmp_path / "a.store").num_instances == 6
    report = convert(tmp_path / "a.store", tmp_path / "back.csv")
    assert (report.input_format, report.read, report.instances) == ("store", None, 6)
    assert (tmp_path / "back.csv").read_bytes() == csv_2019.read_bytes()
    with pytest.raises(InputError, match=r"got a store: copy the folder \(.*a\.store\)"):
        convert(tmp_path / "a.store", tmp_path / "b.store")


@pytest.mark.parametrize("kind", ["CSV", "COCO"])
def test_source_is_never_touched_and_output_replaced_whole(tmp_path, csv_2019, kind):
    output = tmp_path / ("o.json" if kind == "COCO" else "o.csv")
    output.write_text("before")
    bad = write_lines(tmp_path / "bad.csv", HEADER_2019, *ROWS_2019, "b.jpg,1,5,4,0")
    with pytest.raises(InputError, match="row 9"):
        convert(bad, output)
    assert output.read_text() == "before"
    names = sorted(path.name for path in tmp_path.iterdir())
    assert names == ["a_2019.csv", "bad.csv", output.name]
    convert(csv_2019, output)
    assert output.read_text() != "before"


def test_labels_of_their_own_travel_with_a_csv(tmp_path, csv_2019):
    convert(csv_2019, tmp_path / "o.json")
    entries = json.loads((tmp_path / "o.json").read_text())
    entries["categories"] = [{"id": n, "name": f"n{n}", "supercategory": ""} for n in range(500)]
    entries["annotations"][0]["category_id"] = 400
    (tmp_path / "o.json").write_text(json.dumps(entries))
    report = convert(tmp_path / "o.json", tmp_path / "o.csv")
    assert report.labels_file is not None
    convert(tmp_path / "o.csv", tmp_path / "back.json")
    assert json.loads((tmp_path / "back.json").read_text()) == entries
    assert convert(csv_2019, tmp_path / "o.csv").labels_file is None
    assert not report.labels_file.exists()


def test_crowds_survive_coco_and_are_counted_for_a_csv(tmp_path, csv_2019):
    convert(csv_2019, tmp_path / "o.json")
    (tmp_path / "o.json").write_text(
        (tmp_path / "o.json").read_text().replace('"iscrowd": 0', '"iscrowd": 1', 2)
    )
    convert(tmp_path / "o.json", tmp_path / "again.json")
    assert (tmp_path / "again.json").read_bytes() == (tmp_path / "o.json").read_bytes()
    assert convert(tmp_path / "o.json", tmp_path / "o.csv").crowd_regions == 2


def test_refused_outputs(tmp_path, csv_2019):
    with pytest.raises(
        InputError, match=r"output must be another file than the annotations, got .*a_2019\.csv"
    ):
        convert(csv_2019, csv_2019)
    with pytest.raises(
        InputError, match=r"output_format must be one of auto, imaterialist_2019, .*, got 'yolo'"
    ):
        convert(csv_2019, tmp_path / "o", output_format="yolo")
    with pytest.raises(InputError, match=r"a_2019\.csv: must be a directory, got a file"):
        convert(csv_2019, csv_2019 / "o.csv")
    for name, ending in (("x.parquet", r".*x\.parquet"), ("x.xlsx", r".*x\.xlsx"), ("x", ".*x")):
        message = rf"must end in \.csv .*, \.json .* or \.store, got {ending}; output_format=\.\.\."
        with pytest.raises(InputError, match=message):
            convert(csv_2019, tmp_path / name)
    convert(csv_2019, tmp_path / "x.parquet", output_format="coco")
    (tmp_path / "folder").mkdir()
    with pytest.raises(InputError, match=r"output must be a file for .*, got the folder .*folder"):
        convert(csv_2019, tmp_path / "folder")
    with pytest.raises(
        InputError,
        match=r"output must be a new folder or an annotation store to replace, got .*folder",
    ):
        convert(csv_2019, tmp_path / "folder", output_format="store")


def test_real_rows_come_back_through_every_format(tmp_path):
    source = real_data("real_rows.csv")
    convert(source, tmp_path / "o.json")
    convert(tmp_path / "o.json", tmp_path / "o_2020.csv", output_format="imaterialist_2020")
    convert(tmp_path / "o_2020.csv", tmp_path / "a.store")
    convert(tmp_path / "a.store", tmp_path / "back.csv", output_format="imaterialist_2019")
    assert read_rows(tmp_path / "back.csv") == read_rows(source)
    known = [
        found
        for found in objects_of(AnnotationStore(tmp_path / "a.store"))
        if found[0].startswith("9c9a106f") and found[2] == 32 and len(found[4]) == 141
    ]
    assert [found[5:] for found in known] == [([2063, 1916, 2204, 2132], 14640)]


def test_the_category_may_stand_in_category_id(tmp_path, csv_2019, csv_2020):
    for source in (csv_2019, csv_2020):
        renamed = tmp_path / f"renamed_{source.name}"
        renamed.write_text(source.read_text().replace("ClassId", "CategoryId", 1))
        assert detect_format(renamed) == detect_format(source)
        for path in (source, renamed):
            convert(path, path.with_suffix(".json"))
        assert renamed.with_suffix(".json").read_bytes() == source.with_suffix(".json").read_bytes()
