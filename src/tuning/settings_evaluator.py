"""Score many settings on one prediction store, caching shared work; results are exact.

Three things are cached: the candidates of an image that the steps before ``masks`` leave, masks,
and the match counts of one category of an image. The last makes a grid fast: settings that keep the
same candidates of a category, in the same order, with the same steps from ``masks`` on, have the
same counts there, however they treat other categories. Each step states what its results depend on,
see ``Step``.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterable, Iterator, Mapping, Sequence

import numpy as np
import numpy.typing as npt

from src.annotations.competition import Averaging, Competition
from src.metrics.competition import CompetitionScore, ImageCounts, ImageInstances, ScoreAccumulator
from src.postprocess.detections import Detections
from src.postprocess.mask_source import check_fixed_masks
from src.postprocess.settings import PostprocessSettings
from src.predictions.store import PredictionStore
from src.tuning.evaluated_image import EvaluatedImage, ImageOutcome
from src.tuning.raster_cache import RasterCache

Scores = npt.NDArray[np.float64]
"""Scores of images, shape (M,) where nothing else is said."""

MAX_RASTER_BYTES = 1 << 30
MAX_CANDIDATE_BYTES = 2 << 30


class SettingsEvaluator:
    """Evaluate settings on the images of a store, and on their ground truth where there is one.

    Candidates and masks stay in memory up to a limit: the candidates of 450 images with 100 each
    take 80 MB, and the masks that one mask threshold makes of them take as much.

    Args:
        store: Candidates before NMS.
        ground_truth: Ground-truth instances by image id; class keys are categories. Images without
            an entry are not scored.
        image_ids: The images, in the order of a submission; each in the store.
        competition: Raster, filler row and thresholds of the score; see ``Competition.for_data``.
        max_raster_bytes: Memory for cached masks.
        max_candidate_bytes: Memory for cached candidates.
    """

    def __init__(
        self,
        store: PredictionStore,
        ground_truth: Mapping[str, ImageInstances],
        image_ids: Iterable[str],
        *,
        competition: Competition,
        max_raster_bytes: int = MAX_RASTER_BYTES,
        max_candidate_bytes: int = MAX_CANDIDATE_BYTES,
    ) -> None:
        self.image_ids = tuple(image_ids)
        self.competition = competition
        self._store = store
        self._ground_truth = ground_truth
        self._rasters = RasterCache(max_bytes=max_raster_bytes)
        self._images: OrderedDict[str, EvaluatedImage] = OrderedDict()
        self._free_bytes = max_candidate_bytes

    @property
    def scored_image_ids(self) -> tuple[str, ...]:
        """The images that have ground truth."""
        return tuple(image_id for image_id in self.image_ids if image_id in self._ground_truth)

    def score(
        self, settings: PostprocessSettings, averaging: Averaging = "per_class"
    ) -> CompetitionScore:
        """Return the score of the images with ground truth, equal to that of their submission."""
        return self.score_grid([settings], averaging)[0]

    def score_grid(
        self, grid: Sequence[PostprocessSettings], averaging: Averaging = "per_class"
    ) -> list[CompetitionScore]:
        """Return the scores of many settings, drawing masks once.

        Raises:
            InputError: No image has ground truth, the store is damaged, or an unknown averaging.
        """
        rules = self.competition
        accumulators = [ScoreAccumulator(averaging, rules.rule, rules.scored_on) for _ in grid]
        for image_id, counts in self.counts(grid):
            for accumulator, of_settings in zip(accumulators, counts, strict=True):
                accumulator.add_counts(image_id, of_settings)
        return [accumulator.result() for accumulator in accumulators]

    def counts(
        self, grid: Sequence[PostprocessSettings], *, with_filler: bool = True
    ) -> Iterator[tuple[str, list[ImageCounts]]]:
        """Yield the id of each image with ground truth, and its match counts under each setting.

        ``with_filler=False`` leaves out the competition's filler row, where it has one.

        Raises:
            InputError: The store is damaged, or its masks are fixed and a setting needs others.
        """
        for settings in grid:
            check_fixed_masks(settings, self._store)
        for image_id in self.image_ids:
            if image_id in self._ground_truth:
                image = self._image(image_id)
                image.prepare(grid)
                counts = [image.counts(settings, with_filler=with_filler) for settings in grid]
                yield image_id, counts

    def outcomes(self, settings: PostprocessSettings) -> Iterator[ImageOutcome]:
        """Yield the outcome of each image, with or without ground truth.

        Raises:
            InputError: The store is damaged.
        """
        check_fixed_masks(settings, self._store)
        for image_id in self.image_ids:
            image = self._image(image_id)
            image.prepare([settings])
            yield image.outcome(settings)

    def prepare_curves(self, settings: PostprocessSettings) -> Iterator[bool]:
        """Prepare each image for other mask thresholds; yield whether there was something to do."""
        for image_id in self.image_ids:
            yield self._image(image_id).prepare_curves(settings)

    def detections(
        self, settings: PostprocessSettings, *, raster: str | None = None
    ) -> Iterator[Detections]:
        """Yield the detections of each image, as ``postprocess`` gives them.

        Args:
            settings: The settings.
            raster: Name of the raster of the masks; None: that on which they are scored.
        """
        check_fixed_masks(settings, self._store)
        raster = raster or self.competition.scored_on
        for image_id in self.image_ids:
            yield self._image(image_id).detections(settings, raster)

    def _image(self, image_id: str) -> EvaluatedImage:
        if image_id in self._images:
            self._images.move_to_end(image_id)
            return self._images[image_id]
        image = EvaluatedImage(
            self._store.candidates(self._store.index_of(image_id)),
            ground_truth=self._ground_truth.get(image_id),
            category_ids=self._store.category_ids,
            rasters=self._rasters,
            competition=self.competition,
        )
        self._images[image_id] = image
        self._free_bytes -= image.nbytes
        while self._free_bytes < 0 and len(self._images) > 1:
            self._free_bytes += self._images.popitem(last=False)[1].nbytes
        return image
