"""Layers with a row for each class, imported: drawn anew, or row by row."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from src.errors import InputError
from src.mmdet_bridge.cascade.detectors import build_detector
from src.mmdet_bridge.checkpoints.reading import Checkpoint
from src.mmdet_bridge.checkpoints.weight_import import import_weights
from tests.helpers.checkpoints import LAYOUTS, PATH, config, old, written_by


def test_reset_draws_class_layers_as_mmdetection_does(weights: dict[str, Tensor]) -> None:
    found = import_weights(old(weights, "v1"), config("module.num_classes=46"), seed=3)
    torch.manual_seed(3)
    fresh = build_detector(config("module.num_classes=46")).state_dict()
    for name, value in found.weights.items():
        drawn = ".fc_cls." in name or ".conv_logits." in name
        assert torch.equal(value, fresh[name] if drawn else weights[name]), name
    layer = found.weights["roi_head.bbox_head.0.fc_cls.weight"]
    assert layer.shape[0] == 47
    assert 0.008 < layer.std() < 0.012  # Normal(0, 0.01), BBoxHead's
    assert found.class_map == (None,) * 46


def test_the_same_seed_draws_the_same_and_the_callers_stream_goes_on(
    weights: dict[str, Tensor],
) -> None:
    torch.manual_seed(1)
    before = torch.random.get_rng_state()
    first, again, other = (
        import_weights(old(weights, "v2"), config(), seed=seed).weights for seed in (1, 1, 2)
    )
    assert torch.equal(torch.random.get_rng_state(), before)
    name = "roi_head.mask_head.1.conv_logits.weight"
    assert torch.equal(first[name], again[name])
    assert not torch.equal(first[name], other[name])


@pytest.mark.parametrize("layout", ["v1", "v3"])
def test_slice_takes_row_by_row(weights: dict[str, Tensor], layout: str) -> None:
    class_map = [None, 4, 0, None, 4, 2, None]
    seen: list[int] = []

    def map_classes(source_classes: int) -> list[int | None]:
        seen.append(source_classes)
        return class_map

    seven = config("module.num_classes=7")
    found = import_weights(
        old(weights, layout), seven, class_layers="slice", map_classes=map_classes, seed=8
    )
    assert seen == [5]
    assert found.class_map == tuple(class_map)
    torch.manual_seed(8)
    fresh = build_detector(seven).state_dict()
    for stage in range(3):
        for part in ("weight", "bias"):
            for layer in ("bbox_head.{}.fc_cls", "mask_head.{}.conv_logits"):
                name = f"roi_head.{layer.format(stage)}.{part}"
                got = found.weights[name]
                for row, pick in enumerate(class_map):
                    expected = fresh[name][row] if pick is None else weights[name][pick]
                    assert torch.equal(got[row], expected), (name, row)
                if "fc_cls" in name:
                    assert torch.equal(got[-1], weights[name][-1])
                    assert len(got) == 8
                else:
                    assert len(got) == 7


def test_slice_without_a_map_needs_as_many_classes(weights: dict[str, Tensor]) -> None:
    with pytest.raises(
        InputError, match=r"class_layers=slice: the checkpoint has 5 classes and the model 46; give"
    ):
        import_weights(old(weights, "v2"), config("module.num_classes=46"), class_layers="slice")


def test_slice_needs_class_layers(weights: dict[str, Tensor]) -> None:
    checkpoint = old(weights, "v2")
    for name in [name for name in checkpoint.weights if ".fc_cls." in name]:
        del checkpoint.weights[name]
    with pytest.raises(InputError, match=r"class_layers=slice: the checkpoint has no fc_cls"):
        import_weights(checkpoint, config(), class_layers="slice")
    found = import_weights(checkpoint, config())
    notes = {r.note for r in found.records if r.action == "reset" and r.source is None}
    assert notes == {"one row a class; not in the file"}


def test_one_class_and_masks_for_all_classes_together(weights: dict[str, Tensor]) -> None:
    for overrides in (
        ("module.num_classes=1",),
        ("module.detector.sizes.class_agnostic_masks=true",),
    ):
        torch.manual_seed(2)
        own = build_detector(config(*overrides)).state_dict()
        for layout in LAYOUTS:
            written = written_by(own, layout)
            if overrides[0] == "module.num_classes=1" and layout in ("v0.6", "v1"):
                for stage in range(3):  # the background had a mask beside that of one class, too
                    for part in ("weight", "bias"):
                        name = f"mask_head.{stage}.conv_logits.{part}"
                        written[name] = torch.cat([torch.ones_like(written[name]), written[name]])
            found = import_weights(
                Checkpoint(path=PATH, weights=dict(written)),
                config(*overrides),
                class_layers="slice",
            )
            assert all(torch.equal(found.weights[name], value) for name, value in own.items())
