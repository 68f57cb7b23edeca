"""A checkpoint that is not the model's is an error that names examples, not a random start."""

from __future__ import annotations

import functools
import re
from typing import Any

import pytest
import torch
from torch import Tensor

from src.errors import InputError
from src.mmdet_bridge.cascade.detectors import build_detector
from src.mmdet_bridge.checkpoints.reading import Checkpoint
from src.mmdet_bridge.checkpoints.weight_import import import_weights
from tests.helpers.checkpoints import PATH, config, written_by

MODULE = r"Give the module= with its backbone and heads; what is meant to be drawn anew"


@functools.cache
def weights_of(*overrides: str, deformable: bool = True) -> dict[str, Tensor]:
    model = build_detector(config(*overrides, deformable=deformable), init_weights=False)
    return dict(model.state_dict())


def old(weights: dict[str, Tensor], layout: str = "v1") -> Checkpoint:
    return Checkpoint(path=PATH, weights=dict(written_by(weights, layout)))


def test_a_deeper_backbone_is_an_error() -> None:
    checkpoint = old(weights_of("module.detector.backbone.depth=101", deformable=False))
    with pytest.raises(
        InputError,
        match=r"checkpoint old\.pth is another model's: 3\d\d that the model lacks "
        rf"\(backbone\.layer3\.6\.conv1\.weight, .*, \.\.\.\)\. {MODULE}",
    ):
        import_weights(checkpoint, config(deformable=False))


def test_a_backbone_of_another_width_is_an_error() -> None:
    wide = weights_of(
        "module.detector.backbone.base_channels=8",
        "module.detector.neck.in_channels=[32,64,128,256]",
        deformable=False,
    )
    with pytest.raises(
        InputError,
        match=r"another model's: \d+ of another shape than the model's \(backbone\.conv1\.weight "
        rf"\(8, 3, 7, 7\) for \(4, 3, 7, 7\), .*, \.\.\.\)\. {MODULE}",
    ):
        import_weights(old(wide), config(deformable=False))


def test_a_shallower_backbone_is_an_error() -> None:
    with pytest.raises(
        InputError,
        match=rf"another model's: \d+ that the file lacks \(backbone\.layer3\.6\..*\)\. {MODULE}",
    ):
        import_weights(
            old(weights_of(deformable=False)),
            config("module.detector.backbone.depth=101", deformable=False),
        )


def test_offsets_that_a_plain_backbone_lacks_can_be_drawn_anew() -> None:
    plain = weights_of(deformable=False)
    with pytest.raises(
        InputError,
        match=r"another model's: 26 that the file lacks "
        r"\(backbone\.layer2\.0\.conv2\.conv_offset\.weight, .*\)\. To start the offsets of "
        r"deformable convolutions at zero, as plain convolutions, give 'reset=\[\*\.conv_offset",
    ):
        import_weights(old(plain), config())
    found = import_weights(old(plain), config(), reset=["*.conv_offset.*"])
    offsets = [name for name in found.weights if ".conv_offset." in name]
    assert len(offsets) == 26
    assert not any(found.weights[name].any() for name in offsets)
    reset = {record.target for record in found.records if record.note.startswith("as reset= asks;")}
    assert reset == set(offsets)
    for name, value in plain.items():
        if ".fc_cls." not in name and ".conv_logits." not in name:
            assert torch.equal(found.weights[name], value), name


def test_offsets_that_a_plain_model_has_no_place_for_can_be_dropped() -> None:
    checkpoint = old(weights_of(), "v0.6")
    with pytest.raises(InputError, match=r"26 that the model lacks \(backbone\.layer2\.0\.conv2_"):
        import_weights(checkpoint, config(deformable=False))
    found = import_weights(checkpoint, config(deformable=False), drop=["*.conv_offset.*"])
    notes = [record.note for record in found.records if record.action == "dropped"]
    assert notes.count("as drop= asks") == 26


def test_reset_draws_parts_anew_that_the_file_has() -> None:
    """As the winning solution did: no box or mask head is kept."""
    weights = weights_of()
    found = import_weights(old(weights), config(), reset=["roi_head.*"], seed=4)
    torch.manual_seed(4)
    fresh = build_detector(config()).state_dict()
    for name, value in found.weights.items():
        assert torch.equal(value, (fresh if name.startswith("roi_head.") else weights)[name]), name


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"reset": ["heads.*"]}, r"reset must match a name, such as backbone\..*, got 'heads\.\*'"),
        ({"drop": ["*.nothing"]}, r"drop must match a name, such as backbone.*, got '\*\.nothing'"),
        ({"reset": ["*"]}, r"reset, drop: nothing of the checkpoint is left to load"),
        ({"class_layers": "keep"}, r"class_layers must be one of reset, slice, got keep"),
        (
            {"map_classes": lambda classes: [None] * 5},
            r"category_map must be null with class_layers=reset; give slice",
        ),
        ({"layout": "v4"}, r"layout must be one of auto, v0\.6, v1, v2, v3, got v4"),
        (
            {"layout": "v2"},
            r"layout=v2: checkpoint old\.pth has another, with names bbox_head\.\.\.",
        ),
    ],
)
def test_options_that_make_no_sense(options: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        import_weights(old(weights_of()), config(), **options)


def test_an_old_layout_asked_of_a_new_file() -> None:
    with pytest.raises(InputError, match=r"layout=v0\.6: .* has another, with names roi_head\."):
        import_weights(old(weights_of(), "v3"), config(), layout="v0.6")


def test_a_layout_given_is_taken() -> None:
    for layout in ("v0.6", "v1"):  # without the notes nothing tells them apart
        found = import_weights(
            old(weights_of(deformable=False)), config(deformable=False), layout=layout
        )
        assert found.layout == layout


def test_a_backbone_alone_is_no_cascade() -> None:
    weights = {"conv1.weight": torch.ones(2), "fc.bias": torch.ones(2), "bn1.bias": torch.ones(2)}
    with pytest.raises(
        InputError,
        match=r"checkpoint old\.pth has no box heads: .* got bn1\.bias, conv1\.weight, fc",
    ):
        import_weights(Checkpoint(path=PATH, weights=weights), config())


@pytest.mark.parametrize("layout", ["v1", "v3"])
def test_rows_that_contradict_the_layout(layout: str) -> None:
    checkpoint = old(weights_of(), layout)
    name = f"{'roi_head.' if layout == 'v3' else ''}mask_head.1.conv_logits.bias"
    rows = len(checkpoint.weights[name])
    checkpoint.weights[name] = torch.zeros(11 - rows)  # the other layout's: 6 for 5, 5 for 6
    left = 6 if layout == "v3" else 4
    with pytest.raises(
        InputError,
        match=rf"checkpoint old\.pth: as layout {layout}, {re.escape(name)} has {left} classes, "
        r"but the box heads 5 without the background; give the right layout=",
    ):
        import_weights(checkpoint, config())


def test_a_class_layer_of_another_width_cannot_be_sliced() -> None:
    checkpoint = old(weights_of(), "v3")
    name = "roi_head.bbox_head.2.fc_cls.weight"
    checkpoint.weights[name] = torch.zeros(6, 33)
    with pytest.raises(
        InputError, match=rf"1 of another shape than the model's \({re.escape(name)} \(6, 33\) for"
    ):
        import_weights(checkpoint, config(), class_layers="slice")
