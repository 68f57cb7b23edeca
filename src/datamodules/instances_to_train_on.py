"""Which instances a training keeps, and what is said of those that it leaves out."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import numpy.typing as npt

from src.annotations.run_lengths import resize_nearest
from src.annotations.store import AnnotationStore
from src.datamodules.transforms import resized_hw
from src.errors import InputError
from src.io import printable

log = logging.getLogger(__name__)

# A mask with a larger area and a wider box, on the resized image, is hit by some of its pixels.
_SMALL_AREA_PX = 64.0
_NARROW_BOX_PX = 4.0


@dataclass(slots=True)
class LeftOut:
    """What a training leaves out."""

    crowd: int = 0  # instances, like the next two
    without_mask: int = 0
    too_small: int = 0
    images: list[str] = field(default_factory=list)  # ids of images that keep no instance

    def describe(self, scale: str) -> str:
        """Return the counts in one line; empty for nothing.

        Args:
            scale: the sizes of the resized images, in words.
        """
        counts = {
            "crowd regions (iscrowd=1)": self.crowd,
            "instances without a mask (an empty segmentation, such as that of a rectangle)": (
                self.without_mask
            ),
            f"instances too small, without a pixel left at {scale}": self.too_small,
        }
        parts = [f"{count} {what}" for what, count in counts.items() if count]
        if self.images:
            first = printable(self.images[0], limit=100)
            parts.append(f"{len(self.images)} images that keep no instance (the first: {first})")
        return "; ".join(parts)


def indices_to_train_on(
    store: AnnotationStore,
    image_ids: Sequence[str],
    *,
    short_edge_px: tuple[int, int],
    long_edge_px: int,
    annotations: str | Path,
) -> npt.NDArray[np.int64]:
    """Return the images that keep an instance to train on; log what is left out.

    Left out are crowd regions, instances whose mask is empty, and those of which no pixel is left
    on the largest size that the image is resized to.

    Args:
        store: the annotations.
        image_ids: the images of the training part.
        short_edge_px: least and greatest shorter edge of a resized image, in pixels.
        long_edge_px: upper limit of its longer edge, in pixels.
        annotations: the annotation file, for the message.

    Returns:
        Positions in ``store.images``, in the order of ``image_ids``.

    Raises:
        InputError: no image keeps an instance; the message says why each was left out.
    """
    left_out, kept = LeftOut(), []
    for image_id in image_ids:
        index = store.index_of(image_id)
        crowd, without_mask = store.counts_without_mask(index)
        too_small = _count_vanishing(
            store, index, short_edge_px=short_edge_px[-1], long_edge_px=long_edge_px
        )
        left_out.crowd += crowd
        left_out.without_mask += without_mask
        left_out.too_small += too_small
        if store.instance_count(index) > crowd + without_mask + too_small:
            kept.append(index)
        else:
            left_out.images.append(image_id)
    line = left_out.describe(
        f"datamodule.train_short_edge_px={short_edge_px[-1]}, train_long_edge_px={long_edge_px}"
    )
    if not kept:
        raise InputError(
            f"{annotations}: at least one training image must keep an instance to train on, got "
            f"none of {len(image_ids)}: left out are {line}"
        )
    if line:
        log.warning("left out of training: %s", line)
    return np.array(kept, dtype=np.int64)


def _count_vanishing(
    store: AnnotationStore, index: int, *, short_edge_px: int, long_edge_px: int
) -> int:
    """How many instances of an image, but for crowd regions, resizing leaves no pixel of."""
    size_hw = store.images[index].size_hw
    view_hw = resized_hw(size_hw, short_edge_px=short_edge_px, long_edge_px=long_edge_px)
    scale = min(view_hw[0] / size_hw[0], view_hw[1] / size_hw[1])
    if scale >= 1:  # by nearest, every pixel of the image has one in the view
        return 0
    small = store.small_objects(
        index, largest_area_px=_SMALL_AREA_PX / scale**2, longest_edge_px=_NARROW_BOX_PX / scale
    )
    if not len(small):
        return 0
    runs, is_crowd = store.instances(index).runs, store.is_crowd(index)
    return sum(
        not len(resize_nearest(runs[at], size_hw, view_hw)) for at in small if not is_crowd[at]
    )
