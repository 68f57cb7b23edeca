"""Training through Lightning is training of mmdet's model."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import pytest
import torch
from hydra.utils import instantiate
from lightning import Callback, Trainer
from torch.utils.data import DataLoader

from src.modules.cascade import CascadeModule
from tests.helpers.cascades import SMALL, compose_module, make_batch

STEPS = 20
CLIP_NORM = 35.0


def small_module() -> CascadeModule:
    config = compose_module("htc_tiny", *SMALL, optimizer="sgd", scheduler="warmup_multistep")
    config.scheduler.warmup_steps = 6
    config.scheduler.milestone_epochs = [2, 3]  # of epochs of five batches
    torch.manual_seed(0)
    module = instantiate(config.module)
    assert isinstance(module, CascadeModule)
    return module


def batches() -> list[Any]:
    return [make_batch(seed=seed) for seed in range(5)]


def mmdets_loss(detector: Any, batch: Any) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
    """As mmengine's ``BaseModel.train_step`` computes it."""
    data = detector.data_preprocessor(batch, True)
    loss, parts = detector.parse_losses(detector(**data, mode="loss"))
    return loss, parts


def test_losses_of_a_step_equal_mmdets(monkeypatch: pytest.MonkeyPatch) -> None:
    module = small_module()
    logged: dict[str, float] = {}
    monkeypatch.setattr(module, "log", lambda name, value, **_: logged.update({name: float(value)}))
    monkeypatch.setattr(
        module,
        "log_dict",
        lambda values, **_: logged.update({k: float(v) for k, v in values.items()}),
    )
    torch.manual_seed(1)  # RoIs are sampled at random
    loss = module.training_step(make_batch(), 0)
    torch.manual_seed(1)
    expected, parts = mmdets_loss(module.detector, make_batch())
    assert torch.equal(loss, expected)
    assert logged == {f"train/{name}": float(value) for name, value in parts.items()}
    for stage in range(3):
        for part in ("loss_cls", "loss_bbox", "loss_mask"):
            assert f"train/s{stage}.{part}" in logged


class SeedEachStep(Callback):
    """Both loops draw the same RoIs, whatever else draws random numbers between steps."""

    def on_train_batch_start(self, trainer: Trainer, *_: Any) -> None:
        torch.manual_seed(trainer.global_step)


def learning_rate_factor(step: int) -> float:
    """S7 written out for the test's numbers: warm-up over 6 steps, drops after 10 and 15 steps."""
    warm = 1 / 3 + (2 / 3) * step / 6 if step < 6 else 1.0
    return warm * (1.0 if step < 10 else 0.1 if step < 15 else 0.01)


def test_twenty_steps_by_lightning_give_the_weights_of_a_plain_loop(tmp_path: Path) -> None:
    module = small_module()
    detector = copy.deepcopy(module.detector).train()

    trainer = Trainer(
        accelerator="cpu",
        max_epochs=4,
        gradient_clip_val=CLIP_NORM,
        callbacks=[SeedEachStep()],
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        default_root_dir=tmp_path,
    )
    trainer.fit(module, DataLoader(batches(), batch_size=None))  # type: ignore[arg-type]
    assert trainer.global_step == STEPS

    parameters = [parameter for parameter in detector.parameters() if parameter.requires_grad]
    optimizer = torch.optim.SGD(parameters, lr=0.03, momentum=0.9, weight_decay=1e-4)
    losses = []
    for step in range(STEPS):
        optimizer.param_groups[0]["lr"] = 0.03 * learning_rate_factor(step)
        torch.manual_seed(step)
        loss, _ = mmdets_loss(detector, batches()[step % 5])
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(parameters, CLIP_NORM)
        optimizer.step()
        losses.append(loss.item())

    found = module.detector.state_dict()
    expected = detector.state_dict()
    assert found.keys() == expected.keys()
    different = [name for name in expected if not torch.equal(found[name], expected[name])]
    assert different == []
    assert losses[-1] < losses[0]  # it is a training that goes somewhere
