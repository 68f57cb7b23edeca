"""A checkpoint of each release, imported: the model does what the one that wrote it did."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from src.mmdet_bridge.cascade.detectors import build_detector, load_weights, preprocess
from src.mmdet_bridge.cascade.inference import predict_candidates
from src.mmdet_bridge.checkpoints.reading import Checkpoint, load_checkpoint
from src.mmdet_bridge.checkpoints.weight_import import (
    WeightImport,
    detect_layout,
    import_weights,
    upgrade_layout,
)
from tests.helpers.cascades import make_batch
from tests.helpers.checkpoints import LAYOUTS, PATH, REAL_NAMES, config, notes_of, old, written_by


def predict(detector: Any) -> list[Any]:
    """Candidates of two views, arrays only."""
    detector.eval()
    batch = make_batch(with_objects=False)
    found = predict_candidates(
        [detector], [batch], category_ids=range(5), min_score=0.001, max_candidates=200
    )
    return [(one.boxes_xyxy, one.scores, one.category_ids, one.mask_probabilities) for one in found]


def losses(detector: Any) -> dict[str, Tensor]:
    detector.train()
    torch.manual_seed(5)  # of the samplers
    data = preprocess(detector, make_batch(), training=True)
    with torch.no_grad():
        total, parts = detector.parse_losses(detector.loss(data["inputs"], data["data_samples"]))
    return {"total": total, **parts}


def rebuilt(found: WeightImport, *overrides: str) -> Any:
    torch.manual_seed(99)
    model = build_detector(config(*overrides))
    load_weights(model, found.weights)
    return model


def actions(found: WeightImport) -> dict[str, int]:
    counts: dict[str, int] = {}
    for record in found.records:
        counts[record.action] = counts.get(record.action, 0) + 1
    return counts


@pytest.mark.parametrize("layout", LAYOUTS)
def test_outputs_are_equal_to_the_bit_after_import(
    detector: Any, weights: dict[str, Tensor], layout: str, tmp_path: Path
) -> None:
    file = tmp_path / "epoch_20.pth"
    content = {
        "meta": notes_of(layout),
        "state_dict": written_by(weights, layout),
        "optimizer": {"state": {}, "param_groups": []},
    }
    # torch before 1.6, which wrote the files of v0.6 and v1, knew no archives.
    torch.save(content, file, _use_new_zipfile_serialization=layout in ("v2", "v3"))

    found = import_weights(load_checkpoint(file), config(), class_layers="slice")

    assert found.layout == layout
    assert found.source_classes == 5
    assert found.class_map == (0, 1, 2, 3, 4)
    assert list(found.weights) == list(weights)
    for name, value in weights.items():
        if not name.endswith("num_batches_tracked"):
            assert torch.equal(found.weights[name], value), name
    model = rebuilt(found)
    expected = predict(detector)
    assert sum(len(arrays[1]) for arrays in expected) > 50
    for got, wanted in zip(predict(model), expected, strict=True):
        for array, other in zip(got, wanted, strict=True):
            assert (array == other).all()
    expected_losses = losses(detector)
    for name, loss in losses(model).items():
        assert torch.equal(torch.as_tensor(loss), torch.as_tensor(expected_losses[name])), name


@pytest.mark.parametrize("layout", LAYOUTS)
def test_every_weight_is_accounted_for(weights: dict[str, Tensor], layout: str) -> None:
    checkpoint = old(weights, layout)
    found = import_weights(checkpoint, config())
    assert {record.source for record in found.records} - {None} == set(checkpoint.weights)
    assert {record.target for record in found.records} - {None} == set(weights)
    by_action: dict[str, set[str]] = {}
    for record in found.records:
        by_action.setdefault(record.action, set()).add(str(record.source or record.target))
    prefix = "" if layout in ("v0.6", "v1") else "roi_head."
    assert by_action.pop("reset") == {
        f"{prefix}{head}.{stage}.{layer}.{part}"
        for head, layer in (("bbox_head", "fc_cls"), ("mask_head", "conv_logits"))
        for stage in range(3)
        for part in ("weight", "bias")
    }
    dropped = by_action.pop("dropped")
    assert len(dropped) == 5
    assert all(name.startswith(f"{prefix}semantic_head.") for name in dropped)
    if layout == "v0.6":
        assert by_action.pop("missing") == {
            name for name in weights if name.endswith("num_batches_tracked")
        }
    renamed = by_action.pop("renamed", set())
    starts = ("bbox_head.", "mask_head.") if layout in ("v0.6", "v1") else ()
    assert {name for name in renamed if not name.startswith(starts)} == {
        name for name in checkpoint.weights if ".conv2_offset." in name
    }
    assert set(by_action) == {"loaded"}


@pytest.mark.parametrize("layout", list(REAL_NAMES))
def test_names_of_real_checkpoints(layout: str) -> None:
    rows = REAL_NAMES[layout]
    weights = {name: torch.arange(shape[0]) for name, shape, _, _ in rows}
    checkpoint = Checkpoint(path=PATH, weights=weights, meta={"mmdet_version": "2.0.0"})
    assert detect_layout(checkpoint) == layout
    entries = upgrade_layout(checkpoint, layout)
    assert [(entry.source, entry.target) for entry in entries] == [
        (name, today) for name, _, today, _ in rows
    ]
    for entry, (name, shape, today, today_shape) in zip(entries, rows, strict=True):
        if today is not None:
            assert len(entry.value) == today_shape[0]
        if layout == "v0.6" and "fc_cls" in name:
            assert entry.value.tolist() == [*range(1, 81), 0]
        elif layout == "v0.6" and "mask_head.0.conv_logits" in name:
            assert entry.value.tolist() == list(range(1, 81))
        else:
            assert entry.value.tolist() == list(range(shape[0]))


def test_layouts_without_deformable_convolutions_are_told_by_the_notes() -> None:
    weights = {"bbox_head.0.fc_cls.bias": torch.zeros(6), "backbone.conv1.weight": torch.zeros(1)}
    new = {f"roi_head.{name}": value for name, value in weights.items()}
    for names, version, layout in (
        (weights, "0.6.0+1b2c", "v0.6"),
        (weights, "1.2.0", "v1"),
        (weights, None, "v1"),
        (new, "2.28.2", "v2"),
        (new, "3.3.0", "v3"),
        (new, None, "v3"),
    ):
        meta = {} if version is None else {"mmdet_version": version}
        assert detect_layout(Checkpoint(path=PATH, weights=names, meta=meta)) == layout


@pytest.mark.parametrize("wrapper", ["module.", "detector.", "module.detector.", "model."])
def test_prefixes_of_wrappers_are_taken_off(weights: dict[str, Tensor], wrapper: str) -> None:
    wrapped = {wrapper + name: value for name, value in written_by(weights, "v1").items()}
    found = import_weights(Checkpoint(path=PATH, weights=wrapped), config(), class_layers="slice")
    assert all(torch.equal(found.weights[name], value) for name, value in weights.items())


def test_what_a_moving_average_put_beside_the_weights_is_dropped(
    weights: dict[str, Tensor],
) -> None:
    beside = {"ema_backbone_conv1_weight": torch.ones(3), "data_preprocessor.mean": torch.ones(3)}
    checkpoint = old(weights, "v2")
    checkpoint.weights.update(beside)
    found = import_weights(checkpoint, config())
    dropped = {r.source: r.note for r in found.records if r.action == "dropped"}
    assert dropped["ema_backbone_conv1_weight"] == "second set of weights beside a moving average"
    assert dropped["data_preprocessor.mean"] == "the configuration has these"


def test_half_precision_becomes_single(weights: dict[str, Tensor]) -> None:
    half = {n: v.half() if v.is_floating_point() else v for n, v in weights.items()}
    found = import_weights(Checkpoint(path=PATH, weights=half), config(), class_layers="slice")
    name = "neck.fpn_convs.0.conv.weight"
    assert found.weights[name].dtype == torch.float32
    assert torch.equal(found.weights[name], weights[name].half().float())


def test_roi_half_pixel_off_pools_as_before_mmdetection_2(weights: dict[str, Tensor]) -> None:
    old_way = "module.detector.sizes.roi_half_pixel=false"
    trained = build_detector(config(old_way))
    load_weights(trained, weights)
    expected = predict(trained)
    found = import_weights(old(weights, "v0.6"), config(old_way), class_layers="slice")
    for got, wanted in zip(predict(rebuilt(found, old_way)), expected, strict=True):
        for array, other in zip(got, wanted, strict=True):
            assert (array == other).all()
    modern = predict(rebuilt(found))
    assert any(
        len(got[1]) != len(other[1]) or (got[1] != other[1]).any()
        for got, other in zip(modern, expected, strict=True)
    )

    # Without the offset a box is read half a cell further to the right and down.
    levels = tuple(
        torch.rand(1, 16, 64 // size, 64 // size, generator=torch.Generator().manual_seed(size))
        for size in (1, 2, 4, 8)
    )
    rois = torch.tensor([[0, 20.0, 30.0, 80.0, 90.0], [0, 40.0, 41.0, 120.0, 101.0]])
    for heads in ("bbox_roi_extractor", "mask_roi_extractor"):
        for before, today in zip(
            getattr(trained.roi_head, heads), getattr(rebuilt(found).roi_head, heads), strict=True
        ):
            shifted = rois + torch.tensor([0, 2.0, 2.0, 2.0, 2.0])  # all on the level of stride 4
            torch.testing.assert_close(before(levels, rois), today(levels, shifted))
