"""Annotations opened for people: a progress bar where they are read, a word on what was found."""

from __future__ import annotations

import logging
from functools import cache
from pathlib import Path

import numpy as np
import numpy.typing as npt
from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TimeRemainingColumn

from src.annotations.image_sizes import outcome_in_words
from src.annotations.store import AnnotationStore
from src.annotations.store_builder import BuildReport, open_or_build
from src.datamodules.transforms import LEAST_VIEW_PX, resized_hw
from src.io import printable
from src.terminal import PlainConsole

log = logging.getLogger(__name__)

MOST_FINDINGS = 20
MAX_SHOWN = 5


def open_annotations(
    source: Path,
    cache_directory: Path,
    *,
    fallback_directory: Path | None,
    images_directory: Path | None,
    exif: str,
    on_bad_rows: str,
    duplicates: str,
    label_descriptions: Path | None,
) -> AnnotationStore:
    """Open the store of an annotation file, see ``open_or_build``, and log its notes once.

    Raises:
        InputError: as ``open_or_build``.
    """
    columns = (TextColumn("annotations"), BarColumn(), DownloadColumn(), TimeRemainingColumn())
    console = PlainConsole(stderr=True)
    with Progress(
        *columns, console=console, transient=True, disable=not console.is_terminal
    ) as progress:
        task = progress.add_task("annotations", total=None, visible=False)
        store = open_or_build(
            source,
            cache_directory,
            fallback_directory=fallback_directory,
            images_directory=images_directory,
            exif=exif,
            on_bad_rows=on_bad_rows,
            duplicates=duplicates,
            label_descriptions=label_descriptions,
            on_progress=lambda done, total: progress.update(
                task, completed=done, total=total, visible=True
            ),
            on_built=log_report,
        )
    for note in store.notes:
        _warn_once(f"{source}: {note}")
    return store


@cache
def _warn_once(text: str) -> None:
    """Log a warning that stays true for as long as the process runs."""
    log.warning("%s", text)


def indices_wide_enough(
    store: AnnotationStore,
    indices: npt.NDArray[np.int64],
    *,
    short_edge_px: tuple[int, int],
    long_edge_px: int,
) -> npt.NDArray[np.int64]:
    """Return the images whose smallest view can be trained on; name those left out.

    In an image that is very long for its width, a view limited by its longer edge is so narrow that
    no anchor of the proposals lies inside it. Prediction refuses such images by the same rule.

    Args:
        store: the annotations.
        indices: positions in ``store.images``.
        short_edge_px: least and greatest shorter edge of a view, in pixels.
        long_edge_px: upper limit of its longer edge, in pixels.

    Returns:
        Positions whose views have edges of ``LEAST_VIEW_PX`` or more, in the same order.
    """

    def smallest_edge_px(index: int) -> int:
        return min(
            resized_hw(
                store.images[index].size_hw,
                short_edge_px=short_edge_px[0],
                long_edge_px=long_edge_px,
            )
        )

    is_wide_enough = np.array(
        [smallest_edge_px(int(index)) >= LEAST_VIEW_PX for index in indices], dtype=np.bool_
    )
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
    """Log what was read: its size, sizes that disagree with the photos, rows left out."""
    log.info("%s: %d objects on %d images", report.source, report.objects, report.images)
    if report.crowd_objects:
        log.info("%d of them are crowd regions (iscrowd)", report.crowd_objects)
    if report.empty_masks:
        log.warning("%d of them have a mask without a pixel", report.empty_masks)
    for finding in report.size_findings[:MOST_FINDINGS]:
        log.warning(
            "%s: annotated as %d x %d px (height x width), the photo has %d x %d: %s",
            finding.image_id,
            *finding.annotated_hw,
            *finding.picture_hw,
            outcome_in_words(finding, repaired="exchanged, repaired"),
        )
    if len(report.size_findings) > MOST_FINDINGS:
        log.warning("and %d more such images", len(report.size_findings) - MOST_FINDINGS)
    if report.skipped_rows:
        log.warning("%d bad rows left out, see %s", report.skipped_rows, report.skipped_file)
