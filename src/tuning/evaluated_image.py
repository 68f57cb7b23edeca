"""Detections as the competition scores them, and one image evaluated under many settings."""

from __future__ import annotations

from collections.abc import Hashable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property

import numpy as np
import numpy.typing as npt

from src.annotations.competition import Competition, Filler, raster_hw
from src.annotations.image_names import match_ids
from src.metrics.competition import (
    ClassKey,
    ImageCounts,
    ImageInstances,
    match_instances,
    no_instances,
)
from src.metrics.inputs import class_keys
from src.postprocess.category_names import CategoryNames
from src.postprocess.detections import EMPTY, Detections
from src.postprocess.mask_source import draw_bitmasks as draw_masks
from src.postprocess.pipeline import (
    StepCounts,
    StoreDetections,
    detect,
    draw_bitmasks,
    sampler_of,
)
from src.postprocess.selection import Selection, select_all
from src.postprocess.settings import PostprocessSettings
from src.postprocess.steps import run_steps
from src.predictions.candidates import Candidates
from src.predictions.store import PredictionStore
from src.tuning.mask_curves import CategoryCurves, CurveMaker, curve_rules
from src.tuning.raster_cache import RasterCache

_REMEMBERED_CURVES = 256  # of the categories of an image; a full cache is emptied
_REMEMBERED = 1024  # cached selections, and cached matches, of an image; a full cache is emptied


def as_submitted(
    detections: Detections, *, filler: Filler | None, use_attributes: bool = False
) -> ImageInstances:
    """Return the detections of an image as the competition scores them.

    Args:
        detections: After post-processing, on the raster on which they are scored.
        filler: The row of an image without a detection, which counts as a prediction; None: the
            image has none; see ``Competition.for_data``.
        use_attributes: Whether class keys carry a set of attributes, which is always empty here.
    """
    categories = detections.category_ids.tolist()
    keys = class_keys(categories, [()] * len(categories), use_attributes)
    found = ImageInstances(detections.image_id, tuple(keys), detections.bitmasks, detections.scores)
    return or_filler(found, filler, use_attributes=use_attributes)


def or_filler(
    found: ImageInstances, filler: Filler | None, *, use_attributes: bool = False
) -> ImageInstances:
    """Return the detections of an image, or the filler row where it has none."""
    if filler is None or len(found):
        return found
    keys = class_keys([filler.category_id], [()], use_attributes)
    return ImageInstances(found.image_id, tuple(keys), filler.bitmasks(found.bitmasks.raster_hw))


class SubmittedDetections(Mapping[str, ImageInstances]):
    """Detections by image id as the competition scores them, each image made when asked for.

    Where ``ids`` spell the name of an image differently, theirs are used. The other arguments are
    those of ``as_submitted``.
    """

    def __init__(
        self,
        detections: Mapping[str, Detections],
        *,
        filler: Filler | None,
        use_attributes: bool = False,
        ids: Iterable[str] = (),
    ) -> None:
        self.detections = detections
        self.filler, self.use_attributes = filler, use_attributes
        self._own_id = dict(zip(match_ids(detections, ids), detections, strict=True))
        self._left: dict[str, tuple[int, Mapping[str, int]]] = {}

    def __len__(self) -> int:
        return len(self._own_id)

    def __iter__(self) -> Iterator[str]:
        return iter(self._own_id)

    def __contains__(self, image_id: object) -> bool:
        return image_id in self._own_id

    def __getitem__(self, image_id: str) -> ImageInstances:
        detections = self.detections[self._own_id[image_id]]
        self._left[image_id] = len(detections), detections.taken
        submitted = as_submitted(detections, filler=self.filler, use_attributes=self.use_attributes)
        return replace(submitted, image_id=image_id)


class StoredDetections(SubmittedDetections):
    """Detections of a prediction store as a competition scores them.

    Only data of the competition's categories has its filler rows. The arguments ``use_attributes``
    and ``ids`` are those of ``SubmittedDetections``.
    """

    def __init__(
        self,
        store: PredictionStore,
        settings: PostprocessSettings,
        *,
        categories: CategoryNames,
        competition: Competition,
        use_attributes: bool,
        ids: Iterable[str],
    ) -> None:
        self.store, self.settings, self.categories = store, settings, categories
        super().__init__(
            StoreDetections(store, settings, raster=competition.scored_on),
            filler=competition.for_data(categories.names).filler,
            use_attributes=use_attributes,
            ids=ids,
        )

    @property
    def step_warnings(self) -> list[str]:
        """Sentences on steps that took all or most detections of the images asked for so far."""
        steps = StepCounts()
        for left, taken in self._left.values():
            steps.add(left, taken)
        return steps.warnings(self.settings, self.categories, self.store.category_ids)


@dataclass(frozen=True, slots=True, eq=False)
class CategorySelection:
    """The candidates of one category in an image's selection."""

    category: int
    places: npt.NDArray[np.int64]  # (K,) in the selection
    key: tuple[int, bytes, bytes]  # the category, its candidates, and their scores


@dataclass(frozen=True, slots=True, eq=False)
class CategoryMatches:
    """Match counts of the detections of one category of an image."""

    num_detections: int
    first: int  # the first detection's place in the category's selection
    true_positives: npt.NDArray[np.int64]  # (T,) by threshold
    taken: Mapping[str, int] = field(default_factory=dict)  # by the steps from masks on
    is_exact: bool = False  # see Detections


@dataclass(frozen=True, slots=True, eq=False)
class ImageOutcome:
    """What settings make of one image, in numbers."""

    image_id: str
    counts: ImageCounts | None  # of the submitted detections; None without ground truth
    num_detections: int  # without a filler row
    taken: Mapping[str, int]  # see Detections
    is_exact: bool


class EvaluatedImage:
    """Candidates and ground truth of one image.

    Args:
        candidates: Before NMS.
        ground_truth: Ground-truth instances whose class keys are categories; None where there is no
            ground truth.
        category_ids: As for ``postprocess``.
        rasters: Cache of masks, shared by the images.
        competition: Raster, filler row and thresholds of the score.
    """

    def __init__(
        self,
        candidates: Candidates,
        *,
        ground_truth: ImageInstances | None,
        category_ids: Sequence[int],
        rasters: RasterCache,
        competition: Competition,
    ) -> None:
        self._candidates = candidates
        self._competition = competition
        self._rule = competition.rule
        self._no_true_positives = np.zeros(len(competition.thresholds), dtype=np.int64)
        self._ground_truth = ground_truth
        self._category_ids = category_ids
        self._rasters = rasters
        self._sampler = rasters.sampler(candidates.image_id, sampler_of(candidates))
        self._truth_of_category = {} if ground_truth is None else _by_category(ground_truth)
        self._selections: dict[Hashable, tuple[Selection, list[CategorySelection]]] = {}
        self._matches: dict[Hashable, CategoryMatches] = {}
        self._filler_counts: ImageCounts | None = None
        self._curves: dict[Hashable, CategoryCurves] = {}
        self._partial: dict[Hashable, Selection] = {}  # by the steps that were applied

    @cached_property
    def _all(self) -> Selection:
        return select_all(self._candidates, self._category_ids)

    @property
    def nbytes(self) -> int:
        """Approximate memory of the candidates."""
        return self._candidates.mask_bytes

    def detections(self, settings: PostprocessSettings, raster: str) -> Detections:
        """Return the detections that ``src.postprocess.pipeline.postprocess`` gives."""
        selection, _ = self._select(settings)
        return detect(selection, settings, sampler=self._sampler, raster=raster)

    def prepare(self, grid: Sequence[PostprocessSettings]) -> None:
        """Draw the masks that these settings need, computing each probability once."""
        if not self._rasters.max_bytes:
            return
        wanted: dict[float, set[int]] = {}
        for settings in grid:
            selection, categories = self._select(settings)
            for own in categories:
                if settings.is_per_category and self._known(own, settings) is not None:
                    continue
                indices = wanted.setdefault(settings.masks.threshold_of(own.category), set())
                indices.update(selection.indices[own.places].tolist())
        raster = self._competition.scored_on
        start = (self._candidates.image_id, raster)
        missing = {
            index
            for threshold, indices in wanted.items()
            for index in indices
            if (*start, index, threshold) not in self._rasters
        }
        if not missing:
            return
        together = sorted(missing)
        masks = draw_masks(
            self._candidates,
            np.array(together),
            mask_threshold=np.array(list(wanted), dtype=np.float32)[:, None],
            raster_hw=raster_hw(raster, self._candidates.size_hw),
        )
        for packed, threshold in zip(masks, wanted, strict=True):
            for index, mask in zip(together, packed, strict=True):
                self._rasters.add((*start, index, threshold), mask)

    def counts(self, settings: PostprocessSettings, *, with_filler: bool) -> ImageCounts:
        """Return match counts of the submitted detections against the ground truth.

        Raises:
            ValueError: There is no ground truth.
        """
        ground_truth = self._ground_truth
        filler = self._competition.filler if with_filler else None
        if ground_truth is None:
            raise ValueError(f"{self._candidates.image_id}: its ground truth is not known")
        if not settings.is_per_category:
            detections = self.detections(settings, self._competition.scored_on)
            submitted = as_submitted(detections, filler=filler)
            return match_instances(ground_truth, submitted, self._rule).counts()
        return self._counts(self._match_all(settings), filler)

    def _counts(
        self, matches: list[tuple[CategorySelection, CategoryMatches]], filler: Filler | None
    ) -> ImageCounts:
        """Return the counts of an image, given those of its categories."""
        ground_truth = self._ground_truth
        assert ground_truth is not None
        matches = [pair for pair in matches if pair[1].num_detections]
        matches.sort(key=lambda pair: pair[0].places[pair[1].first])
        found: dict[ClassKey, CategoryMatches] = {own.category: counts for own, counts in matches}
        if not found and filler is not None:
            if self._filler_counts is None:
                mask = filler.bitmasks(self._competition.scored_hw(self._candidates.size_hw))
                submitted = ImageInstances(ground_truth.image_id, (filler.category_id,), mask)
                self._filler_counts = match_instances(ground_truth, submitted, self._rule).counts()
            return self._filler_counts
        # the order in which match_instances has them: classes of the ground truth, then predicted
        classes = tuple(dict.fromkeys((*self._truth_of_category, *found)))
        none = CategoryMatches(num_detections=0, first=-1, true_positives=self._no_true_positives)
        of_classes = [found.get(key, none) for key in classes]
        num_ground_truth = [len(self._truth_of_category.get(key, ())) for key in classes]
        true_positives = np.array([own.true_positives for own in of_classes], dtype=np.int64)
        return ImageCounts(
            class_keys=classes,
            num_ground_truth=np.array(num_ground_truth, dtype=np.int64),
            num_detections=np.array([own.num_detections for own in of_classes], dtype=np.int64),
            # (0, T) where neither side has an instance
            true_positives=true_positives.reshape(-1, len(self._no_true_positives)),
        )

    def outcome(self, settings: PostprocessSettings) -> ImageOutcome:
        """Return the counts of an image, where there is ground truth, and what its steps took."""
        ground_truth, image_id = self._ground_truth, self._candidates.image_id
        if settings.is_per_category and self._select(settings)[1]:
            selection, _ = self._select(settings)
            pairs = self._match_all(settings)
            matches = [own for _, own in pairs]
            order = (*(step.name for step in settings.from_masks), EMPTY)
            after = {step: sum(own.taken.get(step, 0) for own in matches) for step in order}
            return ImageOutcome(
                image_id,
                None if ground_truth is None else self._counts(pairs, self._competition.filler),
                sum(own.num_detections for own in matches),
                {**selection.taken, **{step: count for step, count in after.items() if count}},
                selection.is_exact or any(own.is_exact for own in matches),
            )
        detections = self.detections(settings, self._competition.scored_on)
        counts = None
        if ground_truth is not None:
            submitted = as_submitted(detections, filler=self._competition.filler)
            counts = match_instances(ground_truth, submitted, self._rule).counts()
        return ImageOutcome(
            image_id, counts, len(detections), detections.taken, detections.is_exact
        )

    def _match_all(
        self, settings: PostprocessSettings
    ) -> list[tuple[CategorySelection, CategoryMatches]]:
        selection, categories = self._select(settings)
        return [(own, self._match(selection, own, settings)) for own in categories]

    def _select(self, settings: PostprocessSettings) -> tuple[Selection, list[CategorySelection]]:
        key = settings.selection_key
        if key not in self._selections:
            selection = self._run_steps(settings)
            categories = []
            for category in np.unique(selection.category_ids).tolist():
                places = np.flatnonzero(selection.category_ids == category)
                indices, scores = selection.indices[places], selection.scores[places]
                own = (category, indices.tobytes(), scores.tobytes())
                categories.append(CategorySelection(category, places, own))
            if len(self._selections) >= _REMEMBERED:
                self._selections.clear()
            self._selections[key] = selection, categories
        return self._selections[key]

    def _run_steps(self, settings: PostprocessSettings) -> Selection:
        """Apply the steps before ``masks``, from the last one on whose input is known."""
        selection, key = self._all, tuple[Hashable, ...]()
        if len(self._partial) >= _REMEMBERED:
            self._partial.clear()
        for step in settings.before_masks:
            key = (*key, step.cache_key)
            if key not in self._partial:
                self._partial[key] = run_steps(selection, [step])
            selection = self._partial[key]
        return selection

    def _match(
        self, selection: Selection, own: CategorySelection, settings: PostprocessSettings
    ) -> CategoryMatches:
        known = self._known(own, settings)
        if known is not None:
            return known
        selected = replace(selection.take(own.places), taken={})
        left, bitmasks = draw_bitmasks(
            selected, settings, sampler=self._sampler, raster=self._competition.scored_on
        )
        first, true_positives = -1, self._no_true_positives
        if len(left):
            predicted = ImageInstances(
                self._candidates.image_id, (own.category,) * len(left), bitmasks
            )
            ground_truth = self._truth_of_category.get(own.category, no_instances(predicted))
            first = int(np.flatnonzero(selected.indices == left.indices[0])[0])
            matches = match_instances(ground_truth, predicted, self._rule)
            true_positives = matches.true_positives()[0]
        found = CategoryMatches(len(left), first, true_positives, left.taken, left.is_exact)
        return self._remember(own, settings, found)

    def _known(
        self, own: CategorySelection, settings: PostprocessSettings
    ) -> CategoryMatches | None:
        """Return the matches of a category that were counted before, or that its curves tell."""
        found = self._matches.get(_match_key(own, settings))
        if found is not None or not self._curves:
            return found
        rules = curve_rules(settings, own.category, raster=self._competition.scored_on)
        if rules is None or rules.step is None:
            return None
        curves = self._curves.get((*own.key[:2], rules.disjoint))
        if curves is None:
            return None
        table, step = curves.table(rules.min_area_px, self._rule), rules.step
        found = CategoryMatches(
            table.num_detections[step],
            table.first[step],
            table.true_positives[step],
            curves.taken(rules.min_area_px, step),
        )
        return self._remember(own, settings, found)

    def _remember(
        self, own: CategorySelection, settings: PostprocessSettings, found: CategoryMatches
    ) -> CategoryMatches:
        if len(self._matches) >= _REMEMBERED:
            self._matches.clear()
        self._matches[_match_key(own, settings)] = found
        return found

    def prepare_curves(self, settings: PostprocessSettings) -> bool:
        """Make the curves with which other mask thresholds and smallest areas are counted at once.

        Returns:
            Whether some were missing.
        """
        if self._candidates.mask_probabilities is None or not settings.is_per_category:
            return False
        raster, is_new = self._competition.scored_on, False
        selection, categories = self._select(settings)
        maker = CurveMaker(self._candidates, raster=raster)
        for own in categories:
            rules = curve_rules(settings, own.category, raster=raster)
            if rules is None or (*own.key[:2], rules.disjoint) in self._curves:
                continue
            curves = maker.make(
                selection.indices[own.places],
                self._truth_of_category.get(own.category),
                disjoint=rules.disjoint,
            )
            curves.table(rules.min_area_px, self._rule)
            if len(self._curves) >= _REMEMBERED_CURVES:
                self._curves.clear()
            self._curves[(*own.key[:2], rules.disjoint)] = curves
            is_new = True
        return is_new


def _match_key(own: CategorySelection, settings: PostprocessSettings) -> Hashable:
    used = own.key if settings.uses_scores else own.key[:2]
    return used, settings.category_key(own.category)


def _by_category(instances: ImageInstances) -> dict[ClassKey, ImageInstances]:
    """Return the instances of each category, in the order of the first of each."""
    places: dict[ClassKey, list[int]] = {}
    for place, key in enumerate(instances.class_keys):
        places.setdefault(key, []).append(place)
    name, bitmasks = instances.image_id, instances.bitmasks
    return {key: ImageInstances(name, (key,) * len(at), bitmasks[at]) for key, at in places.items()}
