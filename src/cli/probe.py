"""Import what a training needs, step by step, and say after each what was found.

``python -m src.doctor`` runs this in a process of its own: an import that crashes the interpreter,
or never returns, ends this process and is known by the last step that was announced. Nothing
outside the standard library is imported before its step.
"""

from __future__ import annotations

import importlib
import json
import sys
import traceback
from collections.abc import Callable, Iterable
from typing import Any

MARK = "PROBE "  # begins the lines for the reader; libraries print others

KERNELS = {
    "torchvision": (
        *("nms", "roi_align_forward", "roi_align_backward", "deform_conv_forward"),
        *("deform_conv_backward_input", "deform_conv_backward_parameters"),
        *("modulated_deform_conv_forward", "modulated_deform_conv_backward"),
    ),
    "this project (src/postprocess/nms.py)": ("softnms",),
    "plain torch": (
        *("sigmoid_focal_loss_forward", "sigmoid_focal_loss_backward"),
        *("ms_deform_attn_forward", "ms_deform_attn_backward"),
    ),
}
"""Whose code computes an operator of mmcv's where mmcv is not compiled."""


def look_at_torch() -> dict[str, Any]:
    """Import torch, and look for its devices."""
    import torch

    problem = None
    try:
        torch.cuda.init()  # type: ignore[no-untyped-call]
    except (RuntimeError, AssertionError) as error:  # no driver, an old one, a build without CUDA
        problem = str(error)
    known = torch.cuda.get_arch_list() if problem is None else []
    devices = []
    for index in range(torch.cuda.device_count() if problem is None else 0):
        device = torch.cuda.get_device_properties(index)
        family = f"sm_{device.major}"
        devices.append(
            {
                "name": device.name,
                "memory_gib": device.total_memory / 2**30,
                "capability": f"{device.major}.{device.minor}",
                "is_supported": not known or any(one.startswith(family) for one in known),
            }
        )
    return {
        "version": torch.__version__,
        "cuda": torch.version.cuda,
        "problem": problem,
        "devices": devices,
        "threads": torch.get_num_threads(),
    }


def look_at_operators() -> dict[str, Any]:
    """Import mmcv with its operators, compiled or supplied."""
    kernels = importlib.import_module("src.mmdet_bridge.kernels")
    extension = sys.modules[kernels.EXTENSION]
    compiled = getattr(extension, "__file__", None)
    return {"compiled": compiled, "supplied": [] if compiled else sorted(kernels.OPERATORS)}


def run_operators() -> dict[str, Any]:
    """Run NMS and RoIAlign on each kind of device that is there."""
    import torch

    ops = importlib.import_module("mmcv.ops")
    names = ["cpu", "cuda"] if torch.cuda.is_available() else ["cpu"]
    for name in names:
        boxes = torch.tensor([[0.0, 0, 8, 8], [0, 0, 8, 7], [16, 16, 24, 24]], device=name)
        scores = torch.tensor([0.9, 0.8, 0.7], device=name)
        _, kept = ops.nms(boxes, scores, 0.5)
        features = torch.ones(1, 1, 32, 32, device=name)
        rois = torch.cat([torch.zeros(3, 1, device=name), boxes], dim=1)
        pooled = ops.roi_align(features, rois, (2, 2), 1.0, 0, "avg", True)
        if kept.tolist() != [0, 2] or not torch.allclose(pooled, torch.ones_like(pooled)):
            raise RuntimeError(f"NMS or RoIAlign computes wrong values on {name}")
    return {"devices": names}


def look_at_module(name: str) -> Callable[[], dict[str, Any]]:
    """Return a step that imports a module."""

    def step() -> dict[str, Any]:
        importlib.import_module(name)
        return {}

    return step


STEPS: dict[str, Callable[[], dict[str, Any]]] = {
    "torch": look_at_torch,
    "torchvision": look_at_module("torchvision"),
    "lightning": look_at_module("lightning"),
    "operators": look_at_operators,
    "mmdet": look_at_module("src.mmdet_bridge.cascade.detectors"),
    "operators run": run_operators,
}
NEEDED = {
    "torchvision": ("torch",),
    "lightning": ("torch",),
    "operators": ("torch", "torchvision"),
    "mmdet": ("operators",),
    "operators run": ("operators",),
}
"""Steps that need another one; without it they would only repeat its error."""


def main(names: Iterable[str]) -> None:
    """Run steps, and print a line before and after each."""
    done: set[str] = set()
    for name in names:
        if missing := [other for other in NEEDED.get(name, ()) if other not in done]:
            _say(name, skipped=missing[0])
            continue
        _say(name, begun=True)
        try:
            found = STEPS[name]()
        except BaseException as error:  # SystemExit of a library, too
            lines = traceback.format_exception_only(error)[-1].strip().splitlines() or [repr(error)]
            _say(name, error=lines[0])
        else:
            done.add(name)
            _say(name, found=found)


def _say(name: str, **content: Any) -> None:
    print(MARK + json.dumps({"step": name, **content}), flush=True)


if __name__ == "__main__":
    main(sys.argv[1:] or STEPS)
