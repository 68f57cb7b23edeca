"""Detections as the competition scores them: on its raster, with its filler rows."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import replace

from src.annotations.image_names import match_ids
from src.annotations.imaterialist_csv import FILLER_CATEGORY, FILLER_TEXT
from src.annotations.instances import RASTER_HW
from src.metrics.competition import ImageInstances
from src.metrics.inputs import class_keys
from src.postprocess.detections import Detections
from src.postprocess.pipeline import StepCounts
from src.rle import Bitmasks, parse_rle

_FILLER_MASK = Bitmasks.of(parse_rle([FILLER_TEXT], RASTER_HW).masks, RASTER_HW)


def as_submitted(
    detections: Detections, *, with_filler: bool, use_attributes: bool = False
) -> ImageInstances:
    """Return the detections of an image as they are scored.

    Args:
        detections: After post-processing, on the 512 x 512 raster.
        with_filler: Whether an image without a detection has the competition's filler row, which
            counts as a prediction there; see ``is_competition``.
        use_attributes: Whether class keys carry a set of attributes, here always the empty one.

    Raises:
        ValueError: The masks are on another raster.
    """
    raster_hw = detections.bitmasks.raster_hw
    if raster_hw != RASTER_HW:
        raise ValueError(
            f"masks must be on the raster {RASTER_HW} to be scored, got {raster_hw} "
            f"({detections.image_id})"
        )
    if with_filler and not len(detections):
        return filler(detections.image_id, use_attributes=use_attributes)
    categories = detections.category_ids.tolist()
    keys = class_keys(categories, [()] * len(categories), use_attributes)
    return ImageInstances(detections.image_id, tuple(keys), detections.bitmasks)


def filler(image_id: str, *, use_attributes: bool = False) -> ImageInstances:
    """Return the filler row of an image without a detection."""
    keys = class_keys([FILLER_CATEGORY], [()], use_attributes)
    return ImageInstances(image_id, tuple(keys), _FILLER_MASK)


class SubmittedObjects(Mapping[str, ImageInstances]):
    """Detections by image id as they are scored, made when they are asked for.

    Args:
        detections: By image id.
        with_filler: See ``as_submitted``, like the next.
        use_attributes: Whether class keys carry a set of attributes.
        ids: Image ids to use where they name an image in another spelling.
    """

    def __init__(
        self,
        detections: Mapping[str, Detections],
        *,
        with_filler: bool,
        use_attributes: bool = False,
        ids: Iterable[str] = (),
    ) -> None:
        self.detections = detections
        self.with_filler, self.use_attributes = with_filler, use_attributes
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
        return replace(
            as_submitted(
                detections, with_filler=self.with_filler, use_attributes=self.use_attributes
            ),
            image_id=image_id,
        )

    @property
    def step_counts(self) -> StepCounts:
        """Counts of what each step took, of the images asked for so far."""
        steps = StepCounts()
        for left, taken in self._left.values():
            steps.add(left, taken)
        return steps
