"""Instances and detections of annotation files on the raster, one image at a time.

A submission is read as an annotation file whose masks lie on the competition's raster. Where masks
are compared on another one they are resized, like the ground truth; so are those of a file with the
columns Height and Width and of a COCO file, which have the image's size.

What counts:

- An instance or detection that loses its last pixel in resizing is left out: it does not exist on
  the raster, where nothing could match it. So a ground truth scored against itself gives 1.
- A ground-truth instance without a pixel cannot be found, and is left out. A detection whose mask
  is empty in the file matches nothing, and stays: the competition counts it as wrong. But one such
  detection is left out for each instance of its class that is left out.
- The filler ``1 1`` of class 23 is a detection like any other in the competition. Where the ground
  truth is other data it is not a detection, and is left out.
"""

from __future__ import annotations

import itertools
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt

from src.annotations.categories import LabelDescriptions
from src.annotations.competition import Competition
from src.annotations.image_files import AUTO
from src.annotations.imaterialist_csv import FILLER_CATEGORY, FILLER_TEXT, describe_fillers
from src.annotations.instances import ImageRecord, Instances
from src.annotations.store import AnnotationStore
from src.io import printable
from src.metrics.competition import ClassKey, ImageInstances, split_key
from src.rle import Bitmasks, format_rle


class RasterInstances(Mapping[str, ImageInstances]):
    """The instances or detections of a store by image id, put on the raster when asked for.

    Args:
        store: Masks of any size.
        use_attributes: Whether the class key is the category with its set of attributes, not the
            category alone.
        ids: Image ids by file name, which replace the store's.
        images_directory: Images with which the store was read; submissions that are compared with
            it are read with them, too.
        exif: As for ``build_store``.
        competition: Raster and filler row of the score; None: those of 2019.
        ground_truth: The ground truth of detections, which decides which empty masks are left out;
            None: this is the ground truth.
    """

    def __init__(
        self,
        store: AnnotationStore,
        *,
        use_attributes: bool = False,
        ids: Mapping[str, str] | None = None,
        images_directory: str | Path | None = None,
        exif: str = AUTO,
        competition: Competition | None = None,
        ground_truth: RasterInstances | None = None,
    ) -> None:
        self.store = store
        self.use_attributes = use_attributes
        self.images_directory, self.exif = images_directory, exif
        self.ground_truth = ground_truth
        rules = competition or Competition.preset("imaterialist_2019")
        own_rules = rules.for_data(store.labels.category_names)
        self.competition: Competition = (
            own_rules if ground_truth is None else ground_truth.competition
        )
        # of other data, filler rows are no detections
        self.without_filler = ground_truth is not None and self.competition.filler is None
        self._left_out: dict[str, Counter[str]] = {}  # by image id, of the images asked for so far
        ids = ids or {}
        self._index_of = {
            ids.get(image.file_name, image.image_id): index
            for index, image in enumerate(store.images)
        }

    def __len__(self) -> int:
        return len(self._index_of)

    def __iter__(self) -> Iterator[str]:
        return iter(self._index_of)

    def __contains__(self, image_id: object) -> bool:
        return image_id in self._index_of

    def __getitem__(self, image_id: str) -> ImageInstances:
        index = self._index_of[image_id]
        instances = self.store.instances(index)
        # the size of a submission's image is that of its raster; the ground truth has the image's
        known = self.ground_truth is not None and image_id in self.ground_truth
        sized = self.ground_truth if known and self.ground_truth is not None else self
        size_hw = sized.record(image_id).size_hw
        masks = Bitmasks.of(instances.masks, self.competition.scored_hw(size_hw))
        is_empty = instances.areas_px == 0
        kept = (masks.areas_px() > 0) | is_empty
        num_vanished = int(np.count_nonzero(~kept))
        is_filler = self._is_filler(instances)
        if is_filler:
            kept[:] = False
        keys = self._class_keys(instances)
        empty = self._empty_to_leave_out(image_id, is_empty, keys)
        kept[empty] = False
        self._left_out[image_id] = Counter(
            vanished=num_vanished, fillers=int(is_filler), empty=len(empty)
        )
        return ImageInstances(
            image_id=image_id,
            class_keys=tuple(key for key, keep in zip(keys, kept, strict=True) if keep),
            bitmasks=masks if kept.all() else masks[kept],
        )

    def _empty_to_leave_out(
        self, image_id: str, is_empty: npt.NDArray[np.bool_], keys: Sequence[ClassKey]
    ) -> list[int]:
        """Return the positions of masks without a pixel that do not count."""
        empty = np.flatnonzero(is_empty).tolist()
        if self.ground_truth is None or not empty:
            return empty
        of_ground_truth = self.ground_truth.empty_keys(image_id)
        left_out = []
        for position in empty:
            if of_ground_truth[keys[position]]:
                of_ground_truth[keys[position]] -= 1
                left_out.append(position)
        return left_out

    def empty_keys(self, image_id: str) -> Counter[ClassKey]:
        """Count the masks of an image that are empty in the file, by class; none if unknown."""
        if image_id not in self:
            return Counter()
        instances = self.store.instances(self._index_of[image_id])
        is_empty = (instances.areas_px == 0).tolist()
        if not any(is_empty):
            return Counter()
        return Counter(itertools.compress(self._class_keys(instances), is_empty))

    def category_ids(self, image_id: str) -> set[int]:
        """Return the categories of an image, without a filler that is left out."""
        instances = self.store.instances(self._index_of[image_id])
        if self._is_filler(instances):
            return set()
        counted = instances.areas_px > 0 if self.ground_truth is None else slice(None)
        return set(instances.category_ids[counted].tolist())

    @property
    def source(self) -> str:
        """The file of which the store was made, for messages."""
        return str(self.store.description["source"])

    def notes(self, kind: str) -> list[str]:
        """Return notes on the file, and on what was left out of the images asked for so far.

        ``kind`` is what messages call the contents: ``detections``, say.
        """
        left_out: Counter[str] = Counter()
        for of_image in self._left_out.values():
            left_out.update(of_image)
        raster = self.competition.scored_on
        notes = [f"{Path(self.source).name}: {note}" for note in self.store.notes]
        if count := left_out["empty"]:
            notes.append(f"{kind} whose mask has no pixel, left out: {count}")
        if count := left_out["vanished"]:
            notes.append(f"{kind} without a pixel left on the {raster} raster, left out: {count}")
        if count := left_out["fillers"]:
            notes.append(describe_fillers(count))
        return notes

    @property
    def exchanged_sizes(self) -> list[str]:
        """Ids of images whose Height and Width were exchanged in the file."""
        names = self.store.description.get("exchanged_sizes") or ()
        return [name for name in names if isinstance(name, str)]

    def record(self, image_id: str) -> ImageRecord:
        """Return an image, with its size after repair."""
        return self.store.images[self._index_of[image_id]]

    def instances(self, image_id: str) -> tuple[Instances, npt.NDArray[np.bool_]]:
        """Return the instances of an image in the store, and which of them count: not a filler."""
        instances = self.store.instances(self._index_of[image_id])
        return instances, np.full(len(instances), not self._is_filler(instances))

    def _is_filler(self, instances: Instances) -> bool:
        """Return whether an image has nothing but a filler row, and that is left out."""
        return (
            self.without_filler
            and len(instances) == 1
            and instances.category_ids[0] == FILLER_CATEGORY
            and format_rle(instances.masks)[0] == FILLER_TEXT
        )

    def _class_keys(self, instances: Instances) -> list[ClassKey]:
        categories = instances.category_ids.tolist()
        return class_keys(categories, instances.attribute_ids, self.use_attributes)


def class_keys(
    category_ids: Sequence[int], attribute_ids: Sequence[Sequence[int]], use_attributes: bool
) -> list[ClassKey]:
    """Return class keys: the category, or (category, attribute, ...) with attributes as a set."""
    if not use_attributes:
        return list(category_ids)
    return [
        (category, *sorted(set(attributes)))
        for category, attributes in zip(category_ids, attribute_ids, strict=True)
    ]


def class_key_text(key: ClassKey) -> str:
    """Return a class key as ``ClassId`` is written: ``6``, or ``6_13_24``."""
    return "_".join(map(str, key)) if isinstance(key, tuple) else str(key)


def class_key_name(key: ClassKey, labels: LabelDescriptions) -> str:
    """Return a class key with its category's name: ``6 pants``, or ``6_13_24 pants``."""
    return f"{class_key_text(key)} {printable(labels.category_names[split_key(key)[0]])}"
