"""Model soup: the mean of several checkpoints' weights (Wortsman et al., ICML 2022)."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor

from src.annotations.categories import ClassList
from src.errors import InputError
from src.mmdet_bridge.checkpoints.files import check_shares
from src.mmdet_bridge.checkpoints.reading import check_finite, load_checkpoint, load_state_dict
from src.mmdet_bridge.checkpoints.weight_files import detector_names, examples


def average_weights(
    paths: Sequence[str | Path], *, weights: Sequence[float] | None = None
) -> dict[str, Tensor]:
    """Return the weighted mean of checkpoints of one model, holding one file and the sum in memory.

    Args:
        paths: Two or more files (see ``load_checkpoint``) with the same names, shapes and dtypes.
        weights: Weight of each, above 0; None: equal.

    Returns:
        The mean under mmdet's names, in the files' dtypes, summed in float64; of integers (a count
        of batches) the largest.

    Raises:
        InputError: Names the key, or the file and the weight in it that does not match.
    """
    shares = check_shares(paths, weights)
    check_same_classes(paths)
    total: dict[str, Tensor] = {}
    dtypes: dict[str, torch.dtype] = {}
    for path, share in zip(paths, shares, strict=True):
        content = load_state_dict(path)
        check_finite(content, path)
        content = detector_names(content)
        if not total:
            dtypes = {name: value.dtype for name, value in content.items()}
        elif content.keys() != total.keys():
            others = [name for name in [*total, *content] if (name in total) != (name in content)]
            raise InputError(
                f"checkpoint {path} must hold the weights of {paths[0]}, got {examples(others)} "
                "in one of them only"
            )
        for name in list(content):
            value = content.pop(name)  # frees each as soon as it is added
            known = total.get(name, value)
            if value.shape != known.shape or value.dtype != dtypes[name]:
                raise InputError(
                    f"checkpoint {path}: {name} must be {_kind(known.shape, dtypes[name])} as in "
                    f"{paths[0]}, got {_kind(value.shape, value.dtype)}"
                )
            if not value.is_floating_point():
                total[name] = torch.maximum(known, value)
                continue
            if name in total:
                total[name].add_(value.double(), alpha=share)
            else:
                total[name] = value.double() * share
    whole = math.fsum(shares)
    for name, dtype in dtypes.items():
        if dtype.is_floating_point:
            total[name] = total[name].div_(whole).to(dtype)
    return total


def check_same_classes(paths: Sequence[str | Path]) -> None:
    """Refuse checkpoints whose classes, or their order, differ.

    Raises:
        InputError: Names two files and the first difference.
    """
    known: dict[Path, ClassList] = {}
    for path in map(Path, paths):
        classes = load_checkpoint(path, only_notes=True).classes
        if classes is None:
            continue
        for other, first in known.items():
            if difference := first.difference(classes):
                raise InputError(
                    f"checkpoint {path} must have the classes of {other}, in their order: "
                    f"{difference}"
                )
        known.setdefault(path, classes)


def _kind(shape: torch.Size, dtype: torch.dtype) -> str:
    return f"{str(dtype).removeprefix('torch.')} {tuple(shape)}"
