"""Soft-NMS: as the paper words it, and tie by tie as mmcv's kernel does it."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from src.postprocess import nms
from src.postprocess.nms import select_by_soft_nms
from tests.helpers.candidates import make_boxes

F = np.float32
KINDS = ("soft_linear", "soft_gaussian")
SQUARE, SHIFTED, FAR = (0, 0, 4, 4), (0, 1, 4, 5), (100, 100, 104, 104)  # IoU of the first two: 0.6


def select(
    boxes, scores, labels=None, *, kind="soft_linear", iou=0.5, sigma=0.5, low=0.001, n=None
):
    return select_by_soft_nms(
        np.array(boxes, dtype=np.float32).reshape(-1, 4),
        np.array(scores, dtype=np.float32),
        np.zeros(len(scores), dtype=np.int16) if labels is None else np.array(labels),
        kind=kind,
        iou_threshold=iou,
        sigma=sigma,
        min_score=low,
        max_selected=n,
    )


def iou_of(a, b) -> np.float32:
    """IoU of two boxes, one float32 operation at a time."""
    width = max(F(0), F(min(a[2], b[2]) - max(a[0], b[0])))
    height = max(F(0), F(min(a[3], b[3]) - max(a[1], b[1])))
    shared = F(width * height)
    area_a, area_b = (F(F(c[2] - c[0]) * F(c[3] - c[1])) for c in (a, b))
    union = F(F(area_a + area_b) - shared)
    return F(shared / union) if union else F(0)


def weight_of(overlap, kind, iou, sigma) -> np.float32:
    if kind == "soft_linear":
        return F(1) - overlap if overlap >= F(iou) else F(1)
    return np.exp(F(-F(overlap * overlap)) / F(sigma))


def kernel_by_kernel(boxes, scores, kind, iou, sigma, low):
    """mmcv's ``softnms_cpu``, step by step: one array, places swapped, the end shrinking."""
    left = [(F(score), index) for index, score in enumerate(scores)]
    place = 0
    while place < len(left):
        best = place
        for other in range(place + 1, len(left)):
            if left[best][0] < left[other][0]:
                best = other
        left[place], left[best] = left[best], left[place]
        other = place + 1
        while other < len(left):
            score, index = left[other]
            overlap = iou_of(boxes[left[place][1]], boxes[index])
            left[other] = F(score * weight_of(overlap, kind, iou, sigma)), index
            if left[other][0] < F(low):
                left[other] = left[-1]
                left.pop()
            else:
                other += 1
        place += 1
    return [index for _, index in left], [score for score, _ in left]


def as_published(boxes, scores, kind, iou, sigma, low):
    """Figure 2 of the paper: move the best of B to D, rescale the rest; B in no special order."""
    rest = dict(enumerate(scores.astype(np.float64)))
    found = []
    while rest:
        best = max(rest, key=rest.__getitem__)
        score = rest.pop(best)
        if found and score < low:
            break
        found.append((best, score))
        for other in rest:
            overlap = float(iou_of(boxes[best], boxes[other]))
            if kind == "soft_linear":
                rest[other] *= 1 - overlap if overlap >= iou else 1
            else:
                rest[other] *= np.exp(-(overlap**2) / sigma)
    return found


@settings(max_examples=80, deadline=None)
@given(
    seed=st.integers(0, 2**32 - 1),
    count=st.integers(0, 25),
    steps=st.sampled_from([None, 1, 3, 10]),
    grid=st.sampled_from([None, 8.0]),
    kind=st.sampled_from(KINDS),
    iou=st.sampled_from([0.0, 0.3, 0.5, 1.0]),
    sigma=st.sampled_from([0.1, 0.5, 2.0]),
    low=st.sampled_from([0.0, 0.001, 0.2, 0.6]),
)
def test_equal_to_mmcvs_kernel_on_random_and_tied_pairs(
    seed, count, steps, grid, kind, iou, sigma, low
) -> None:
    random = np.random.default_rng(seed)
    boxes = make_boxes(random, count, (60, 80), clusters=3)
    scores = random.uniform(0, 1, count).astype(np.float32)
    if steps is not None:
        scores = (np.round(scores * steps) / steps).astype(np.float32)
    if grid is not None:
        boxes = (np.round(boxes / grid) * grid).astype(np.float32)
    kept, new = select(boxes, scores, kind=kind, iou=iou, sigma=sigma, low=low)
    wanted, wanted_scores = kernel_by_kernel(boxes, scores, kind, iou, sigma, low)
    assert kept.tolist() == wanted
    assert new.tolist() == wanted_scores


@settings(max_examples=60, deadline=None)
@given(seed=st.integers(0, 2**32 - 1), kind=st.sampled_from(KINDS), low=st.sampled_from([0, 0.1]))
def test_equal_to_the_papers_figure_where_no_scores_tie(seed, kind, low) -> None:
    random = np.random.default_rng(seed)
    boxes = make_boxes(random, 20, (60, 80), clusters=3)
    scores = random.uniform(0.2, 1, 20).astype(np.float32)
    kept, new = select(boxes, scores, kind=kind, iou=0.3, low=low)
    wanted = as_published(boxes, scores, kind, 0.3, 0.5, low)
    assert sorted(kept.tolist()) == sorted(index for index, _ in wanted)
    by_index = dict(wanted)
    assert np.allclose(new, [by_index[index] for index in kept.tolist()], rtol=1e-5, atol=1e-7)


@settings(max_examples=60, deadline=None)
@given(seed=st.integers(0, 2**32 - 1), kind=st.sampled_from(KINDS), n=st.integers(1, 20))
def test_scores_never_rise_and_a_cap_gives_the_first(seed, kind, n) -> None:
    random = np.random.default_rng(seed)
    boxes = make_boxes(random, 20, (60, 80), clusters=3)
    scores = random.uniform(0, 1, 20).astype(np.float32)
    kept, new = select(boxes, scores, kind=kind)
    assert len(set(kept.tolist())) == len(kept)
    assert (new <= scores[kept]).all()
    assert (np.diff(new) <= 0).all()
    assert (new[1:] >= F(0.001)).all()
    first, first_scores = select(boxes, scores, kind=kind, n=n)
    assert first.tolist() == kept.tolist()[:n]
    assert first_scores.tolist() == new.tolist()[:n]


def test_a_worse_pairs_score_falls_by_its_overlap() -> None:
    kept, new = select([SQUARE, SHIFTED, FAR], [0.9, 0.8, 0.5])
    assert kept.tolist() == [0, 2, 1]
    assert new == pytest.approx([0.9, 0.5, 0.8 * 0.4], rel=1e-6)
    kept, new = select([SQUARE, SHIFTED], [0.9, 0.8], kind="soft_gaussian", sigma=0.5)
    assert new == pytest.approx([0.9, 0.8 * np.exp(-0.36 / 0.5)], rel=1e-6)


def test_linear_leaves_what_overlaps_less_than_the_threshold() -> None:
    _, new = select([SQUARE, SHIFTED], [0.9, 0.8], iou=0.61)
    assert new.tolist() == [F(0.9), F(0.8)]


def test_a_score_below_the_least_is_dropped() -> None:
    assert select([SQUARE, SQUARE, FAR], [0.9, 0.8, 0.2], low=0.3)[0].tolist() == [0]
    # IoU 1: the score falls to 0
    assert select([SQUARE, SQUARE, FAR], [0.9, 0.8, 0.2])[0].tolist() == [0, 2]


def test_classes_do_not_touch_each_other() -> None:
    kept, new = select([SQUARE, SQUARE], [0.9, 0.8], labels=[0, 1], kind="soft_gaussian")
    assert (kept.tolist(), new.tolist()) == ([0, 1], [F(0.9), F(0.8)])


def test_boxes_without_area_overlap_nothing() -> None:
    point = (3, 3, 3, 3)
    for kind in KINDS:
        kept, new = select([point, point], [0.9, 0.8], kind=kind, iou=0.0)
        assert (kept.tolist(), new.tolist()) == ([0, 1], [F(0.9), F(0.8)])


def test_thousands_of_pairs_go_class_by_class() -> None:
    """Off the frame on the left the class offset no longer keeps classes apart."""
    random = np.random.default_rng(1)
    boxes = np.tile(make_boxes(random, 100, (80, 80), clusters=5), (100, 1))
    boxes[:, [0, 2]] -= 100
    scores = random.permutation(np.linspace(0.2, 1, 10_000, dtype=np.float32))
    labels = np.repeat(np.arange(100), 100)
    kept, new = select(boxes, scores, labels, n=200)
    for label in np.unique(labels[kept]):
        own = np.flatnonzero(labels == label)
        alone, alone_scores = select(boxes[own], scores[own], np.full(100, label))
        mine = labels[kept] == label
        assert kept[mine].tolist() == own[alone][: mine.sum()].tolist()
        assert np.allclose(new[mine], alone_scores[: mine.sum()], rtol=1e-4)


@pytest.mark.parametrize("kind", KINDS)
def test_rows_as_needed_or_all_at_once(kind, monkeypatch) -> None:
    random = np.random.default_rng(2)
    boxes = make_boxes(random, 300, (80, 80), clusters=20)
    scores = random.random(300).round(1)  # with ties
    labels = random.integers(3, size=300)
    at_once = select(boxes, scores, labels, kind=kind, low=0.05)
    monkeypatch.setattr(nms, "_TOGETHER", 0)
    as_needed = select(boxes, scores, labels, kind=kind, low=0.05)
    for one, other in zip(at_once, as_needed, strict=True):
        assert one.tolist() == other.tolist()
