"""The benchmarks of test-time augmentation run, and compare what both ways give."""

from __future__ import annotations

import pytest
import torch

from benchmarks import gpu_tta, tta
from tests.helpers.cascades import SMALL


def test_both_ways_give_the_same_with_a_third_of_the_backbone_passes() -> None:
    result = tta.run(module="htc_tiny", overrides=SMALL, size_hw=(96, 72))
    assert (result["three_passes_backbone_passes"], result["our_backbone_passes"]) == (6, 2)
    assert result["candidates"] == tta.CANDIDATES
    assert result["scores_apart"] <= tta.TOLERANCE


def test_results_that_differ_are_no_figure() -> None:
    result = (torch.zeros(2, 4), torch.zeros(2), torch.zeros(2, 28, 28))
    other = (torch.zeros(2, 4), torch.tensor([0.0, 2e-4]), torch.zeros(2, 28, 28))
    with pytest.raises(RuntimeError, match=r"the two ways differ: scores_apart by 0\.0002"):
        tta._differences(result, other, edge_px=100)
    fewer = (torch.zeros(1, 4), torch.zeros(1), torch.zeros(1, 28, 28))
    with pytest.raises(RuntimeError, match="different numbers of candidates"):
        tta._differences(result, fewer, edge_px=100)


def test_the_ensemble_is_timed_beside_its_single_predictions() -> None:
    result = gpu_tta.run(
        module="htc_tiny",
        overrides=SMALL,
        scales=[(48, 64), (56, 72)],
        image_hw=(96, 72),
        max_candidates=10,
        rounds=1,
    )
    assert result["models_x_views"] == "3x4"
    assert result["views_px"] == "(64, 48), (72, 54)"
    assert result["ensemble_share_of_sum"] > 0
