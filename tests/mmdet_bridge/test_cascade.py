"""Candidates of several models and views; that of one model and view is in tests/equivalence."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from src.errors import InputError
from src.mmdet_bridge.cascade.detectors import load_weights
from src.mmdet_bridge.cascade.inference import predict_candidates
from src.mmdet_bridge.cascade.passes import select_candidates
from src.predictions.candidates import Candidates
from tests.helpers.cascades import IMAGE_HW, SIZES_HW, draw_image, make_detector, make_view, predict


@pytest.fixture(scope="module")
def detectors() -> list[Any]:
    return [make_detector(seed) for seed in range(2)]


@pytest.mark.parametrize("sizes_hw", [SIZES_HW[:1], SIZES_HW[1:], [(45, 90)]], ids=str)
@pytest.mark.parametrize("members", [1, 2])
def test_an_image_and_its_mirror_image_give_mirrored_candidates(
    detectors: list[Any], members: int, sizes_hw: list[tuple[int, int]]
) -> None:
    def candidates(image: np.ndarray) -> Candidates:
        views = [make_view(image, size, flip=flip) for size in sizes_hw for flip in (False, True)]
        return predict(detectors[:members], views, min_score=0.25)

    straight = candidates(draw_image())
    mirrored = candidates(np.ascontiguousarray(draw_image()[:, ::-1]))
    assert len(straight) == len(mirrored) > 20
    # The two passes over the views come in another order, which rounds and orders differently.
    first = np.lexsort((straight.category_ids, straight.scores.round(5)))
    second = np.lexsort((mirrored.category_ids, mirrored.scores.round(5)))
    assert np.allclose(straight.scores[first], mirrored.scores[second], rtol=1e-5)
    width = IMAGE_HW[1]
    boxes = mirrored.boxes_xyxy[second][:, [2, 1, 0, 3]] * [-1, 1, -1, 1] + [width, 0, width, 0]
    assert np.allclose(straight.boxes_xyxy[first], boxes, atol=1e-3)
    assert np.allclose(
        straight.mask_probabilities[first],
        mirrored.mask_probabilities[second][:, :, ::-1],
        atol=1e-4,
    )


def test_several_views_meet_in_the_images_pixels(detectors: list[Any]) -> None:
    views = [make_view(draw_image(), size) for size in (IMAGE_HW, (60, 45))]
    candidates = predict(detectors[:1], views)
    assert candidates.size_hw == IMAGE_HW
    assert candidates.nms_boxes_xyxy is None
    assert candidates.boxes_xyxy[:, 2].max() > 70  # not the 45 px of the small view
    assert (candidates.boxes_xyxy <= np.array([90, 120, 90, 120]) + 1e-3).all()


def test_category_ids_are_those_of_the_data(detectors: list[Any]) -> None:
    ids = [7, 3, 45, 0, 12]
    (candidates,) = predict_candidates(
        detectors[:1],
        [make_view(draw_image(), IMAGE_HW)],
        category_ids=ids,
        min_score=0.0,
        max_candidates=10,
    )
    (plain,) = predict_candidates(
        detectors[:1],
        [make_view(draw_image(), IMAGE_HW)],
        category_ids=range(5),
        min_score=0.0,
        max_candidates=10,
    )
    assert candidates.category_ids.tolist() == [ids[label] for label in plain.category_ids]


@given(
    scores=st.lists(st.lists(st.sampled_from([0.0, 0.1, 0.25, 0.5, 0.9]), min_size=3, max_size=3)),
    floor=st.sampled_from([0.0, 0.1, 0.3]),
    cap=st.integers(1, 12),
)
def test_selected_pairs_are_the_best_above_the_floor(
    scores: list[list[float]], floor: float, cap: int
) -> None:
    table = torch.tensor(scores, dtype=torch.float64).reshape(-1, 3)
    pairs = select_candidates(table, min_score=floor, max_pairs=cap)
    found = list(zip(pairs.proposals.tolist(), pairs.classes.tolist(), strict=True))
    above = [
        (row, column)
        for row, line in enumerate(scores)
        for column, score in enumerate(line)
        if score > floor
    ]
    # sorted() is stable: of equal scores, the first pairs stay.
    best = sorted(above, key=lambda pair: -scores[pair[0]][pair[1]])[:cap]
    assert found == sorted(best)
    everything_above = [
        pair for pair in above if scores[pair[0]][pair[1]] > pairs.complete_above_score
    ]
    assert set(everything_above) <= set(found)
    assert (pairs.complete_above_score == floor) == (len(above) <= cap)


@pytest.mark.parametrize(
    ("likely", "unlikely", "cap", "chosen", "complete_above"),
    [
        (10, 10, 100, 20, 0.001),  # few of both
        (10, 90, 100, 40, 0.002 + 0.049 * 60 / 89),  # unlikely ones fill up
        (60, 90, 100, 60, 0.201),  # of a crowded image every likely one
        (60, 90, 50, 50, 0.211),  # but for the cap
    ],
)
def test_unlikely_pairs_only_fill_up(
    likely: int, unlikely: int, cap: int, chosen: int, complete_above: float
) -> None:
    scores = torch.cat(
        [0.201 + 0.001 * torch.arange(likely), 0.002 + 0.001 * torch.arange(unlikely) * 49 / 89]
    ).double()
    table = scores[torch.randperm(len(scores))].reshape(-1, 2)
    pairs = select_candidates(table, min_score=0.001, max_pairs=cap, max_low_score_candidates=40)
    kept = table[pairs.proposals, pairs.classes]
    assert len(kept) == chosen
    assert sorted(kept) == sorted(scores)[-chosen:]
    assert (scores > pairs.complete_above_score).sum() <= chosen
    assert pairs.complete_above_score == pytest.approx(complete_above, rel=0, abs=1e-7)


def test_weights_of_another_model_are_refused_with_what_differs(detectors: list[Any]) -> None:
    good = {f"detector.{name}": value for name, value in detectors[1].state_dict().items()}
    copy = make_detector(0)
    load_weights(copy, good)
    assert torch.equal(copy.neck.lateral_convs[0].conv.weight, good[LATERAL])

    del good["detector.backbone.conv1.weight"]
    good["detector.semantic_head.weight"] = torch.zeros(1)
    good[LATERAL] = torch.zeros(3, 4)
    message = (
        r"the weights do not fit the model: 1 missing \(backbone.conv1.weight\); "
        r"1 unknown \(semantic_head.weight\); "
        r"1 of another shape \(neck.lateral_convs.0.conv.weight \(3, 4\) for \(16, 16, 1, 1\)\)"
    )
    with pytest.raises(InputError, match=message):
        load_weights(copy, good)
    with pytest.raises(InputError, match=r"\d+ missing \(\S+, \S+, \S+, \.\.\.\); give"):
        load_weights(copy, {})


LATERAL = "detector.neck.lateral_convs.0.conv.weight"
