"""Masks of images with an EXIF orientation: read right, by evidence or by key, or refused."""

from __future__ import annotations

import json

import numpy as np
import pytest
from PIL import Image, ImageOps

from src.annotations.conversion import convert
from src.annotations.formats import ReadingOptions
from src.annotations.store import AnnotationStore
from src.annotations.store_builder import build_store, open_or_build
from src.errors import InputError
from src.rle import decode, encode
from tests.helpers.exif_data import (
    DISPLAYED_HW,
    GARMENT,
    LONG_GARMENT,
    drawn,
    save_image,
    stored,
    write_annotations,
)

FORMS = ("polygon", "counts", "rle", "csv")
MADE_ON = ("as_displayed", "as_stored", "exchanged")
SAME_SIZE = (2, 3, 4)
UNDECIDED = r"exif must be as_displayed or as_stored, got auto \(.*, image 'o{}.jpg'"


@pytest.fixture(scope="module")
def images(tmp_path_factory):
    """A folder with the garment under each orientation, ``o1.jpg`` to ``o8.jpg``."""
    folder = tmp_path_factory.mktemp("images")
    for orientation in range(1, 9):
        save_image(folder / f"o{orientation}.jpg", drawn(LONG_GARMENT), orientation)
        with Image.open(folder / f"o{orientation}.jpg") as image:
            red = np.asarray(ImageOps.exif_transpose(image))[:, :, 1] < 75
        assert overlap(red, drawn(LONG_GARMENT)) > 0.97
    return folder


def overlap(a, b):
    return (a & b).sum() / (a | b).sum() if a.shape == b.shape else 0.0


def read(source, images, directory, **options):
    report = build_store(source, directory, ReadingOptions(images_directory=images, **options))
    return AnnotationStore(directory), report


def worst_overlap(store, points):
    masks = [decode(store.instances(index).masks[0]) for index, image in enumerate(store.images)]
    return min(overlap(mask, drawn(points)) for mask in masks)


def named(*orientations):
    return {f"o{orientation}.jpg": orientation for orientation in orientations}


@pytest.mark.parametrize("made_on", MADE_ON)
@pytest.mark.parametrize("form", FORMS)
def test_each_orientation_by_evidence(tmp_path, images, form, made_on):
    """One image a file: decided by its own masks, or refused where they fit both readings."""
    for orientation in range(1, 9):
        source = write_annotations(
            tmp_path / "a", named(orientation), form=form, made_on=made_on, points=LONG_GARMENT
        )
        if orientation in SAME_SIZE:
            with pytest.raises(InputError, match=UNDECIDED.format(orientation)):
                read(source, images, tmp_path / "a.store")
            continue
        store, _ = read(source, images, tmp_path / "a.store")
        assert store.images[0].size_hw == DISPLAYED_HW
        assert worst_overlap(store, LONG_GARMENT) == 1


@pytest.mark.parametrize("made_on", MADE_ON)
@pytest.mark.parametrize("form", FORMS)
def test_each_orientation_by_key(tmp_path, images, form, made_on):
    """Also a garment that fits in both frames."""
    source = write_annotations(tmp_path / "a", named(*range(1, 9)), form=form, made_on=made_on)
    key = "as_stored" if made_on == "as_stored" else "as_displayed"
    store, report = read(source, images, tmp_path / "a.store", exif=key)
    assert worst_overlap(store, GARMENT) == 1
    assert report.notes == (
        f"exif={key}: 7 images with an EXIF orientation, whose masks are read as made on the "
        f"image: 7 {key.replace('_', ' ')}",
    )


@pytest.mark.parametrize("made_on", MADE_ON)
@pytest.mark.parametrize("form", FORMS)
def test_images_that_decide_speak_for_those_that_do_not(tmp_path, images, form, made_on):
    source = write_annotations(
        tmp_path / "a", named(3, 1, 6, 2, 8, 4), form=form, made_on=made_on, points=LONG_GARMENT
    )
    store, report = read(source, images, tmp_path / "a.store")
    assert worst_overlap(store, LONG_GARMENT) == 1
    reading = "as stored" if made_on == "as_stored" else "as displayed"
    assert f"5 {reading}" in report.notes[0]


def test_polygons_in_both_frames_are_read_as_the_size_says_or_refused(tmp_path, images):
    right = write_annotations(tmp_path / "a", named(6, 3), form="polygon", made_on="as_displayed")
    store, _ = read(right, images, tmp_path / "a.store")
    assert worst_overlap(store, GARMENT) == 1
    for made_on in ("as_stored", "exchanged"):
        source = write_annotations(tmp_path / "b", named(6, 5), form="polygon", made_on=made_on)
        with pytest.raises(InputError, match=UNDECIDED.format(6) + " and 1 more"):
            read(source, images, tmp_path / "b.store")
        assert not (tmp_path / "b.store").exists()


def test_a_mask_that_turning_does_not_change_needs_no_key(tmp_path, images):
    whole = ((0, 0), (DISPLAYED_HW[1], 0), DISPLAYED_HW[::-1], (0, DISPLAYED_HW[0]))
    for form in FORMS:
        source = write_annotations(
            tmp_path / "a", named(3), form=form, made_on="as_stored", points=whole
        )
        store, _ = read(source, images, tmp_path / "a.store")
        assert store.instances(0).areas_px.tolist() == [DISPLAYED_HW[0] * DISPLAYED_HW[1]]


def test_images_with_evidence_of_their_own_may_differ(tmp_path, images):
    """Two tools' annotations in one file; what has no evidence is refused."""
    for orientations, refused in (((6, 8), False), ((6, 8, 3), True)):
        halves = [
            json.loads(
                write_annotations(
                    tmp_path / made_on, named(*chosen), form="rle", made_on=made_on
                ).read_text()
            )
            for made_on, chosen in (("as_stored", [6]), ("as_displayed", orientations[1:]))
        ]
        for key in ("id", "image_id"):
            for entry in (*halves[1]["images"], *halves[1]["annotations"]):
                if key in entry:
                    entry[key] += 10
        both = halves[0] | {
            key: halves[0][key] + halves[1][key] for key in ("images", "annotations")
        }
        (tmp_path / "both.json").write_text(json.dumps(both))
        if refused:
            with pytest.raises(InputError, match=UNDECIDED.format(3)):
                read(tmp_path / "both.json", images, tmp_path / "a.store")
            continue
        store, report = read(tmp_path / "both.json", images, tmp_path / "a.store")
        assert worst_overlap(store, GARMENT) == 1
        assert "1 as displayed, 1 as stored" in report.notes[0]


def test_a_box_decides_where_columns_cannot(tmp_path, images):
    """A mask of one column has no neighbouring columns."""
    column = np.zeros(DISPLAYED_HW[::-1], dtype=bool)
    column[50:70, 30] = True
    height, width = column.shape
    assert (height, width) == (72, 120)
    counts = encode(column)
    segmentation = {"size": [height, width], "counts": [0]}
    start, length = counts.runs[0].tolist()
    segmentation["counts"] = [start, length, height * width - start - length]
    content = {
        "images": [{"id": 1, "file_name": "o6.jpg", "height": height, "width": width}],
        "annotations": [
            {
                "id": 1,
                "image_id": 1,
                "category_id": 6,
                "segmentation": segmentation,
                "bbox": [30, 50, 1, 20],
            }
        ],
        "categories": [{"id": 6, "name": "pants"}],
    }
    source = tmp_path / "a.json"
    source.write_text(json.dumps(content))
    store, _ = read(source, images, tmp_path / "a.store")
    mask = decode(store.instances(0).masks[0])
    assert (stored(mask, 6) == column).all()
    del content["annotations"][0]["bbox"]
    source.write_text(json.dumps(content))
    with pytest.raises(InputError, match=UNDECIDED.format(6)):
        read(source, images, tmp_path / "b.store")


def test_a_key_against_the_evidence_is_followed_and_said(tmp_path, images):
    source = write_annotations(tmp_path / "a", named(6, 8), form="csv", made_on="as_displayed")
    store, report = read(source, images, tmp_path / "a.store", exif="as_stored")
    assert worst_overlap(store, GARMENT) < 0.5
    assert report.notes[1] == (
        "exif=as_stored, though the masks of 2 images fit them only otherwise (the first: o6.jpg)"
    )
    with pytest.raises(InputError, match="exif must be one of auto, as_displayed, as_stored, got"):
        read(source, images, tmp_path / "b.store", exif="sideways")


def test_a_mask_made_on_an_image_turned_by_hand_is_a_bad_row(tmp_path, images):
    """No EXIF orientation, size and run lengths of an image that lies on its side."""
    lying = write_annotations(tmp_path / "a", {"o1.jpg": 6}, form="csv", made_on="as_stored")
    with pytest.raises(InputError, match=r"row 2, image 'o1.jpg': EncodedPixels: fits height 72"):
        read(lying, images, tmp_path / "a.store")
    store, report = read(lying, images, tmp_path / "a.store", on_bad_rows="skip")
    assert (len(store), report.skipped_rows) == (0, 1)


def test_masks_of_half_the_size(tmp_path, images):
    """The masks of the 2020 edition are smaller than the images; turned ones stay so."""
    small = drawn(LONG_GARMENT)[::2, ::2]
    for made_on in ("as_displayed", "as_stored"):
        mask = stored(small, 8) if made_on == "as_stored" else small
        runs = " ".join(f"{start + 1} {length}" for start, length in encode(mask).runs.tolist())
        source = tmp_path / "a.csv"
        source.write_text(
            "ImageId,EncodedPixels,Height,Width,ClassId\n"
            f"o8.jpg,{runs},{mask.shape[0]},{mask.shape[1]},6\n"
        )
        store, _ = read(source, images, tmp_path / "a.store")
        assert (decode(store.instances(0).masks[0]) == small).all()


def test_a_size_of_the_mask_that_is_the_images_exchanged(tmp_path, images):
    """Run lengths name the displayed size, the list of images the stored one; or the reverse."""
    for made_on in ("as_displayed", "as_stored"):
        source = write_annotations(tmp_path / "a", named(6), form="rle", made_on=made_on)
        content = json.loads(source.read_text())
        entry = content["images"][0]
        entry["height"], entry["width"] = entry["width"], entry["height"]
        source.write_text(json.dumps(content))
        store, _ = read(source, images, tmp_path / "a.store")
        assert worst_overlap(store, GARMENT) == 1
        with pytest.raises(
            InputError, match=r"size must be that of the image, \[\d+, \d+\], got \["
        ):
            build_store(source, tmp_path / "b.store")


def test_convert_and_cache_know_the_key(tmp_path, images):
    source = write_annotations(tmp_path / "a", named(6), form="polygon", made_on="as_stored")
    convert(source, tmp_path / "out.csv", ReadingOptions(images_directory=images, exif="as_stored"))
    store, _ = read(tmp_path / "out.csv", images, tmp_path / "a.store")
    assert worst_overlap(store, GARMENT) == 1

    cache = tmp_path / "cache"
    options = {"images_directory": images}
    right = open_or_build(source, cache, ReadingOptions(exif="as_stored", **options))
    wrong = open_or_build(source, cache, ReadingOptions(exif="as_displayed", **options))
    assert worst_overlap(right, GARMENT) == 1
    assert worst_overlap(wrong, GARMENT) < 0.5


def test_a_store_made_without_the_images(tmp_path, images):
    source = write_annotations(tmp_path / "a", named(1, 6), form="csv", made_on="as_displayed")
    build_store(source, tmp_path / "a.store")
    message = r"made without the images, of which 1 have an EXIF orientation .*first: o6.jpg"
    with pytest.raises(InputError, match=message):
        open_or_build(tmp_path / "a.store", tmp_path, ReadingOptions(images_directory=images))
    with pytest.raises(InputError, match=message):
        convert(tmp_path / "a.store", tmp_path / "b.csv", ReadingOptions(images_directory=images))
    options = {"images_directory": images, "exif": "as_displayed"}
    store = open_or_build(tmp_path / "a.store", tmp_path, ReadingOptions(**options))
    assert worst_overlap(store, GARMENT) == 1
    read(source, images, tmp_path / "b.store")
    assert (
        len(open_or_build(tmp_path / "b.store", tmp_path, ReadingOptions(images_directory=images)))
        == 2
    )
