"""Annotations of the data module: open them, and select the images to train on."""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Sequence
from functools import cache, partial
from pathlib import Path

import numpy as np
import numpy.typing as npt
from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TimeRemainingColumn

from src.annotations.formats import ReadingOptions
from src.annotations.image_files import describe_outcome
from src.annotations.store import AnnotationStore
from src.annotations.store_builder import BuildReport, open_or_build
from src.console import PlainConsole
from src.datamodules.sizes import LEAST_VIEW_PX, resized_hw
from src.errors import InputError
from src.io import printable
from src.rle import resize_nearest

log = logging.getLogger(__name__)

# A mask with a larger area and a wider box keeps a pixel on the resized image.
_SMALL_AREA_PX = 64.0
_NARROW_BOX_PX = 4.0
MOST_FINDINGS = 20
MAX_SHOWN = 5


def indices_to_train_on(
    store: AnnotationStore,
    image_ids: Sequence[str],
    *,
    short_edge_px: tuple[int, int],
    long_edge_px: int,
    annotations: str | Path,
) -> npt.NDArray[np.int64]:
    """Return the images that keep an instance to train on; log the others.

    Crowd regions, instances with an empty mask, and those without a pixel left at the largest size
    of the resized image do not count.

    Args:
        image_ids: Images of the training part.
        short_edge_px: Least and greatest shorter edge of a resized image, in pixels.
        long_edge_px: Upper limit of its longer edge, in pixels.
        annotations: The annotation file, for the message.

    Returns:
        Positions in ``store.images``, in the order of ``image_ids``.

    Raises:
        InputError: No image keeps an instance; the message says why each was left out.
    """
    counts, left_out, kept = Counter[str](), list[str](), list[int]()
    limits = {"short_edge_px": short_edge_px[-1], "long_edge_px": long_edge_px}
    scale = "datamodule.train_" + ", train_".join(f"{key}={px}" for key, px in limits.items())
    for image_id in image_ids:
        index = store.index_of(image_id)
        crowd, without_mask = store.counts_without_mask(index)
        own = {
            "crowd regions (iscrowd=1)": crowd,
            "instances without a mask (an empty segmentation, such as that of a rectangle)": (
                without_mask
            ),
            f"instances too small, without a pixel left at {scale}": _count_vanishing(
                store, index, **limits
            ),
        }
        counts.update(own)
        if store.instance_counts[index] > sum(own.values()):
            kept.append(index)
        else:
            left_out.append(image_id)
    parts = [f"{count} {what}" for what, count in counts.items() if count]
    if left_out:
        first = printable(left_out[0], limit=100)
        parts.append(f"{len(left_out)} images that keep no instance (the first: {first})")
    line = "; ".join(parts)
    if not kept:
        raise InputError(
            f"{annotations}: at least one training image must keep an instance to train on, got "
            f"none of {len(image_ids)}: left out are {line}"
        )
    if line:
        log.warning("left out of training: %s", line)
    return np.array(kept, dtype=np.int64)


def _count_vanishing(store: AnnotationStore, index: int, **limits: int) -> int:
    """Count the instances, without crowd regions, that resizing leaves no pixel of."""
    size_hw = store.images[index].size_hw
    view_hw = resized_hw(size_hw, **limits)
    scale = min(view_hw[0] / size_hw[0], view_hw[1] / size_hw[1])
    if scale >= 1:  # nearest neighbour: every pixel of the image has one in the view
        return 0
    small = store.small_instances(
        index, largest_area_px=_SMALL_AREA_PX / scale**2, longest_edge_px=_NARROW_BOX_PX / scale
    )
    if not len(small):
        return 0
    small = small[~store.is_crowd(index)[small]]
    resized = resize_nearest(store.instances(index).masks[small], view_hw)
    return int(np.count_nonzero(resized.num_runs == 0))


def open_annotations(
    source: Path, cache_dir: Path, options: ReadingOptions, *, fallback_directory: Path | None
) -> AnnotationStore:
    """Open the store of an annotation file, see ``open_or_build``, and log its notes once.

    Raises:
        InputError: See ``open_or_build``.
    """
    columns = (TextColumn("annotations"), BarColumn(), DownloadColumn(), TimeRemainingColumn())
    console = PlainConsole(stderr=True)
    hidden = not console.is_terminal
    with Progress(*columns, console=console, transient=True, disable=hidden) as progress:
        task = progress.add_task("annotations", total=None, visible=False)
        show = partial(progress.update, task, visible=True)
        store = open_or_build(
            source,
            cache_dir,
            options,
            fallback_directory=fallback_directory,
            on_progress=lambda done, total: show(completed=done, total=total),
            on_built=log_report,
        )
    for note in store.notes:
        _warn_once(f"{source}: {note}")
    return store


@cache
def _warn_once(text: str) -> None:
    """Log a warning once in this process."""
    log.warning("%s", text)


def indices_wide_enough(
    store: AnnotationStore,
    indices: npt.NDArray[np.int64],
    *,
    short_edge_px: tuple[int, int],
    long_edge_px: int,
) -> npt.NDArray[np.int64]:
    """Return the images whose smallest view can be trained on, in order; log the others.

    Limited by its longer edge, the view of a very long image may have an edge below
    ``LEAST_VIEW_PX``, so that no anchor of the proposals lies inside it. Prediction refuses such
    images by the same rule. For the arguments see ``indices_to_train_on``, whose result is
    ``indices``.
    """
    smallest = partial(resized_hw, short_edge_px=short_edge_px[0], long_edge_px=long_edge_px)
    sizes_hw = [smallest(store.images[int(index)].size_hw) for index in indices]
    is_wide_enough = np.array([min(size) >= LEAST_VIEW_PX for size in sizes_hw], dtype=np.bool_)
    if left_out := [store.images[int(index)] for index in indices[~is_wide_enough]]:
        shown = ", ".join(
            f"{printable(image.image_id)} ({image.height_px}x{image.width_px} px)"
            for image in left_out[:MAX_SHOWN]
        )
        log.warning(
            "%d training image(s) left out: a view of them has an edge below %d px at "
            "datamodule.train_short_edge_px=%d, train_long_edge_px=%d: %s%s",
            *(len(left_out), LEAST_VIEW_PX, short_edge_px[0], long_edge_px, shown),
            ", ..." if len(left_out) > MAX_SHOWN else "",
        )
    return indices[is_wide_enough]


def log_report(report: BuildReport) -> None:
    """Log the number of instances, sizes that disagree with the images, and rows left out."""
    log.info("%s: %d instances on %d images", report.source, report.instances, report.images)
    if report.crowd_regions:
        log.info("%d of them are crowd regions (iscrowd)", report.crowd_regions)
    if report.empty_masks:
        log.warning("%d of them have a mask without a pixel", report.empty_masks)
    for finding in report.size_findings[:MOST_FINDINGS]:
        outcome = describe_outcome(finding, repaired="exchanged, repaired")
        log.warning(
            "%s: annotated as %d x %d px (height x width), the image has %d x %d: %s",
            *(finding.image_id, *finding.annotated_hw, *finding.image_hw, outcome),
        )
    if len(report.size_findings) > MOST_FINDINGS:
        log.warning("and %d more such images", len(report.size_findings) - MOST_FINDINGS)
    if report.skipped_rows:
        log.warning("%d bad rows left out, see %s", report.skipped_rows, report.skipped_file)
