"""Boxes between an image and a resized, turned, flipped view of it."""

from __future__ import annotations

import numpy as np
import torch
from hypothesis import given
from hypothesis import strategies as st

from src.mmdet_bridge.cascade.detectors import (
    change_batch,
    collate,
    make_sample,
)
from src.mmdet_bridge.cascade.passes import ViewTransform
from src.mmdet_bridge.options import VIEW_CHANGES, ViewChange


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
    changes=st.tuples(st.booleans(), st.booleans(), st.booleans()),
    box=st.tuples(*[st.floats(0, 1000)] * 4),
)
def test_there_and_back(
    scale: tuple[float, float],
    changes: tuple[bool, bool, bool],
    box: tuple[float, float, float, float],
) -> None:
    transform = ViewTransform(scale, (1000 * scale[1], 900 * scale[0]), *changes)
    boxes = torch.tensor([box], dtype=torch.float64)
    back = transform.to_image(transform.to_view(boxes))
    assert torch.allclose(back, boxes, rtol=0, atol=1e-6)


@given(
    size_hw=st.tuples(st.integers(2, 20), st.integers(2, 20)),
    changes=st.sets(st.sampled_from(VIEW_CHANGES)),
    corners=st.tuples(*[st.floats(0, 0.999)] * 4),
)
def test_boxes_move_as_the_pixels_do(
    size_hw: tuple[int, int], changes: set[ViewChange], corners: tuple[float, ...]
) -> None:
    """A rectangle of pixels lies in a changed view where its changed box says, and back."""
    height, width = size_hw
    (x_min, x_max), (y_min, y_max) = (
        sorted(int(corner * edge) for corner in pair)
        for pair, edge in ((corners[:2], width), (corners[2:], height))
    )
    image = np.zeros((height, width, 3), dtype=np.uint8)
    image[y_min : y_max + 1, x_min : x_max + 1] = np.arange(1, 256, dtype=np.uint8)[
        np.arange((y_max + 1 - y_min) * (x_max + 1 - x_min)) % 255
    ].reshape(y_max + 1 - y_min, x_max + 1 - x_min, 1)
    sample = make_sample(image=image, image_id="a", image_path="a", original_hw=size_hw)
    batch = collate([sample])
    for change in VIEW_CHANGES:
        if change in changes:
            batch = change_batch(batch, change)
    view, meta = batch["inputs"][0], batch["data_samples"][0].metainfo
    assert meta["img_shape"] == tuple(view.shape[1:])
    transform = ViewTransform.of(meta)
    box = torch.tensor([[x_min, y_min, x_max + 1, y_max + 1]], dtype=torch.float32)
    left, top, right, bottom = transform.to_view(box)[0].int().tolist()
    inside = view[0, top:bottom, left:right]
    assert int((view[0] > 0).sum()) == inside.numel()
    assert (inside > 0).all()
    assert torch.equal(transform.to_image(transform.to_view(box)), box)
    # a mask on the view's box, mapped back, is the image's pixels on the image's box
    expected = torch.from_numpy(image[y_min : y_max + 1, x_min : x_max + 1, 0])
    assert torch.equal(transform.masks_to_image(inside[None])[0], expected)
