"""What a run is trained on, kept in its checkpoints: a run resumes on the same data only.

Annotations are compared by content, image files by their size in bytes and in pixels.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from torch import Tensor

from src.annotations.image_files import look_at_images
from src.annotations.store import AnnotationStore
from src.datamodules.datamodule import CompetitionDataModule
from src.errors import InputError
from src.io import printable

FINGERPRINT_KEY = "data_fingerprint"
PARTS = ("training", "validation")


class DataFingerprint(Callback):
    """Keep what each image and its annotations are in every checkpoint, and compare on resuming.

    A checkpoint of an earlier version, which does not say, is taken as it is.
    """

    def __init__(self) -> None:
        self._now: dict[str, dict[str, Any]] = {}
        self._image_ids: dict[str, Sequence[str]] = {}

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Look at the data, once it is open."""
        datamodule = trainer.datamodule  # type: ignore[attr-defined]
        if stage != "fit" or not isinstance(datamodule, CompetitionDataModule):
            return
        store = datamodule.store
        positions = {
            "training": [int(index) for index in datamodule.train_dataset.indices],
            "validation": [
                store.index_of(name) for name in datamodule.validation_dataset.image_ids
            ],
        }
        for part, indices in positions.items():
            self._image_ids[part] = [store.images[index].image_id for index in indices]
            self._now[part] = _fingerprint(datamodule, store, indices)

    def on_save_checkpoint(
        self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]
    ) -> None:
        """Add the fingerprint."""
        checkpoint[FINGERPRINT_KEY] = self._now

    def on_load_checkpoint(
        self, trainer: Trainer, pl_module: LightningModule, checkpoint: dict[str, Any]
    ) -> None:
        """Compare the fingerprint with the data of now.

        Raises:
            InputError: counts the images whose annotations or files are others, names the first.
        """
        saved = checkpoint.get(FINGERPRINT_KEY) or {}
        for part in PARTS:
            if part in saved and part in self._now:
                _compare(part, self._image_ids[part], saved[part], self._now[part])


def _fingerprint(
    datamodule: CompetitionDataModule, store: AnnotationStore, indices: Sequence[int]
) -> dict[str, Any]:
    """The ids together, and for each image its annotations' digest, bytes, height and width."""
    assert datamodule.images is not None  # setup has seen to it
    records = [store.images[index] for index in indices]
    files = look_at_images(
        datamodule.images, (record.file_name for record in records), store.image_files()
    )
    sizes = [
        (file.num_bytes, *file.size_hw) if file is not None else (0, 0, 0)
        for file in (files.get(record.file_name) for record in records)
    ]
    ids = json.dumps([record.image_id for record in records])
    return {
        "image_ids_sha256": hashlib.sha256(ids.encode()).hexdigest(),
        "annotations": torch.from_numpy(store.digests[list(indices)].astype(np.int64)),
        "files": torch.tensor(sizes, dtype=torch.int64).reshape(-1, 3),
    }


def _compare(
    part: str, image_ids: Sequence[str], saved: Mapping[str, Any], now: Mapping[str, Any]
) -> None:
    if saved["image_ids_sha256"] != now["image_ids_sha256"]:
        return  # another split, which is another check's concern
    remedy = "give those of then, or start another run with name=..."
    if wrong := _differing(saved["annotations"], now["annotations"]):
        raise InputError(
            f"the annotations of the {part} images must be those of the checkpoint, got others for "
            f"{len(wrong)} of {len(image_ids)} images, the first is "
            f"{printable(image_ids[wrong[0]])}: {remedy}"
        )
    if wrong := _differing(saved["files"], now["files"]):
        then, found = (
            "{} bytes, {} x {} px".format(*side["files"][wrong[0]].tolist())
            for side in (saved, now)
        )
        raise InputError(
            f"the files of the {part} images must be those of the checkpoint, got others for "
            f"{len(wrong)} of {len(image_ids)} images, the first is "
            f"{printable(image_ids[wrong[0]])} (then {then}, now {found}): {remedy}"
        )


def _differing(saved: Tensor, now: Tensor) -> list[int]:
    differs = (saved != now).reshape(len(now), -1).any(dim=1)
    return [int(index) for index in differs.nonzero().reshape(-1)]
