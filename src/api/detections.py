"""From a prediction store to detections and a submission."""

from __future__ import annotations

import itertools
from collections.abc import Iterable
from pathlib import Path
from typing import overload

from src.annotations.image_names import match_ids, read_image_ids
from src.postprocess import pipeline
from src.postprocess.category_names import names_for
from src.postprocess.detections import Detections, no_detections
from src.postprocess.pipeline import StoreDetections
from src.postprocess.settings import PostprocessSettings, named_settings, read_values
from src.predictions.candidates import Candidates
from src.predictions.store import PredictionStore
from src.submission.formats import format_named
from src.submission.writing import SubmissionReport
from src.submission.writing import write_submission as write_rows
from src.tuning.session import is_competition_submission


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
        raster: Raster of the masks: ``512x512`` (2019, and for scores) or ``long_edge_1024``.

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
    # refuses groups of the competition's categories for a store of other data
    settings = named_settings(settings.to_dict(), names_for(predictions, None, source=""))
    return StoreDetections(predictions, settings, image_ids=image_ids, raster=raster)


def write_submission(
    path: str | Path,
    detections: StoreDetections,
    *,
    sample_submission: str | Path | None = None,
    format: str = "imaterialist_2019",
    partial: bool = False,
) -> SubmissionReport:
    """Write detections as a submission, as ``python -m src.postprocess`` does.

    Args:
        path: The CSV file.
        detections: From ``postprocess``.
        sample_submission: CSV with the images to write, in its order; None: those of the
            detections.
        format: One of ``FORMATS``; masks are drawn on its raster.
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
        >>> report.images, report.objects, validate_submission("submission.csv").violations
        (3, 5, ())
    """
    submission_format = format_named(format)
    store, image_ids, absent = detections.store, detections.image_ids, []
    if sample_submission is not None:
        wanted = match_ids(read_image_ids(str(sample_submission)), image_ids)
        absent = [image_id for image_id in wanted if image_id not in detections]
        if absent and (not partial or len(absent) == len(wanted)):
            store.check_image_ids(wanted, source=str(sample_submission))
        image_ids = tuple(image_id for image_id in wanted if image_id in detections)
    drawn = StoreDetections(
        store, detections.settings, image_ids=image_ids, raster=submission_format.raster
    )
    categories = names_for(store, None, source="")
    sample = None if sample_submission is None else str(sample_submission)
    return write_rows(
        path,
        itertools.chain(drawn.values(), map(no_detections, absent)),
        submission_format=submission_format,
        competition=is_competition_submission(store, categories, sample),
    )
