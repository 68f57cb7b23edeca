"""Losses that are not finite: skipped, named, and the end of a run after too many."""

from __future__ import annotations

import logging
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import lightning
import pytest
import torch
from torch.utils.data import DataLoader

from src.callbacks.checkpoints import AtomicCheckpointIO
from src.callbacks.training_steps import FiniteLoss
from src.errors import InputError

NAN, INF = float("nan"), float("inf")


class OneWeight(lightning.LightningModule):
    """Its loss is the weight times a number of the batch, in two terms."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = torch.nn.Parameter(torch.tensor(10.0))
        self.loss_terms: dict[str, torch.Tensor] = {}

    def training_step(self, batch: dict[str, Any], _: int) -> torch.Tensor:
        loss = self.weight * batch["factor"]
        self.loss_terms = {"s0.loss_cls": loss.detach(), "s0.loss_bbox": torch.tensor(1.0)}
        return loss + 1

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.SGD(self.parameters(), lr=1.0, momentum=0.9)


def fit(
    folder: Path, factors: list[float], *, tolerated: int, accumulated: int = 1, **options: Any
) -> float:
    batches = [
        {"factor": torch.tensor(factor), "data_samples": [SimpleNamespace(img_id=f"{n}\x1b.jpg")]}
        for n, factor in enumerate(factors)
    ]
    module = OneWeight()
    trainer = lightning.Trainer(
        accelerator="cpu",
        max_epochs=1,
        accumulate_grad_batches=accumulated,
        callbacks=[FiniteLoss(tolerated_in_a_row=tolerated)],
        logger=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        enable_checkpointing=False,
        default_root_dir=folder,
        **options,
    )
    try:
        trainer.fit(module, DataLoader(batches, batch_size=None))  # type: ignore[arg-type]
    finally:
        assert torch.isfinite(module.weight)
    return float(module.weight.detach())


@pytest.mark.parametrize("bad", [NAN, INF, -INF])
def test_a_bad_step_is_left_out_and_named(
    bad: float, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.WARNING):
        weight = fit(tmp_path, [1.0, bad, 1.0], tolerated=1)
    assert weight == fit(tmp_path, [1.0, 1.0], tolerated=0)  # momentum did not move it either
    expected = f"step 1: not finite: s0.loss_cls={bad:g} on 1\\x1b.jpg; the step is left out"
    assert expected in caplog.text


def test_too_many_in_a_row_end_the_run(tmp_path: Path) -> None:
    with pytest.raises(
        InputError,
        match=r"step 2: not finite: s0\.loss_cls=nan on 2.*; 2 step\(s\) in a row, "
        r"callbacks\.finite_loss\.tolerated_in_a_row=1\. The weights are those of the last finite",
    ):
        fit(tmp_path, [1.0, NAN, NAN, 1.0], tolerated=1)
    with pytest.raises(InputError, match=r"step 0: .*1 step\(s\) in a row"):
        fit(tmp_path, [INF], tolerated=0)
    fit(tmp_path, [NAN, 1.0, NAN, 1.0, NAN], tolerated=1)  # never two in a row


def test_a_bad_batch_spoils_the_accumulation_it_is_in(tmp_path: Path) -> None:
    factors = [1.0, NAN, 3.0, 5.0]
    assert fit(tmp_path, factors, tolerated=1, accumulated=2) == pytest.approx(10 - 4)


def test_a_finite_loss_with_a_bad_gradient_is_left_out_too(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    class Root(OneWeight):
        def training_step(self, batch: dict[str, Any], _: int) -> torch.Tensor:
            return (self.weight - 10).sqrt() * batch["factor"]

    module = Root()
    with caplog.at_level(logging.WARNING):
        lightning.Trainer(
            accelerator="cpu",
            max_steps=1,
            callbacks=[FiniteLoss(tolerated_in_a_row=3)],
            logger=False,
            enable_progress_bar=False,
            enable_model_summary=False,
            enable_checkpointing=False,
            default_root_dir=tmp_path,
        ).fit(
            module,
            DataLoader(
                [{"factor": torch.tensor(1.0), "data_samples": []}],  # type: ignore[arg-type]
                batch_size=None,
            ),
        )
    assert module.weight == 10
    assert "the gradient (the loss is finite on this process); the step is left out" in caplog.text


@pytest.mark.parametrize("value", [-1, 1.5, "3"])
def test_a_wrong_count_is_named(value: Any) -> None:
    message = "callbacks.finite_loss.tolerated_in_a_row must be a whole number of at least 0, got "
    with pytest.raises(InputError, match=message):
        FiniteLoss(tolerated_in_a_row=value)


def test_weights_that_are_not_finite_are_not_saved(tmp_path: Path) -> None:
    """Batch statistics, say, which no optimizer step writes: the checkpoint before them stands."""
    path = tmp_path / "last.ckpt"
    files = AtomicCheckpointIO()
    files.save_checkpoint({"state_dict": {"bn.running_mean": torch.ones(2)}}, path)
    before = path.read_bytes()
    with pytest.raises(
        InputError, match=r"last\.ckpt: weights must be finite, got nan or infinite "
    ):
        files.save_checkpoint({"state_dict": {"bn.running_mean": torch.tensor([1, NAN])}}, path)
    assert path.read_bytes() == before
    assert [file.name for file in tmp_path.iterdir()] == ["last.ckpt"]
