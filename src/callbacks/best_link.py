"""``best.ckpt``: one name for the best checkpoint, whose own name carries epoch and score."""

from __future__ import annotations

from pathlib import Path

from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.callbacks import Callback, ModelCheckpoint

from src.io import atomic_path


class BestLinkCallback(Callback):
    """Keep a link ``best.ckpt`` beside the checkpoints that are kept by a score.

    Args:
        monitor: the score; the trainer has one ``ModelCheckpoint`` that keeps the best by it.
    """

    def __init__(self, *, monitor: str) -> None:
        self.monitor = monitor

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Point to the best; it was saved at the end of validation, before this."""
        if not trainer.is_global_zero:
            return
        for callback in trainer.checkpoint_callbacks:
            if getattr(callback, "monitor", None) != self.monitor:
                continue
            assert isinstance(callback, ModelCheckpoint)
            best = Path(callback.best_model_path)
            if not callback.best_model_path or not best.exists():
                continue
            with atomic_path(best.with_name("best.ckpt")) as partial:
                partial.symlink_to(best.name)
