"""The competition's score: against brute force on bitmaps, and on cases worked out by hand."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from src.annotations.competition import THRESHOLDS
from src.errors import InputError
from src.metrics.competition import (
    ImageInstances,
    ScoreAccumulator,
    image_values,
    match_instances,
    score_images,
)
from src.rle import Bitmasks
from tests.helpers import plain_metric as brute_force

AVERAGINGS = ("per_class", "pooled")


def image_objects(objects, image_id="a", size_hw=(16, 16)) -> ImageInstances:
    bitmaps = np.array([mask for _, mask in objects], dtype=bool).reshape(-1, *size_hw)
    return ImageInstances(image_id, tuple(key for key, _ in objects), Bitmasks.pack(bitmaps))


def rectangle(y0, x0, y1, x1, size_hw=(16, 16)) -> np.ndarray:
    mask = np.zeros(size_hw, dtype=bool)
    mask[y0:y1, x0:x1] = True
    return mask


def row_of(pixels: int, start: int = 0) -> np.ndarray:
    mask = np.zeros(256, dtype=bool)
    mask[start : start + pixels] = True
    return mask.reshape(16, 16)


@st.composite
def masks(draw) -> np.ndarray:
    kind = draw(st.sampled_from(["rectangle", "noise", "empty", "full", "pixel"]))
    if kind == "empty":
        return np.zeros((16, 16), dtype=bool)
    if kind == "full":
        return np.ones((16, 16), dtype=bool)
    if kind == "pixel":
        return row_of(1, draw(st.integers(0, 255)))
    if kind == "noise":
        generator = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
        return generator.random((16, 16)) < draw(st.sampled_from([0.1, 0.5, 0.9]))
    edges = st.tuples(st.integers(0, 16), st.integers(0, 16)).map(sorted)
    (y0, y1), (x0, x1) = draw(edges), draw(edges)
    return rectangle(y0, x0, y1, x1)


@st.composite
def images(draw) -> tuple[brute_force.Objects, brute_force.Objects]:
    keys = st.sampled_from([3, 23, (6, 13, 24)])
    ground_truth = draw(st.lists(st.tuples(keys, masks()), max_size=6))
    prediction = draw(st.lists(st.tuples(keys, masks()), max_size=4))
    # Predictions that lie near a true mask: the same, a part of it (nested), or a bit off.
    for key, mask in ground_truth:
        change = draw(st.sampled_from(["none", "same", "part", "shifted", "wrong class"]))
        if change == "same":
            prediction.append((key, mask))
        elif change == "part":
            part = mask.copy()
            part[draw(st.integers(0, 15)) :] = False
            prediction.append((key, part))
        elif change == "shifted":
            prediction.append((key, np.roll(mask, draw(st.integers(-3, 3)), axis=0)))
        elif change == "wrong class":
            prediction.append((draw(keys), mask))
    return ground_truth, draw(st.permutations(prediction))


@given(st.lists(images(), min_size=1, max_size=4), st.sampled_from(AVERAGINGS))
@settings(max_examples=120, deadline=None)
def test_score_equals_brute_force(cases, averaging):
    ground_truth = [image_objects(pair[0], str(number)) for number, pair in enumerate(cases)]
    prediction = {str(number): image_objects(pair[1]) for number, pair in enumerate(cases)}
    result = score_images(ground_truth, prediction, averaging=averaging)
    values = np.array([brute_force.image_values(*pair, averaging) for pair in cases])
    np.testing.assert_allclose(result.values, values, rtol=0, atol=1e-12)
    assert result.competition_map == pytest.approx(brute_force.score(cases, averaging), abs=1e-12)
    assert result.per_class == pytest.approx(brute_force.per_class(cases), abs=1e-12)
    np.testing.assert_allclose(result.per_threshold, values.mean(axis=0), rtol=0, atol=1e-12)
    assert result.images == len(cases)


@given(images())
@settings(max_examples=150, deadline=None)
def test_hits_equal_brute_force(case):
    ground_truth, prediction = case
    matches = match_instances(image_objects(ground_truth), image_objects(prediction))
    expected = [
        [
            brute_force.true_positives(
                *[[m for k, m in side if k == key] for side in case], twentieths
            )
            for twentieths in brute_force.TWENTIETHS
        ]
        for key in matches.class_keys
    ]
    assert matches.true_positives().tolist() == expected
    assert sorted(matches.ground_truth_iou[matches.ground_truth_iou > 0]) == sorted(
        matches.prediction_iou[matches.prediction_iou > 0]
    )


@given(images(), st.sampled_from(AVERAGINGS))
@settings(max_examples=100, deadline=None)
def test_prediction_equal_to_truth_scores_one_where_no_mask_is_empty(case, averaging):
    ground_truth = image_objects([(key, mask) for key, mask in case[0] if mask.any()])
    assert (
        image_values(match_instances(ground_truth, ground_truth).counts(), averaging).tolist()
        == [1.0] * 10
    )


@given(images())
@settings(max_examples=100, deadline=None)
def test_both_averagings_agree_on_an_image_of_one_class(case):
    ground_truth, prediction = ([(7, mask) for _, mask in side] for side in case)
    matches = match_instances(image_objects(ground_truth), image_objects(prediction))
    assert (
        image_values(matches.counts(), "per_class").tolist()
        == image_values(matches.counts(), "pooled").tolist()
    )


def test_thresholds_are_the_ten_literals():
    assert THRESHOLDS == (0.5, 0.55, 0.6, 0.65, 0.7, 0.75, 0.8, 0.85, 0.9, 0.95)


@pytest.mark.parametrize("threshold", range(10))
def test_iou_equal_to_a_threshold_is_no_hit_there(threshold):
    """20 true pixels, of which 10, 11, ... 19 are predicted: IoU is exactly the threshold."""
    ground_truth = image_objects([(0, row_of(20))])
    prediction = image_objects([(0, row_of(10 + threshold))])
    true_positives = match_instances(ground_truth, prediction).true_positives()[0]
    assert true_positives.tolist() == [1] * threshold + [0] * (10 - threshold)


def test_every_exact_ratio_up_to_400_pixels_is_compared_as_whole_numbers_would():
    for either in range(1, 401):
        common = np.arange(1, either + 1)
        for threshold, twentieths in zip(THRESHOLDS, brute_force.TWENTIETHS, strict=True):
            np.testing.assert_array_equal(
                common / either > threshold, 20 * common > twentieths * either
            )


@pytest.mark.parametrize(
    ("ground_truth", "prediction", "per_class", "pooled"),
    [
        pytest.param([], [], 1.0, 1.0, id="neither"),
        pytest.param([(1, row_of(9))], [], 0.0, 0.0, id="truth only"),
        pytest.param([], [(23, row_of(1))], 0.0, 0.0, id="a filler where there is no ground truth"),
        pytest.param([(1, row_of(9))], [(2, row_of(9))], 0.0, 0.0, id="wrong class"),
        pytest.param([(1, row_of(9))], [(1, row_of(9))], 1.0, 1.0, id="identical"),
        pytest.param(
            [(1, row_of(9))], [(1, row_of(9)), (2, row_of(9))], 0.5, 0.5, id="one too many"
        ),
        pytest.param(
            # Class 1: 3 of 3. Class 2: 0 of 1. Mean of 1 and 0; or 3 of 4.
            [(1, row_of(9)), (1, row_of(9, 9)), (1, row_of(9, 18)), (2, row_of(9))],
            [(1, row_of(9)), (1, row_of(9, 9)), (1, row_of(9, 18))],
            0.5,
            0.75,
            id="the averagings differ",
        ),
        pytest.param(
            [(1, row_of(9))], [(1, row_of(9)), (1, row_of(9))], 0.5, 0.5, id="a duplicate"
        ),
        pytest.param(
            # IoU 16/20 = 0.8: a hit at 0.50 to 0.75, six of ten thresholds.
            [(1, row_of(20))],
            [(1, row_of(16))],
            0.6,
            0.6,
            id="nested",
        ),
        pytest.param([(1, row_of(0))], [(1, row_of(0))], 0.0, 0.0, id="empty on both sides"),
        pytest.param([(1, row_of(256))], [(1, row_of(256))], 1.0, 1.0, id="frame-filling"),
    ],
)
def test_cases_worked_out_by_hand(ground_truth, prediction, per_class, pooled):
    matches = match_instances(image_objects(ground_truth), image_objects(prediction))
    assert image_values(matches.counts(), "per_class").mean() == pytest.approx(per_class, abs=1e-15)
    assert image_values(matches.counts(), "pooled").mean() == pytest.approx(pooled, abs=1e-15)


def test_overlapping_masks_match_greedily_by_falling_iou():
    """The first prediction fits both true masks, the better one takes it."""
    ground_truth = image_objects([(1, row_of(12)), (1, row_of(10))])
    prediction = image_objects([(1, row_of(10)), (1, row_of(8))])
    matches = match_instances(ground_truth, prediction)
    assert matches.ground_truth_iou.tolist() == [8 / 12, 1.0]
    assert matches.prediction_iou.tolist() == [1.0, 8 / 12]


def test_ties_go_to_the_earlier_true_object_then_to_the_earlier_prediction():
    ground_truth = image_objects([(1, row_of(10)), (1, row_of(10))])
    prediction = image_objects([(1, row_of(8)), (1, row_of(8)), (1, row_of(8))])
    matches = match_instances(ground_truth, prediction)
    assert matches.ground_truth_iou.tolist() == [0.8, 0.8]
    assert matches.prediction_iou.tolist() == [0.8, 0.8, 0.0]


@pytest.mark.parametrize("averaging", AVERAGINGS)
def test_order_of_images_and_of_disjoint_objects_does_not_matter(averaging):
    objects = [(key, row_of(20, 40 * place)) for place, key in enumerate([1, 1, 2, 3])]
    predicted = [
        (key, row_of(11 + 3 * place, 40 * place)) for place, (key, _) in enumerate(objects)
    ]
    results = {
        score_images(
            [image_objects(order, "b"), image_objects([], "a")][::step],
            {"b": image_objects(predicted[::step]), "unknown": image_objects(objects)},
            averaging=averaging,
        ).competition_map
        for order in itertools.permutations(objects)
        for step in (1, -1)
    }
    assert max(results) - min(results) < 1e-15


def test_image_missing_from_the_prediction_counts_as_no_prediction():
    ground_truth = [image_objects([(1, row_of(9))], "a"), image_objects([(1, row_of(9))], "b")]
    result = score_images(ground_truth, {"b": image_objects([(1, row_of(9))], "b")})
    assert result.image_ids == ("a", "b")
    assert result.per_image.tolist() == [0.0, 1.0]
    assert result.competition_map == 0.5


def test_class_results_count_objects_and_images():
    accumulator = ScoreAccumulator()
    accumulator.add(image_objects([(1, row_of(9)), (1, row_of(9, 9))]), image_objects([]))
    accumulator.add(image_objects([]), image_objects([(1, row_of(9)), (2, row_of(9))]))
    accumulator.add(image_objects([(2, row_of(9))]), image_objects([(2, row_of(9))]))
    result = accumulator.result()
    one, two = result.classes[1], result.classes[2]
    assert (one.images, one.num_ground_truth, one.num_detections, one.value) == (2, 2, 1, 0.0)
    assert (two.images, two.num_ground_truth, two.num_detections, two.value) == (2, 1, 2, 0.5)


def test_images_are_taken_one_by_one():
    """Neither side is held: each true image is asked for after the one before it was scored."""
    log = []

    class Prediction(dict):
        def get(self, image_id, default=None):
            log.append(f"prediction {image_id}")
            return default

    def ground_truth():
        for image_id in ("a", "b"):
            log.append(f"truth {image_id}")
            yield image_objects([], image_id)

    score_images(ground_truth(), Prediction())
    assert log == ["truth a", "prediction a", "truth b", "prediction b"]


def test_unknown_averaging_is_refused():
    with pytest.raises(InputError, match=r"averaging must be one of per_class, pooled, got"):
        score_images([], {}, averaging="mean")


def test_no_image_is_refused():
    with pytest.raises(InputError, match="there is no image to score"):
        score_images([], {})


@pytest.mark.parametrize("averaging", AVERAGINGS)
def test_full_raster_equals_brute_force(averaging):
    """Masks of 512 x 512, blurred outlines of each other, seven objects an image."""
    generator = np.random.default_rng(0)
    rows, columns = np.mgrid[:512, :512]
    cases = []
    for _ in range(3):
        ground_truth, prediction = [], []
        for _ in range(7):
            y, x, radius = generator.integers([60, 60, 5], [450, 450, 60])
            key = int(generator.integers(3))
            ground_truth.append((key, (rows - y) ** 2 + (columns - x) ** 2 < radius**2))
            shift, grown = generator.integers(-4, 5, size=2)
            mask = (rows - y - shift) ** 2 + (columns - x) ** 2 < (radius + grown) ** 2
            prediction.append((key, mask))
        cases.append((ground_truth, prediction))
    result = score_images(
        [
            image_objects(ground_truth, str(i), (512, 512))
            for i, (ground_truth, _) in enumerate(cases)
        ],
        {
            str(i): image_objects(objects, str(i), (512, 512))
            for i, (_, objects) in enumerate(cases)
        },
        averaging=averaging,
    )
    assert result.competition_map == pytest.approx(brute_force.score(cases, averaging), abs=1e-12)
    assert 0.2 < result.competition_map < 0.95
