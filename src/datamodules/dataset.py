"""Photos as samples: those to train on with their objects, those to predict without."""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import numpy.typing as npt
from torch.utils.data import Dataset

from src.annotations.image_headers import read_size_hw
from src.annotations.image_names import find_image
from src.annotations.store import AnnotationStore
from src.datamodules.photos import read_photo
from src.datamodules.pixel_augmentation import PixelAugmentation
from src.datamodules.sampling import SampleKey
from src.datamodules.transforms import (
    View,
    boxes_of_runs,
    draw_masks,
    draw_view,
    flip_photo,
    resized_hw,
    runs_of_view,
)
from src.errors import InputError
from src.mmdet_bridge.samples import Objects, Sample, make_objects, make_sample

PAD_DIVISOR = 32  # the preprocessor's pad_size_divisor (S5)
_HEADER_READERS = 16


class TrainingDataset(Dataset[Sample]):
    """Augmented photos with their objects. Keys are those of ``EpochSampler``, see ``SampleKey``.

    A sample depends on seed and key alone: not on the worker that makes it, nor on what was made
    before.

    Args:
        store: the annotations.
        indices: shape (N,), positions in ``store.images`` of the photos to train on.
        images_directory: folder of the photos.
        category_ids: the category id of each of the model's labels.
        short_edge_px: least and greatest shorter edge in pixels, drawn uniformly.
        long_edge_px: upper limit of the longer edge in pixels.
        flip_probability: of mirroring left to right, in [0, 1].
        pixel_augmentation: applied to the resized photo, before mirroring.
        seed: 0 or above.

    Raises:
        InputError: an object's category has no label.
    """

    def __init__(
        self,
        *,
        store: AnnotationStore,
        indices: npt.NDArray[np.int64],
        images_directory: Path,
        category_ids: Sequence[int],
        short_edge_px: tuple[int, int],
        long_edge_px: int,
        flip_probability: float,
        pixel_augmentation: PixelAugmentation,
        seed: int,
    ) -> None:
        self.store = store
        self.indices = indices
        self.images_directory = images_directory
        self.short_edge_px = short_edge_px
        self.long_edge_px = long_edge_px
        self.flip_probability = flip_probability
        self.pixel_augmentation = pixel_augmentation
        self.seed = seed
        self._label_of = {category: label for label, category in enumerate(category_ids)}
        present = set().union(*self.category_sets())
        if unknown := sorted(present - self._label_of.keys()):
            raise InputError(
                f"category_ids={list(category_ids)}: the photos to train on carry objects of "
                f"category {unknown[0]}, which is not among them"
            )

    def __len__(self) -> int:
        """Return the number of photos."""
        return len(self.indices)

    def category_sets(self) -> list[frozenset[int]]:
        """Return the set of category ids on each photo, of the objects that are trained on."""
        category_sets = self.store.category_sets(to_train_on=True)
        return [category_sets[index] for index in self.indices]

    def is_wide(self) -> npt.NDArray[np.bool_]:
        """Return whether each photo is wider than high, shape (N,)."""
        images = [self.store.images[index] for index in self.indices]
        return np.array([image.width_px > image.height_px for image in images], dtype=np.bool_)

    def __getitem__(self, key: SampleKey | tuple[int, int] | int) -> Sample:
        """Make the sample of an epoch, a position in ``indices`` and a repetition, 0 or above.

        A position alone, as Lightning's ``overfit_batches`` asks, is one of epoch 0.
        """
        epoch, position, repetition = SampleKey(*((0, key) if isinstance(key, int) else key))
        index = int(self.indices[position])
        record = self.store.images[index]
        view = draw_view(
            record.size_hw,
            short_edge_px=self.short_edge_px,
            long_edge_px=self.long_edge_px,
            flip_probability=self.flip_probability,
            generator=np.random.default_rng([self.seed, epoch, position, repetition]),
        )
        path = find_image(self.images_directory, record.file_name)
        image = read_photo(path, size_hw=view.size_hw)
        image = self.pixel_augmentation(image, seed=view.pixel_seed)
        return make_sample(
            image=flip_photo(image) if view.flip else image,
            image_id=record.image_id,
            image_path=str(path),
            original_hw=record.size_hw,
            flip=view.flip,
            objects=self._objects(index, view),
        )

    def _objects(self, store_index: int, view: View) -> Objects:
        """Leave out objects of which resizing left no pixel, and COCO's crowd regions."""
        instances = self.store.instances(store_index)
        single = np.flatnonzero(~self.store.is_crowd(store_index))
        resized = runs_of_view([instances.runs[number] for number in single], view)
        visible = [number for number, runs in enumerate(resized) if len(runs)]
        runs = [resized[number] for number in visible]
        category_ids = instances.category_ids[single[visible]]
        return make_objects(
            labels=np.array([self._label_of[int(c)] for c in category_ids], dtype=np.int64),
            boxes_xyxy=boxes_of_runs(runs, view.size_hw),
            masks=draw_masks(runs, view.size_hw),
        )


class PhotoDataset(Dataset[Sample]):
    """Photos to predict, each resized by one rule, without objects. Keys are positions.

    Args:
        images_directory: folder of the photos.
        image_ids: N ids.
        file_names: N files, relative to the folder.
        short_edge_px: upper limit of the shorter edge in pixels.
        long_edge_px: upper limit of the longer edge in pixels.
    """

    def __init__(
        self,
        *,
        images_directory: Path,
        image_ids: Sequence[str],
        file_names: Sequence[str],
        short_edge_px: int,
        long_edge_px: int,
    ) -> None:
        self.images_directory = images_directory
        self.image_ids = image_ids
        self.file_names = file_names
        self.short_edge_px = short_edge_px
        self.long_edge_px = long_edge_px

    def take(self, positions: Sequence[int]) -> PhotoDataset:
        """The photos of these positions, in this order."""
        return PhotoDataset(
            images_directory=self.images_directory,
            image_ids=tuple(self.image_ids[position] for position in positions),
            file_names=tuple(self.file_names[position] for position in positions),
            short_edge_px=self.short_edge_px,
            long_edge_px=self.long_edge_px,
        )

    def __len__(self) -> int:
        """Return the number of photos."""
        return len(self.image_ids)

    def __getitem__(self, index: int) -> Sample:
        """Make the sample of a position."""
        path = find_image(self.images_directory, self.file_names[index])
        photo_hw = read_size_hw(path)
        size_hw = resized_hw(
            photo_hw, short_edge_px=self.short_edge_px, long_edge_px=self.long_edge_px
        )
        return make_sample(
            image=read_photo(path, size_hw=size_hw),
            image_id=self.image_ids[index],
            image_path=str(path),
            original_hw=photo_hw,
        )


def by_predicted_size(photos: PhotoDataset) -> PhotoDataset:
    """Return the photos ordered by the size that the detector pads them to, largest first.

    A batch of one padded size is one forward pass; photos of other sizes take passes of their own,
    since padding further would change the predictions. Of one size, the order stays. Photos whose
    headers cannot be read come last.
    """

    def padded_hw(file_name: str) -> tuple[int, int]:
        try:
            size_hw = resized_hw(
                read_size_hw(photos.images_directory / file_name),
                short_edge_px=photos.short_edge_px,
                long_edge_px=photos.long_edge_px,
            )
        except InputError:
            return (0, 0)
        return (-(-size_hw[0] // PAD_DIVISOR), -(-size_hw[1] // PAD_DIVISOR))

    with ThreadPoolExecutor(_HEADER_READERS) as pool:  # a cold disk answers in milliseconds
        sizes = list(pool.map(padded_hw, photos.file_names))
    largest_first = sorted(range(len(sizes)), key=lambda n: sizes[n], reverse=True)
    return photos.take(largest_first)
