"""Figures: the marks stand where the numbers say."""

from __future__ import annotations

from xml.etree import ElementTree

import numpy as np
import pytest

from src.annotations.competition import THRESHOLDS
from src.reporting.charts import (
    HEIGHT,
    WIDTH,
    _tick_step,
    count_histogram,
    interval_bar,
    share_histogram,
    threshold_curve,
)
from tests.helpers.report_files import marks


def points(node):
    return [tuple(map(float, point.split(","))) for point in node.get("points").split()]


def test_curve_passes_through_the_scores_and_the_band_through_the_intervals():
    scores = np.linspace(0.9, 0.1, 10)
    bands = np.stack([scores - 0.05, scores + 0.08], axis=1)
    svg = threshold_curve(THRESHOLDS, scores, bands)
    (line,) = marks(svg, "line")
    xs, ys = np.array(points(line)).T
    assert np.allclose(np.diff(xs), np.diff(xs)[0], atol=0.02)
    grid = sorted({float(node.get("y1")) for node in marks(svg, "grid")}, reverse=True)
    zero, one = grid[0], grid[-1]
    assert np.allclose((zero - ys) / (zero - one), scores, atol=1e-4)
    (band,) = marks(svg, "band")
    band_ys = (zero - np.array(points(band))[:, 1]) / (zero - one)
    assert np.allclose(band_ys[:10], bands[:, 1], atol=1e-4)
    assert np.allclose(band_ys[10:][::-1], bands[:, 0], atol=1e-4)
    titles = [dot[0].text for dot in marks(svg, "dot")]
    assert titles[0] == "IoU > 0.50: 0.9000 (0.8500 to 0.9800)"


@pytest.mark.parametrize("score", [0.0, 0.02, 0.5, 0.98, 1.0])
def test_curve_labels_stay_in_the_figure(score):
    scores = np.full(10, score)
    svg = threshold_curve(THRESHOLDS, scores, np.stack([scores, scores], axis=1))
    for node in ElementTree.fromstring(svg).iter("text"):
        assert 0 <= float(node.get("x")) <= WIDTH
        assert 8 <= float(node.get("y")) <= HEIGHT
    assert [node.text for node in marks(svg, "value")] == [f"{score:.3f}"] * 2


def test_histogram_bars_count_the_images():
    scores = np.array([0.0, 0.01, 0.049, 0.05, 0.5, 0.999, 1.0, 1.0])
    svg = share_histogram(scores, axis="score of an image", noun="images", key="score")
    bars = marks(svg, "bar")
    assert [bar[0].text for bar in bars] == [
        "0.00 to 0.05: 3 images",
        "0.05 to 0.10: 1 images",
        "0.50 to 0.55: 1 images",
        "0.95 to 1.00: 3 images",
    ]
    heights = [float(bar.get("height")) for bar in bars]
    assert np.allclose(np.array(heights) / heights[1], [3, 1, 1, 3], atol=0.01)
    links = [node.get("href") for node in ElementTree.fromstring(svg).iter("a")]
    assert links == ["#score=0-0.05", "#score=0.05-0.1", "#score=0.5-0.55", "#score=0.95-1"]


def test_counts_have_a_bar_each_until_they_are_many():
    few = marks(count_histogram(np.array([0, 0, 2, 3]), axis="detections", noun="images"), "bar")
    assert [bar[0].text for bar in few] == ["0: 2 images", "2: 1 images", "3: 1 images"]
    many = marks(count_histogram(np.array([0, 7, 100]), axis="detections", noun="images"), "bar")
    assert [bar[0].text for bar in many] == [
        "0 to 5: 1 images",
        "6 to 11: 1 images",
        "96 to 101: 1 images",
    ]
    assert marks(count_histogram(np.zeros(3, dtype=int), axis="detections", noun="images"), "bar")


@pytest.mark.parametrize("images", [1, 3, 450, 3200, 45_625])
def test_histogram_ticks_are_round_and_few(images):
    step = _tick_step(images)
    assert str(step)[0] in "125"
    assert set(str(step)[1:]) <= {"0"}
    assert images <= 5 * step
    share_histogram(np.full(images, 0.3), axis="score", noun="images", key="score")


def test_interval_bar_spans_the_interval():
    (span,) = marks(interval_bar(0.25, 0.5, 0.75), "span")
    (dot,) = marks(interval_bar(0.25, 0.5, 0.75), "dot")
    assert (float(span.get("x1")), float(span.get("x2"))) == (82.0, 238.0)
    assert float(dot.get("cx")) == 160.0
