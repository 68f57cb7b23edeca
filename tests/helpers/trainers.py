"""Lightning modules of a few numbers, trainers for them, and the configuration of a tiny run."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import lightning
import torch
from lightning.pytorch.demos.boring_classes import BoringModel
from omegaconf import DictConfig

from tests.helpers.cascades import SMALL
from tests.helpers.configs import compose_config
from tests.helpers.images import COLOURS, Data

CATEGORY_IDS = [*COLOURS, 0]


class Scored(BoringModel):
    """Its validation score in each epoch is given."""

    def __init__(self, scores: list[float]) -> None:
        super().__init__()
        self.scores = scores

    def on_validation_epoch_end(self) -> None:
        self.log("validation/competition_map", torch.tensor(self.scores[self.current_epoch]))


class Recorder(lightning.LightningModule):
    """Writes down what each loader gives; trains one number."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = torch.nn.Parameter(torch.zeros(()))
        self.seen: dict[str, list] = {"fit": [], "validate": [], "predict": [], "test": []}

    def note(self, stage: str, batch: dict) -> None:
        for pixels, sample in zip(batch["inputs"], batch["data_samples"], strict=True):
            assert pixels.dtype == torch.uint8
            assert pixels.shape == (3, *sample.img_shape)
            self.seen[stage].append((self.current_epoch, sample))

    def training_step(self, batch: dict, _: int) -> torch.Tensor:
        self.note("fit", batch)
        return self.weight * batch["data_samples"][0].gt_instances.bboxes.sum()

    def validation_step(self, batch: dict, _: int) -> None:
        self.note("validate", batch)

    def predict_step(self, batch: dict, _: int) -> None:
        for view in batch["views"]:
            self.note("predict", view)

    def test_step(self, batch: dict, batch_idx: int) -> None:
        self.note("test", batch)

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.SGD(self.parameters(), lr=0.0)


def make_trainer(**changes) -> lightning.Trainer:
    return lightning.Trainer(
        accelerator="cpu",
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        num_sanity_val_steps=0,
        **changes,
    )


def compose_training(images: Data, folder: Path, *overrides: str) -> DictConfig:
    """The configuration of ``src.train`` for a tiny cascade on the test's images."""
    values: dict[str, Any] = {
        "module.category_ids": CATEGORY_IDS,
        "datamodule.category_ids": CATEGORY_IDS,
        "datamodule.annotations": images.directory / "train.csv",
        "datamodule.images": images.directory / "train",
        "datamodule.split_file": folder / "split.json",
        "datamodule.cache_dir": images.directory / "cache",
        "datamodule.num_validation_images": 5,
        "datamodule.train_short_edge_px": [40, 60],
        "datamodule.train_long_edge_px": 100,
        "datamodule.predict_short_edge_px": 48,
        "datamodule.predict_long_edge_px": 80,
        "datamodule.num_workers": 0,
        "trainer.log_every_n_steps": 2,
        "trainer.limit_train_batches": 4,
        "num_torch_threads": 1,
        "name": "small",
        "paths.data_dir": folder,
        "paths.output_dir": folder,
    }
    return compose_config(
        "train",
        [
            "module=htc_tiny",
            "datamodule=tiny",
            "trainer=cpu",
            "optimizer=adamw",
            "scheduler=warmup_cosine",
            *SMALL,
            *(f"{key}={value}".replace(" ", "") for key, value in values.items()),
            *overrides,
        ],
    )
