"""Lightning data module of the competition's images and annotations."""

from __future__ import annotations

import logging
from collections.abc import Collection, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import albumentations
import lightning
from torch.utils.data import DataLoader

from src.annotations.mask_settings import MaskImageSettings
from src.annotations.store import AnnotationStore
from src.datamodules.annotations import indices_to_train_on, indices_wide_enough
from src.datamodules.dataset import (
    ImageDataset,
    ImageViews,
    ImageViewsDataset,
    TrainingDataset,
    by_predicted_size,
)
from src.datamodules.geometry import GeometricAugmentation
from src.datamodules.image_lists import (
    check_directory,
    check_images,
    positions_left,
    select_images,
)
from src.datamodules.loading import EpochSampler, make_loader, repeat_factors
from src.datamodules.settings import check_settings, open_store
from src.datamodules.sizes import rgb_bytes
from src.datamodules.split import Split, choose_split_file, load_or_make_split
from src.datamodules.transforms import PixelAugmentation
from src.errors import InputError
from src.mmdet_bridge.cascade.detectors import Sample

log = logging.getLogger(__name__)


class CompetitionDataModule(lightning.LightningDataModule):
    """Images of the competition, or any data set in a format that the annotation store reads.

    Training leaves out images without an instance to train on (see ``indices_to_train_on``) and
    images with too narrow a view; a sample leaves out instances that resizing leaves no pixel of.
    Validation and test images are all predicted, none twice except for Lightning's padding under
    several devices (not in prediction).

    The arguments are the keys of ``conf/datamodule/competition.yaml``, which describes them.

    Raises:
        InputError: A value is not legal; names its key.
    """

    def __init__(
        self,
        *,
        annotations: str | None,
        images: str | None,
        split_file: str,
        num_validation_images: float | None,
        split_seed: int | None,
        cache_dir: str,
        test_images: str | None = None,
        sample_submission: str | None = None,
        label_descriptions: str | None = None,
        mask_images: Mapping[str, Any] | None = None,
        exif: str = "auto",
        on_bad_rows: str = "error",
        duplicates: str = "keep",
        category_ids: Sequence[int] | None = None,
        predict_split: str = "test",
        train_short_edge_px: tuple[int, int] = (600, 1200),
        train_long_edge_px: int = 1900,
        predict_short_edge_px: int = 1200,
        predict_long_edge_px: int = 1900,
        predict_scales: Sequence[tuple[int, int]] | None = None,
        flip_probability: float = 0.5,
        pixel_augmentations: Mapping[str, albumentations.BasicTransform] | None = None,
        geometric_augmentation: GeometricAugmentation | None = None,
        seed: int = 0,
        batch_size: int = 2,
        group_by_aspect_ratio: bool = True,
        repeat_factor: float | None = None,
        predict_batch_size: int = 1,
        num_workers: int = 0,
        prefetch_factor: int = 2,
        persistent_workers: bool = True,
        loader_timeout_s: int = 0,
    ) -> None:
        super().__init__()
        check_settings(locals())
        self.annotations = annotations
        self.images, self.test_images, self.sample_submission, self.label_descriptions = (
            None if path is None else Path(path)
            for path in (images, test_images, sample_submission, label_descriptions)
        )
        self.split_file, self.cache_dir = Path(split_file), Path(cache_dir)
        self.num_validation_images, self.split_seed = num_validation_images, split_seed
        # The run's folder, for a cache and a split that cannot be written beside the data.
        self.fallback_directory: Path | None = None
        self.mask_images = MaskImageSettings.from_config(mask_images)
        self.exif, self.on_bad_rows, self.duplicates = exif, on_bad_rows, duplicates
        self.category_ids, self.predict_split = category_ids, predict_split
        self.train_short_edge_px, self.train_long_edge_px = train_short_edge_px, train_long_edge_px
        self._image_dataset = partial(
            ImageDataset, short_edge_px=predict_short_edge_px, long_edge_px=predict_long_edge_px
        )
        self.predict_scales = predict_scales or [(predict_short_edge_px, predict_long_edge_px)]
        self.flip_probability, self.seed = flip_probability, seed
        self.pixel_augmentation = PixelAugmentation(pixel_augmentations or {})
        self.geometric_augmentation = geometric_augmentation or GeometricAugmentation()
        self.batch_size, self.predict_batch_size = batch_size, predict_batch_size
        self.group_by_aspect_ratio, self.repeat_factor = group_by_aspect_ratio, repeat_factor
        self._loader = partial(
            make_loader,
            num_workers=num_workers,
            prefetch_factor=prefetch_factor,
            persistent_workers=persistent_workers,
            timeout_s=loader_timeout_s,
        )
        self.first_epoch, self.batches_done = 0, 0
        self.predicted_image_ids: Collection[str] = ()  # images that prediction skips

    def prepare_data(self) -> None:
        """Build the annotation store and the split if missing, on one process."""
        stage = None if self.trainer is None else self.trainer.state.fn
        if self._needs(stage)[0]:
            self._load_or_make_split(self.open_store())

    def setup(self, stage: str | None = None) -> None:
        """Open what a stage needs and check that all its images are there.

        Args:
            stage: ``fit``, ``validate``, ``test`` or ``predict``; None: everything configured.

        Raises:
            InputError: Names a file or key and the bad value.
        """
        needs_annotations, needs_test_images = self._needs(stage)
        if needs_annotations:
            self.store = self.open_store()
            self.split = self._load_or_make_split(self.store)
            self.validation_dataset = self._validation_dataset(some_suffice=stage == "predict")
            if stage in (None, "fit"):
                self.train_dataset = self._train_dataset()
        if needs_test_images:
            self.test_dataset = self._test_dataset(some_suffice=stage == "predict")

    def resume_at(self, *, epoch: int, batches_done: int) -> None:
        """Make the next training loader resume in an epoch after this number of batches.

        Call it before Lightning asks for the loader: before or while it loads the checkpoint.
        """
        self.first_epoch, self.batches_done = epoch, batches_done

    def train_dataloader(self) -> DataLoader[Sample]:
        """Return the loader of augmented images, the same for the same seed and epoch.

        Raises:
            InputError: ``resume_at`` got more batches than an epoch has.
        """
        dataset = self.train_dataset
        sampler = EpochSampler(
            batch_size=self.batch_size,
            seed=self.seed,
            rank=0 if self.trainer is None else self.trainer.global_rank,
            world_size=self._world_size,
            groups=dataset.is_wide() & self.group_by_aspect_ratio,
            repeat_factors=repeat_factors(dataset.category_sets(), threshold=self.repeat_factor),
            first_epoch=self.first_epoch,
            batches_done=self.batches_done,
        )
        return self._loader(
            dataset,
            batch_size=self.batch_size,
            sampler=sampler,
            largest_sample_bytes=rgb_bytes(self.train_short_edge_px[1], self.train_long_edge_px),
        )

    def val_dataloader(self) -> DataLoader[Sample]:
        """Return the loader of all validation images, by image id or by size."""
        return self._predicting_loader(self.validation_dataset)

    def test_dataloader(self) -> DataLoader[Sample]:
        """Return the loader of all test images, in the order of the sample, by name or by size."""
        return self._predicting_loader(self.test_dataset)

    def predict_dataloader(self) -> DataLoader[ImageViews]:
        """Return the loader of the images of ``predict_split`` still to predict, at all scales.

        Raises:
            InputError: An image predicted before is not in the split.
        """
        images = self.images_to_predict
        left = positions_left(images.image_ids, self.predicted_image_ids, self._world_size)
        return self._predicting_loader(images.take(left), self.predict_scales)

    def _predicting_loader(
        self, images: ImageDataset, scales: Sequence[tuple[int, int]] = ()
    ) -> DataLoader[Any]:
        """Return the loader of images, or of their views, by size if a batch has several."""
        if self.predict_batch_size > 1:
            images = by_predicted_size(images)
        limits = scales or [(images.short_edge_px, images.long_edge_px)]
        return self._loader(
            ImageViewsDataset(images, scales=scales) if scales else images,
            batch_size=self.predict_batch_size,
            largest_sample_bytes=sum(rgb_bytes(*scale) for scale in limits),
        )

    @property
    def images_to_predict(self) -> ImageDataset:
        """Images of ``predict_split``, set by ``setup``."""
        return self.validation_dataset if self.predict_split == "validation" else self.test_dataset

    @property
    def _world_size(self) -> int:
        return 1 if self.trainer is None else self.trainer.world_size

    def _needs(self, stage: str | None) -> tuple[bool, bool]:
        """Return whether a stage needs the annotations, and whether the test images."""
        if stage is None:
            return True, self.test_images is not None
        is_test = (self.predict_split if stage == "predict" else stage) == "test"
        return not is_test, is_test

    def open_store(self) -> AnnotationStore:
        """Open the annotation store; build it from the file if missing.

        Raises:
            InputError: The annotation file or the folder of images is missing or wrong.
        """
        return open_store(
            annotations=self.annotations,
            images=self.images,
            cache_dir=self.cache_dir,
            label_descriptions=self.label_descriptions,
            mask_images=self.mask_images,
            exif=self.exif,
            on_bad_rows=self.on_bad_rows,
            duplicates=self.duplicates,
            fallback_directory=self.fallback_directory,
        )

    def _load_or_make_split(self, store: AnnotationStore) -> Split:
        fallback = self.fallback_directory and self.fallback_directory / "split.json"
        self.split_file = choose_split_file(self.split_file, fallback)
        return load_or_make_split(
            self.split_file,
            image_ids=[record.image_id for record in store.images],
            category_sets=store.category_sets(),
            num_validation_images=self.num_validation_images,
            seed=self.split_seed,
            annotations=Path(str(self.annotations)),
        )

    def _train_dataset(self) -> TrainingDataset:
        store, short, long = self.store, self.train_short_edge_px, self.train_long_edge_px
        source = str(self.annotations)
        indices = indices_to_train_on(
            store, self.split.train, short_edge_px=short, long_edge_px=long, annotations=source
        )
        indices = indices_wide_enough(store, indices, short_edge_px=short, long_edge_px=long)
        devices = self._world_size
        if self.batch_size * devices > len(indices):
            raise InputError(
                f"datamodule.batch_size must be at most {len(indices) // devices} on {devices} "
                f"device(s), as {self.split_file} has {len(indices)} training images with "
                f"instances, got {self.batch_size}"
            )
        file_names = [store.images[index].file_name for index in indices]
        return TrainingDataset(
            store=store,
            indices=indices,
            images_directory=check_images("datamodule.images", self.images, file_names),
            category_ids=self.category_ids or store.category_ids,
            short_edge_px=short,
            long_edge_px=long,
            flip_probability=self.flip_probability,
            pixel_augmentation=self.pixel_augmentation,
            geometric_augmentation=self.geometric_augmentation,
            seed=self.seed,
        )

    def _validation_dataset(self, *, some_suffice: bool) -> ImageDataset:
        indices = [self.store.index_of(image_id) for image_id in self.split.validation]
        if empty := sum(self.store.counts_without_mask(index)[1] for index in indices):
            log.warning("%d validation instances have no mask: left out of all scores", empty)
        names = [self.store.images[index].file_name for index in indices]
        key, ids = "datamodule.images", self.split.validation
        directory = check_images(key, self.images, names, some_suffice=some_suffice)
        return self._image_dataset(images_directory=directory, image_ids=ids, file_names=names)

    def _test_dataset(self, *, some_suffice: bool) -> ImageDataset:
        directory = check_directory("datamodule.test_images", self.test_images)
        sample = self.sample_submission
        ids, names = select_images(directory, sample_submission=sample, some_suffice=some_suffice)
        return self._image_dataset(images_directory=directory, image_ids=ids, file_names=names)
