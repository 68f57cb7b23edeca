"""Photos to predict, each in several sizes."""

from __future__ import annotations

import itertools
from collections.abc import Collection, Sequence
from typing import Any, TypedDict

from torch.utils.data import Dataset

from src.datamodules.dataset import PhotoDataset
from src.datamodules.transforms import LEAST_VIEW_PX
from src.errors import InputError
from src.mmdet_bridge.samples import Batch, Sample, collate


class PhotoViews(TypedDict):
    """One photo in V sizes, or why there is none."""

    image_id: str
    views: list[Sample]  # V samples; none where the photo failed
    failure: str | None


class ViewsBatch(TypedDict):
    """N photos in V sizes; those that failed are not among the N."""

    views: list[Batch]  # V batches of the same N photos in the same order; none where N is 0
    failures: dict[str, str]  # why a photo failed, by image id


class PhotoViewsDataset(Dataset[PhotoViews]):
    """The same photos at several scales. Keys are positions.

    Each view is made of the photo, exactly as it would be alone, not of a larger view. A photo that
    cannot be read, or is too narrow, does not end a run of thousands: it says why it failed.

    Args:
        photos: the photos; their own limits of the edges mean nothing here.
        scales: V pairs, limits of the shorter and of the longer edge in pixels.
    """

    def __init__(self, photos: PhotoDataset, *, scales: Sequence[tuple[int, int]]) -> None:
        self.scales = [
            PhotoDataset(
                images_directory=photos.images_directory,
                image_ids=photos.image_ids,
                file_names=photos.file_names,
                short_edge_px=short_edge_px,
                long_edge_px=long_edge_px,
            )
            for short_edge_px, long_edge_px in scales
        ]

    def __len__(self) -> int:
        """Return the number of photos."""
        return len(self.scales[0])

    def __getitem__(self, index: int) -> PhotoViews:
        """Make the views of a photo."""
        image_id = self.scales[0].image_ids[index]
        try:
            views = [_wide_enough(scale, scale[index]) for scale in self.scales]
        except InputError as error:
            return {"image_id": image_id, "views": [], "failure": str(error)}
        return {"image_id": image_id, "views": views, "failure": None}

    @staticmethod
    def collate(photos: Sequence[PhotoViews]) -> ViewsBatch:
        """Make a batch of photos, in their order."""
        views = [photo["views"] for photo in photos if photo["failure"] is None]
        return {
            "views": [collate(of_scale) for of_scale in zip(*views, strict=True)],
            "failures": {
                photo["image_id"]: photo["failure"]
                for photo in photos
                if photo["failure"] is not None
            },
        }


def positions_left(
    image_ids: Sequence[str], predicted: Collection[str], world_size: int
) -> list[int]:
    """Which photos are still to be predicted.

    Where a few are left for more processes, some stand twice: Lightning wants one for each process,
    and the prediction store drops the second.

    Args:
        image_ids: all photos.
        predicted: those that have predictions.
        world_size: number of processes.

    Raises:
        InputError: a photo that has predictions is none of the photos.
    """
    if unknown := sorted(set(predicted).difference(image_ids)):
        raise InputError(
            f"{len(unknown)} images are in the prediction store that are none of the "
            f"{len(image_ids)} photos to predict, the first is {unknown[0]!r}; the list of photos "
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


def _wide_enough(scale: PhotoDataset, sample: Sample) -> Sample:
    height, width = sample["inputs"].shape[1:]
    if min(height, width) < LEAST_VIEW_PX:
        photo = sample["data_samples"]
        raise InputError(
            f"{photo.img_path}: a photo of {photo.ori_shape[0]}x{photo.ori_shape[1]} px becomes a "
            f"view of {height}x{width} px at the scale ({scale.short_edge_px}, "
            f"{scale.long_edge_px}); each edge of a view has {LEAST_VIEW_PX} px or more"
        )
    return sample
