"""Kernels of torchvision's in place of ``mmcv._ext``, mmcv's compiled operators.

mmcv's wheel comes without that extension, which has to be compiled for the torch at hand, and
almost no part of mmdet can be imported then. Importing this package supplies it.
"""

from __future__ import annotations

import importlib
import importlib.util
import re
import sys
import warnings
from collections.abc import Callable
from importlib.machinery import ModuleSpec
from types import ModuleType
from typing import Any, NoReturn

import torch
import torchvision
from torch import Tensor
from torch.autograd.function import once_differentiable

from src.mmdet_bridge.kernels import operators
from src.mmdet_bridge.kernels.operators import UnsupportedOperatorError

EXTENSION = "mmcv._ext"
OPERATORS: dict[str, Callable[..., Any]] = {
    name: getattr(operators, name)
    for name in (
        *("nms", "softnms", "roi_align_forward", "roi_align_backward"),
        *("sigmoid_focal_loss_forward", "sigmoid_focal_loss_backward"),
        *("ms_deform_attn_forward", "ms_deform_attn_backward"),
        *("deform_conv_forward", "deform_conv_backward_input", "deform_conv_backward_parameters"),
        *("modulated_deform_conv_forward", "modulated_deform_conv_backward"),
    )
}
"""Operators of ``mmcv._ext`` that work without a compiled mmcv, by name."""


class _Extension(ModuleType):
    """Stand-in for ``mmcv._ext``; has every name, because mmcv checks for all on import."""

    def __getattr__(self, name: str) -> Callable[..., NoReturn]:
        if name.startswith("_"):
            raise AttributeError(f"module '{EXTENSION}' has no attribute '{name}'")

        def refuse(*args: Any, **kwargs: Any) -> NoReturn:
            raise UnsupportedOperatorError(
                f"mmcv's operator '{name}' has no kernel here: this mmcv comes without compiled "
                f"operators, and only these work without: {', '.join(OPERATORS)}. Choose layers "
                f"that need no other, or install an mmcv compiled for torch {torch.__version__}: "
                "MMCV_WITH_OPS=1 pip install --no-binary onedl-mmcv --no-build-isolation "
                "--force-reinstall --no-deps onedl-mmcv (needs a C++ compiler, for a GPU also the "
                "CUDA toolkit)"
            )

        return refuse


def install_kernels() -> None:
    """Supply ``mmcv._ext``, once, unless a compiled one is installed.

    Raises:
        ImportError: A compiled one is installed, but not for this torch.
    """
    if EXTENSION in sys.modules:
        return
    compiled = importlib.util.find_spec(EXTENSION)
    if compiled is not None:
        try:
            importlib.import_module(EXTENSION)
        except ImportError as error:
            raise ImportError(
                f"mmcv's compiled operators {compiled.origin} do not load with torch "
                f"{torch.__version__} ({error}). Install an mmcv compiled for it, or one without "
                "compiled operators: torchvision's kernels then serve"
            ) from error
        return
    extension = _Extension(EXTENSION, "mmcv's operators on torchvision's kernels.")
    extension.__spec__ = ModuleSpec(EXTENSION, loader=None, origin=torchvision.__file__)
    versions = ("get_compiler_version", "get_compiling_cuda_version")
    vars(extension).update(OPERATORS)
    vars(extension).update(dict.fromkeys(versions, lambda: "none: torchvision's kernels"))
    sys.modules[EXTENSION] = extension
    importlib.import_module("mmcv")._ext = extension  # type: ignore[attr-defined]

    # mmcv requests the gradients of a deformable convolution in two calls; torchvision's kernel
    # computes all of them each time, so one call from the autograd function halves the time.
    function = importlib.import_module("mmcv.ops.deform_conv").DeformConv2dFunction
    function.backward = staticmethod(once_differentiable(_deform_conv_backward))


def _deform_conv_backward(ctx: Any, grad_output: Tensor) -> tuple[Tensor | None, ...]:
    """Replace ``backward`` of mmcv's ``DeformConv2dFunction``, whose forward has 10 arguments."""
    input, offset, weight = ctx.saved_tensors
    geometry = (*ctx.stride, *ctx.padding, *ctx.dilation, ctx.groups, ctx.deform_groups)
    by_input, by_weight, by_offset, _, _ = operators.deform_conv_gradients(
        grad_output, input, weight, offset, geometry
    )
    by_tensor = zip((input, offset, weight), (by_input, by_offset, by_weight), strict=True)
    wanted = zip(by_tensor, ctx.needs_input_grad, strict=False)
    return *(g.to(t.dtype) if needed else None for (t, g), needed in wanted), *(None,) * 7


# Two docstrings of mmdet's have a lone backslash, which warns when Python first compiles them:
# https://docs.python.org/3/whatsnew/3.12.html#other-language-changes
for _sequence in (r"\ ", r"\i"):
    warnings.filterwarnings(
        "ignore",
        message=re.escape(f"invalid escape sequence '{_sequence}'") + "$",
        category=SyntaxWarning,
        module=r".*\bmmdet\b",
    )

install_kernels()
