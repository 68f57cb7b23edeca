"""Data sets of images: for training, for prediction, and in several views."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TypedDict

import numpy as np
import numpy.typing as npt
from torch.utils.data import Dataset

from src.annotations.image_files import read_image_rgb, read_size_hw
from src.annotations.image_names import find_image
from src.annotations.instances import ImageRecord
from src.annotations.store import AnnotationStore
from src.datamodules.geometry import (
    GeometricAugmentation,
    LabelledImage,
    crop,
    rotate,
    turn_and_flip,
)
from src.datamodules.loading import SampleKey
from src.datamodules.sizes import LEAST_VIEW_PX, resized_hw
from src.datamodules.transforms import (
    PixelAugmentation,
    View,
    draw_cropped_masks,
    draw_masks,
    draw_view,
    flip_image,
    resize_image,
)
from src.errors import InputError
from src.mmdet_bridge.cascade import detectors
from src.mmdet_bridge.cascade.detectors import Batch, Instances, Sample, make_sample
from src.rle import RleBatch, resize_nearest

log = logging.getLogger(__name__)

PAD_DIVISOR = 32  # the preprocessor's pad_size_divisor (S5)
_HEADER_READERS = 16


def read_image(path: Path, *, size_hw: tuple[int, int]) -> npt.NDArray[np.uint8]:
    """Read an image, EXIF rotation applied, and resize it.

    A JPEG of twice the size or more is decoded at a half, a quarter or an eighth of its size (a
    smaller inverse DCT: the mean of the pixels), in a fraction of the time, then resized
    bilinearly. This averages pixels that mmdetection skips: the results differ by 1 gray level of
    255 on average (benchmarks/loading.py).

    Returns:
        Shape (*size_hw, 3), uint8, RGB.

    Raises:
        InputError: The file is missing or damaged.
    """
    return resize_image(read_image_rgb(path, at_least_hw=size_hw), size_hw)


@dataclass(kw_only=True, eq=False)
class TrainingDataset(Dataset[Sample]):
    """Augmented images with their instances. Keys are the ``SampleKey`` of ``EpochSampler``.

    A sample depends on seed and key only, not on the worker or on earlier samples.

    Raises:
        InputError: An instance's category has no label.
    """

    store: AnnotationStore
    indices: npt.NDArray[np.int64]  # (N,), positions in ``store.images`` of those to train on
    images_directory: Path
    category_ids: Sequence[int]  # of each of the model's labels
    short_edge_px: tuple[int, int]  # least and greatest shorter edge, drawn uniformly
    long_edge_px: int  # upper limit of the longer edge
    flip_probability: float  # in [0, 1]
    pixel_augmentation: PixelAugmentation  # of the resized image, before the flip
    seed: int  # 0 or above
    geometric_augmentation: GeometricAugmentation = field(default_factory=GeometricAugmentation)

    def __post_init__(self) -> None:
        self._label_of = {category: label for label, category in enumerate(self.category_ids)}
        present = set().union(*self.category_sets())
        if unknown := sorted(present - self._label_of.keys()):
            raise InputError(
                "category_ids must hold every category of the images to train on, "
                f"{unknown[0]}, too, got {list(self.category_ids)}"
            )

    def __len__(self) -> int:
        """Return the number of images."""
        return len(self.indices)

    def category_sets(self) -> list[frozenset[int]]:
        """Return the category ids on each image, of the instances to train on."""
        category_sets = self.store.category_sets(to_train_on=True)
        return [category_sets[index] for index in self.indices]

    def is_wide(self) -> npt.NDArray[np.bool_]:
        """Return whether each image is wider than high, shape (N,)."""
        images = [self.store.images[index] for index in self.indices]
        return np.array([image.width_px > image.height_px for image in images], dtype=np.bool_)

    def __getitem__(self, key: SampleKey | tuple[int, int] | int) -> Sample:
        """Make the sample of a key; a mere position (``overfit_batches``) is of epoch 0."""
        epoch, position, repetition = SampleKey(*((0, key) if isinstance(key, int) else key))
        generator = np.random.default_rng([self.seed, epoch, position, repetition])
        index = int(self.indices[position])
        record = self.store.images[index]
        view = self._draw_view(record, generator)
        path = find_image(self.images_directory, record.file_name)
        augmentation = self.geometric_augmentation
        if augmentation.is_off:
            image = self.pixel_augmentation(
                read_image(path, size_hw=view.size_hw), seed=view.pixel_seed
            )
            image = flip_image(image) if view.flip else image
            instances = self._instances(index, view)
        else:
            drawn = self._labelled(index, path, view, generator)
            if num_pasted := augmentation.draw_num_pasted(generator):
                drawn = self._paste(drawn, position, generator, num_pasted)
            image = drawn.image
            instances = detectors.make_instances(
                labels=drawn.labels, boxes_xyxy=drawn.boxes_xyxy(), masks=drawn.masks
            )
        return make_sample(
            image=image,
            image_id=record.image_id,
            image_path=str(path),
            original_hw=record.size_hw,
            flip=view.flip,
            instances=instances,
        )

    def _draw_view(self, record: ImageRecord, generator: np.random.Generator) -> View:
        return draw_view(
            record.size_hw,
            short_edge_px=self.short_edge_px,
            long_edge_px=self.long_edge_px,
            flip_probability=self.flip_probability,
            generator=generator,
        )

    def _single(self, store_index: int) -> tuple[RleBatch, npt.NDArray[np.int64]]:
        """Return the masks and labels of an image's instances, without COCO's crowd regions."""
        instances = self.store.instances(store_index)
        single = np.flatnonzero(~self.store.is_crowd(store_index))
        category_ids = instances.category_ids[single]
        labels = np.array([self._label_of[int(c)] for c in category_ids], dtype=np.int64)
        return instances.masks[single], labels

    def _instances(self, store_index: int, view: View) -> Instances:
        """Return the instances with a pixel left."""
        masks, labels = self._single(store_index)
        masks = resize_nearest(masks, view.size_hw, flip_horizontal=view.flip)
        visible = np.flatnonzero(masks.num_runs)
        masks = masks[visible]
        return detectors.make_instances(
            labels=labels[visible],
            boxes_xyxy=masks.boxes_xyxy().astype(np.float32),
            masks=draw_masks(masks, view.size_hw),
        )

    def _labelled(
        self, store_index: int, path: Path, view: View, generator: np.random.Generator
    ) -> LabelledImage:
        """Read an image and move its instances."""
        augmentation = self.geometric_augmentation
        geometry = augmentation.draw(view.size_hw, least_edge_px=LEAST_VIEW_PX, generator=generator)
        image = crop(read_image(path, size_hw=geometry.scaled_hw), geometry)
        masks, labels = self._single(store_index)
        masks = resize_nearest(masks, geometry.scaled_hw)
        moved = LabelledImage(
            self.pixel_augmentation(np.ascontiguousarray(image), seed=view.pixel_seed),
            labels,
            draw_cropped_masks(masks, geometry),
        )
        moved = rotate(moved, geometry.rotation_degrees)
        moved = augmentation.keep_visible(moved, masks.areas_px().astype(np.float64))
        return turn_and_flip(moved, geometry, flip=view.flip)

    def _paste(
        self, view: LabelledImage, position: int, generator: np.random.Generator, num: int
    ) -> LabelledImage:
        """Paste instances of another image that is drawn uniformly, where there is one."""
        if len(self.indices) < 2:
            return view
        other = int(generator.integers(len(self.indices) - 1))
        index = int(self.indices[other + (other >= position)])
        record = self.store.images[index]
        path = find_image(self.images_directory, record.file_name)
        source = self._labelled(index, path, self._draw_view(record, generator), generator)
        return self.geometric_augmentation.paste(view, source, generator=generator, num=num)


@dataclass(kw_only=True, eq=False)
class ImageDataset(Dataset[Sample]):
    """Images to predict, each resized by one rule, without instances. Keys are positions."""

    images_directory: Path
    image_ids: Sequence[str]  # N ids
    file_names: Sequence[str]  # N files, relative to the folder
    short_edge_px: int  # upper limit of the shorter edge
    long_edge_px: int  # upper limit of the longer edge

    def take(self, positions: Sequence[int]) -> ImageDataset:
        """Return the images of these positions, in this order."""
        return replace(
            self,
            image_ids=tuple(self.image_ids[position] for position in positions),
            file_names=tuple(self.file_names[position] for position in positions),
        )

    def resized_hw(self, image_hw: tuple[int, int]) -> tuple[int, int]:
        """Return the size of an image within both limits."""
        short, long = self.short_edge_px, self.long_edge_px
        return resized_hw(image_hw, short_edge_px=short, long_edge_px=long)

    def __len__(self) -> int:
        """Return the number of images."""
        return len(self.image_ids)

    def __getitem__(self, index: int) -> Sample:
        """Make the sample of a position."""
        path = find_image(self.images_directory, self.file_names[index])
        image_hw = read_size_hw(path)
        return make_sample(
            image=read_image(path, size_hw=self.resized_hw(image_hw)),
            image_id=self.image_ids[index],
            image_path=str(path),
            original_hw=image_hw,
        )


def by_predicted_size(images: ImageDataset) -> ImageDataset:
    """Return the images ordered by the size that the detector pads them to, largest first.

    A batch of one padded size is one forward pass; other sizes take passes of their own, as more
    padding would change the predictions. The sort is stable; images whose header cannot be read
    come last.
    """

    def padded_hw(file_name: str) -> tuple[int, int]:
        try:
            size_hw = images.resized_hw(read_size_hw(images.images_directory / file_name))
        except InputError:
            return (0, 0)
        return (-(-size_hw[0] // PAD_DIVISOR), -(-size_hw[1] // PAD_DIVISOR))

    with ThreadPoolExecutor(_HEADER_READERS) as pool:  # a cold disk answers in milliseconds
        sizes = list(pool.map(padded_hw, images.file_names))
    return images.take(sorted(range(len(sizes)), key=sizes.__getitem__, reverse=True))


class ImageViews(TypedDict):
    """One image in V sizes, or why it failed."""

    image_id: str
    views: list[Sample]  # V samples; none if the image failed
    failure: str | None


class ViewsBatch(TypedDict):
    """N images in V sizes; those that failed are not among the N."""

    views: list[Batch]  # V batches of the same N images in the same order; none if N is 0
    failures: dict[str, str]  # why an image failed, by image id


class ImageViewsDataset(Dataset[ImageViews]):
    """Images at several scales. Keys are positions.

    Each view is made from the image, not from a larger view. An image that cannot be read, or is
    too narrow, is returned with the reason, so that it does not end a run of thousands.

    Args:
        images: The images; their limits of the edges are unused.
        scales: V pairs, limits of the shorter and of the longer edge in pixels.
    """

    def __init__(self, images: ImageDataset, *, scales: Sequence[tuple[int, int]]) -> None:
        self.scales = [
            replace(images, short_edge_px=short, long_edge_px=long) for short, long in scales
        ]

    def __len__(self) -> int:
        """Return the number of images."""
        return len(self.scales[0])

    def __getitem__(self, index: int) -> ImageViews:
        """Make the views of an image."""
        image_id = self.scales[0].image_ids[index]
        try:
            views = [_wide_enough(scale, scale[index]) for scale in self.scales]
        except InputError as error:
            return {"image_id": image_id, "views": [], "failure": str(error)}
        return {"image_id": image_id, "views": views, "failure": None}

    @staticmethod
    def collate(images: Sequence[ImageViews]) -> ViewsBatch:
        """Make a batch of images, in their order."""
        views = [item["views"] for item in images if item["failure"] is None]
        reasons = {item["image_id"]: item["failure"] for item in images}
        return {
            "views": [detectors.collate(of_scale) for of_scale in zip(*views, strict=True)],
            "failures": {image_id: why for image_id, why in reasons.items() if why is not None},
        }


def _wide_enough(scale: ImageDataset, sample: Sample) -> Sample:
    height, width = sample["inputs"].shape[1:]
    if min(height, width) < LEAST_VIEW_PX:
        image = sample["data_samples"]
        raise InputError(
            f"{image.img_path}: an image of {image.ori_shape[0]}x{image.ori_shape[1]} px becomes a "
            f"view of {height}x{width} px at the scale ({scale.short_edge_px}, "
            f"{scale.long_edge_px}); each edge of a view has {LEAST_VIEW_PX} px or more"
        )
    return sample
