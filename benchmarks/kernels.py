"""mmcv's operators on torchvision's kernels against plain torch, forward and backward.

    python -m benchmarks.kernels

Plain torch is what is left where mmcv has no compiled operators and nothing takes their place. On
CPU; torchvision's deformable convolution is not vectorised there, and its backward pass loses.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

import src.mmdet_bridge.kernels  # noqa: F401  # before mmcv.ops, which needs its operators when imported

from mmcv.ops import deform_conv2d, modulated_deform_conv2d, roi_align  # isort: skip
from tests.helpers import plain_kernels

Task = Callable[[], Tensor]
TOLERANCE = 1e-4  # of values near 1, float32


def run(*, edge: int = 64, channels: int = 32, boxes: int = 64, repeats: int = 3) -> dict[str, Any]:
    """Measure both ways on the same tensors and check that they agree.

    Args:
        edge: of the square feature map.
        channels: of the feature map.
        boxes: that RoIAlign pools, 14 bins a side.
        repeats: the fastest one counts.

    Returns:
        For each operator: CPU milliseconds of a forward and of a backward pass, both ways, how many
        times faster ours is, and the largest difference of values and of gradients.
    """
    generator = torch.Generator().manual_seed(0)

    def uniform(*shape: int, scale: float = 1.0) -> Tensor:
        values = (torch.rand(shape, generator=generator) * 2 - 1) * scale
        return values.requires_grad_()

    features = uniform(1, channels, edge, edge)
    corners = uniform(boxes, 2).abs() * edge * 3
    sides = uniform(boxes, 2).abs() * edge * 2
    rois = torch.cat([torch.zeros(boxes, 1), corners, corners + sides], dim=1).detach()
    offset, mask = uniform(1, 18, edge, edge, scale=3.0), uniform(1, 9, edge, edge)
    weight, bias = uniform(channels, channels, 3, 3, scale=channels**-0.5), uniform(channels)
    same = {"padding": (1, 1)}
    tasks: dict[str, tuple[Task, Task, list[Tensor]]] = {
        "roi_align": (
            lambda: roi_align(features, rois, 14, 0.25, 2),
            lambda: plain_kernels.roi_align(
                features, rois, (14, 14), spatial_scale=0.25, sampling_ratio=2, aligned=True
            ),
            [features],
        ),
        "deform_conv": (
            lambda: deform_conv2d(features, offset, weight, 1, 1),
            lambda: plain_kernels.deform_conv(features, offset, weight, **same),
            [features, offset, weight],
        ),
        "modulated_deform_conv": (
            lambda: modulated_deform_conv2d(features, offset, mask, weight, bias, 1, 1),
            lambda: plain_kernels.deform_conv(
                features, offset, weight, mask=mask, bias=bias, **same
            ),
            [features, offset, mask, weight, bias],
        ),
    }
    return {
        "threads": torch.get_num_threads(),
        "operators": {name: _compare(*task, repeats=repeats) for name, task in tasks.items()},
    }


def _compare(ours: Task, plain: Task, tensors: list[Tensor], *, repeats: int) -> dict[str, float]:
    results, milliseconds = [], []
    for task in (ours, plain):
        times = []
        for _ in range(repeats):
            # CPU time of the process: other work on the machine does not count.
            start = time.process_time()
            output = task()
            middle = time.process_time()
            gradients = torch.autograd.grad(output, tensors, torch.ones_like(output))
            times.append((middle - start, time.process_time() - middle))
        results.append((output.detach(), *gradients))
        milliseconds.append([1000 * min(passes) for passes in zip(*times, strict=True)])
    differences = [
        float((a - b).abs().max() / b.abs().max()) for a, b in zip(*results, strict=True)
    ]
    if max(differences) > TOLERANCE:
        raise AssertionError(f"the two ways disagree by {max(differences):.1e}")
    figures: dict[str, float] = {}
    for name, fast, slow in zip(("forward", "backward"), *milliseconds, strict=True):
        figures[f"ours_{name}_ms"] = round(fast, 2)
        figures[f"plain_{name}_ms"] = round(slow, 2)
        figures[f"times_faster_{name}"] = round(slow / fast, 2)
    figures["largest_relative_difference_of_values"] = differences[0]
    figures["largest_relative_difference_of_gradients"] = max(differences[1:])
    return figures


if __name__ == "__main__":
    print(json.dumps(run(), indent=2))
