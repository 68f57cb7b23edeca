"""Geometry, fabrics and bodies."""

from __future__ import annotations

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from src.synthetic.body import ARM_POSES, Body, Pose, Shape
from src.synthetic.fabrics import PATTERNS, Fabric, texture
from src.synthetic.geometry import Limb, ellipse, flip, moved, rotate, spline
from src.synthetic.palette import contrast, luminance
from src.synthetic.workers import in_order


def area(points: np.ndarray) -> float:
    return abs(float(cv2.contourArea(points.astype(np.float32))))


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 2**32 - 1), st.integers(3, 12), st.booleans())
def test_spline_passes_through_its_knots(seed: int, count: int, closed: bool) -> None:
    knots = np.random.default_rng(seed).normal(size=(count, 2))
    curve = spline(knots, closed=closed, samples=5)
    assert len(curve) == (count * 5 if closed else (count - 1) * 5 + 1)
    assert np.allclose(curve[::5][:count], knots)


def test_ellipse_has_its_area() -> None:
    assert area(ellipse((3, 4), 2.0, 1.0, count=200)) == pytest.approx(2 * np.pi, rel=1e-3)


def test_flip_mirrors_and_reverses() -> None:
    points = np.array([(1.0, 2.0), (3.0, 4.0)])
    assert np.array_equal(flip(points), [(-3.0, 4.0), (-1.0, 2.0)])
    assert np.array_equal(moved(points, 1, -1), [(2.0, 1.0), (4.0, 3.0)])


def test_rotate_turns_right_to_down() -> None:
    assert np.allclose(rotate([(1.0, 0.0)], np.pi / 2), [(0.0, 1.0)])
    assert np.allclose(rotate([(1.0, 1.0)], 0.7, about=(1.0, 1.0)), [(1.0, 1.0)])


def test_a_straight_limb_is_a_strip() -> None:
    limb = Limb([(0.0, 0.0), (0.0, 1.0), (0.0, 2.0)], [0.5, 0.5, 0.5])
    assert area(limb.outline()) == pytest.approx(2.0)
    assert area(limb.outline(0.25, 0.75, grow=0.1)) == pytest.approx(1.2)
    assert area(limb.outline(round_stop=True)) > 2.2
    assert np.allclose(limb.point(0.5), (0.0, 1.0))
    assert np.allclose(limb.point(0.5, 1.0), (-0.5, 1.0))
    assert np.sin(limb.angle(0.5)) == pytest.approx(0.0)


@pytest.mark.parametrize("pose", ARM_POSES)
def test_outlines_of_bent_arms_do_not_cross_themselves(pose: str) -> None:
    """A crossing would leave a hole where the outline is filled."""
    body = Body(Shape(), Pose(arms=(pose, pose)))
    for arm in body.arms:
        image = np.zeros((900, 900), np.uint8)
        path = np.round((arm.outline(grow=0.10) + 3) * 130 * 16).astype(np.int32)
        cv2.fillPoly(image, [path], 1, cv2.LINE_8, 4)
        _, hierarchy = cv2.findContours(image, cv2.RETR_CCOMP, cv2.CHAIN_APPROX_NONE)
        holes = int((hierarchy[0, :, 3] >= 0).sum())
        assert holes == 0


def test_a_straight_body_is_symmetric() -> None:
    body = Body(Shape(), Pose())
    left, right = body.arms
    assert np.allclose(left.centre * (-1, 1), right.centre)
    points = np.array([(0.5, 2.0), (-0.5, 3.0)])
    assert np.allclose(body.torso(points), points)
    assert body.leg_reach(5.0) > 0.2


@pytest.mark.parametrize("pattern", ["plain", *PATTERNS])
@pytest.mark.parametrize("angle", [0.0, 0.6])
def test_every_pattern_fills_any_window(pattern: str, angle: float) -> None:
    fabric = Fabric((200, 60, 60), pattern, (250, 250, 250), period=0.4, angle=angle, seed=3)
    for px_per_unit in (12.0, 90.0):
        window = texture(fabric, (37, 53), (-11.0, 7.0), px_per_unit)
        assert window.shape == (37, 53, 3)
        assert window.dtype == np.uint8
        if pattern == "plain":
            assert (window == (200, 60, 60)).all()
    assert pattern == "plain" or window.std(axis=(0, 1)).max() > 1


@pytest.mark.parametrize("pattern", PATTERNS)
def test_patterns_repeat_without_a_seam(pattern: str) -> None:
    fabric = Fabric((60, 90, 140), pattern, (250, 250, 250), period=0.5, seed=1)
    window = texture(fabric, (80, 80), (0.0, 0.0), 80.0)
    side = 40
    assert np.array_equal(window[:side, :side], window[side:, side:])


def test_trims_stand_out() -> None:
    for colour in ((20, 20, 30), (250, 250, 250), (120, 130, 90)):
        assert abs(luminance(contrast(colour)) - luminance(colour)) > 50


def test_results_come_in_order_and_few_wait() -> None:
    taken = []

    def tasks():
        for number in range(20):
            taken.append(number)
            yield number

    results = in_order(abs, tasks(), 2)
    assert next(results) == 0
    assert len(taken) <= 8
    assert list(results) == list(range(1, 20))
    assert list(in_order(abs, iter([-1, -2]), 1)) == [1, 2]
    assert list(in_order(abs, iter([]), 2)) == []
