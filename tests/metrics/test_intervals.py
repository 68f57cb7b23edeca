"""Bootstrap intervals: exact on enumerable cases, coverage by simulation, speed, faults."""

from __future__ import annotations

import itertools
import time

import numpy as np
import pytest

from src.errors import InputError
from src.metrics.intervals import (
    bootstrap_bands,
    bootstrap_interval,
    paired_bootstrap_interval,
)


def test_interval_of_three_images_equals_all_27_resamples():
    scores = np.array([0.0, 0.5, 1.0])
    every = np.sort([np.mean(draw) for draw in itertools.product(scores, repeat=3)])
    interval = bootstrap_interval(scores, num_resamples=200_000, confidence=0.8)
    # The 10% and 90% points of the 27 equally likely means lie inside a step, so both must agree.
    assert interval.low == pytest.approx(np.quantile(every, 0.1), abs=1e-12)
    assert interval.high == pytest.approx(np.quantile(every, 0.9), abs=1e-12)
    assert interval.estimate == 0.5


def test_interval_width_follows_the_standard_error():
    scores = np.random.default_rng(0).beta(2, 2, 450)
    interval = bootstrap_interval(scores)
    expected = 2 * 1.959964 * scores.std() / np.sqrt(450)
    assert interval.high - interval.low == pytest.approx(expected, rel=0.03)
    assert interval.low < interval.estimate < interval.high
    assert interval.resamples == 10_000


@pytest.mark.parametrize(
    "distribution", [pytest.param("skewed", marks=pytest.mark.slow), "mostly zero"]
)
def test_coverage_by_simulation(distribution):
    generator = np.random.default_rng(7)
    draw, mean = {
        "skewed": (lambda: generator.beta(1, 4, 450), 0.2),
        "mostly zero": (lambda: generator.random(450) * (generator.random(450) < 0.2), 0.1),
    }[distribution]
    covered = 0
    for seed in range(2000):
        interval = bootstrap_interval(draw(), num_resamples=200, seed=seed)
        covered += interval.low <= mean <= interval.high
    # Four standard errors of 2000 draws are 2%.
    assert 0.93 <= covered / 2000 <= 0.97


def test_paired_interval_sees_what_two_single_ones_cannot():
    generator = np.random.default_rng(1)
    a = generator.random(450)
    b = a + 0.01 + generator.normal(0, 0.02, 450)
    paired = paired_bootstrap_interval(a, b)
    assert paired.difference.low > 0
    assert paired.probability_better == 1.0
    assert paired.difference.estimate == pytest.approx(np.mean(b) - np.mean(a))
    assert bootstrap_interval(a).high > bootstrap_interval(b).low
    back = paired_bootstrap_interval(b, a)
    assert back.difference.low == pytest.approx(-paired.difference.high)
    assert back.probability_better == 0.0


def test_equal_scores_are_neither_better_nor_worse():
    scores = np.random.default_rng(2).random(20)
    paired = paired_bootstrap_interval(scores, scores)
    assert (paired.difference.low, paired.difference.high) == (0.0, 0.0)
    assert paired.probability_better == 0.5


def test_paired_coverage_by_simulation():
    generator = np.random.default_rng(3)
    covered = 0
    for seed in range(2000):
        a = generator.random(200)
        b = a + generator.normal(0.02, 0.1, 200)
        interval = paired_bootstrap_interval(a, b, num_resamples=200, seed=seed).difference
        covered += interval.low <= 0.02 <= interval.high
    assert 0.93 <= covered / 2000 <= 0.97


def test_probability_of_being_better_is_calibrated():
    """Where a and b are equally good, it is as often below a share as the share says."""
    generator = np.random.default_rng(9)
    shares = [
        paired_bootstrap_interval(
            (a := generator.random(100)),
            a + generator.normal(0, 0.1, 100),
            num_resamples=100,
            seed=seed,
        ).probability_better
        for seed in range(1000)
    ]
    for share in (0.1, 0.5, 0.9):
        # three standard errors, and the step of 100 resamples
        assert np.mean(np.array(shares) < share) == pytest.approx(share, abs=0.055)


def test_bands_equal_the_interval_of_each_column():
    values = np.random.default_rng(4).random((60, 3))
    bands = bootstrap_bands(values, num_resamples=2000, seed=5)
    for column, (low, high) in enumerate(bands):
        interval = bootstrap_interval(values[:, column], num_resamples=2000, seed=5)
        assert (low, high) == (interval.low, interval.high)


def test_same_seed_same_interval_whatever_the_block(monkeypatch):
    scores = np.random.default_rng(6).random(50)
    first = bootstrap_interval(scores, seed=1)
    assert bootstrap_interval(scores, seed=1) == first
    assert bootstrap_interval(scores, seed=2) != first
    monkeypatch.setattr("src.metrics.intervals._DRAWS_AT_ONCE", 7 * 50)
    assert bootstrap_interval(scores, seed=1) == first


def test_one_image_has_an_interval_without_width():
    interval = bootstrap_interval([0.25], num_resamples=10)
    assert (interval.low, interval.estimate, interval.high) == (0.25, 0.25, 0.25)


def test_ten_thousand_resamples_of_450_images_take_under_a_second():
    scores = np.random.default_rng(8).random(450)
    start = time.process_time()
    bootstrap_interval(scores)
    assert time.process_time() - start < 1.0


@pytest.mark.parametrize(
    ("scores", "settings", "message"),
    [
        ([], {}, r"an interval needs one score for each image, got shape \(0,\)"),
        ([[0.5]], {}, r"an interval needs one score for each image, got shape \(1, 1\)"),
        ([0.5, float("nan")], {}, "the score of image 1 is not a number"),
        ([0.5], {"num_resamples": 0}, "num_resamples must be a whole number of at least 1, got 0"),
        ([0.5], {"confidence": 1.0}, "confidence must be a number above 0 and below 1, got 1.0"),
    ],
)
def test_bad_input_is_refused(scores, settings, message):
    with pytest.raises(InputError, match=message):
        bootstrap_interval(scores, **settings)


def test_pairs_of_unequal_length_are_refused():
    with pytest.raises(InputError, match="needs the same images twice, got 2 and 1"):
        paired_bootstrap_interval([0.1, 0.2], [0.1])
