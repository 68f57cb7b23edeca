"""Candidates of 3 models and 6 views beside a slow, plain reference; order, weights, batches."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import torch

from src.mmdet_bridge.cascade.detectors import Batch, collate
from src.mmdet_bridge.cascade.inference import merged_proposals, predict_candidates
from src.mmdet_bridge.cascade.passes import KeptFeatures, group_by_padded_size, start_passes
from src.predictions.candidates import Candidates
from tests.helpers.cascades import (
    CLASSES,
    IMAGE_HW,
    SIZES_HW,
    draw_image,
    make_detector,
    make_view,
    predict,
    six_views,
    view_of,
)
from tests.helpers.plain_cascade import PlainResult, PlainView, merge, predict_plainly

FLOOR = 0.25
WEIGHTS = [1.0, 2.0, 0.5]


@pytest.fixture(scope="module")
def models() -> list[Any]:
    """Two of one configuration and one with another backbone."""
    return [
        make_detector(0),
        make_detector(1),
        make_detector(2, "module.detector.backbone.depth=34"),
    ]


def plain_views() -> list[PlainView]:
    return [
        PlainView(view_of(draw_image(), size, flip=flip), IMAGE_HW, flip)
        for flip in (False, True)
        for size in SIZES_HW
    ]


@pytest.fixture(scope="module")
def plain(models: list[Any]) -> PlainResult:
    return predict_plainly(models, plain_views(), min_score=FLOOR, weights=WEIGHTS)


@torch.no_grad()
def passes_of(models: list[Any], views: list[Any]) -> list[Any]:
    kept = KeptFeatures(device_gb=1, cpu_gb=1)
    return [
        run
        for number, model in enumerate(models)
        for group in group_by_padded_size(views, 32)
        for run in start_passes(model, group, model=number, weight=1.0, in_view=False, kept=kept)
    ]


def close(found: npt.NDArray[np.float32], expected: torch.Tensor) -> bool:
    """Within 1e-5, relative to each number; to a pixel, where a coordinate is less than that."""
    return np.allclose(found, expected.numpy(), rtol=1e-5, atol=1e-5 if expected.max() > 1 else 0)


def test_proposals_of_3_models_and_6_views_equal_the_plain_reference(
    models: list[Any], plain: PlainResult
) -> None:
    found = merged_proposals(passes_of(models, six_views(draw_image())), 0)
    assert len(found) == len(plain.proposals) == 60
    assert close(found.numpy(), plain.proposals)


def test_candidates_of_3_models_and_6_views_equal_the_plain_reference(
    models: list[Any], plain: PlainResult
) -> None:
    found = predict(models, six_views(draw_image()), min_score=FLOOR, model_weights=WEIGHTS)
    rows = torch.tensor([proposal for proposal, _ in plain.pairs])
    labels = torch.tensor([label for _, label in plain.pairs])
    assert len(found) == len(rows) > 40
    assert found.category_ids.tolist() == labels.tolist()
    assert close(found.boxes_xyxy, plain.boxes[rows])
    assert close(found.scores, plain.scores[rows, labels])
    assert close(found.mask_probabilities, plain.masks)


def sorted_rows(candidates: Candidates) -> tuple[npt.NDArray[Any], ...]:
    order = np.lexsort((candidates.category_ids, candidates.boxes_xyxy[:, 0].round(2)))
    return (
        candidates.category_ids[order],
        candidates.boxes_xyxy[order],
        candidates.scores[order],
        candidates.mask_probabilities[order],
    )


def test_order_of_models_and_views_changes_nothing_beyond_rounding(models: list[Any]) -> None:
    views = six_views(draw_image())
    model_order, view_order = [2, 0, 1], [3, 5, 0, 4, 1, 2]
    first = predict(models, views, model_weights=WEIGHTS, min_score=FLOOR)
    second = predict(
        [models[n] for n in model_order],
        [views[n] for n in view_order],
        model_weights=[WEIGHTS[n] for n in model_order],
        min_score=FLOOR,
    )
    assert len(first) == len(second) > 40
    # Scores of proposals differ by rounding, and with them the proposals' order.
    for one, other in zip(sorted_rows(first), sorted_rows(second), strict=True):
        assert np.allclose(one, other, rtol=1e-5, atol=1e-5)


def test_equal_scores_are_merged_the_same_in_any_order(models: list[Any]) -> None:
    passes = passes_of(models[:2], six_views(draw_image()))
    for step in passes:
        for proposals in step.proposals:
            proposals.scores = torch.ones_like(proposals.scores)  # as saturated scores are
    assert torch.equal(merged_proposals(passes, 0), merged_proposals(passes[::-1], 0))


def test_the_backbone_runs_once_for_each_model_and_view_and_sizes_are_batches(
    models: list[Any],
) -> None:
    views = six_views(draw_image())
    sizes: list[list[int]] = [[], [], []]
    hooks = [
        model.backbone.register_forward_pre_hook(
            lambda _, inputs, number=number: sizes[number].append(len(inputs[0]))
        )
        for number, model in enumerate(models)
    ]
    try:
        predict(models, views, min_score=0.99)
        assert sizes == [[2, 2, 2]] * 3  # 3 x 6 passes: a view and its mirror image are a batch
        predict(models[:1], views[:1], min_score=0.99)
        assert sizes == [[2, 2, 2, 1], [2, 2, 2], [2, 2, 2]]
    finally:
        for hook in hooks:
            hook.remove()


def test_equal_weights_are_no_weights(models: list[Any]) -> None:
    views = [make_view(draw_image(), IMAGE_HW)]
    plain, weighted = (
        predict(models, views, model_weights=weights) for weights in (None, [2.0, 2.0, 2.0])
    )
    assert np.array_equal(plain.scores, weighted.scores)
    assert np.array_equal(plain.mask_probabilities, weighted.mask_probabilities)
    heavy = predict(models, views, model_weights=[1.0, 1e-9, 1e-9])
    assert np.abs(plain.scores - heavy.scores).max() > 0.05


def test_seeds_first_view_has_the_proposals_of_one_model_on_its_smallest_plain_view(
    models: list[Any],
) -> None:
    views = six_views(draw_image())[::-1]  # the smallest plain view is the last
    passes = passes_of(models, views)
    found = merged_proposals(passes, 0, "first_view")
    assert close(found.numpy(), merge([(models[0], plain_views()[0])]))
    assert not torch.equal(found, merged_proposals(passes, 0))
    floor = -1.0  # every pair is a candidate
    candidates = predict(models[:1], views[-1:] * 2, seed_proposals="first_view", min_score=floor)
    assert len(candidates) == len(found) * CLASSES


def test_a_batch_of_other_sizes_changes_no_prediction(models: list[Any]) -> None:
    """Padding to the largest of a batch would: beyond 32 px more, zeros are seen as background."""
    sizes_hw = [(64, 96), (96, 64), (50, 61), (60, 90), (160, 160)]
    images = [draw_image(seed) for seed in range(len(sizes_hw))]

    def view_of(numbers: list[int], *, flip: bool) -> Batch:
        views = [make_view(images[n], sizes_hw[n], flip=flip) for n in numbers]
        return collate(
            [
                {"inputs": view["inputs"][0], "data_samples": view["data_samples"][0]}
                for view in views
            ]
        )

    def candidates(numbers: list[int]) -> list[Candidates]:
        return predict_candidates(
            models[:2],
            [view_of(numbers, flip=flip) for flip in (False, True)],
            category_ids=range(CLASSES),
            min_score=FLOOR,
            max_candidates=10_000,
        )

    together = candidates(list(range(len(images))))
    for number, in_batch in enumerate(together):
        (alone,) = candidates([number])
        assert len(alone) == len(in_batch) > 10
        for one, other in zip(sorted_rows(alone), sorted_rows(in_batch), strict=True):
            assert np.allclose(one, other, rtol=1e-5, atol=1e-5)
