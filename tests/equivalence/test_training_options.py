"""Mixed precision, channels last and accumulation: the same training, faster or in parts."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import pytest
import torch
from hydra.utils import instantiate
from lightning import Callback, Trainer
from torch import Tensor
from torch.utils.data import DataLoader

from src.modules.cascade import CascadeModule
from tests.helpers.cascades import SMALL, SMALL_DEFORMABLE, compose_module, make_batch

MODELS = [
    pytest.param("htc_tiny", SMALL, id="tiny"),
    pytest.param("htc_r50", SMALL_DEFORMABLE, id="deformable"),
]
ALL_ROIS = (
    "module.detector.sizes.training_rois=1000"  # no draw among proposals that differ a little
)
CLIP_NORM = 35.0


def make_module(name: str, overrides: tuple[str, ...], *more: str) -> CascadeModule:
    torch.manual_seed(0)
    config = compose_module(name, *overrides, *more, optimizer="sgd", scheduler="none")
    module = instantiate(config.module)
    assert isinstance(module, CascadeModule)
    generator = torch.Generator().manual_seed(1)
    for key, parameter in module.named_parameters():
        if "conv_offset" in key:  # zero at first, and then a plain convolution
            parameter.data.copy_(torch.randn(parameter.shape, generator=generator) * 0.05)
    return module


def step(module: CascadeModule, *, autocast: torch.dtype | None = None) -> dict[str, Tensor]:
    """Losses and gradients of one step, by name."""
    found: dict[str, Tensor] = {}
    module.log = lambda *_, **__: None  # type: ignore[method-assign]
    module.log_dict = lambda values, **_: found.update(values)  # type: ignore[method-assign]
    torch.manual_seed(2)  # RoIs are sampled at random
    with torch.autocast("cpu", dtype=autocast or torch.bfloat16, enabled=autocast is not None):
        loss = module.training_step(make_batch(), 0)
    loss.backward()
    losses = {name: value for name, value in found.items() if "acc" not in name}
    gradients = [p.grad.flatten() for p in module.parameters() if p.grad is not None]
    return {**losses, "loss": loss.detach(), "gradient": torch.cat(gradients).double()}


@pytest.mark.parametrize(
    ("dtype", "cosine", "longer"),
    [
        pytest.param(torch.bfloat16, 0.98, 0.15, id="bfloat16"),  # a mantissa of 8 bits
        pytest.param(torch.float16, 0.999, 0.02, id="float16", marks=pytest.mark.slow),
    ],
)
@pytest.mark.parametrize(("name", "overrides"), MODELS)
def test_losses_under_autocast_are_near_those_of_float32(
    name: str, overrides: tuple[str, ...], dtype: torch.dtype, cosine: float, longer: float
) -> None:
    exact = step(make_module(name, overrides, ALL_ROIS))
    found = step(make_module(name, overrides, ALL_ROIS), autocast=dtype)
    gradient, expected = found.pop("gradient"), exact.pop("gradient")
    assert len(found) == 2 + 3 * 3 + 1  # of the RPN, of each stage, and their sum
    for loss, value in found.items():
        assert value.dtype == torch.float32
        assert float(value) == pytest.approx(float(exact[loss]), rel=0.005, abs=0.001), loss
    assert float(torch.cosine_similarity(gradient, expected, dim=0)) > cosine
    assert float(gradient.norm() / expected.norm()) == pytest.approx(1, abs=longer)


@pytest.mark.parametrize(("name", "overrides"), MODELS)
def test_channels_last_is_the_same_model(name: str, overrides: tuple[str, ...]) -> None:
    usual = make_module(name, overrides)
    other = make_module(name, overrides, "module.channels_last=true")
    weights = dict(other.named_parameters())
    for key, weight in usual.named_parameters():
        assert torch.equal(weights[key], weight)
        if weight.dim() == 4:
            assert weights[key].is_contiguous(memory_format=torch.channels_last), key
    expected, found = step(usual), step(other)
    for key, value in expected.items():
        if key != "gradient":
            torch.testing.assert_close(found[key], value, rtol=1e-5, atol=1e-6)
    difference = (found["gradient"] - expected["gradient"]).norm()
    assert float(difference / expected["gradient"].norm()) < 5e-4
    images = torch.rand(2, 3, 64, 96)
    with torch.inference_mode():
        for level, wanted in zip(
            other.eval().detector.extract_feat(images),
            usual.eval().detector.extract_feat(images),
            strict=True,
        ):
            torch.testing.assert_close(level, wanted, rtol=1e-4, atol=1e-5)


class SeedEachBatch(Callback):
    """Both loops draw the same RoIs, whatever else draws random numbers between batches."""

    def on_train_batch_start(self, trainer: Trainer, module: Any, batch: Any, index: int) -> None:
        torch.manual_seed(100 * trainer.current_epoch + index)


class Losses(Callback):
    def __init__(self) -> None:
        self.seen: list[float] = []

    def on_train_batch_end(self, trainer: Trainer, module: Any, outputs: Any, *_: Any) -> None:
        self.seen.append(float(outputs["loss"]))


def fit(module: CascadeModule, folder: Path, **options: Any) -> list[float]:
    losses = Losses()
    trainer = Trainer(
        accelerator="cpu",
        gradient_clip_val=CLIP_NORM,
        callbacks=[SeedEachBatch(), losses],
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        default_root_dir=folder,
        **options,
    )
    batches = [make_batch(seed=seed) for seed in range(6)]
    trainer.fit(module, DataLoader(batches, batch_size=None))  # type: ignore[arg-type]
    return losses.seen


@pytest.mark.parametrize(("name", "overrides"), MODELS)
def test_lightnings_bf16_trains_as_float32_does(
    name: str, overrides: tuple[str, ...], tmp_path: Path
) -> None:
    mixed = make_module(name, overrides, ALL_ROIS)
    found = fit(mixed, tmp_path, max_steps=3, precision="bf16-mixed")
    expected = fit(make_module(name, overrides, ALL_ROIS), tmp_path, max_steps=3)
    assert {parameter.dtype for parameter in mixed.parameters()} == {torch.float32}
    assert found == pytest.approx(expected, rel=0.05)
    assert found[-1] < 0.9 * found[0]


@pytest.mark.parametrize("accumulated", [3, pytest.param(2, marks=pytest.mark.slow)])
def test_accumulated_batches_are_the_averaged_gradients_of_a_plain_loop(
    accumulated: int, tmp_path: Path
) -> None:
    module = make_module("htc_tiny", SMALL)
    detector = copy.deepcopy(module.detector)
    fit(module, tmp_path, max_epochs=2, accumulate_grad_batches=accumulated)

    parameters = [parameter for parameter in detector.parameters() if parameter.requires_grad]
    optimizer = torch.optim.SGD(parameters, lr=0.03, momentum=0.9, weight_decay=1e-4)
    for epoch in range(2):
        for first in range(0, 6, accumulated):
            optimizer.zero_grad()
            for index in range(first, first + accumulated):
                torch.manual_seed(100 * epoch + index)
                data = detector.data_preprocessor(make_batch(seed=index), True)
                loss, _ = detector.parse_losses(detector(**data, mode="loss"))
                (loss / accumulated).backward()
            torch.nn.utils.clip_grad_norm_(parameters, CLIP_NORM)
            optimizer.step()

    found, expected = module.detector.state_dict(), detector.state_dict()
    assert found.keys() == expected.keys()
    assert [name for name in expected if not torch.equal(found[name], expected[name])] == []
