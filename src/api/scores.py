"""Ground truth, scores of detections and their comparison, and sweeps of settings."""

from __future__ import annotations

import contextlib
import itertools
import weakref
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from src.annotations.competition import Averaging, Competition
from src.annotations.image_files import AUTO
from src.annotations.image_names import file_name_of, find_image, match_ids
from src.annotations.instances import Instances, box_columns
from src.annotations.mask_settings import MaskImageSettings
from src.api.detections import postprocess
from src.errors import InputError
from src.metrics.competition import CompetitionScore
from src.metrics.inputs import RasterInstances
from src.metrics.intervals import (
    PairedInterval,
    bootstrap_interval,
    check_same_images,
    paired_bootstrap_interval,
)
from src.metrics.scoring import (
    Comparison,
    is_score_file,
    open_ground_truth,
    open_submission,
    read_scores,
    score_comparison,
)
from src.metrics.scoring import compare as put_beside
from src.postprocess.detections import Detections
from src.postprocess.pipeline import StoreDetections
from src.postprocess.settings import PostprocessSettings
from src.predictions.store import PredictionStore
from src.tuning.evaluated_image import SubmittedDetections
from src.tuning.session import beside_truth, compare_categories
from src.tuning.settings_evaluator import SettingsEvaluator

if TYPE_CHECKING:
    import pandas as pd

DetectionsById = Mapping[str, Detections]
"""Detections of images by image id, as ``postprocess`` gives them for a store."""


class Annotations:
    """An annotation file, opened: the ground truth that predictions are compared with.

    What it keeps on the disk is removed by ``close``, at the end of a ``with`` block, or when
    nothing refers to it any more.

    Example:
        >>> from src import open_annotations, write_example
        >>> write_example("example")
        >>> with open_annotations("example/data/train.csv") as annotations:
        ...     annotations.image_ids, annotations.instances("0.png").areas_px.tolist()
        (('0.png', '1.png', '2.png'), [960, 768])
    """

    def __init__(
        self, opened: contextlib.AbstractContextManager[RasterInstances], images: Path | None
    ) -> None:
        stack = contextlib.ExitStack()
        self.close = weakref.finalize(self, stack.close)
        self.objects, self.images = stack.enter_context(opened), images

    def __enter__(self) -> Annotations:
        return self

    def __exit__(self, *_error: object) -> None:
        self.close()

    def __len__(self) -> int:
        return len(self.objects)

    @property
    def image_ids(self) -> tuple[str, ...]:
        """Ids of the images, as the file spells them."""
        return tuple(self.objects)

    @property
    def category_names(self) -> Mapping[int, str]:
        """Name of each category, by id."""
        return self.objects.store.labels.category_names

    def instances(self, image_id: str) -> Instances:
        """Return the annotated instances of an image."""
        return self.objects.store.instances(self.image_ids.index(self._own_id(image_id)))

    def image_path(self, image_id: str) -> Path:
        """Return the file of an image.

        Raises:
            InputError: ``images`` was not given, or there is no image of this id.
        """
        if self.images is None:
            raise InputError("images must be a folder to find an image in it, got None")
        return find_image(self.images, self.objects.record(self._own_id(image_id)).file_name)

    def to_frame(self) -> pd.DataFrame:
        """Return a row for each instance; boxes and areas in pixels of the image."""
        import pandas as pd

        frames = []
        for index, image_id in enumerate(self.objects):
            found = self.objects.store.instances(index)
            columns = {"image_id": image_id, "category_id": found.category_ids}
            columns |= {**box_columns(found.boxes_xyxy), "area_px": found.areas_px}
            frames.append(pd.DataFrame(columns))
        return pd.concat(frames, ignore_index=True) if frames else pd.DataFrame()

    def named_as(self, image_ids: Iterable[str]) -> RasterInstances:
        """Return the objects by these image ids, where they name an image in another spelling."""
        return RasterInstances(
            self.objects.store,
            use_attributes=self.objects.use_attributes,
            ids={file_name_of(image_id): image_id for image_id in image_ids},
            images_directory=self.objects.images_directory,
            exif=self.objects.exif,
            competition=self.objects.competition,
        )

    def _own_id(self, image_id: str) -> str:
        (found,) = match_ids([image_id], self.objects)
        if found not in self.objects:
            raise InputError(f"{self.objects.source}: no image has the id {image_id!r}")
        return found


def open_annotations(
    annotations: str | Path,
    *,
    images: str | Path | None = None,
    use_attributes: bool = False,
    exif: str = AUTO,
    duplicates: str = "keep",
    label_descriptions: str | Path | None = None,
    mask_images: Mapping[str, Any] | None = None,
    cache_dir: str | Path | None = None,
    competition: Competition | str = "imaterialist_2019",
) -> Annotations:
    """Open annotations of any format: CSV, COCO JSON, annotation store, mask images.

    Args:
        annotations: The file, or the folder of a store or of mask images.
        images: Folder of the images: to draw them, and to repair sizes and rotations.
        use_attributes: Whether a class is a category with its attributes, in scores.
        exif: Image that the masks were made on where its EXIF orientation turns it:
            ``as_displayed``, ``as_stored``, or ``auto``.
        duplicates: ``keep`` or ``drop`` exact duplicates of instances.
        label_descriptions: JSON with the legal categories; None: those of the file, or of 2019.
        mask_images: How a folder of mask images is read, by the keys of ``conf/mask_images``:
            ``{"layout": "label_maps", "classes": {1: "shirt"}}``.
        cache_dir: Folder in which the file is kept in its fast form for the next time; None: it is
            read anew each time.
        competition: The rules by which scores are made, or their name (``Competition.preset``):
            raster, filler row, averaging and thresholds.

    Returns:
        The ground truth, as a plain value or for a ``with`` block.

    Raises:
        InputError: The file is wrong; the message names file, row, image and value.

    Example:
        >>> from src import open_annotations, write_example
        >>> write_example("example")
        >>> annotations = open_annotations("example/data/train.csv", images="example/data/train")
        >>> len(annotations), annotations.category_names[23]
        (3, 'shoe')
        >>> annotations.to_frame()[["image_id", "category_id", "area_px"]].head(2).values.tolist()
        [['0.png', 1, 960], ['0.png', 23, 768]]
    """
    opened = open_ground_truth(
        annotations,
        use_attributes=use_attributes,
        images_directory=images,
        exif=exif,
        duplicates=duplicates,
        label_descriptions=label_descriptions,
        mask_images=MaskImageSettings.from_config(mask_images),
        cache_dir=cache_dir,
        competition=Competition.preset(competition)
        if isinstance(competition, str)
        else competition,
    )
    return Annotations(opened, None if images is None else Path(images))


def score(
    detections: DetectionsById | str | Path,
    annotations: Annotations,
    *,
    image_ids: Collection[str] | None = None,
    averaging: Averaging | None = None,
) -> CompetitionScore:
    """Score detections or a submission with the metric of iMaterialist (Fashion) 2019.

    Args:
        detections: From ``postprocess``: the images that have annotations are scored, as by
            ``python -m src.postprocess``. Or a submission file: every annotated image is, as by
            ``python -m src.score``.
        annotations: The ground truth.
        image_ids: Only these images are scored, a validation split; None: all.
        averaging: ``per_class`` or ``pooled``; None: as the competition has it.

    Raises:
        InputError: No image can be scored, or a file is wrong.

    Example:
        >>> from src import PredictionStore, PostprocessSettings, open_annotations, postprocess
        >>> from src import score, write_example
        >>> write_example("example")
        >>> store = PredictionStore("example/predictions_validation")
        >>> detections = postprocess(store, PostprocessSettings.preset("winner_all_classes"))
        >>> result = score(detections, open_annotations("example/data/train.csv"))
        >>> result.competition_map
        0.75
        >>> result.interval()
        Interval(estimate=0.75, low=0.5, high=1.0, confidence=0.95, resamples=10000)
        >>> result.to_frame("image").score.tolist()
        [1.0, 0.75, 0.5]
        >>> print(result.to_frame()[["category", "detections", "score"]])
                           category  detections     score
        0  top, t-shirt, sweatshirt           3  0.833333
        1                      shoe           2  0.666667
    """
    with contextlib.ExitStack() as opened:
        if isinstance(detections, str | Path):
            ground_truth = annotations.objects
            prediction = opened.enter_context(open_submission(detections, ground_truth))
            comparison = put_beside(
                ground_truth, prediction, prediction_name=str(detections), image_ids=image_ids
            )
        else:
            comparison = _compared(detections, annotations, image_ids)
        result = score_comparison(
            comparison, averaging or annotations.objects.competition.averaging
        )
        return replace(result, category_names=annotations.category_names, notes=comparison.notes)


def _compared(
    detections: DetectionsById, annotations: Annotations, image_ids: Collection[str] | None
) -> Comparison:
    """Put detections beside the ground truth, the images in the order of the detections."""
    ground_truth = annotations.named_as(detections)
    if isinstance(detections, StoreDetections):
        compare_categories(detections.store, ground_truth)
    wanted: Iterable[str] = detections
    if image_ids is not None:
        chosen = set(match_ids(image_ids, detections))
        wanted = [image_id for image_id in detections if image_id in chosen]
    if not wanted:
        raise InputError("detections must have one or more of the images to be scored, got none")
    beside = beside_truth(ground_truth, tuple(wanted))
    return replace(beside, prediction=_submitted(detections, annotations))


def _submitted(
    detections: DetectionsById, annotations: Annotations, ids: Iterable[str] = ()
) -> SubmittedDetections:
    competition = annotations.objects.competition
    if isinstance(detections, StoreDetections) and detections.raster != competition.scored_on:
        detections = StoreDetections(
            detections.store,
            detections.settings,
            image_ids=detections.image_ids,
            raster=competition.scored_on,
        )
    return SubmittedDetections(
        detections,
        filler=competition.filler,
        use_attributes=annotations.objects.use_attributes,
        ids=ids,
    )


def compare(
    a: DetectionsById | CompetitionScore | str | Path,
    b: DetectionsById | CompetitionScore | str | Path,
    annotations: Annotations | None = None,
    *,
    image_ids: Collection[str] | None = None,
    averaging: Averaging | None = None,
    num_resamples: int = 10_000,
    confidence: float = 0.95,
    seed: int = 0,
) -> PairedInterval:
    """Compare two results on the same images: the difference ``b - a`` with its paired interval.

    Args:
        a: Detections, a submission file, or what was scored: a ``CompetitionScore`` or the
            ``score.json`` of a command.
        b: As ``a``.
        annotations: The ground truth; None where both are scored.
        image_ids: Only these images are scored; None: those that have annotations and predictions.
        averaging: ``per_class`` or ``pooled``; None: as the competition has it.
        num_resamples: How often the images are drawn with replacement.
        confidence: Coverage of the interval, between 0 and 1.
        seed: Of the draws.

    Raises:
        InputError: The two are not of the same images, or were scored with different averaging, or
            a file is wrong.

    Example:
        >>> from src import PredictionStore, PostprocessSettings, compare, open_annotations
        >>> from src import postprocess, write_example
        >>> write_example("example")
        >>> store = PredictionStore("example/predictions_validation")
        >>> winner = PostprocessSettings.preset("winner_all_classes")
        >>> a, b = (postprocess(store, winner.replace(score_threshold=t)) for t in (0.5, 0.2))
        >>> result = compare(a, b, open_annotations("example/data/train.csv"))
        >>> round(result.difference.estimate, 4), result.verdict
        (0.1667, 'within noise')
    """
    (scores_a, averaging_a), (scores_b, averaging_b) = (
        _image_scores(side, annotations, image_ids, averaging) for side in (a, b)
    )
    if averaging_a != averaging_b:
        raise InputError(
            f"a and b must be scored with the same averaging, got {averaging_a} and {averaging_b}"
        )
    check_same_images(scores_a, scores_b)
    return paired_bootstrap_interval(
        list(scores_a.values()),
        [scores_b[image_id] for image_id in scores_a],
        num_resamples,
        confidence,
        seed,
    )


def _image_scores(
    side: DetectionsById | CompetitionScore | str | Path,
    annotations: Annotations | None,
    image_ids: Collection[str] | None,
    averaging: Averaging | None,
) -> tuple[dict[str, float], str]:
    """Return the score of each image by image id, and how the scores are averaged."""
    if isinstance(side, str | Path) and is_score_file(Path(side)):
        found = read_scores(Path(side))
        scores, averaged = found.per_image, found.averaging
    elif isinstance(side, CompetitionScore):
        scores = dict(zip(side.image_ids, side.per_image.tolist(), strict=True))
        averaged = side.averaging
    elif annotations is None:
        raise InputError("annotations must be given to score detections or a submission, got None")
    else:
        averaging = averaging or annotations.objects.competition.averaging
        return _scores_of_both(side, annotations, image_ids, averaging), averaging
    names = set(scores if image_ids is None else match_ids(image_ids, scores))
    return {image_id: value for image_id, value in scores.items() if image_id in names}, averaged


def _scores_of_both(
    side: DetectionsById | str | Path,
    annotations: Annotations,
    image_ids: Collection[str] | None,
    averaging: Averaging,
) -> dict[str, float]:
    """Score the images that have annotations and predictions, in the order of the annotations."""
    ground_truth = annotations.objects
    wanted = set(ground_truth if image_ids is None else match_ids(image_ids, ground_truth))
    with contextlib.ExitStack() as opened:
        prediction = (
            opened.enter_context(open_submission(side, ground_truth))
            if isinstance(side, str | Path)
            else _submitted(side, annotations, ids=ground_truth)
        )
        both = [name for name in ground_truth if name in prediction and name in wanted]
        if not both:
            raise InputError(f"{ground_truth.source}: has none of the images to be compared")
        comparison = put_beside(
            ground_truth, prediction, prediction_name="predictions", image_ids=both
        )
        result = score_comparison(
            comparison, averaging or annotations.objects.competition.averaging
        )
    return dict(zip(result.image_ids, result.per_image.tolist(), strict=True))


def sweep(
    store: PredictionStore,
    annotations: Annotations,
    grid: Mapping[str, Sequence[Any]],
    *,
    settings: PostprocessSettings | None = None,
    image_ids: Collection[str] | None = None,
    partial: bool = False,
    averaging: Averaging | None = None,
    num_resamples: int = 10_000,
    confidence: float = 0.95,
    seed: int = 0,
) -> pd.DataFrame:
    """Score every combination of some settings; work that two of them share is done once.

    Args:
        store: Candidates before NMS.
        annotations: The ground truth.
        grid: Values by key of the settings.
        settings: Values of the other keys; None: the preset ``default``.
        image_ids: Only these images are scored; None: those that have annotations and candidates.
        partial: Whether a store that lacks images suffices.
        averaging: ``per_class`` or ``pooled``; None: as the competition has it.
        num_resamples: How often the images are drawn with replacement, for the intervals.
        confidence: Coverage of the intervals, between 0 and 1.
        seed: Of the draws.

    Returns:
        A row for each combination, the best first: the keys of the grid, ``competition_map``, and
        its interval ``low`` and ``high``. The best of many is flattered on the images that chose
        it: ``python -m src.search`` cross-validates.

    Raises:
        InputError: A key or value is not legal, or no image can be scored.

    Example:
        >>> from src import PredictionStore, PostprocessSettings, open_annotations, sweep
        >>> from src import write_example
        >>> write_example("example")
        >>> store = PredictionStore("example/predictions_validation")
        >>> annotations = open_annotations("example/data/train.csv")
        >>> settings = PostprocessSettings.preset("winner_all_classes")
        >>> table = sweep(store, annotations, {"score_threshold": [0.5, 0.2]}, settings=settings)
        >>> print(table.round(4))
           score_threshold  competition_map   low  high
        0              0.2           0.9167  0.75   1.0
        1              0.5           0.7500  0.50   1.0
    """
    import pandas as pd

    base = settings or PostprocessSettings.preset("default")
    points = [dict(zip(grid, values, strict=True)) for values in itertools.product(*grid.values())]
    candidates = [
        postprocess(store, base.replace(**point), image_ids=image_ids, partial=partial)
        for point in points
    ]
    if not candidates:
        raise InputError(f"grid must have one or more values for each key, got {dict(grid)}")
    comparison = _compared(candidates[0], annotations, image_ids)
    lab = SettingsEvaluator(
        store,
        {image_id: comparison.ground_truth[image_id] for image_id in comparison.image_ids},
        comparison.image_ids,
        competition=annotations.objects.competition,
    )
    scores = lab.score_grid(
        [one.settings for one in candidates],
        averaging or annotations.objects.competition.averaging,
    )
    rows = []
    for point, result in zip(points, scores, strict=True):
        interval = bootstrap_interval(result.per_image, num_resamples, confidence, seed)
        ends = {"low": interval.low, "high": interval.high}
        rows.append({**point, "competition_map": interval.estimate, **ends})
    table = pd.DataFrame(rows)
    return table.sort_values("competition_map", ascending=False, kind="stable", ignore_index=True)
