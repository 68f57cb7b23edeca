"""Boxes and areas of a COCO file against its masks; coordinates that are no pixels."""

from __future__ import annotations

import json

import pytest

from src.annotations.formats import ReadingOptions
from src.annotations.store_builder import build_store
from src.errors import InputError
from tests.helpers.exif_data import GARMENT, drawn, save_image, write_annotations

SQUARE = [10, 5, 30, 5, 30, 25, 10, 25]


def write_coco(path, *annotations):
    content = {
        "images": [{"id": 1, "file_name": "a.jpg", "height": 40, "width": 60}],
        "annotations": [
            {"id": number, "image_id": 1, "category_id": 1, "attribute_ids": [number]} | annotation
            for number, annotation in enumerate(annotations)
        ],
        "categories": [{"id": 1, "name": "shirt"}],
    }
    path.write_text(json.dumps(content))
    return path


def notes(tmp_path, *annotations):
    source = write_coco(tmp_path / "a.json", *annotations)
    return build_store(source, tmp_path / "a.store").notes


def test_boxes_and_areas_that_are_the_masks(tmp_path):
    counts = {"size": [40, 60], "counts": [405, *(20, 20) * 19, 20, 1215]}
    right = (
        {"segmentation": [SQUARE], "bbox": [10, 5, 20, 20], "area": 400},
        {"segmentation": [SQUARE], "bbox": [8.2, 6.9, 20, 20], "area": 400 + 150},
        {"segmentation": counts, "bbox": [10, 5, 20, 20], "area": 400.0},
        {"segmentation": [], "bbox": [10, 5, 20, 20], "area": 400},  # a box without a mask
        {"segmentation": [SQUARE], "bbox": "none", "area": None},
        {"segmentation": [SQUARE]},
    )
    assert notes(tmp_path, *right) == ()


def test_those_that_are_not_are_counted(tmp_path):
    found = notes(
        tmp_path,
        {"segmentation": [SQUARE], "bbox": [10, 5, 20, 20], "area": 400},
        {"segmentation": [SQUARE], "bbox": [10, 5, 30, 25], "area": 750},
        {"segmentation": [SQUARE], "bbox": [10, 5, 20, 22.5], "area": 40_000},
        {"segmentation": [[0.1, 0.1, 0.5, 0.1, 0.5, 1.02]], "bbox": [6, 4, 24, 37]},
    )
    assert found == (
        "bbox is more than 2 px from the box of the mask: 3 of 4 annotations (the first: "
        "annotations[1], image 'a.jpg': [10, 5, 30, 25], the mask's [10, 5, 20, 20])",
        "area differs from the mask's by more than 2 px along its outline: 2 of 3 annotations "
        "(the first: annotations[1], image 'a.jpg': 750, the mask's 400)",
    )


def test_normalised_coordinates_are_refused(tmp_path):
    normalised = {"segmentation": [[0.1, 0.1, 0.5, 0.1, 0.5, 0.6], [0, 0, 1, 0, 1, 1]]}
    right = {"segmentation": [[0.1, 0.1, 0.5, 0.1, 0.5, 0.6], SQUARE]}
    source = write_coco(tmp_path / "a.json", right, normalised)
    message = (
        r"annotations\[1\], image 'a.jpg': segmentation: coordinates must be in pixels, got none "
        r"outside of 0 to 1 \(0.1, 0.1, 0.5, 0.1, ...\): multiply x by the image's width"
    )
    with pytest.raises(InputError, match=message):
        build_store(source, tmp_path / "a.store")
    report = build_store(source, tmp_path / "a.store", ReadingOptions(on_bad_rows="skip"))
    assert (report.instances, report.skipped_rows) == (1, 1)


@pytest.mark.parametrize("form", ["polygon", "rle"])
def test_a_box_is_turned_with_its_mask(tmp_path, form):
    save_image(tmp_path / "o6.jpg", drawn(GARMENT), 6)
    source = write_annotations(
        tmp_path / "a", {"o6.jpg": 6}, form=form, made_on="as_stored", with_boxes=True
    )
    options = {"images_directory": tmp_path, "exif": "as_stored"}
    assert len(build_store(source, tmp_path / "a.store", ReadingOptions(**options)).notes) == 1
    options["exif"] = "as_displayed"
    if form == "rle":
        report = build_store(source, tmp_path / "a.store", ReadingOptions(**options))
        assert report.notes[2].startswith("bbox is more than 2 px from the box of the mask: 1 of 1")
