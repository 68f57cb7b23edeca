"""All images of a page: the numbers that filters use, the confusion table, the drawings."""

from __future__ import annotations

import json

import cv2
import numpy as np
import pytest

from src.metrics.competition import ImageInstances, match_instances, no_instances
from src.metrics.errors import BANDS, KINDS, find_errors
from src.reporting.confusion import confusion_section, confusion_table
from src.reporting.gallery import NONE, Gallery, confidence_bins
from src.reporting.thumbnails import describe_objects, json_for_page, match_facts, outline
from src.rle import Bitmasks

NAMES = {1: "top, shirt", 2: "skirt", 3: "shoe"}


def instances(image_id, *objects, scores=None):
    """Objects as (category, row, number of pixels of the row); rows of 64 pixels."""
    masks = np.zeros((len(objects), 8, 64), dtype=bool)
    for mask, (_, row, length) in zip(masks, objects, strict=True):
        mask[row, :length] = True
    bits = np.packbits(masks.reshape(len(objects), -1, order="C"), axis=1, bitorder="little")
    raster = Bitmasks(bits, (64, 8))  # column by column
    known = None if scores is None else np.array(scores, dtype=np.float32)
    return ImageInstances(image_id, tuple(one[0] for one in objects), raster, known)


@pytest.fixture
def gallery():
    """Pairs that match well, poorly, and wrongly; a miss, a duplicate and background."""
    gallery = Gallery(NAMES)
    truth = instances("a", (1, 0, 64), (1, 1, 60), (2, 2, 50), (3, 3, 40))
    found = instances(
        "a",
        (1, 0, 64),
        (1, 1, 45),
        (3, 2, 50),
        (1, 0, 30),
        (2, 5, 20),
        scores=[0.9, 0.8, 0.7, 0.6, 0.5],
    )
    matches = match_instances(truth, found)
    gallery.add(truth, found, matches, find_errors(truth, found, matches))
    return gallery


def test_every_object_of_an_image_is_counted_once(gallery):
    (image,) = gallery.images.values()
    one, two, three = (gallery.index_of(key) for key in (1, 2, 3))
    kinds = {name: KINDS.index(name) for name in KINDS}
    assert dict(image.pairs) == {
        (NONE, one, one, NONE): 1,
        (kinds[BANDS[2]], one, one, NONE): 1,
        (kinds["wrong class"], two, three, NONE): 1,
        (kinds["missed"], three, NONE, NONE): 1,
        (kinds["duplicate"], NONE, one, NONE): 1,
        (kinds["background"], NONE, two, NONE): 1,
    }
    assert (image.num_ground_truth, image.num_detections) == (4, 5)
    assert image.mean_confidence == pytest.approx(0.7)


def test_confusion_table_adds_up_to_both_sides(gallery):
    table = confusion_table(gallery)
    assert table.class_keys == (1, 2, 3)
    assert table.counts.tolist() == [[2, 0, 0], [0, 0, 1], [0, 0, 0]]
    assert table.missed.tolist() == [0, 0, 1]
    assert (table.counts.sum(axis=1) + table.missed).tolist() == [2, 1, 1], "true"
    predicted = table.counts.sum(axis=0) + table.duplicates + table.background
    assert predicted.tolist() == [3, 1, 1], "predicted"
    section = confusion_section(gallery)
    assert [row["name"] for row in section["rows"]] == ["top", "skirt", "shoe"]
    skirt = section["rows"][1]["cells"]
    assert [cell["count"] for cell in skirt] == [0, 0, 0, 1]
    assert skirt[3]["fragment"] == "true=2&predicted=3"
    assert section["rows"][2]["cells"][0]["fragment"] == "true=3&error=missed"
    assert section["without"][1]["cells"][1]["fragment"] == "predicted=2&error=background"


def test_of_many_classes_the_table_has_those_with_errors():
    gallery = Gallery({number: str(number) for number in range(60)})
    for number in range(60):
        truth = instances(str(number), (number, 0, 64))
        found = truth if number < 55 else no_instances(truth)
        matches = match_instances(truth, found)
        gallery.add(truth, found, matches, find_errors(truth, found, matches))
    section = confusion_section(gallery)
    names = [row["name"] for row in section["rows"]]
    assert (len(names), section["more"]) == (50, 10)
    assert {"55", "56", "57", "58", "59"} <= set(names)


def test_predictions_alone_are_counted_by_bin_of_their_confidence():
    gallery = Gallery(NAMES)
    gallery.add_prediction(instances("a", (1, 0, 64), (1, 1, 64), scores=[0.99, 0.31]))
    gallery.add_prediction(instances("b", (2, 0, 64)))
    pairs = {image.image_id: dict(image.pairs) for image in gallery.images.values()}
    assert pairs == {
        "a": {(NONE, NONE, 0, 19): 1, (NONE, NONE, 0, 6): 1},
        "b": {(NONE, NONE, 1, NONE): 1},
    }
    assert gallery.mean_confidence(1) == pytest.approx(0.65)
    assert gallery.mean_confidence(2) is None
    described = gallery.describe(None, {"a": 0}, {"b": "missing"})
    assert described["hasTruth"] is False
    assert [image["drawing"] for image in described["images"]] == [0, NONE]
    assert described["images"][1]["problem"] == "missing"
    assert confidence_bins(np.array([0, 0.05, 0.0499, 0.3, 1])).tolist() == [0, 1, 0, 6, 19]


def test_objects_carry_confidence_iou_and_error(gallery):
    truth = instances("a", (1, 0, 64), (2, 2, 50))
    found = instances("a", (1, 0, 60), (3, 2, 50), scores=[0.9, 0.7])
    matches = match_instances(truth, found)
    facts = match_facts(matches, find_errors(truth, found, matches))
    described = describe_objects(found, (64, 8), gallery, facts[1])
    wrong = KINDS.index("wrong class")
    assert [one[:4] for one in described] == [
        [gallery.index_of(1), 0.9, 0.938, KINDS.index(BANDS[3])],
        [gallery.index_of(3), 0.7, 1.0, wrong],
    ]
    assert [one[6] for one in described] == [1, 0], "only the same class matches"
    assert [one.is_matched for one in facts[0]] == [True, False]


@pytest.mark.parametrize("seed", range(3))
def test_outlines_draw_the_masks_again(seed):
    """Blobs with holes, filled by the even-odd rule."""
    random = np.random.default_rng(seed)
    noise = cv2.GaussianBlur(random.normal(size=(256, 200)), (0, 0), 12)
    mask = noise > 0
    box, path = outline(mask)
    rows, columns = np.nonzero(mask)
    assert box == [columns.min(), rows.min(), columns.max() + 1, rows.max() + 1]
    drawn = np.zeros(mask.shape, dtype=np.uint8)
    lines = []
    for part in path.split("M")[1:]:
        start, _, moves = part.removesuffix("z").partition("l")
        steps = np.array(moves.split(), dtype=int).reshape(-1, 2)
        first = np.array([start.removesuffix("h0").split()], dtype=int)
        lines.append(np.concatenate([first, steps]).cumsum(axis=0).astype(np.int32))
    cv2.fillPoly(drawn, lines, 1)
    iou = (drawn.astype(bool) & mask).sum() / (drawn.astype(bool) | mask).sum()
    assert iou > 0.97


def test_an_empty_mask_and_a_pixel_have_an_outline():
    mask = np.zeros((9, 9), dtype=bool)
    assert outline(mask) == ([0, 0, 0, 0], "")
    mask[4, 2] = True
    assert outline(mask) == ([2, 4, 3, 5], "M2 4h0z")


def test_json_in_a_page_has_no_markup():
    text = "</script><!--&\u2028\ud800"
    shown = json_for_page({"name": text})
    assert not set(shown) & set("<>&\u2028")
    assert json.loads(shown) == {"name": text}
    shown.encode("ascii")
