"""Adam and AdamW on a CPU are fused, unless the configuration says otherwise."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import nn

from src.modules.cascade import fuse_on_cpu


def test_updates_are_equal_up_to_rounding():
    torch.manual_seed(0)
    layers = [nn.Linear(20, 30)]
    layers.append(copy.deepcopy(layers[0]))
    optimizers = [torch.optim.AdamW(m.parameters(), lr=1e-2, weight_decay=0.1) for m in layers]
    fuse_on_cpu(optimizers[0])
    assert optimizers[0].param_groups[0]["fused"] is True
    for _ in range(5):
        x = torch.randn(8, 20)
        for layer, optimizer in zip(layers, optimizers, strict=True):
            optimizer.zero_grad()
            layer(x).square().sum().backward()
            optimizer.step()
    for own, other in zip(*(layer.parameters() for layer in layers), strict=True):
        torch.testing.assert_close(own, other, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("choice", [{"fused": False}, {"foreach": True}], ids=str)
def test_a_choice_stays(choice):
    optimizer = torch.optim.AdamW([nn.Parameter(torch.zeros(3))], **choice)
    before = copy.deepcopy(optimizer.defaults)
    fuse_on_cpu(optimizer)
    assert {key: optimizer.param_groups[0][key] for key in before} == before


def test_other_optimizers_stay():
    optimizer = torch.optim.SGD([nn.Parameter(torch.zeros(3))], lr=0.1)
    fuse_on_cpu(optimizer)
    assert optimizer.param_groups[0]["fused"] is None
