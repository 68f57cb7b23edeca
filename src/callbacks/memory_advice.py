"""What to lower when a GPU's memory does not suffice."""

from __future__ import annotations

from typing import Any

from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.callbacks import Callback

from src.mmdet_bridge.cascade.samples import Batch


class MemoryAdvice(Callback):
    """Remember the sizes of the batch in hand, for the message when memory runs out."""

    def __init__(self) -> None:
        self.doing = "making the model"
        self.sizes = ""

    def on_train_batch_start(
        self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int
    ) -> None:
        """Remember a training batch."""
        self.doing = f"training, step {trainer.global_step}"
        self.sizes = describe(batch)

    def on_validation_batch_start(
        self,
        trainer: Trainer,
        pl_module: LightningModule,
        batch: Any,
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        """Remember a validation batch."""
        self.doing = "validation"
        self.sizes = describe(batch)

    def message(self) -> str:
        """One line: what was in memory, and what to lower."""
        batch = (
            f"images of the batch (height x width, objects): {self.sizes}; " if self.sizes else ""
        )
        keys = (
            "datamodule.predict_batch_size, predict_short_edge_px, predict_long_edge_px"
            if self.doing == "validation"
            else "datamodule.batch_size, train_short_edge_px, train_long_edge_px"
        )
        return (
            f"out of GPU memory in {self.doing}; {batch}lower {keys}, or give "
            "trainer.precision=bf16-mixed"
        )


def describe(batch: Batch) -> str:
    """``1200x800 (7), 900x1200 (3)``: each image's size and, in training, its objects."""
    return ", ".join(
        "x".join(map(str, pixels.shape[-2:]))
        + (f" ({len(sample.gt_instances)})" if "gt_instances" in sample else "")
        for pixels, sample in zip(batch["inputs"], batch["data_samples"], strict=True)
    )
