"""Weights for tests of checkpoints, and a file that does harm where it is trusted."""

from __future__ import annotations

import os

import torch


def make_weights():
    torch.manual_seed(0)
    layers = torch.nn.Sequential(torch.nn.Conv2d(3, 4, 3), torch.nn.BatchNorm2d(4))
    return layers.state_dict()


def assert_same(got, expected):
    assert type(got) is dict
    assert list(got) == list(expected)
    for name, tensor in expected.items():
        assert got[name].dtype == tensor.dtype
        assert torch.equal(got[name], tensor)


class Malicious:
    """Its pickle creates a file when it is loaded as pickles usually are."""

    def __init__(self, trace):
        self.trace = trace

    def __reduce__(self):
        return os.system, (f"touch {self.trace}",)
