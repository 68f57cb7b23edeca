"""Focal loss and deformable attention through mmcv's own functions, against plain torch."""

from __future__ import annotations

import pytest
import torch
from mmcv.ops import sigmoid_focal_loss
from mmcv.ops.multi_scale_deform_attn import (
    MultiScaleDeformableAttnFunction,
    multi_scale_deformable_attn_pytorch,
)
from torchvision.ops import sigmoid_focal_loss as torchvision_focal_loss

DEVICES = [
    "cpu",
    pytest.param(
        "cuda", marks=pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU here")
    ),
]


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("reduction", ["none", "mean", "sum"])
@pytest.mark.parametrize("gamma", [0.0, 2.0, 1.5])
def test_focal_loss_is_torchvisions(gamma, reduction, device):
    """Background rows (target 5 of 5 classes) included; mmcv's mean is over rows."""
    torch.manual_seed(0)
    logits = torch.randn(12, 5, dtype=torch.float64, device=device).mul(3).requires_grad_()
    targets = torch.randint(0, 6, (12,), device=device)
    one_hot = torch.nn.functional.one_hot(targets, 6)[:, :5].double()
    expected = torchvision_focal_loss(logits, one_hot, alpha=0.3, gamma=gamma)
    expected = {"none": expected, "mean": expected.sum() / 12, "sum": expected.sum()}[reduction]
    got = sigmoid_focal_loss(logits, targets, gamma, 0.3, None, reduction)
    torch.testing.assert_close(got, expected, rtol=1e-10, atol=1e-12)
    upstream = torch.rand_like(expected)
    if reduction == "none":  # mmcv sums before its backward asks for one number a row
        upstream = torch.ones_like(expected)
    torch.testing.assert_close(
        *(torch.autograd.grad(loss, logits, upstream)[0] for loss in (got, expected)),
        rtol=1e-9,
        atol=1e-12,
    )


@pytest.mark.parametrize("device", DEVICES)
def test_focal_loss_weighs_rows_by_their_class_and_stays_finite(device):
    logits = torch.tensor([[200.0, -200.0], [-200.0, 200.0]], device=device).requires_grad_()
    targets = torch.tensor([1, 0], device=device)
    weight = torch.tensor([3.0, 5.0], device=device)
    plain = sigmoid_focal_loss(logits, targets, 2.0, 0.25, None, "none")
    weighed = sigmoid_focal_loss(logits, targets, 2.0, 0.25, weight, "none")
    assert plain.isfinite().all()
    torch.testing.assert_close(weighed, plain * weight[targets][:, None])
    (gradient,) = torch.autograd.grad(weighed.sum(), logits)
    assert gradient.isfinite().all()


@pytest.mark.parametrize("device", DEVICES)
def test_deformable_attention_is_mmcvs_plain_form(device):
    torch.manual_seed(0)
    shapes = torch.tensor([[4, 5], [2, 3]], device=device)
    starts = torch.tensor([0, 20], device=device)

    def random(*size):
        return torch.rand(size, dtype=torch.float64, device=device).requires_grad_()

    tensors = random(2, 26, 2, 4), random(2, 3, 2, 2, 3, 2), random(2, 3, 2, 2, 3)
    value, locations, weights = tensors
    got = MultiScaleDeformableAttnFunction.apply(value, shapes, starts, locations, weights, 64)
    expected = multi_scale_deformable_attn_pytorch(value, shapes, locations, weights)
    torch.testing.assert_close(got, expected)
    upstream = torch.rand_like(expected)
    for ours, plain in zip(
        torch.autograd.grad(got, tensors, upstream),
        torch.autograd.grad(expected, tensors, upstream),
        strict=True,
    ):
        torch.testing.assert_close(ours, plain)
