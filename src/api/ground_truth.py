"""Annotation files as ground truth."""

from __future__ import annotations

import contextlib
import weakref
from collections.abc import Iterable, Mapping
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any

from src.annotations.exif import AUTO
from src.annotations.image_names import file_name_of, find_image, match_ids
from src.annotations.instances import Instances, box_columns
from src.annotations.mask_settings import MaskImageSettings
from src.errors import InputError
from src.metrics.inputs import RasterInstances
from src.metrics.scoring import open_ground_truth

if TYPE_CHECKING:
    import pandas as pd


class Annotations:
    """An annotation file, opened: the ground truth that predictions are compared with.

    What it keeps on the disk is removed by ``close``, at the end of a ``with`` block, or when
    nothing refers to it any more. Arguments as for ``open_annotations``.

    Example:
        >>> from src import open_annotations, write_example
        >>> write_example("example")
        >>> with open_annotations("example/data/train.csv") as annotations:
        ...     annotations.image_ids, annotations.instances("0.png").areas_px.tolist()
        (('0.png', '1.png', '2.png'), [960, 768])
    """

    def __init__(
        self,
        path: str | Path,
        *,
        images: str | Path | None,
        use_attributes: bool,
        exif: str,
        duplicates: str,
        label_descriptions: str | Path | None,
        mask_images: Mapping[str, Any] | None,
        cache_dir: str | Path | None,
    ) -> None:
        opened = contextlib.ExitStack()
        self.close = weakref.finalize(self, opened.close)
        self.images = None if images is None else Path(images)
        self.objects = opened.enter_context(
            open_ground_truth(
                path,
                use_attributes=use_attributes,
                images_directory=images,
                exif=exif,
                duplicates=duplicates,
                label_descriptions=label_descriptions,
                mask_images=MaskImageSettings.from_config(mask_images),
                cache_dir=cache_dir,
            )
        )

    def __enter__(self) -> Annotations:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()

    def __len__(self) -> int:
        return len(self.objects)

    @property
    def image_ids(self) -> tuple[str, ...]:
        """Ids of the images, as the file spells them."""
        return tuple(self.objects)

    @property
    def category_names(self) -> Mapping[int, str]:
        """Name of each category, by id."""
        return self.objects.store.labels.category_names

    def instances(self, image_id: str) -> Instances:
        """Return the annotated instances of an image."""
        return self.objects.store.instances(self.image_ids.index(self._own_id(image_id)))

    def image_path(self, image_id: str) -> Path:
        """Return the file of an image.

        Raises:
            InputError: ``images`` was not given, or there is no image of this id.
        """
        if self.images is None:
            raise InputError("images must be a folder to find an image in it, got None")
        return find_image(self.images, self.objects.record(self._own_id(image_id)).file_name)

    def to_frame(self) -> pd.DataFrame:
        """Return a row for each instance; boxes and areas in pixels of the image."""
        import pandas as pd

        frames = []
        for index, image_id in enumerate(self.objects):
            found = self.objects.store.instances(index)
            columns = {"image_id": image_id, "category_id": found.category_ids}
            columns |= {**box_columns(found.boxes_xyxy), "area_px": found.areas_px}
            frames.append(pd.DataFrame(columns))
        return pd.concat(frames, ignore_index=True) if frames else pd.DataFrame()

    def named_as(self, image_ids: Iterable[str]) -> RasterInstances:
        """Return the objects by these image ids, where they name an image in another spelling."""
        return RasterInstances(
            self.objects.store,
            use_attributes=self.objects.use_attributes,
            ids={file_name_of(image_id): image_id for image_id in image_ids},
            images_directory=self.objects.images_directory,
            exif=self.objects.exif,
        )

    def _own_id(self, image_id: str) -> str:
        (found,) = match_ids([image_id], self.objects)
        if found not in self.objects:
            raise InputError(f"{self.objects.source}: no image has the id {image_id!r}")
        return found


def open_annotations(
    annotations: str | Path,
    *,
    images: str | Path | None = None,
    use_attributes: bool = False,
    exif: str = AUTO,
    duplicates: str = "keep",
    label_descriptions: str | Path | None = None,
    mask_images: Mapping[str, Any] | None = None,
    cache_dir: str | Path | None = None,
) -> Annotations:
    """Open annotations of any format: CSV, COCO JSON, annotation store, mask images.

    Args:
        annotations: The file, or the folder of a store or of mask images.
        images: Folder of the images: to draw them, and to repair sizes and rotations.
        use_attributes: Whether a class is a category with its attributes, in scores.
        exif: Image that the masks were made on where its EXIF orientation turns it:
            ``as_displayed``, ``as_stored``, or ``auto``.
        duplicates: ``keep`` or ``drop`` exact duplicates of instances.
        label_descriptions: JSON with the legal categories; None: those of the file, or of 2019.
        mask_images: How a folder of mask images is read, by the keys of ``conf/mask_images``:
            ``{"layout": "label_maps", "classes": {1: "shirt"}}``.
        cache_dir: Folder in which the file is kept in its fast form for the next time; None: it is
            read anew each time.

    Returns:
        The ground truth, as a plain value or for a ``with`` block.

    Raises:
        InputError: The file is wrong; the message names file, row, image and value.

    Example:
        >>> from src import open_annotations, write_example
        >>> write_example("example")
        >>> annotations = open_annotations("example/data/train.csv", images="example/data/train")
        >>> len(annotations), annotations.category_names[23]
        (3, 'shoe')
        >>> annotations.to_frame()[["image_id", "category_id", "area_px"]].head(2).values.tolist()
        [['0.png', 1, 960], ['0.png', 23, 768]]
    """
    return Annotations(
        annotations,
        images=images,
        use_attributes=use_attributes,
        exif=exif,
        duplicates=duplicates,
        label_descriptions=label_descriptions,
        mask_images=mask_images,
        cache_dir=cache_dir,
    )
