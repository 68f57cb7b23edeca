"""The benchmarks of training run, and find that both ways of each agree."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from hydra.utils import instantiate

import benchmarks.__main__ as runner
from benchmarks import gpu_training, gpu_tta, training
from benchmarks.cascade_batches import compose_training


def test_lightnings_step_beside_a_plain_loops() -> None:
    figures = training.run(steps=2, size_hw=(64, 96), images=1)
    assert json.loads(json.dumps(figures)) == figures
    assert figures["steps"] == 2
    assert figures["weights_are_equal"] is True
    assert figures["plain_loop_ms_a_step"] > 0
    assert figures["lightning_ms_a_step"] > 0


@pytest.mark.slow
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


def test_the_untrained_winner_keeps_its_features_small() -> None:
    torch.manual_seed(0)
    detector = instantiate(compose_training("module=htc_x101_dcn").module).detector.eval()
    detector.load_state_dict(gpu_training._calm(detector.state_dict()))
    with torch.no_grad():
        features = detector.backbone(torch.randn(1, 3, 64, 64))
    assert all(0.01 < float(level.std()) < 10 for level in features)


def test_a_run_that_breaks_off_leaves_the_figures_it_had(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def break_off() -> None:
        raise RuntimeError("the second one breaks off")

    monkeypatch.setattr(runner, "RESULTS", tmp_path)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(gpu_training, "run", lambda: {"images_a_second": 2.5})
    monkeypatch.setattr(gpu_tta, "run", break_off)
    with pytest.raises(RuntimeError, match="the second one breaks off"):
        runner.main(["gpu_training", "gpu_tta"])
    written = json.loads((tmp_path / "cpu_gpu_training_gpu_tta.json").read_text())
    assert written["gpu_training"] == {"images_a_second": 2.5}
    assert "gpu_tta" not in written
    assert {"date", "device", "torch", "commit"} <= set(written)
