"""Boxes between an image and a resized, mirrored view of it."""

from __future__ import annotations

import torch
from hypothesis import given
from hypothesis import strategies as st

from src.mmdet_bridge.cascade.passes import ViewTransform


def test_a_mirrored_view_of_half_the_size() -> None:
    transform = ViewTransform.of(
        {"scale_factor": (0.5, 0.25), "img_shape": (100, 200, 3), "flip": True, "ori_shape": ()}
    )
    on_image = torch.tensor([[0.0, 0.0, 40.0, 80.0], [300.0, 100.0, 400.0, 400.0]])
    on_view = torch.tensor([[180.0, 0.0, 200.0, 20.0], [0.0, 25.0, 50.0, 100.0]])
    assert torch.equal(transform.to_view(on_image), on_view)
    assert torch.equal(transform.to_image(on_view), on_image)
    masks = torch.arange(6.0).reshape(1, 2, 3)
    assert transform.masks_to_image(masks).tolist() == [[[2, 1, 0], [5, 4, 3]]]


def test_the_image_itself_is_left_to_the_bit() -> None:
    boxes = torch.rand(7, 4) * 1000
    assert torch.equal(ViewTransform().to_image(boxes), boxes)
    assert torch.equal(ViewTransform().to_view(boxes), boxes)
    assert ViewTransform().masks_to_image(boxes) is boxes


@given(
    scale=st.tuples(st.floats(0.1, 8), st.floats(0.1, 8)),
    flipped=st.booleans(),
    box=st.tuples(*[st.floats(0, 1000)] * 4),
)
def test_there_and_back(
    scale: tuple[float, float], flipped: bool, box: tuple[float, float, float, float]
) -> None:
    transform = ViewTransform(scale_wh=scale, width_px=1000 * scale[0], flipped=flipped)
    boxes = torch.tensor([box], dtype=torch.float64)
    back = transform.to_image(transform.to_view(boxes))
    assert torch.allclose(back, boxes, rtol=0, atol=1e-6)
