"""From annotation files to objects on the raster, an image at a time.

A submission is read as what it is: an annotation file whose masks lie on the 512x512 raster, or, in
the format of 2020, on one whose long edge has 1024 pixels. The latter is resized, as the ground
truth is; so is a file with the columns Height and Width or a COCO file, which are at image size.

What counts as an object:

- An object that loses its last pixel in resizing is left out, on both sides: on the raster it does
  not exist, and nothing could match it. So a ground truth scored against itself gives 1.
- A ground-truth instance without a pixel is none that could be found, and is left out. A prediction
whose
  mask is empty in the file itself stays, and matches nothing: the competition counts it as wrong.
  Beside each ground-truth instance that is left out one empty prediction of its class is left out,
  too.
- The filler ``1 1`` of class 23 is a prediction like any other in the competition, which counts it
  as one. Where the ground truth is of other data it is no prediction, and is left out.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt

from src.annotations.categories import LabelDescriptions
from src.annotations.image_files import AUTO
from src.annotations.imaterialist_csv import FILLER_CATEGORY, FILLER_TEXT
from src.annotations.instances import RASTER_HW, ImageRecord, Instances
from src.annotations.store import AnnotationStore
from src.io import printable
from src.metrics.competition import ClassKey, ImageInstances, split_key
from src.rle import Bitmasks, format_rle


class RasterInstances(Mapping[str, ImageInstances]):
    """The objects of a store by image id, put on the raster when they are asked for.

    Args:
        store: Masks of any size.
        use_attributes: The class of an object is its category with its set of attributes, not its
            category alone.
        ids: Image ids by file name; an image that is named here goes by this id instead of the
            store's.
        images_directory: The images beside which the store was read; what is compared with it is
            read beside them, too.
        exif: As for ``build_store``.
        raster_hw: Height and width of the raster.
        without_filler: The competition's filler rows are left out.
        ground_truth: Of predictions, what they are compared with. Their objects whose mask is empty
        in the
            file stay, but for those that the ground truth has as well. None: this is the ground
            truth, and all of them are left out.
    """

    def __init__(
        self,
        store: AnnotationStore,
        *,
        use_attributes: bool = False,
        ids: Mapping[str, str] | None = None,
        images_directory: str | Path | None = None,
        exif: str = AUTO,
        raster_hw: tuple[int, int] = RASTER_HW,
        without_filler: bool = False,
        ground_truth: RasterInstances | None = None,
    ) -> None:
        self.store = store
        self.use_attributes = use_attributes
        self.images_directory, self.exif = images_directory, exif
        self.raster_hw = raster_hw
        self.without_filler = without_filler
        self.ground_truth = ground_truth
        self._vanished: dict[str, int] = {}
        self._empty: dict[str, int] = {}
        self._fillers: set[str] = set()
        self._index_of = _index(store.images, ids or {})

    def __len__(self) -> int:
        return len(self._index_of)

    def __iter__(self) -> Iterator[str]:
        return iter(self._index_of)

    def __contains__(self, image_id: object) -> bool:
        return image_id in self._index_of

    def __getitem__(self, image_id: str) -> ImageInstances:
        index = self._index_of[image_id]
        instances = self.store.instances(index)
        masks = Bitmasks.of(instances.masks, self.raster_hw)
        is_empty = instances.areas_px == 0
        kept = (masks.areas_px() > 0) | is_empty
        self._vanished[image_id] = int(np.count_nonzero(~kept))
        if self.without_filler and len(instances) == 1 and _is_filler(instances):
            self._fillers.add(image_id)
            kept[:] = False
        keys = class_keys(
            instances.category_ids.tolist(), instances.attribute_ids, self.use_attributes
        )
        left_out = self._empty_to_leave_out(image_id, is_empty, keys)
        self._empty[image_id] = len(left_out)
        kept[left_out] = False
        return ImageInstances(
            image_id=image_id,
            class_keys=tuple(key for key, keep in zip(keys, kept, strict=True) if keep),
            bitmasks=masks if kept.all() else masks[kept],
        )

    def _empty_to_leave_out(
        self, image_id: str, is_empty: npt.NDArray[np.bool_], keys: Sequence[ClassKey]
    ) -> list[int]:
        """Return the positions of objects without a pixel that do not count."""
        empty = np.flatnonzero(is_empty).tolist()
        if self.ground_truth is None or not empty:
            return empty
        of_ground_truth = (
            self.ground_truth.empty_keys(image_id) if image_id in self.ground_truth else Counter()
        )
        left_out = []
        for position in empty:
            if of_ground_truth[keys[position]]:
                of_ground_truth[keys[position]] -= 1
                left_out.append(position)
        return left_out

    def empty_keys(self, image_id: str) -> Counter[ClassKey]:
        """Count an image's objects whose mask is empty in the file, by class."""
        instances = self.store.instances(self._index_of[image_id])
        is_empty = instances.areas_px == 0
        if not is_empty.any():
            return Counter()
        keys = class_keys(
            instances.category_ids.tolist(), instances.attribute_ids, self.use_attributes
        )
        return Counter(key for key, empty in zip(keys, is_empty, strict=True) if empty)

    def category_ids(self, image_id: str) -> set[int]:
        """Return the categories of an image, without the filler's if that is left out."""
        instances = self.store.instances(self._index_of[image_id])
        if self.without_filler and len(instances) == 1 and _is_filler(instances):
            return set()
        counted = instances.areas_px > 0 if self.ground_truth is None else slice(None)
        return set(instances.category_ids[counted].tolist())

    @property
    def source(self) -> str:
        """The file that the store was made of, for messages."""
        return str(self.store.description["source"])

    @property
    def vanished(self) -> int:
        """Objects left out, of the images asked for so far, because resizing took all of them."""
        return sum(self._vanished.values())

    @property
    def fillers(self) -> int:
        """Filler rows left out, of the images asked for so far."""
        return len(self._fillers)

    @property
    def empty(self) -> int:
        """Objects left out, of the images asked for so far, because their mask has no pixel."""
        return sum(self._empty.values())

    @property
    def exchanged_sizes(self) -> list[str]:
        """Images whose Height and Width were exchanged in the file."""
        names = self.store.description.get("exchanged_sizes") or ()
        return [name for name in names if isinstance(name, str)]

    def record(self, image_id: str) -> ImageRecord:
        """Return the image with the size it has after repair."""
        return self.store.images[self._index_of[image_id]]


def _is_filler(instances: Instances) -> bool:
    """Return whether an image's only detection is the filler row of an image without detections."""
    return (
        instances.category_ids[0] == FILLER_CATEGORY
        and format_rle(instances.masks)[0] == FILLER_TEXT
    )


def _index(images: Sequence[ImageRecord], ids: Mapping[str, str]) -> dict[str, int]:
    return {ids.get(image.file_name, image.image_id): index for index, image in enumerate(images)}


def class_keys(
    category_ids: Sequence[int], attribute_ids: Sequence[Sequence[int]], use_attributes: bool
) -> list[ClassKey]:
    """Return what objects must share to match: the category, or (category, attribute, ...).

    Attributes are a set: their order and repetitions do not count.
    """
    if not use_attributes:
        return list(category_ids)
    return [
        (category, *sorted(set(attributes)))
        for category, attributes in zip(category_ids, attribute_ids, strict=True)
    ]


def class_key_text(key: ClassKey) -> str:
    """Write a class key as ``ClassId`` is written: ``6``, or ``6_13_24``."""
    return "_".join(map(str, key)) if isinstance(key, tuple) else str(key)


def class_key_name(key: ClassKey, labels: LabelDescriptions) -> str:
    """Write a class key in words: ``6 pants``, or ``6_13_24 pants``."""
    return f"{class_key_text(key)} {printable(labels.category_names[split_key(key)[0]])}"
