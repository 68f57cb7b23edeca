"""S1: BatchNorm keeps its statistics, the first stage its weights, whatever Lightning toggles."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from hydra.utils import instantiate
from lightning import Callback, Trainer
from torch import nn
from torch.utils.data import DataLoader

from src.callbacks.training_steps import ExponentialMovingAverage
from tests.helpers.cascades import SMALL_BATCH_NORM, SMALL_DEFORMABLE, compose_module, make_batch

FROZEN = ("detector.backbone.conv1.", "detector.backbone.bn1.", "detector.backbone.layer1.")
STATISTICS = ("running_mean", "running_var", "num_batches_tracked")


class Modes(Callback):
    """Whether any BatchNorm was in training mode, and the module itself, at each training step."""

    def __init__(self) -> None:
        self.norms: list[bool] = []
        self.module: list[bool] = []
        self.validated = 0

    def on_train_batch_start(self, trainer: Trainer, module: Any, *_: Any) -> None:
        norms = [layer for layer in module.modules() if isinstance(layer, nn.BatchNorm2d)]
        assert len(norms) == 53
        self.norms.append(any(norm.training for norm in norms))
        self.module.append(module.detector.roi_head.training)

    def on_validation_batch_start(self, trainer: Trainer, module: Any, *_: Any) -> None:
        assert not any(layer.training for layer in module.modules())
        self.validated += 1


def batches(**options: Any) -> Any:
    return DataLoader([make_batch(seed=seed, **options) for seed in range(2)], batch_size=None)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("overrides", "average"),
    [
        pytest.param(SMALL_BATCH_NORM, False, id="bn-weights"),
        pytest.param(SMALL_BATCH_NORM, True, id="bn-moving_average", marks=pytest.mark.slow),
        pytest.param(SMALL_DEFORMABLE, False, id="dcn-weights", marks=pytest.mark.slow),
        pytest.param(SMALL_DEFORMABLE, True, id="dcn-moving_average"),
    ],
)
def test_frozen_parts_do_not_change_over_epochs_with_validation(
    overrides: tuple[str, ...], average: bool, tmp_path: Path
) -> None:
    torch.manual_seed(0)
    config = compose_module("htc_r50", *overrides, optimizer="sgd")
    module = instantiate(config.module)
    for name, buffer in module.named_buffers():
        if name.endswith("running_var"):  # as if of pretrained weights
            buffer.copy_(torch.rand(buffer.shape) + 0.5)
    before = {name: value.clone() for name, value in module.state_dict().items()}
    modes = Modes()
    trainer = Trainer(
        accelerator="cpu",
        max_epochs=2,
        num_sanity_val_steps=1,
        callbacks=[modes, *[ExponentialMovingAverage(decay=0.5)] * average],
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        default_root_dir=tmp_path,
    )
    trainer.fit(module, batches(), batches(with_objects=False))

    assert modes.norms == [False] * 4
    assert modes.module == [True] * 4
    assert modes.validated == 1 + 2 * 2
    after = module.state_dict()
    same = {name for name, value in before.items() if torch.equal(after[name], value)}
    frozen = {name for name in before if name.startswith(FROZEN) or name.endswith(STATISTICS)}
    assert frozen <= same
    later = {name for name in before if ".layer2." in name and name.endswith(".weight")}
    assert len(later) == 4 * 6 + 2 + 4 * (overrides is SMALL_DEFORMABLE)
    assert not later & same  # the weights of BatchNorm there train
