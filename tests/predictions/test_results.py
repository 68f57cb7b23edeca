"""Results of other frameworks: forms of masks, names of images, messages that name the entry."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pycocotools import mask as coco_mask

from src.annotations.categories import Category, LabelDescriptions
from src.annotations.instances import ImageRecord
from src.errors import InputError
from src.predictions.results import ResultBlock, ResultImages, ResultReader
from src.rle import decode
from tests.helpers.masks import bitmaps, many_examples

LABELS = LabelDescriptions((Category(1, "one", ""), Category(4, "four", "")))
IMAGES = (
    ImageRecord("train/000139.jpg", "train/000139.jpg", 6, 8),
    ImageRecord("train/b.jpg", "train/b.jpg", 5, 7),
    ImageRecord("valid/b.jpg", "valid/b.jpg", 5, 7),
)
NUMBERS: dict[int | str, int] = {20: 0, 30: 1, 40: 2}
MASK = {"size": [6, 8], "counts": [0, 5, 43]}
ENTRY = {"image_id": 20, "category_id": 1, "score": 0.5, "segmentation": MASK}


def read(path: Path, content: Any, *, kind: str = "auto", offset: int = 0) -> ResultBlock:
    path.write_text(content if isinstance(content, str) else json.dumps(content))
    images = ResultImages(IMAGES, NUMBERS, source="truth.json", kind=kind)
    (block,) = ResultReader(path, images, LABELS, category_offset=offset).blocks()
    return block


@many_examples
@given(bitmap=bitmaps(), form=st.sampled_from(["text", "list"]))
def test_every_form_of_rle_is_the_same_mask(
    tmp_path_factory: pytest.TempPathFactory, bitmap: np.ndarray, form: str
) -> None:
    encoded = coco_mask.encode(np.asfortranarray(bitmap.astype(np.uint8)))
    counts: Any = encoded["counts"].decode()
    if form == "list":
        pixels = bitmap.ravel(order="F").astype(int)
        edges = np.flatnonzero(np.diff(pixels, prepend=0))
        counts = np.diff([0, *edges, pixels.size]).tolist()
    image = ImageRecord("a.jpg", "a.jpg", *bitmap.shape)
    path = tmp_path_factory.getbasetemp() / "forms.json"
    mask = {"size": list(bitmap.shape), "counts": counts}
    path.write_text(json.dumps([{**ENTRY, "image_id": 1, "segmentation": mask}]))
    images = ResultImages([image], {1: 0}, source="truth.json")
    (block,) = ResultReader(path, images, LABELS).blocks()
    assert np.array_equal(decode(block.masks[0]), bitmap)
    x, y, width, height = coco_mask.toBbox(encoded).tolist()
    assert block.boxes_xyxy[0].tolist() == [x, y, x + width, y + height]


coordinates = st.lists(st.floats(-3, 12, width=32), min_size=6, max_size=12)


@many_examples
@given(polygons=st.lists(coordinates.map(lambda xy: xy[: len(xy) // 2 * 2]), min_size=1))
def test_polygons_are_what_pycocotools_draws(
    tmp_path_factory: pytest.TempPathFactory, polygons: list[list[float]]
) -> None:
    if all(0 <= one <= 1 for polygon in polygons for one in polygon):
        polygons = [*polygons, [2.0, 2.0, 5.0, 2.0, 5.0, 5.0]]
    wanted = coco_mask.merge(coco_mask.frPyObjects(polygons, 6, 8))
    block = read(
        tmp_path_factory.getbasetemp() / "polygons.json", [{**ENTRY, "segmentation": polygons}]
    )
    assert np.array_equal(decode(block.masks[0]), coco_mask.decode(wanted).astype(bool))


def test_a_box_is_taken_as_given_and_scores_in_double_precision(tmp_path: Path) -> None:
    entries = [{**ENTRY, "score": 0.1, "bbox": [1, 2, 3.5, 4]}, {**ENTRY, "bbox": None}]
    block = read(tmp_path / "r.json", entries)
    assert block.boxes_xyxy.tolist() == [[1, 2, 4.5, 6], [0, 0, 1, 5]]
    assert block.scores.tolist() == [0.1, 0.5]
    assert read(tmp_path / "r.json", [ENTRY | {"segmentation": []}]).masks.areas_px() == [0]


@pytest.mark.parametrize(
    ("kind", "image_id", "place"),
    [
        ("auto", 20, 0),
        ("auto", "train/000139.jpg", 0),
        ("auto", "000139", 0),
        ("auto", "./train\\b.jpg", 1),
        ("auto", "valid/b", 2),
        ("name", 139, 0),
        ("name", "000139", 0),
        ("number", 40, 2),
    ],
)
def test_images_go_by_number_or_by_name(
    tmp_path: Path, kind: str, image_id: int | str, place: int
) -> None:
    size = list(IMAGES[place].size_hw)
    mask = {"size": size, "counts": [size[0] * size[1]]}
    entry = {**ENTRY, "image_id": image_id, "segmentation": mask}
    assert read(tmp_path / "r.json", [entry], kind=kind).places.tolist() == [place]


def test_categories_may_count_from_another_number(tmp_path: Path) -> None:
    entries = [{**ENTRY, "category_id": 0}, {**ENTRY, "category_id": 3}]
    assert read(tmp_path / "r.json", entries, offset=1).category_ids.tolist() == [1, 4]


LEGAL_BOX = r"bbox must be x, y, width and height in pixels, width and height at least 0, got "
LEGAL_IMAGE = r"image_id must be the id or the file name of an image of truth\.json, got "


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"image_id": 7}, LEGAL_IMAGE + "7"),
        ({"image_id": "b"}, LEGAL_IMAGE + "'b'"),
        ({"image_id": 139}, LEGAL_IMAGE + "139; it is the name of a file: src.import_predictions "),
        ({"image_id": True}, "image_id must be a whole number or a text, got True"),
        ({"image_id": [1]}, r"image_id must be a whole number or a text, got \[1\]"),
        ({"file_name": "valid/b.jpg"}, "file_name must be that of the image of image_id 20, "),
        ({"category_id": 9}, "category_id must be 1, 4, got 9"),
        ({"category_id": 0}, "got 0; src.import_predictions category_offset=1 adds to it"),
        ({"category_id": "1"}, "category_id must be 1, 4, got '1'"),
        ({"score": 1.5}, "score must be a number from 0 to 1, got 1.5"),
        ({"score": float("nan")}, "score must be a number from 0 to 1, got nan"),
        ({"score": None}, "score must be a number from 0 to 1, got null"),
        ({"score": "0.5"}, "score must be a number from 0 to 1, got '0.5'"),
        ({"segmentation": None}, r"segmentation must be RLE or polygons, got none \("),
        ({"segmentation": None, "bbox": [1, 1, 1, 1]}, "got none: it has a box alone"),
        ({"segmentation": MASK | {"size": [8, 6]}}, "height and width of 'train/000139.jpg', got "),
        ({"segmentation": MASK | {"size": [9, 9]}}, r"segmentation\.size must be \[6, 8\], the "),
        ({"segmentation": {"counts": "1"}}, "segmentation: size must be that of the image"),
        ({"segmentation": MASK | {"counts": [0, 5, 42]}}, "segmentation: counts must sum to 48"),
        ({"segmentation": MASK | {"counts": [-1, 49]}}, "segmentation: count 1 of 2 must be 0 or"),
        ({"segmentation": MASK | {"counts": [2**63 - 1, 2**63 - 1, 50]}}, "counts must sum to 48"),
        ({"segmentation": MASK | {"counts": [10**30]}}, "counts must be a list of whole numbers"),
        ({"segmentation": MASK | {"counts": "b'0'"}}, "segmentation: compressed counts: character"),
        ({"segmentation": MASK | {"counts": None}}, "segmentation: counts must be a list or a tex"),
        ({"segmentation": [1, 2, 3, 4, 5, 6]}, "segmentation: polygon 1 of 6 must be one list"),
        ({"segmentation": [[1, 2, 3]]}, "segmentation: polygon 1 of 1 must be x1, y1, x2, y2"),
        ({"segmentation": [[0.1, 0.1, 0.9, 0.1, 0.9, 0.9]]}, "coordinates must be in pixels"),
        ({"segmentation": "5 5"}, "segmentation: must be a list of polygons, or an object"),
        ({"bbox": [1, 2, 3]}, LEGAL_BOX + r"\[1, 2, 3\]"),
        ({"bbox": [1, 2, -3, 4]}, LEGAL_BOX),
        ({"bbox": [1, 2, float("inf"), 4]}, LEGAL_BOX),
        ({"bbox": [1, 2, 10**400, 4]}, LEGAL_BOX),
        ({"bbox": {"x": 1}}, LEGAL_BOX),
    ],
)
def test_a_wrong_entry_is_one_line_with_its_place(
    tmp_path: Path, change: dict[str, Any], message: str
) -> None:
    path = tmp_path / "r.json"
    with pytest.raises(InputError, match=message) as raised:
        read(path, [ENTRY, ENTRY | change])
    assert str(raised.value).endswith(f" ({path}, entry 2)")
    assert "\n" not in str(raised.value)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{}", r"r\.json: not valid JSON at line 1, column 1: must be a JSON list"),
        ("[{}", "a comma or the closing ] must follow an element"),
        ("[{},\n]", "not valid JSON at line 2, column 1: Expecting value"),
        ("[] []", r"the file continues after the closing \]"),
        ("[1]", r"an entry must be an object, got 1 \(.*r\.json, entry 1\)"),
        ("[" * 100_000, "nested too deeply"),
        ("[" + "9" * 5000 + "]", "Exceeds the limit"),
        ('[{"image_id": "\\ud800"}]', r"column 2: a string has \\ud800, half of a surrogate pair"),
    ],
)
def test_a_damaged_file_is_one_line(tmp_path: Path, text: str, message: str) -> None:
    with pytest.raises(InputError, match=message) as raised:
        read(tmp_path / "r.json", text)
    assert "\n" not in str(raised.value)


def test_the_kind_of_image_ids_is_checked() -> None:
    with pytest.raises(InputError, match="image_ids must be one of auto, number, name, got 'stem'"):
        ResultImages(IMAGES, NUMBERS, source="truth.json", kind="stem")
