"""Data sets of images: for training, for prediction, and in several views."""

from __future__ import annotations

import itertools
import logging
from collections.abc import Collection, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path, PurePosixPath
from typing import Any, TypedDict

import numpy as np
import numpy.typing as npt
from torch.utils.data import Dataset

from src.annotations.image_files import read_image_rgb, read_size_hw
from src.annotations.image_names import (
    IMAGE_SUFFIXES,
    ImageFolder,
    find_image,
    list_images,
    read_image_ids,
)
from src.annotations.store import AnnotationStore
from src.datamodules.loading import SampleKey
from src.datamodules.transforms import (
    LEAST_VIEW_PX,
    PixelAugmentation,
    View,
    draw_masks,
    draw_view,
    flip_image,
    resize_image,
    resized_hw,
)
from src.errors import InputError
from src.mmdet_bridge.cascade.samples import (
    Batch,
    Instances,
    Sample,
    collate,
    make_instances,
    make_sample,
)
from src.rle import resize_nearest


def read_image(path: Path, *, size_hw: tuple[int, int]) -> npt.NDArray[np.uint8]:
    """Read an image, EXIF rotation applied, and resize it.

    A JPEG of twice the size or more is decoded at a half, a quarter or an eighth of it (a choice of
    the inverse DCT's size: the mean of the pixels that it stands for), which takes a fraction of
    the time; what is left is bilinear. Where mmdetection skips pixels this averages them: a gray
    level of 255 apart in the mean (benchmarks/loading.py).

    Args:
        path: the image.
        size_hw: height and width of the result.

    Returns:
        Shape (*size_hw, 3), uint8, RGB.

    Raises:
        InputError: the file is missing or damaged.
    """
    return resize_image(read_image_rgb(path, at_least_hw=size_hw), size_hw)


log = logging.getLogger(__name__)


def files_of_ids(
    image_ids: Sequence[str], *, folder: ImageFolder, source: Path, some_suffice: bool = False
) -> list[str]:
    """Return each id's file in a folder: the id itself (2019) or the id and a suffix (2020).

    Args:
        image_ids: the ids.
        folder: the images of the folder and of those below it.
        source: the file that names the ids, for the message.
        some_suffice: refuse only a folder that has none of the images; an id without one stands
            for its file, so that reading it fails.

    Raises:
        InputError: names the first id without an image, and how many there are.
    """
    files: dict[str, str] = {}
    for name in folder.names:
        files.setdefault(str(PurePosixPath(name).with_suffix("")), name)
    files |= {name: name for name in folder.names}
    missing = [image_id for image_id in image_ids if image_id not in files]
    if missing and not (some_suffice and len(missing) < len(image_ids)):
        raise InputError(
            f"{source}: image id {missing[0]!r} has no image in {folder.directory} "
            f"({len(missing)} of {len(image_ids)} ids have none)"
        )
    found = [files.get(image_id, image_id) for image_id in image_ids]
    if others := sorted(set(folder.names).difference(found)):
        log.info(
            "%s: %d images are not in %s and are left out (the first: %r)",
            folder.directory,
            len(others),
            source,
            others[0],
        )
    return found


def select_images(
    directory: Path, *, sample_submission: Path | None, some_suffice: bool = False
) -> tuple[list[str], list[str]]:
    """Return the ids of the images to predict, and their files in the folder.

    What is left out of the folder is logged.

    Args:
        directory: folder of the images.
        sample_submission: CSV whose column ``ImageId`` names them; None: all in the folder and in
            those below it, the path relative to the folder being the id.
        some_suffice: see ``files_of_ids``.

    Raises:
        InputError: no images, or an id without one.
    """
    folder = list_images(directory)
    left_out = folder.describe_left_out()
    if not folder.names:
        raise InputError(
            left_out or f"{directory}: no images ({' '.join(IMAGE_SUFFIXES)}) in this folder"
        )
    if sample_submission is None:
        if left_out is not None:
            log.warning("%s", left_out)
        return list(folder.names), list(folder.names)
    image_ids = read_image_ids(sample_submission)
    file_names = files_of_ids(
        image_ids, folder=folder, source=sample_submission, some_suffice=some_suffice
    )
    return list(image_ids), file_names


PAD_DIVISOR = 32  # the preprocessor's pad_size_divisor (S5)
_HEADER_READERS = 16


class TrainingDataset(Dataset[Sample]):
    """Augmented images with their objects. Keys are those of ``EpochSampler``, see ``SampleKey``.

    A sample depends on seed and key alone: not on the worker that makes it, nor on what was made
    before.

    Args:
        store: the annotations.
        indices: shape (N,), positions in ``store.images`` of the images to train on.
        images_directory: folder of the images.
        category_ids: the category id of each of the model's labels.
        short_edge_px: least and greatest shorter edge in pixels, drawn uniformly.
        long_edge_px: upper limit of the longer edge in pixels.
        flip_probability: of mirroring left to right, in [0, 1].
        pixel_augmentation: applied to the resized image, before mirroring.
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
                f"category_ids={list(category_ids)}: the images to train on carry objects of "
                f"category {unknown[0]}, which is not among them"
            )

    def __len__(self) -> int:
        """Return the number of images."""
        return len(self.indices)

    def category_sets(self) -> list[frozenset[int]]:
        """Return the set of category ids on each image, of the objects that are trained on."""
        category_sets = self.store.category_sets(to_train_on=True)
        return [category_sets[index] for index in self.indices]

    def is_wide(self) -> npt.NDArray[np.bool_]:
        """Return whether each image is wider than high, shape (N,)."""
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
        image = read_image(path, size_hw=view.size_hw)
        image = self.pixel_augmentation(image, seed=view.pixel_seed)
        return make_sample(
            image=flip_image(image) if view.flip else image,
            image_id=record.image_id,
            image_path=str(path),
            original_hw=record.size_hw,
            flip=view.flip,
            instances=self._instances(index, view),
        )

    def _instances(self, store_index: int, view: View) -> Instances:
        """Leave out objects of which resizing left no pixel, and COCO's crowd regions."""
        instances = self.store.instances(store_index)
        single = np.flatnonzero(~self.store.is_crowd(store_index))
        masks = resize_nearest(instances.masks[single], view.size_hw, flip_horizontal=view.flip)
        visible = np.flatnonzero(masks.num_runs)
        masks = masks[visible]
        category_ids = instances.category_ids[single[visible]]
        return make_instances(
            labels=np.array([self._label_of[int(c)] for c in category_ids], dtype=np.int64),
            boxes_xyxy=masks.boxes_xyxy().astype(np.float32),
            masks=draw_masks(masks, view.size_hw),
        )


class ImageDataset(Dataset[Sample]):
    """Images to predict, each resized by one rule, without objects. Keys are positions.

    Args:
        images_directory: folder of the images.
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

    def take(self, positions: Sequence[int]) -> ImageDataset:
        """The images of these positions, in this order."""
        return ImageDataset(
            images_directory=self.images_directory,
            image_ids=tuple(self.image_ids[position] for position in positions),
            file_names=tuple(self.file_names[position] for position in positions),
            short_edge_px=self.short_edge_px,
            long_edge_px=self.long_edge_px,
        )

    def __len__(self) -> int:
        """Return the number of images."""
        return len(self.image_ids)

    def __getitem__(self, index: int) -> Sample:
        """Make the sample of a position."""
        path = find_image(self.images_directory, self.file_names[index])
        image_hw = read_size_hw(path)
        size_hw = resized_hw(
            image_hw, short_edge_px=self.short_edge_px, long_edge_px=self.long_edge_px
        )
        return make_sample(
            image=read_image(path, size_hw=size_hw),
            image_id=self.image_ids[index],
            image_path=str(path),
            original_hw=image_hw,
        )


def by_predicted_size(images: ImageDataset) -> ImageDataset:
    """Return the images ordered by the size that the detector pads them to, largest first.

    A batch of one padded size is one forward pass; images of other sizes take passes of their own,
    since padding further would change the predictions. Of one size, the order stays. Images whose
    headers cannot be read come last.
    """

    def padded_hw(file_name: str) -> tuple[int, int]:
        try:
            size_hw = resized_hw(
                read_size_hw(images.images_directory / file_name),
                short_edge_px=images.short_edge_px,
                long_edge_px=images.long_edge_px,
            )
        except InputError:
            return (0, 0)
        return (-(-size_hw[0] // PAD_DIVISOR), -(-size_hw[1] // PAD_DIVISOR))

    with ThreadPoolExecutor(_HEADER_READERS) as pool:  # a cold disk answers in milliseconds
        sizes = list(pool.map(padded_hw, images.file_names))
    largest_first = sorted(range(len(sizes)), key=lambda n: sizes[n], reverse=True)
    return images.take(largest_first)


class ImageViews(TypedDict):
    """One image in V sizes, or why there is none."""

    image_id: str
    views: list[Sample]  # V samples; none where the image failed
    failure: str | None


class ViewsBatch(TypedDict):
    """N images in V sizes; those that failed are not among the N."""

    views: list[Batch]  # V batches of the same N images in the same order; none where N is 0
    failures: dict[str, str]  # why an image failed, by image id


class ImageViewsDataset(Dataset[ImageViews]):
    """The same images at several scales. Keys are positions.

    Each view is made of the image, as it would be alone, not of a larger view. An image that
    cannot be read, or is too narrow, does not end a run of thousands: it says why it failed.

    Args:
        images: the images; their own limits of the edges mean nothing here.
        scales: V pairs, limits of the shorter and of the longer edge in pixels.
    """

    def __init__(self, images: ImageDataset, *, scales: Sequence[tuple[int, int]]) -> None:
        self.scales = [
            ImageDataset(
                images_directory=images.images_directory,
                image_ids=images.image_ids,
                file_names=images.file_names,
                short_edge_px=short_edge_px,
                long_edge_px=long_edge_px,
            )
            for short_edge_px, long_edge_px in scales
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
        return {
            "views": [collate(of_scale) for of_scale in zip(*views, strict=True)],
            "failures": {
                item["image_id"]: item["failure"] for item in images if item["failure"] is not None
            },
        }


def positions_left(
    image_ids: Sequence[str], predicted: Collection[str], world_size: int
) -> list[int]:
    """Which images are still to be predicted.

    Where a few are left for more processes, some stand twice: Lightning wants one for each process,
    and the prediction store drops the second.

    Args:
        image_ids: all images.
        predicted: those that have predictions.
        world_size: number of processes.

    Raises:
        InputError: an image that has predictions is none of the images.
    """
    if unknown := sorted(set(predicted).difference(image_ids)):
        raise InputError(
            f"{len(unknown)} images are in the prediction store that are none of the "
            f"{len(image_ids)} images to predict, the first is {unknown[0]!r}; the list of images "
            "has changed: give another folder"
        )
    left = [place for place, image_id in enumerate(image_ids) if image_id not in predicted]
    return [*left, *itertools.islice(itertools.cycle(left), max(0, world_size - len(left)))]


def check_scales(key: str, scales: Sequence[Any] | None) -> None:
    """Check the scales of the views; None is legal.

    Raises:
        InputError: none, or one that is not a pair (shorter, longer) of legal limits.
    """
    if scales is None:
        return
    if not scales:
        raise InputError(f"{key}=[]: at least one scale is legal, such as [[1200,1900]]")
    for scale in scales:
        match scale:
            case [int(short), int(long)] if LEAST_VIEW_PX <= short <= long:
                continue
        raise InputError(
            f"{key}: {scale} given; legal is [SHORT,LONG], limits of the shorter and of the longer "
            f"edge in px, whole numbers with {LEAST_VIEW_PX} <= SHORT <= LONG"
        )


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
