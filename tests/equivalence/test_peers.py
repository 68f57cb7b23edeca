"""The benchmark beside other frameworks: names of weights, thresholds, and what is judged."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from mmdet.models.backbones import MobileNetV2
from safetensors.torch import save_file
from torchvision.models import mobilenet_v2

from benchmarks.peer_runs import (
    StepClock,
    mmdet_model,
    mobilenet_v2_features,
    to_mmdet_name,
    to_results,
)
from benchmarks.peers import (
    SCORE_THRESHOLDS,
    coco_average_precision,
    competition_scores,
    cross_validated,
)


def test_weights_of_mobilenet_have_a_name_each(tmp_path: Path) -> None:
    names = mobilenet_v2(weights=None).features.state_dict()
    own = MobileNetV2(out_indices=(1, 2, 4, 6)).state_dict()
    renamed = {name: to_mmdet_name(name) for name in names}
    assert sorted(renamed.values()) == sorted(own)
    assert all(own[new].shape == names[old].shape for old, new in renamed.items())
    random = torch.Generator().manual_seed(0)
    weights = {
        f"backbone.{name}": torch.rand(value.shape, generator=random)
        if value.dtype.is_floating_point
        else value.clone()
        for name, value in own.items()
    }
    save_file(weights, tmp_path / "w.safetensors")
    features = mobilenet_v2_features(tmp_path / "w.safetensors")
    for name, value in features.state_dict().items():
        assert torch.equal(value, weights[f"backbone.{renamed[name]}"])


def test_images_are_scored_at_the_threshold_of_the_other_folds() -> None:
    values = np.zeros((len(SCORE_THRESHOLDS), 20))
    values[3] = 0.5
    values[7, 0] = 100.0  # one image must not choose its own threshold
    scores, chosen = cross_validated(values)
    assert scores[0] == 0.5
    assert SCORE_THRESHOLDS[3] in chosen
    assert len(chosen) == 5


@pytest.mark.parametrize("experiment", ["street", "nuclei"])
def test_mmdetection_has_the_classes_of_the_data(experiment: str) -> None:
    detector = mmdet_model({"overrides": [f"+experiment={experiment}"]}, 3)
    heads = detector["roi_head"]
    assert [head["num_classes"] for head in heads["bbox_head"]] == [3, 3, 3]
    masks = heads["mask_head"]
    assert {head["num_classes"] for head in (masks if isinstance(masks, list) else [masks])} == {3}


def a_truth(folder: Path) -> tuple[Path, np.ndarray]:
    masks = np.zeros((2, 40, 56), dtype=np.uint8)
    masks[0, 5:20, 8:24] = 1
    masks[1, 24:36, 30:50] = 1
    entries = to_results(7, [3, 4], [1.0, 1.0], masks)
    for place, (entry, mask) in enumerate(zip(entries, masks, strict=True), start=1):
        rows, columns = np.nonzero(mask)
        box = [columns.min(), rows.min(), np.ptp(columns) + 1, np.ptp(rows) + 1]
        entry |= {"id": place, "iscrowd": 0, "area": int(mask.sum()), "bbox": list(map(int, box))}
    content = {
        "images": [{"id": 7, "file_name": "a.png", "height": 40, "width": 56}],
        "annotations": entries,
        "categories": [{"id": 3, "name": "x"}, {"id": 4, "name": "y"}],
    }
    path = folder / "truth.json"
    path.write_text(json.dumps(content))
    return path, masks


@pytest.mark.parametrize("raster_hw", [None, (512, 512)])
def test_judging(tmp_path: Path, raster_hw: tuple[int, int] | None) -> None:
    truth, masks = a_truth(tmp_path)
    perfect = to_results(7, [3, 4], [0.9, 0.3], masks)
    assert coco_average_precision(perfect, truth) == pytest.approx(1.0)
    assert coco_average_precision([], truth) == 0.0
    values = competition_scores(perfect, truth, raster_hw=raster_hw)[:, 0]
    # both are found up to 0.3, one of two classes up to 0.9
    wanted = [
        1.0 if threshold < 0.3 else 0.5 if threshold < 0.9 else 0.0
        for threshold in SCORE_THRESHOLDS
    ]
    assert values.tolist() == wanted


def test_pauses_do_not_count(monkeypatch: pytest.MonkeyPatch) -> None:
    now = {"wall": 0.0, "cpu": 0.0}
    monkeypatch.setattr("benchmarks.peer_runs.time.perf_counter", lambda: now["wall"])
    monkeypatch.setattr("benchmarks.peer_runs.tree_cpu_seconds", lambda: now["cpu"])
    clock = StepClock(batch_size=2)
    for step in range(12):
        now["wall"] += 2.0
        now["cpu"] += 3.0
        clock.tick()
        if step == 8:  # a validation
            now["wall"] += 50.0
            now["cpu"] += 70.0
            clock.skip(50.0, 70.0)
    figures = clock.figures()
    assert figures == {"steps": 12, "images_per_s": 1.0, "cpu_s_per_step": 3.0}
