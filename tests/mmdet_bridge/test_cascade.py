"""Candidates of several models and views; that of one model and view is in tests/equivalence."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from src.annotations.errors import InputError
from src.mmdet_bridge.cascade import predict_candidates, select_pairs
from src.mmdet_bridge.config import build_detector
from src.mmdet_bridge.detectors import load_weights
from src.mmdet_bridge.samples import Batch, collate, make_sample
from src.postprocess.candidates import Candidates
from tests.cascades import SMALL, detector_config, spread_scores

PHOTO_HW = (120, 90)


def make_detector(seed: int) -> Any:
    torch.manual_seed(seed)
    detector = build_detector(detector_config("htc_tiny", *SMALL))
    spread_scores(detector, seed=seed)
    return detector.eval()


@pytest.fixture(scope="module")
def detectors() -> list[Any]:
    return [make_detector(seed) for seed in range(2)]


def photo(seed: int = 0) -> np.ndarray:
    """Noise in blocks of 2 x 2 pixels, so that its half size is a crisp picture too."""
    noise = np.random.default_rng(seed).integers(0, 256, (60, 45, 3), dtype=np.uint8)
    return np.kron(noise, np.ones((2, 2, 1), dtype=np.uint8))


def view(image: np.ndarray, *, shrink: int = 1, flip: bool = False) -> Batch:
    picture = image[::shrink, ::shrink]
    if flip:
        picture = picture[:, ::-1]
    sample = make_sample(
        image=np.ascontiguousarray(picture),
        image_id="photo",
        image_path="photo.jpg",
        original_hw=PHOTO_HW,
        flip=flip,
    )
    return collate([sample])


def predict(members: list[Any], views: list[Batch], score_floor: float = 0.0) -> Candidates:
    (candidates,) = predict_candidates(
        members, views, category_ids=range(5), score_floor=score_floor, max_candidates=10_000
    )
    return candidates


def test_the_backbone_runs_once_for_each_model_and_view(detectors: list[Any]) -> None:
    passes = []
    hooks = [
        detector.backbone.register_forward_hook(lambda *_: passes.append(1))
        for detector in detectors
    ]
    try:
        predict(detectors[:1], [view(photo())])
        assert len(passes) == 1
        passes.clear()
        predict(detectors, [view(photo()), view(photo(), flip=True), view(photo(), shrink=2)])
        assert len(passes) == 2 * 3
    finally:
        for hook in hooks:
            hook.remove()


def test_a_photo_and_its_mirror_image_give_mirrored_candidates(detectors: list[Any]) -> None:
    mirrored_photo = np.ascontiguousarray(photo()[:, ::-1])

    def views(image: np.ndarray) -> list[Batch]:
        return [view(image, shrink=s, flip=flip) for s in (1, 2) for flip in (False, True)]

    straight = predict(detectors, views(photo()), score_floor=0.2)
    mirrored = predict(detectors, views(mirrored_photo), score_floor=0.2)
    assert len(straight) == len(mirrored) > 20
    # The two passes over the views come in another order, which rounds and orders differently.
    first = np.lexsort((straight.category_ids, straight.scores.round(4)))
    second = np.lexsort((mirrored.category_ids, mirrored.scores.round(4)))
    assert np.allclose(straight.scores[first], mirrored.scores[second], atol=1e-4)
    width = PHOTO_HW[1]
    boxes = mirrored.boxes_xyxy[second][:, [2, 1, 0, 3]] * [-1, 1, -1, 1] + [width, 0, width, 0]
    assert np.allclose(straight.boxes_xyxy[first], boxes, atol=0.01)
    assert np.allclose(
        straight.mask_probabilities[first],
        mirrored.mask_probabilities[second][:, :, ::-1],
        atol=1e-3,
    )


def test_several_views_meet_in_the_photos_pixels(detectors: list[Any]) -> None:
    candidates = predict(detectors[:1], [view(photo()), view(photo(), shrink=2)])
    assert candidates.size_hw == PHOTO_HW
    assert candidates.nms_boxes_xyxy is None
    assert candidates.boxes_xyxy[:, 2].max() > 70  # not the 45 px of the small view
    assert (candidates.boxes_xyxy <= np.array([90, 120, 90, 120]) + 1e-3).all()


def test_category_ids_are_those_of_the_data(detectors: list[Any]) -> None:
    ids = [7, 3, 45, 0, 12]
    (candidates,) = predict_candidates(
        detectors[:1], [view(photo())], category_ids=ids, score_floor=0.0, max_candidates=10
    )
    (plain,) = predict_candidates(
        detectors[:1], [view(photo())], category_ids=range(5), score_floor=0.0, max_candidates=10
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
    pairs = select_pairs(table, score_floor=floor, max_pairs=cap)
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
        pair for pair in above if scores[pair[0]][pair[1]] > pairs.exact_above_score
    ]
    assert set(everything_above) <= set(found)
    assert (pairs.exact_above_score == floor) == (len(above) <= cap)


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
