"""Scoring files: against brute force on the files' own text, on sizes, and on faults."""

from __future__ import annotations

import csv

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

import benchmarks.score
from src.errors import InputError
from src.metrics.coco_average_precision import coco_annotations
from src.metrics.inputs import class_key_text
from src.metrics.scoring import open_ground_truth
from tests.helpers import annotation_files as files
from tests.helpers import plain_metric as brute_force
from tests.helpers.real_data import real_data
from tests.helpers.scoring import score_files


def brute_force_objects(path, use_attributes=False):
    """Objects by image on the raster, from the text; those that resizing empties are left out."""
    images = {}
    for row in csv.DictReader(path.read_text().splitlines()):
        size = int(row.get("Height") or 512), int(row.get("Width") or 512)
        mask = brute_force.decode(row["EncodedPixels"], *size)
        on_raster = brute_force.resize_nearest(mask)
        category, *attributes = row["ClassId"].split("_")
        key = (category, frozenset(attributes)) if use_attributes else category
        objects = images.setdefault(row["ImageId"], [])
        if on_raster.any() or not mask.any():
            objects.append((key, on_raster))
    return images


def brute_force_score(submission, ground_truth, averaging, use_attributes=False):
    ground_truth = brute_force_objects(ground_truth, use_attributes)
    prediction = brute_force_objects(submission, use_attributes)
    pairs = [(objects, prediction.get(image_id, [])) for image_id, objects in ground_truth.items()]
    return brute_force.score(pairs, averaging)


@pytest.mark.parametrize("averaging", ["per_class", "pooled"])
def test_files_score_as_by_brute_force(circles, averaging):
    score, notes = score_files(*circles, averaging=averaging)
    assert score.competition_map == pytest.approx(brute_force_score(*circles, averaging), abs=1e-12)
    assert 0.3 < score.competition_map < 0.9
    assert notes == ()


# 1030 to 2100 pixels an edge: single pixels, lines and small boxes often miss every raster pixel.
boxes = st.tuples(
    st.integers(0, 1029), st.integers(0, 1029), st.integers(1, 1030), st.integers(1, 4)
)


@given(
    st.tuples(st.integers(1030, 2100), st.integers(1030, 1100)),
    st.lists(
        st.tuples(boxes, st.sampled_from(["3", "3_5_4", "3_4_5", "23"])), min_size=1, max_size=5
    ),
    st.sampled_from(["per_class", "pooled"]),
    st.booleans(),
)
@settings(max_examples=15, deadline=None)
def test_vanishing_masks_score_as_by_brute_force(
    tmp_path_factory, size_hw, objects, averaging, use_attributes
):
    folder = tmp_path_factory.mktemp("vanishing")
    true_rows, prediction = [], []
    for number, ((y, x, length, thickness), class_id) in enumerate(objects):
        mask = np.zeros(size_hw, dtype=bool)
        mask[y : y + length, x : x + thickness] = True
        true_rows.append((f"{number % 2}.jpg", mask, class_id))
        prediction.append((f"{number % 2}.jpg", np.roll(mask, 1, axis=0), class_id))
    ground_truth = files.write_truth(folder / "train.csv", true_rows)
    submission = files.write_truth(folder / "submission.csv", prediction)
    score, _ = score_files(
        submission, ground_truth, averaging=averaging, use_attributes=use_attributes
    )
    expected = brute_force_score(submission, ground_truth, averaging, use_attributes)
    assert score.competition_map == pytest.approx(expected, abs=1e-12)
    itself, _ = score_files(
        ground_truth, ground_truth, averaging=averaging, use_attributes=use_attributes
    )
    if not overlapping(true_rows):
        assert itself.competition_map == 1.0


def overlapping(objects):
    """Whether masks of an image and class touch each other, so that a match may be ambiguous."""
    return any(
        (a[1] & b[1]).any()
        for i, a in enumerate(objects)
        for b in objects[:i]
        if (a[0], a[2]) == (b[0], b[2])
    )


def test_vanished_objects_are_left_out_and_counted(tmp_path):
    speck, blob = np.zeros((2, 2048, 2048), dtype=bool)
    speck[1, 1] = True  # the raster keeps rows and columns 0, 4, 8, ...
    blob[100:200, 100:200] = True
    ground_truth = files.write_truth(tmp_path / "t.csv", [("a", speck, "1"), ("a", blob, "2")])
    score, notes = score_files(ground_truth, ground_truth)
    assert score.competition_map == 1.0
    assert list(score.per_class) == [2]
    assert notes == (
        "ground-truth instances without a pixel left on the 512x512 raster, left out: 1",
        "detections without a pixel left on the 512x512 raster, left out: 1",
    )


def test_image_whose_every_object_vanished_scores_one_without_prediction(tmp_path):
    speck, blob = np.zeros((2, 2048, 2048), dtype=bool)
    speck[1, 1] = True
    blob[:, :] = True
    ground_truth = files.write_truth(tmp_path / "t.csv", [("a", speck, "1"), ("b", blob, "2")])
    submission = files.write_submission(tmp_path / "s.csv", [("b", np.ones((512, 512)), "2")])
    score, _ = score_files(submission, ground_truth)
    assert score.per_image.tolist() == [1.0, 1.0]


def test_filler_and_empty_mask_are_wrong_predictions(tmp_path):
    blob = np.zeros((512, 512), dtype=bool)
    blob[:100, :100] = True
    ground_truth = files.write_truth(tmp_path / "t.csv", [(name, blob, "1") for name in "abc"])
    header = "ImageId,EncodedPixels,ClassId"
    rows = [(name, files.run_text(blob), 1) for name in "abc"]
    rows += [("b", "1 1", 23), ("c", "", 1)]
    score, _ = score_files(files.write_csv(tmp_path / "s.csv", header, rows), ground_truth)
    assert score.per_image.tolist() == [1.0, 0.5, 0.5]


def test_attributes_are_a_set(tmp_path):
    blob = np.zeros((512, 512), dtype=bool)
    blob[:100, :100] = True
    ground_truth = files.write_truth(
        tmp_path / "t.csv", [("a", blob, "6_13_24"), ("b", blob, "6_13_24"), ("c", blob, "6")]
    )
    submission = files.write_submission(
        tmp_path / "s.csv", [("a", blob, "6_24_13"), ("b", blob, "6_13"), ("c", blob, "6")]
    )
    plain, _ = score_files(submission, ground_truth)
    assert plain.per_image.tolist() == [1.0, 1.0, 1.0]
    strict, _ = score_files(submission, ground_truth, use_attributes=True)
    assert strict.per_image.tolist() == [1.0, 0.0, 1.0]
    assert [class_key_text(key) for key in strict.per_class] == ["6", "6_13", "6_13_24"]


def test_submission_of_2020_lies_on_a_raster_of_the_images_shape(tmp_path):
    """Its long edge has 1024 pixels; ids lack .jpg.

    What the ground truth lacks is not looked at.
    """
    random = np.random.default_rng(0)
    true, found, small = [], [], []
    for number, size_hw in enumerate([(1200, 900), (300, 700)]):
        mask = np.zeros(size_hw, dtype=bool)
        mask[size_hw[0] // 4 : size_hw[0] // 2, size_hw[1] // 3 : size_hw[1] // 2] = True
        true.append((f"{number}.jpg", mask, "1"))
        raster_hw = [(1024, 768), (439, 1024)][number]
        noisy = brute_force.resize_nearest(mask, *raster_hw) & (random.random(raster_hw) < 0.8)
        found.append((str(number), files.run_text(noisy), 1, ""))
        small.append((f"{number}.jpg", brute_force.resize_nearest(noisy), "1"))
    found.append(("elsewhere", "1048576 1", 1, ""))
    header = "ImageId,EncodedPixels,ClassId,AttributesIds"
    ground_truth = files.write_truth(tmp_path / "t.csv", true)
    score, notes = score_files(files.write_csv(tmp_path / "s.csv", header, found), ground_truth)
    wanted, _ = score_files(files.write_submission(tmp_path / "512.csv", small), ground_truth)
    assert score.per_image.tolist() == wanted.per_image.tolist()
    assert ((score.per_image > 0.5) & (score.per_image < 1)).all()
    assert notes == ("images of s.csv that are not among those scored: 1 (the first: elsewhere)",)
    row = ("1", "449537 1", 1, "")  # a pixel more than 439 x 1024
    beyond = files.write_csv(tmp_path / "beyond.csv", header, [row])
    with pytest.raises(
        InputError, match=r"row 2, image '1': .* 449536, the last of height 439 and width 1024"
    ):
        score_files(beyond, ground_truth)


def test_ids_with_and_without_jpg_are_one_image(tmp_path):
    blob = np.zeros((512, 512), dtype=bool)
    blob[:100, :100] = True
    ground_truth = files.write_truth(
        tmp_path / "t.csv", [("a.jpg", blob, "1"), ("b.jpg", blob, "1")]
    )
    rows = [("a", blob, "1"), ("b.jpg", blob, "1"), ("b", blob, "2")]
    score, notes = score_files(files.write_submission(tmp_path / "s.csv", rows), ground_truth)
    assert score.per_image.tolist() == [1.0, 0.5]  # class 2 of b is a prediction too many
    assert notes == (
        "s.csv: images spelled in more than one way, each taken as one: 1 "
        "(the first: 'b.jpg' and 'b')",
    )


def test_images_on_one_side_only(circles):
    submission, ground_truth = circles
    lines = submission.read_text().splitlines()
    kept = [line for line in lines if f"{1:032x}" not in line]
    stranger = "stranger.jpg,1 1,23"
    submission.write_text("\n".join([*kept, stranger]) + "\n")
    score, notes = score_files(submission, ground_truth)
    assert score.per_image[1] == 0
    assert score.images == 4
    assert notes == (
        "images not in submission.csv, which count as having no detection: 1 of 4 "
        f"(the first: {1:032x}.jpg)",
        "images of submission.csv that are not among those scored: 1 (the first: stranger.jpg)",
    )


def test_only_the_images_asked_for_are_scored(circles):
    ids = [f"{number:032x}.jpg" for number in (2, 0)]
    every, _ = score_files(*circles)
    some, _ = score_files(*circles, image_ids=ids)
    assert some.image_ids == (every.image_ids[0], every.image_ids[2])
    assert some.per_image.tolist() == every.per_image[[0, 2]].tolist()


def test_exchanged_sizes_are_repaired_from_the_images(tmp_path):
    """An image of 60 x 90 whose row says 90 x 60: its run lengths are of the image."""
    mask = files.circle((60, 90), 0.4, 0.6, 0.25)
    rows = [("a.jpg", files.run_text(mask), 90, 60, "1")]
    ground_truth = files.write_csv(
        tmp_path / "t.csv", "ImageId,EncodedPixels,Height,Width,ClassId", rows
    )
    Image.new("RGB", (90, 60)).save(tmp_path / "a.jpg")
    submission = files.write_submission(
        tmp_path / "s.csv", [("a.jpg", brute_force.resize_nearest(mask), "1")]
    )
    wrong, _ = score_files(submission, ground_truth)
    assert wrong.competition_map == 0
    right, notes = score_files(submission, ground_truth, images_directory=tmp_path)
    assert right.competition_map == 1
    assert notes == (
        "images of the ground truth with Height and Width exchanged, repaired: 1 "
        "(the first: a.jpg)",
    )
    itself, _ = score_files(ground_truth, ground_truth, images_directory=tmp_path)
    assert itself.competition_map == 1


def test_missing_images_repair_nothing(circles, tmp_path):
    (tmp_path / "images").mkdir()
    with_images, _ = score_files(*circles, images_directory=tmp_path / "images")
    assert with_images.competition_map == score_files(*circles)[0].competition_map


def test_truth_is_kept_in_the_cache(circles, tmp_path):
    first, _ = score_files(*circles, cache_dir=tmp_path / "cache")
    stores = list((tmp_path / "cache").glob("*.store"))
    assert len(stores) == 1
    again, _ = score_files(*circles, cache_dir=tmp_path / "cache")
    from_store, _ = score_files(circles[0], stores[0])
    assert first.values.tolist() == again.values.tolist() == from_store.values.tolist()


@pytest.mark.parametrize("averaging", ["per_class", "pooled"])
@pytest.mark.parametrize("name", ["real_rows.csv", "fashionpedia_sample/annotations.json"])
def test_real_truth_against_itself_scores_one(name, averaging):
    score, _ = score_files(real_data(name), real_data(name), averaging=averaging)
    assert score.competition_map == 1.0


@pytest.mark.slow
def test_twenty_times_faster_than_brute_force():
    figures = benchmarks.score.run()
    assert figures["times_faster"] > 20, figures
    assert figures["interval_of_450_images_s"] < 1


def test_a_true_object_without_a_pixel_is_none_that_could_be_missed(tmp_path):
    blob = np.zeros((512, 512), dtype=bool)
    blob[:100, :100] = True
    empty = np.zeros((512, 512), dtype=bool)
    ground_truth = files.write_truth(
        tmp_path / "t.csv", [("a.jpg", blob, "1"), ("a.jpg", empty, "2"), ("b.jpg", empty, "2")]
    )
    submission = files.write_submission(tmp_path / "s.csv", [("a.jpg", blob, "1")])
    score, notes = score_files(submission, ground_truth)
    assert score.per_image.tolist()[0] == 1.0
    assert "ground-truth instances whose mask has no pixel, left out: 2" in notes
    with open_ground_truth(ground_truth) as objects:
        assert objects.category_ids("a.jpg") == {1}
        assert objects.category_ids("b.jpg") == set()
        assert coco_annotations(objects.store, "b.jpg", size_hw=(512, 512)) == []
        (only,) = coco_annotations(objects.store, "a.jpg", size_hw=(512, 512))
        assert only["category_id"] == 1


def test_an_empty_prediction_is_wrong_unless_the_truth_has_one_of_its_class(tmp_path):
    blob = np.zeros((512, 512), dtype=bool)
    blob[:100, :100] = True
    empty = np.zeros((512, 512), dtype=bool)
    rows = [("a.jpg", blob, "1"), ("a.jpg", empty, "2"), ("b.jpg", blob, "1")]
    ground_truth = files.write_truth(tmp_path / "t.csv", rows)
    itself = files.write_submission(tmp_path / "itself.csv", rows)
    score, notes = score_files(itself, ground_truth)
    assert score.per_image.tolist() == [1.0, 1.0]
    assert "detections whose mask has no pixel, left out: 1" in notes
    more = files.write_submission(
        tmp_path / "more.csv", [*rows, ("a.jpg", empty, "2"), ("b.jpg", empty, "1")]
    )
    score, _ = score_files(more, ground_truth)
    assert score.per_image.tolist() == pytest.approx([0.5, 0.5])
