"""The check of a submission names every broken rule, and finds nothing in a valid file."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from src.annotations.categories import LabelDescriptions
from src.annotations.competition import Competition
from src.annotations.formats import default_labels
from src.rle import encode, format_rle
from src.submission.validation import ValidationReport, check_submission

HEADER_2019 = "ImageId,EncodedPixels,ClassId\n"
HEADER_2020 = "ImageId,EncodedPixels,ClassId,AttributesIds\n"
LAST = 512 * 512
CATEGORY = "category must be a whole number from 0 to 45"


def check(
    path: Path, text: str | bytes, *, year: int = 2019, ids: Any = None, **changes: Any
) -> ValidationReport:
    path = path / "submission.csv"
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    values: dict[str, Any] = {
        "competition": Competition.preset(f"imaterialist_{year}"),
        "image_ids": ids,
    }
    return check_submission(path, **(values | changes))


def found(*arguments: Any, **changes: Any) -> list[str]:
    return [str(violation) for violation in check(*arguments, **changes).violations]


def test_a_valid_file_of_2019(tmp_path: Path) -> None:
    rows = (
        "a.jpg,1 5 8 2 262140 5,45\n"  # up to the last pixel
        "a.jpg,6 2 10 3,45\n"  # between the runs of the row before
        "a.jpg,1 5,0\n"  # another class may overlap
        "b.jpg,1 1,23\n"
        "c.jpg,1 2 3 4,6_13_24\n"  # runs may touch; attributes
    )
    findings = check(tmp_path, HEADER_2019 + rows, ids=["c.jpg", "b.jpg", "a.jpg"])
    assert findings == ValidationReport(rows=5, images=3, violations=())
    assert check(tmp_path, "\ufeff" + (HEADER_2019 + rows).replace("\n", "\r\n")).violations == ()


@pytest.mark.parametrize(
    ("row", "reasons"),
    [
        ("a,,3", ["EncodedPixels must be a mask with a pixel, got '"]),
        ("a, ,3", ["EncodedPixels must be a mask with a pixel, got '"]),
        ("a,1 2 3,3", ["the number of values must be even, a length for each start, got 3"]),
        ("a,1 x,3", ["value 2 must be a whole number, got 'x'"]),
        ("a,1.5 2 y 3,3", ["value 1 must be a whole number, got '1.5' (and 1 more such)"]),
        ("a,0 2,3", ["run 1 (start 0, length 2) must start at 1 or later"]),
        ("a,-4 2,3", ["run 1 (start -4, length 2) must start at 1 or later"]),
        ("a,5 0,3", ["run 1 (start 5, length 0) must have a length of 1 or more"]),
        (
            f"a,{LAST} 2,3",
            [f"run 1 (start {LAST}, length 2) must end by pixel {LAST}, the last of height 512"],
        ),
        (
            "a,99999999999 2,3",
            [f"run 1 (start 99999999999, length 2) must end by pixel {LAST}, the last of height"],
        ),
        (
            "a,9 2 1 2,3",
            ["run 2 (start 1, length 2) must start after run 1 (start 9, length 2): starts must "],
        ),
        ("a,1 5 5 2,3", ["run 2 (start 5, length 2) must not overlap run 1 (start 1, length 5)"]),
        (
            "a,1 5 3 9 2 1 1 1,3",
            [
                "run 2 (start 3, length 9) must not overlap run 1 (start 1, length 5)",
                "run 3 (start 2, length 1) must start after run 2 (start 3, length 9): starts must "
                "ascend (and 1 more such)",
            ],
        ),
        ("a,1 2,46", [f"{CATEGORY}, got '46'"]),
        ("a,1 2,-1", [f"{CATEGORY}, got '-1'"]),
        ("a,1 2,shoe", [f"{CATEGORY}, got 'shoe'"]),
        ("a,1 2,", [f"{CATEGORY}, got ''"]),
        ("a,1 2,6_92", ["attribute must be 0 to 91, got '92'"]),
        ("a,1 2,6_x", ["attribute must be 0 to 91, got 'x'"]),
        ("a,1 2,6_3_3", ["attributes must be different, got 3,3"]),
        ("a,1 2", ["the row must have 3 values, got 2"]),
        ("a,1 2,3,4", ["the row must have 3 values, got 4"]),
        ('"a,1 2,3', ["quotes must enclose a value, got one misplaced or not closed"]),
        (",1 2,3", ["ImageId must not be empty"]),
        ("z,1 2,3", ["ImageId must be one of the sample's, got 'z'"]),
        ("z,x 2,77", ["ImageId must be one of the", f"{CATEGORY}, got '77'", "value 1 must be"]),
    ],
)
def test_each_rule(tmp_path: Path, row: str, reasons: list[str]) -> None:
    violations = check(tmp_path, f"{HEADER_2019}a,9000 9,44\n{row}\n", ids=["a"]).violations
    assert [violation.row for violation in violations] == [3] * len(reasons)
    image_id = "" if row[0] in ',"' else row[0]
    assert {violation.image_id for violation in violations} == {image_id}
    for violation, reason in zip(violations, reasons, strict=True):
        assert violation.reason.startswith(reason)


def test_missing_images_are_named_each(tmp_path: Path) -> None:
    lines = found(tmp_path, HEADER_2019 + "b,1 1,23\n", ids=["c", "b", "a"])
    assert lines == [
        "the file, image a: each image of the sample must have a row, got none",
        "the file, image c: each image of the sample must have a row, got none",
    ]


def test_masks_of_one_image_and_class_must_be_disjoint(tmp_path: Path) -> None:
    rows = [
        "a,1 5,3",
        "b,1 5,3",
        "a,20 5,3",
        "a,4 3 24 9,3_1",  # attributes do not make another class
        "a,1 1,4",
        "a,1 99,3",
        "b,1 1,23",
        "b,1 1,23",
    ]
    assert found(tmp_path, HEADER_2019 + "\n".join(rows)) == [
        "row 5, image a: EncodedPixels must not overlap row 2 of the same image and "
        "class 3, got 2 shared pixels",
        "row 5, image a: EncodedPixels must not overlap row 4 of the same image and "
        "class 3, got 1 shared pixels",
        "row 7, image a: EncodedPixels must not overlap row 2 of the same image and "
        "class 3, got 5 shared pixels",
        "row 7, image a: EncodedPixels must not overlap row 4 of the same image and "
        "class 3, got 5 shared pixels",
        "row 7, image a: EncodedPixels must not overlap row 5 of the same image and "
        "class 3, got 12 shared pixels",
        "row 9, image b: EncodedPixels must not overlap row 8 of the same image and "
        "class 23, got 1 shared pixels",
    ]


@pytest.mark.parametrize(
    ("text", "lines"),
    [
        ("", ["the file: the header must be ImageId,EncodedPixels,ClassId, got an empty file"]),
        (
            "ImageId,ClassId,EncodedPixels\na,3,1 x\n",
            [
                "row 1: the header must be ImageId,EncodedPixels,ClassId, got "
                "'ImageId,ClassId,EncodedPixels'",
                "row 2, image a: value 2 must be a whole number, got 'x'",
            ],
        ),
        (
            "ImageId,EncodedPixels\na,x\n",
            [
                "row 1: the header must be ImageId,EncodedPixels,ClassId, got "
                "'ImageId,EncodedPixels'",
                "row 1: the header must have the column ClassId; the rows were not checked",
            ],
        ),
        (
            HEADER_2019.encode() + b"a\xff,1 2,3\nb,1 0,3\n",
            [
                "row 2: the row must be UTF-8 text ('utf-8' codec can't decode byte 0xff in "
                "position 1: invalid start byte)",
                "row 3, image b: run 1 (start 1, length 0) must have a length of 1 or more",
            ],
        ),
    ],
)
def test_headers_and_texts(tmp_path: Path, text: str | bytes, lines: list[str]) -> None:
    assert found(tmp_path, text) == lines


def test_2020(tmp_path: Path) -> None:
    good = HEADER_2020 + 'a,1 5,45,\na,6 2,45,"7,92,340"\nb,1048570 7,3,4\n'
    assert found(tmp_path, good, year=2020, ids=["a", "b"]) == []
    small = {"b": (3000, 4000)}
    assert found(tmp_path, good, year=2020, sizes_hw=small) == [
        "row 4, image b: run 1 (start 1048570, length 7) must end by pixel 786432, the last of "
        "height 768 and width 1024"
    ]
    bad = 'a.jpg,1 5,45,\na,1 5,4,"92,7"\na,1 5,5,7 9\na,1 5,6_2,\na,1048576 2,7,\n'
    assert found(tmp_path, HEADER_2020 + bad, year=2020, ids=["a"]) == [
        "row 2, image a.jpg: ImageId must not end in .jpg, got 'a.jpg'",
        "row 3, image a: attributes must ascend, got 92,7",
        "row 4, image a: attribute must be a whole number, got '7 9'",
        f"row 5, image a: {CATEGORY}, got '6_2'",
        "row 6, image a: run 1 (start 1048576, length 2) must end by pixel 1048576, the last of "
        "height 1024 and width 1024",
    ]
    legal = LabelDescriptions(
        categories=default_labels("imaterialist_2020").categories,
        attributes=default_labels("imaterialist_2019").attributes[:5],
    )
    assert found(
        tmp_path, HEADER_2020 + 'a,1 5,4,"3,7"\n', year=2020, attribute_names=legal.attribute_names
    ) == ["row 2, image a: attribute must be 0 to 4, got '7'"]


@settings(max_examples=60, deadline=None)
@given(
    seed=st.integers(0, 2**32 - 1),
    rows=st.integers(1, 12),
    density=st.sampled_from([0.0002, 0.005]),
)
def test_overlaps_are_those_of_bitmaps(
    tmp_path_factory: pytest.TempPathFactory, seed: int, rows: int, density: float
) -> None:
    random = np.random.default_rng(seed)
    masks = np.zeros((rows, 512, 512), dtype=bool)
    masks[:, :40, :3] = random.random((rows, 40, 3)) < 100 * density
    masks[:, 500, 500] = True
    masks[random.random(rows) < 0.7, 500, 500] = False
    masks[:, 0, 0] |= ~masks.any(axis=(1, 2))
    names = random.choice(["a", "b"], rows)
    categories = random.integers(0, 2, rows)
    text = HEADER_2019 + "".join(
        f"{name},{format_rle([encode(mask)])[0]},{category}\n"
        for name, mask, category in zip(names, masks, categories, strict=True)
    )
    wanted = [
        (later + 2, earlier + 2, int((masks[later] & masks[earlier]).sum()))
        for later in range(rows)
        for earlier in range(later)
        if names[later] == names[earlier]
        and categories[later] == categories[earlier]
        and (masks[later] & masks[earlier]).any()
    ]
    violations = check(tmp_path_factory.mktemp("rules"), text).violations
    places = [
        (violation.row, *map(int, np.array(violation.reason.split())[[5, 14]].tolist()))
        for violation in (
            type(each)(each.row, each.image_id, each.reason.replace(",", "")) for each in violations
        )
    ]
    assert sorted(places) == sorted(wanted)


def test_an_image_has_one_spelling(tmp_path: Path) -> None:
    rows = "a.jpg,1 2,3\na.jpg ,4 2,3\na,7 2,3\n"
    said = [
        "row 3, image a.jpg : ImageId must be 'a.jpg', one spelling for an image, got 'a.jpg '",
        "row 4, image a: ImageId must be 'a.jpg', one spelling for an image, got 'a'",
    ]
    assert found(tmp_path, HEADER_2019 + rows) == said
    assert found(tmp_path, HEADER_2019 + rows, ids=["a.jpg"]) == said
    (line,) = found(tmp_path, HEADER_2019 + "../a.jpg,1 2,3\n")
    assert line.startswith("row 2, image ../a.jpg: ImageId must be a path relative to the image")
