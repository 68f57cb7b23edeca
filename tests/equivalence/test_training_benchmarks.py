"""The benchmarks of training run, and find that both ways of each agree."""

from __future__ import annotations

import json

import pytest
import torch

from benchmarks import gpu_training, training


def test_lightnings_step_beside_a_plain_loops() -> None:
    figures = training.run(steps=2, size_hw=(64, 96), photos=1)
    assert json.loads(json.dumps(figures)) == figures
    assert figures["steps"] == 2
    assert figures["weights_are_equal"] is True
    assert figures["plain_loop_ms_a_step"] > 0
    assert figures["lightning_ms_a_step"] > 0


@pytest.mark.skipif(torch.cuda.is_available(), reason="the mode for machines without a GPU")
def test_every_way_of_the_gpu_benchmark_trains_on_a_cpu() -> None:
    figures = gpu_training.run(size_hw=(64, 96), warmup_steps=1, steps=1)
    assert json.loads(json.dumps(figures)) == figures
    assert figures["model"] == "htc_tiny"
    ways = figures["batch_2"]
    assert set(ways) == set(gpu_training.WAYS)
    exact = ways["mmdetection_fp32"]
    for way in ways.values():
        assert way["images_a_second"] > 0
        assert way["peak_gpu_memory_gib"] is None
        assert way["times_mmdetection_with_amp"] > 0
        assert way["first_loss"] == pytest.approx(exact["first_loss"], rel=0.01)
        assert way["last_loss"] < way["first_loss"]
    assert ways["ours_fp32"]["first_loss"] == exact["first_loss"]
    assert ways["ours_fp32"]["last_loss"] == exact["last_loss"]


def test_a_first_loss_far_from_float32_is_an_error() -> None:
    ways = {"ours_fp32": {"first_loss": 5.0}, "ours_bf16": {"first_loss": 5.2}}
    with pytest.raises(RuntimeError, match=r"ours_bf16: first loss 5.2, 5.0 in float32"):
        gpu_training._compare(ways)
