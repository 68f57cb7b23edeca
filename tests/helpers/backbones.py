"""Classifiers of torchvision and timm with random weights, and the features of their stages."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from src.mmdet_bridge.cascade.detectors import build_detector
from tests.helpers.cascades import detector_config

Features = list[Tensor]


def randomize(model: nn.Module, seed: int = 0) -> None:
    """Change every weight and statistic, so that none is as all models draw it."""
    generator = torch.Generator().manual_seed(seed)

    def uniform(shape: torch.Size, low: float, high: float) -> Tensor:
        return torch.rand(shape, generator=generator) * (high - low) + low

    with torch.no_grad():
        for name, value in model.state_dict().items():
            last = name.rpartition(".")[2]
            if last == "running_var" or (value.ndim == 1 and last == "weight"):
                value.copy_(uniform(value.shape, 0.7, 1.3))
            elif last in ("gamma", "layer_scale"):
                value.copy_(uniform(value.shape, 0.1, 0.5))
            elif last in ("bias", "running_mean", "relative_position_bias_table"):
                value.copy_(uniform(value.shape, -0.3, 0.3))
    model.eval()


def random_image(height: int, width: int) -> Tensor:
    return torch.randn(1, 3, height, width, generator=torch.Generator().manual_seed(1))


def hooked(model: nn.Module, layers: list[nn.Module]) -> Callable[[Tensor], Features]:
    """A forward pass of the whole classifier that returns what the layers gave."""

    def forward(image: Tensor) -> Features:
        found: dict[int, Tensor] = {}
        handles = [
            layer.register_forward_hook(
                lambda _module, _inputs, output, number=number: found.update({number: output})
            )
            for number, layer in enumerate(layers)
        ]
        with torch.no_grad():
            model(image)
        for handle in handles:
            handle.remove()
        return [found[number] for number in range(len(layers))]

    return forward


def backbone_config(backbone: dict[str, Any], in_channels: list[int]) -> dict[str, Any]:
    """A small cascade on a backbone."""
    config = detector_config("htc_tiny", "module.num_classes=3")
    config["backbone"] = backbone
    config["neck"]["in_channels"] = in_channels
    return config


def build_backbone(config: dict[str, Any]) -> nn.Module:
    torch.manual_seed(5)
    backbone: nn.Module = build_detector(config, init_weights=False).backbone
    backbone.eval()  # mmdet's returns None
    return backbone
