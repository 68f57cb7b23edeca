"""Score many settings on one store, exactly, and do shared work once.

Three things are remembered: which candidates of an image the steps before ``masks`` leave, masks,
and how the detections of one category of an image match the ground truth. The last is what makes a
grid fast: settings that keep the same candidates of a category, in the same order, with the same
steps from ``masks`` on, have the same result there, whatever they do elsewhere. The steps say what
their results depend on, see ``Step``.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterable, Iterator, Mapping, Sequence

from src.metrics.competition import (
    Averaging,
    CompetitionScore,
    ImageCounts,
    ImageInstances,
    ScoreAccumulator,
)
from src.postprocess.detections import Detections
from src.postprocess.settings import PostprocessSettings
from src.predictions.store import PredictionStore
from src.tuning.evaluated_image import EvaluatedImage, RasterCache

RASTER_ROOM_BYTES = 1 << 30
CANDIDATE_ROOM_BYTES = 2 << 30


class SettingsEvaluator:
    """Evaluate settings on the images of a store, and on their ground truth where it is known.

    Candidates and masks stay in memory as far as there is room: the candidates of 450 images with
    100 each take 80 MB, and the masks that a mask threshold makes of them as much.

    Args:
        store: Candidates before NMS.
        ground_truth: Objects by image id; class keys are categories. Images without ground truth
        are not scored.
        image_ids: The images, in the order of a submission; each in the store.
        with_filler: Whether an image without an object has the competition's filler row, which is
            scored as a prediction; see ``src.annotations.imaterialist_2019``.
        raster_room_bytes: What remembered masks may take.
        candidate_room_bytes: What remembered candidates may take.
    """

    def __init__(
        self,
        store: PredictionStore,
        ground_truth: Mapping[str, ImageInstances],
        image_ids: Iterable[str],
        *,
        with_filler: bool = False,
        raster_room_bytes: int = RASTER_ROOM_BYTES,
        candidate_room_bytes: int = CANDIDATE_ROOM_BYTES,
    ) -> None:
        self.image_ids = tuple(image_ids)
        self.with_filler = with_filler
        self._store = store
        self._ground_truth = ground_truth
        self._rasters = RasterCache(room_bytes=raster_room_bytes)
        self._images: OrderedDict[str, EvaluatedImage] = OrderedDict()
        self._room_bytes = candidate_room_bytes

    @property
    def scored_image_ids(self) -> tuple[str, ...]:
        """Those of the images whose ground truth is known."""
        return tuple(image_id for image_id in self.image_ids if image_id in self._ground_truth)

    def score(
        self, settings: PostprocessSettings, averaging: Averaging = "per_class"
    ) -> CompetitionScore:
        """Return the score of the images with ground truth, as scoring their submission gives it.

        Raises:
            InputError: There is none, the store is damaged, or an unknown averaging.
        """
        return self.score_grid([settings], averaging)[0]

    def score_grid(
        self, grid: Sequence[PostprocessSettings], averaging: Averaging = "per_class"
    ) -> list[CompetitionScore]:
        """Return the scores of many settings, as ``score`` gives them; masks are drawn once.

        Raises:
            InputError: As for ``score``.
        """
        accumulators = [ScoreAccumulator(averaging=averaging) for _ in grid]
        for image_id, counts in self.counts(grid):
            for accumulator, of_settings in zip(accumulators, counts, strict=True):
                accumulator.add_counts(image_id, of_settings)
        return [accumulator.result() for accumulator in accumulators]

    def counts(
        self, grid: Sequence[PostprocessSettings], *, with_filler: bool | None = None
    ) -> Iterator[tuple[str, list[ImageCounts]]]:
        """Yield each image with known ground truth, and its counts under each of many settings.

        Args:
            grid: The settings.
            with_filler: In place of the evaluator's own; None: as it has it.

        Raises:
            InputError: The store is damaged.
        """
        if with_filler is None:
            with_filler = self.with_filler
        for image_id in self.image_ids:
            if image_id in self._ground_truth:
                image = self._image(image_id)
                image.prepare(grid)
                yield (
                    image_id,
                    [image.counts(settings, with_filler=with_filler) for settings in grid],
                )

    def detections(
        self, settings: PostprocessSettings, *, raster: str = "512x512"
    ) -> Iterator[Detections]:
        """Return the detections of each image, as ``postprocess`` gives them."""
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
        )
        self._images[image_id] = image
        self._room_bytes -= image.nbytes
        while self._room_bytes < 0 and len(self._images) > 1:
            self._room_bytes += self._images.popitem(last=False)[1].nbytes
        return image
