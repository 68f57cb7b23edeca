"""Scoring many settings on one store, exactly, without doing twice what two of them share.

Three things are remembered: which pairs NMS and the thresholds leave of an image, the masks of
pairs, and how the objects of one class of an image match their truth. The last is what makes a grid
fast: settings that keep the same pairs of a class, in the same order, with the same mask rules,
have the same result there, whatever they do elsewhere.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterable, Iterator, Mapping, Sequence

from src.metrics.competition import (
    Averaging,
    CompetitionScore,
    ImageCounts,
    ImageObjects,
    ScoreAccumulator,
)
from src.postprocess.detections import Detections
from src.postprocess.settings import PostprocessSettings
from src.predictions.store import PredictionStore
from src.tuning.lab_image import LabImage, SettingsKeys
from src.tuning.raster_cache import RasterCache

RASTER_ROOM_BYTES = 1 << 30
CANDIDATE_ROOM_BYTES = 2 << 30


class ThresholdLab:
    """The images of a store, and their truth where it is known.

    Candidates and masks stay in memory as far as there is room: the candidates of 450 images with
    100 each take 80 MB, and the masks that a mask threshold makes of them as much.

    Args:
        store: Pre-NMS candidates.
        truth: Objects by image id; class keys are categories. Images without truth are not scored.
        image_ids: The images, in the order of a submission; each in the store.
        with_filler: Whether an image without an object has the competition's filler row, which is
            scored as a prediction; see ``src.annotations.imaterialist_csv``.
        raster_room_bytes: What remembered masks may take.
        candidate_room_bytes: What remembered candidates may take.
    """

    def __init__(
        self,
        store: PredictionStore,
        truth: Mapping[str, ImageObjects],
        image_ids: Iterable[str],
        *,
        with_filler: bool = False,
        raster_room_bytes: int = RASTER_ROOM_BYTES,
        candidate_room_bytes: int = CANDIDATE_ROOM_BYTES,
    ) -> None:
        self.image_ids = tuple(image_ids)
        self.with_filler = with_filler
        self._store = store
        self._truth = truth
        self._rasters = RasterCache(room_bytes=raster_room_bytes)
        self._images: OrderedDict[str, LabImage] = OrderedDict()
        self._room_bytes = candidate_room_bytes

    @property
    def scored_image_ids(self) -> tuple[str, ...]:
        """Those of the images whose truth is known."""
        return tuple(image_id for image_id in self.image_ids if image_id in self._truth)

    def score(
        self, settings: PostprocessSettings, averaging: Averaging = "per_class"
    ) -> CompetitionScore:
        """The score of the images whose truth is known, as scoring their submission gives it.

        Raises:
            InputError: there is none, the store is damaged, or an unknown averaging.
        """
        return self.score_grid([settings], averaging)[0]

    def score_grid(
        self, grid: Sequence[PostprocessSettings], averaging: Averaging = "per_class"
    ) -> list[CompetitionScore]:
        """The scores of many settings: as ``score`` gives them, each image's masks made once.

        Raises:
            InputError: as for ``score``.
        """
        accumulators = [ScoreAccumulator(averaging=averaging) for _ in grid]
        for image_id, counts in self.counts(grid):
            for accumulator, of_settings in zip(accumulators, counts, strict=True):
                accumulator.add_counts(image_id, of_settings)
        return [accumulator.result() for accumulator in accumulators]

    def counts(
        self, grid: Sequence[PostprocessSettings], *, with_filler: bool | None = None
    ) -> Iterator[tuple[str, list[ImageCounts]]]:
        """Each image whose truth is known, with its counts under each of many settings.

        Args:
            grid: The settings.
            with_filler: In place of the lab's own; None: as the lab has it.

        Raises:
            InputError: the store is damaged.
        """
        if with_filler is None:
            with_filler = self.with_filler
        keys = [SettingsKeys(settings) for settings in grid]
        for image_id in self.image_ids:
            if image_id in self._truth:
                image = self._image(image_id)
                image.prepare(keys)
                yield (
                    image_id,
                    [image.counts(of_settings, with_filler=with_filler) for of_settings in keys],
                )

    def detections(
        self, settings: PostprocessSettings, *, raster: str = "512x512"
    ) -> Iterator[Detections]:
        """The objects of each image, as ``postprocess_store`` gives them."""
        keys = SettingsKeys(settings)
        for image_id in self.image_ids:
            yield self._image(image_id).detections(keys, raster)

    def _image(self, image_id: str) -> LabImage:
        if image_id in self._images:
            self._images.move_to_end(image_id)
            return self._images[image_id]
        image = LabImage(
            self._store.candidates(self._store.index_of(image_id)),
            truth=self._truth.get(image_id),
            label_category_ids=self._store.category_ids,
            rasters=self._rasters,
        )
        self._images[image_id] = image
        self._room_bytes -= image.nbytes
        while self._room_bytes < 0 and len(self._images) > 1:
            self._room_bytes += self._images.popitem(last=False)[1].nbytes
        return image
