"""RoIAlign over a feature pyramid for training on a CPU, as matrix products.

A bin's value is a weighted sum of feature cells, and its weights are a product of a weight for the
row and one for the column. A RoI is therefore pooled by two small matrix products, and their
transposes give the gradient; torchvision's kernel adds up sample by sample, its gradient in scalar
code on one thread. Samples, weights and edges are torchvision's, the results equal up to rounding.
"""

from __future__ import annotations

import functools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

Floats = npt.NDArray[np.floating[Any]]
Ints = npt.NDArray[np.int64]

PATCH_STEP = 8  # RoIs are pooled together whose patches have these many cells more or less


def pool_rois(
    levels: Sequence[Tensor],
    rois: Tensor,
    roi_levels: Tensor,
    *,
    spatial_scales: Sequence[float],
    output_hw: tuple[int, int],
    sampling_ratio: int,
    aligned: bool,
) -> Tensor:
    """Pool each RoI from its level of the pyramid.

    Args:
        levels: One (N, C, H, W) a level, float32 or float64, on the CPU, of any memory format.
        rois: (K, 5) of the same dtype: view's index in the batch, then xyxy in pixels of the view.
        roi_levels: (K,) int64: the level of each RoI.
        spatial_scales: Feature cells a pixel, of each level.
        output_hw: Bins a column, bins a row.
        sampling_ratio: Samples a bin along each axis; 0: one for each feature cell in it.
        aligned: Shifts by half a cell, so that a cell's value sits in its middle.

    Returns:
        (K, C, bins a column, bins a row), channels last in memory.
    """
    boxes, of_level = rois.detach().numpy(), roi_levels.numpy()
    sizes = np.array([level.shape[2:] for level in levels])[of_level]
    scales = np.array(spatial_scales, dtype=boxes.dtype)[of_level]
    axes = [
        _Axis.of(
            boxes[:, low] * scales - boxes.dtype.type(0.5 * aligned),
            boxes[:, low + 2] * scales - boxes.dtype.type(0.5 * aligned),
            sizes[:, axis],
            num_bins=output_hw[axis],
            sampling_ratio=sampling_ratio,
            at_least_a_cell=not aligned,
        )
        for axis, low in ((0, 2), (1, 1))
    ]
    node: Any = levels[0].grad_fn
    patches = _Patches(
        of_level,
        boxes[:, 0].astype(np.int64),
        rows=axes[0],
        columns=axes[1],
        sums=node.sums if isinstance(node, SHARE_NODE) else None,
    )
    with torch.autocast("cpu", enabled=False):
        pooled: Tensor = _PoolRois.apply(patches, *levels)  # type: ignore[no-untyped-call]
    return pooled


def share_gradients(levels: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
    """Return the levels so that all calls of ``pool_rois`` add their gradients up in one place.

    Each call's gradient is otherwise as large as the pyramid, almost all of it zeros. Only the
    gradient of ``levels`` is whole, that of the tensors returned lacks the RoIs'.
    """
    shared: tuple[Tensor, ...] = _ShareGradients.apply(*levels)  # type: ignore[no-untyped-call]
    return shared


@dataclass(frozen=True, kw_only=True)
class _Axis:
    """Cells and weights of K RoIs along one axis.

    Attributes:
        first: (K,) the first cell of each RoI.
        num_cells: (K,) its cells, at least one.
        weights: (K, bins, the greatest number of cells): of a cell in a bin's average.
    """

    first: Ints
    num_cells: Ints
    weights: Floats

    @classmethod
    def of(
        cls,
        start: Floats,
        end: Floats,
        size: Ints,
        *,
        num_bins: int,
        sampling_ratio: int,
        at_least_a_cell: bool,
    ) -> _Axis:
        """Return the weights of RoIs from ``start`` to ``end``, in cells, of levels of ``size``."""
        length = end - start
        if at_least_a_cell:
            length = np.maximum(length, 1)
        bin_length = length / num_bins
        adaptive = np.maximum(np.ceil(bin_length), 0).astype(np.int64)
        num_samples = np.full_like(adaptive, sampling_ratio) if sampling_ratio else adaptive
        sample = np.arange(max(1, num_samples.max()))
        # In torchvision's order of operations, of shape (K, bins, samples).
        within = (sample + start.dtype.type(0.5)) * bin_length[:, None]
        within /= np.maximum(num_samples, 1)[:, None]
        bins = np.arange(num_bins)[:, None] * bin_length[:, None, None]
        place = start[:, None, None] + bins + within[:, None]
        last = (size - 1)[:, None, None]
        counts = (sample < num_samples[:, None])[:, None] & (place >= -1) & (place <= last + 1)
        place = np.clip(place, 0, last.astype(place.dtype))
        low = place.astype(np.int64)
        part = place - low
        high = np.minimum(low + 1, last)
        first = np.where(counts, low, last).min(axis=(1, 2))
        num_cells = np.where(counts, high, 0).max(axis=(1, 2)) - first + 1
        num_cells = np.maximum(num_cells, 1)
        width = int(num_cells.max())
        share = counts / np.maximum(num_samples, 1)[:, None, None]
        row = (np.arange(low.size // low.shape[2]) * width).reshape(*low.shape[:2], 1)
        cell = np.stack([row + low - first[:, None, None], row + high - first[:, None, None]])
        weights = np.bincount(
            cell[:, counts].ravel(),
            np.stack([share * (1 - part), share * part])[:, counts].ravel(),
            minlength=len(start) * num_bins * width,
        )
        return cls(
            first=first,
            num_cells=num_cells,
            weights=weights.reshape(len(start), num_bins, width).astype(start.dtype),
        )


@dataclass(frozen=True, eq=False)
class _Patches:
    """The part of a level that each RoI reads."""

    levels: Ints
    views: Ints
    rows: _Axis
    columns: _Axis
    sums: list[Tensor | None] | None

    def __len__(self) -> int:
        return len(self.levels)

    @functools.cached_property
    def groups(self) -> list[tuple[Ints, int, int]]:
        """RoIs with patches of about one size, and that size: rows, columns."""
        heights, widths = self.rows.num_cells, self.columns.num_cells
        key = -(-heights // PATCH_STEP) * (1 + widths.max()) + -(-widths // PATCH_STEP)
        groups = (np.flatnonzero(key == value) for value in np.unique(key))
        return [(group, int(heights[group].max()), int(widths[group].max())) for group in groups]

    def weights(self, members: Ints, height: int, width: int) -> tuple[Tensor, Tensor]:
        """Return (K, bins, height) of the rows and (K, 1, bins, width) of the columns."""
        return (
            torch.from_numpy(self.rows.weights[members, :, :height]),
            torch.from_numpy(self.columns.weights[members, None, :, :width]),
        )

    def slices(self, members: Ints) -> Iterator[tuple[int, int, int, slice, slice]]:
        """Yield each RoI's place among the members, level, view, rows and columns."""
        columns = (
            self.levels,
            self.views,
            self.rows.first,
            self.rows.first + self.rows.num_cells,
            self.columns.first,
            self.columns.first + self.columns.num_cells,
        )
        table = np.stack(columns, axis=1)[members].tolist()
        for at, (level, view, top, bottom, left, right) in enumerate(table):
            yield at, level, view, slice(top, bottom), slice(left, right)


class _PoolRois(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, patches: _Patches, *levels: Tensor) -> Tensor:
        ctx.patches = patches
        ctx.sums = patches.sums
        ctx.levels = [(level.shape, level.stride(), level.dtype) for level in levels]
        cells = [level.detach().permute(0, 2, 3, 1).numpy() for level in levels]
        channels = levels[0].shape[1]
        bins = patches.rows.weights.shape[1], patches.columns.weights.shape[1]
        pooled = levels[0].new_empty((len(patches), *bins, channels))
        for members, height, width in patches.groups:
            patch = levels[0].new_zeros((len(members), height, width, channels))
            target = patch.numpy()
            for at, level, view, rows, columns in patches.slices(members):
                read = cells[level][view, rows, columns]
                target[at, : read.shape[0], : read.shape[1]] = read
            by_row, by_column = patches.weights(members, height, width)
            bands = torch.bmm(by_row, patch.flatten(2)).view(-1, bins[0], width, channels)
            pooled[torch.from_numpy(members)] = by_column @ bands
        return pooled.permute(0, 3, 1, 2)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad_pooled: Tensor) -> tuple[Tensor | None, ...]:
        patches: _Patches = ctx.patches
        gradient = grad_pooled.permute(0, 2, 3, 1)
        channels = gradient.shape[3]
        gradients = [None] * len(ctx.levels) if ctx.sums is None else ctx.sums
        read = range(len(ctx.levels)) if ctx.sums is None else set(patches.levels.tolist())
        for level in read:
            if gradients[level] is None:
                shape, stride, dtype = ctx.levels[level]
                gradients[level] = torch.empty_strided(shape, stride, dtype=dtype).zero_()
        cells: list[Any] = [None if g is None else g.permute(0, 2, 3, 1).numpy() for g in gradients]
        for members, height, width in patches.groups:
            by_row, by_column = patches.weights(members, height, width)
            bands = by_column.transpose(2, 3) @ gradient[torch.from_numpy(members)].contiguous()
            patch = torch.bmm(by_row.transpose(1, 2), bands.flatten(2))
            source = patch.view(-1, height, width, channels).numpy()
            for at, level, view, rows, columns in patches.slices(members):
                target = cells[level][view, rows, columns]
                target += source[at, : target.shape[0], : target.shape[1]]
        return None, *(gradients if ctx.sums is None else [None] * len(gradients))


class _ShareGradients(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, *levels: Tensor) -> tuple[Tensor, ...]:
        ctx.set_materialize_grads(False)
        ctx.sums = [None] * len(levels)
        return tuple(level.view_as(level) for level in levels)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *gradients: Tensor | None) -> tuple[Tensor | None, ...]:
        sums = list(ctx.sums)
        ctx.sums[:] = [None] * len(sums)  # for a second pass through a retained graph
        return tuple(
            other if own is None else own if other is None else own.add_(other)
            for own, other in zip(sums, gradients, strict=True)
        )


SHARE_NODE: Any = _ShareGradients._backward_cls
