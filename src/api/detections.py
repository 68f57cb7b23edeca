"""From a prediction store to detections, their drawings and a submission."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, overload

import numpy as np
import numpy.typing as npt
from PIL import Image

from src.annotations.competition import Competition
from src.annotations.image_files import read_image_rgb
from src.annotations.image_names import match_ids, read_image_ids
from src.errors import InputError
from src.io import atomic_path
from src.postprocess import pipeline
from src.postprocess.category_names import names_for
from src.postprocess.detections import Detections, no_detections
from src.postprocess.pipeline import StoreDetections
from src.postprocess.settings import PostprocessSettings, named_settings, read_values
from src.predictions.candidates import Candidates
from src.predictions.store import PredictionStore
from src.reporting.drawing import (
    DrawnInstance,
    compare_instances,
    draw_instances,
    draw_side_by_side,
    drawable_masks,
    fit,
    short_name,
)
from src.reporting.palette import category_colour
from src.submission.writing import SubmissionReport
from src.submission.writing import write_submission as write_rows
from src.tuning.evaluated_image import as_submitted

if TYPE_CHECKING:
    from src.api.scores import Annotations


def read_settings(path: str | Path) -> PostprocessSettings:
    r"""Read settings of post-processing from a YAML file, such as ``python -m src.search`` writes.

    A key that the file and its ``defaults`` lack has its value of the preset ``default``.

    Raises:
        InputError: The file cannot be read, or a value is not legal.

    Example:
        >>> from pathlib import Path
        >>> from src import read_settings
        >>> _ = Path("mine.yaml").write_text("defaults: [winner]\nscore_threshold: 0.4\n")
        >>> settings = read_settings("mine.yaml")
        >>> settings.score_threshold, settings.mask_threshold
        (0.4, 0.45)
    """
    return PostprocessSettings(**read_values(Path(path)))


@overload
def postprocess(
    predictions: PredictionStore,
    settings: PostprocessSettings,
    *,
    image_ids: Iterable[str] | None = ...,
    partial: bool = ...,
    raster: str = ...,
) -> StoreDetections: ...
@overload
def postprocess(
    predictions: Candidates, settings: PostprocessSettings, *, raster: str = ...
) -> Detections: ...
def postprocess(
    predictions: PredictionStore | Candidates,
    settings: PostprocessSettings,
    *,
    image_ids: Iterable[str] | None = None,
    partial: bool = False,
    raster: str = "512x512",
) -> StoreDetections | Detections:
    """Turn candidates into detections: thresholds, NMS, caps, masks, rules on overlaps and areas.

    Args:
        predictions: A prediction store, or the candidates of one image.
        settings: Thresholds and rules.
        image_ids: Images of the store, in this order; None: all, by ascending id.
        partial: Whether a store that lacks images suffices.
        raster: Raster of the masks, see ``raster_hw``: ``512x512``, ``native`` and others.

    Returns:
        The detections of the image; of a store a mapping from image id to detections, each made
        when it is asked for.

    Raises:
        InputError: The store is damaged, or lacks images.

    Example:
        >>> from src import PredictionStore, PostprocessSettings, postprocess, write_example
        >>> write_example("example")
        >>> store = PredictionStore("example/predictions_validation")
        >>> detections = postprocess(store, PostprocessSettings.preset("winner_all_classes"))
        >>> {image_id: len(found) for image_id, found in detections.items()}
        {'0.png': 2, '1.png': 2, '2.png': 1}
        >>> lower = PostprocessSettings.preset("winner_all_classes").replace(score_threshold=0.2)
        >>> postprocess(store.candidates(2), lower).category_ids.tolist()
        [1, 23]
    """
    if isinstance(predictions, Candidates):
        return pipeline.postprocess(predictions, settings, raster=raster)
    predictions.check_whole(partial=partial)
    if image_ids is None and not partial:
        predictions.check_none_failed()
    # Refuses groups of the competition's categories for a store of other data.
    settings = named_settings(settings.to_dict(), names_for(predictions, None, source=""))
    return StoreDetections(predictions, settings, image_ids=image_ids, raster=raster)


def write_submission(
    path: str | Path,
    detections: StoreDetections,
    *,
    sample_submission: str | Path | None = None,
    competition: Competition | str = "imaterialist_2019",
    partial: bool = False,
) -> SubmissionReport:
    """Write detections as a submission, as ``python -m src.postprocess`` does.

    Args:
        path: The CSV file.
        detections: From ``postprocess``.
        sample_submission: CSV with the images to write, in its order; None: those of the
            detections.
        competition: The rules, or their name (``Competition.preset``): columns, raster, filler row.
        partial: Whether images of the sample may be missing: they are written without an object.

    Returns:
        Counts of images and detections, and of those that make the file invalid.

    Raises:
        InputError: Images of the sample are missing, or a category is none of the competition's.

    Example:
        >>> from src import PredictionStore, PostprocessSettings, postprocess, write_example
        >>> from src import validate_submission, write_submission
        >>> write_example("example")
        >>> store = PredictionStore("example/predictions_validation")
        >>> detections = postprocess(store, PostprocessSettings.preset("winner_all_classes"))
        >>> report = write_submission("submission.csv", detections)
        >>> report.images, report.num_detections, validate_submission("submission.csv").violations
        (3, 5, ())
    """
    if isinstance(competition, str):
        competition = Competition.preset(competition)
    store, image_ids, absent = detections.store, detections.image_ids, []
    if sample_submission is not None:
        wanted = match_ids(read_image_ids(str(sample_submission)), image_ids)
        absent = [image_id for image_id in wanted if image_id not in detections]
        if absent and (not partial or len(absent) == len(wanted)):
            store.check_image_ids(wanted, source=str(sample_submission))
        image_ids = tuple(image_id for image_id in wanted if image_id in detections)
    drawn = StoreDetections(
        store, detections.settings, image_ids=image_ids, raster=competition.raster
    )
    return write_rows(
        path,
        itertools.chain(drawn.values(), map(no_detections, absent)),
        competition=competition.for_submission(
            names_for(store, None, source="").names,
            store.category_ids,
            has_sample=sample_submission is not None,
        ),
    )


def draw(
    image: str | Path | npt.NDArray[np.uint8],
    detections: Detections,
    annotations: Annotations | None = None,
    *,
    category_names: Mapping[int, str] | None = None,
    edge_px: int = 640,
    output: str | Path | None = None,
) -> npt.NDArray[np.uint8]:
    """Draw detections over their image; with annotations beside image and ground truth.

    Args:
        image: File of the image, or its pixels: (H, W, 3) uint8, RGB.
        detections: Of this image.
        annotations: The ground truth: image, ground truth and detections are drawn in a row. A
            detection's label has its confidence and its IoU; what has no match has a dashed
            outline.
        category_names: Name of each category, for the labels; None: those of the annotations, or
            the ids.
        edge_px: Longer edge of each drawing in pixels.
        output: Image file to write as well, its format by the suffix; None: none.

    Returns:
        (h, w, 3) uint8, RGB.

    Raises:
        InputError: The image cannot be read, or has no annotations.

    Example:
        >>> from src import PredictionStore, PostprocessSettings, draw, postprocess, write_example
        >>> write_example("example")
        >>> store = PredictionStore("example/predictions_validation")
        >>> detections = postprocess(store, PostprocessSettings.preset("winner_all_classes"))
        >>> draw("example/data/train/0.png", detections["0.png"], edge_px=320, output="0.jpg").shape
        (320, 320, 3)
    """
    pixels = image if isinstance(image, np.ndarray) else read_image_rgb(image)
    if annotations is not None:
        ground_truth = annotations.named_as([detections.image_id])
        if detections.image_id not in ground_truth:
            raise InputError(f"{ground_truth.source}: no image has the id {detections.image_id!r}")
        use_attributes = ground_truth.use_attributes
        drawn = compare_instances(
            ground_truth[detections.image_id],
            as_submitted(detections, filler=None, use_attributes=use_attributes),
            category_names or annotations.category_names,
            ground_truth.competition.rule,
        )
        drawing = draw_side_by_side(pixels, drawn.ground_truth, drawn.prediction, edge_px=edge_px)
    else:
        categories = detections.category_ids.tolist()
        names = {number: short_name(name) for number, name in (category_names or {}).items()}
        masks = drawable_masks(detections.bitmasks, edge_px=max(edge_px, 1024))
        columns = (masks, categories, detections.scores.tolist())
        instances = [
            DrawnInstance(
                mask, f"{names.get(category, category)} {value:.2f}", category_colour(category)
            )
            for mask, category, value in zip(*columns, strict=True)
        ]
        drawing = draw_instances(fit(pixels, edge_px), instances)
    if output is not None:
        kind = Image.registered_extensions().get(Path(output).suffix.lower())
        if kind not in Image.SAVE:
            raise InputError(f"output must be an image file such as a.png or a.jpg, got {output}")
        with atomic_path(output) as partial_path:
            Image.fromarray(drawing).save(partial_path, kind)
    return drawing
