"""The moving average of the weights: computed by hand, validated, saved, gone on with."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from hydra.utils import instantiate
from lightning import Callback, LightningModule, Trainer
from lightning.pytorch.callbacks import ModelCheckpoint
from torch import Tensor, nn
from torch.utils.data import DataLoader

from src.callbacks.training_steps import ExponentialMovingAverage
from src.errors import InputError
from src.mmdet_bridge.checkpoints.reading import load_state_dict
from tests.helpers.configs import compose_config

DECAY = 0.9
BATCHES, EPOCHS, ACCUMULATED = 6, 3, 2
Weights = dict[str, Tensor]


class Model(LightningModule):
    """A layer that trains, a frozen one, and BatchNorm that keeps its statistics."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.layer = nn.Linear(3, 3)
        self.frozen = nn.Linear(3, 3).requires_grad_(False)
        self.norm = nn.BatchNorm1d(3).eval()
        assert self.norm.running_mean is not None
        self.norm.running_mean.copy_(torch.rand(3))

    def training_step(self, batch: Tensor, batch_index: int) -> Tensor:
        return self.norm(self.frozen(self.layer(batch))).square().mean()

    def validation_step(self, batch: Tensor, batch_index: int) -> None:
        self.log("score", self.layer.weight.sum())

    def configure_optimizers(self) -> Any:
        return torch.optim.SGD(self.layer.parameters(), lr=0.3, momentum=0.9)


def copied(module: LightningModule) -> Weights:
    return {name: value.clone() for name, value in module.state_dict().items()}


class Watch(Callback):
    """The weights after every optimizer step, those of every validation, those gone on with."""

    def __init__(self) -> None:
        self.stepped: list[Weights] = []
        self.validated: list[Weights] = []
        self.going_on: list[Weights] = []

    def on_train_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self.going_on.append(copied(pl_module))

    def on_train_batch_end(self, trainer: Trainer, pl_module: LightningModule, *_: Any) -> None:
        if trainer.global_step > len(self.stepped):
            self.stepped.append(copied(pl_module))

    def on_validation_batch_end(self, trainer: Trainer, module: LightningModule, *_: Any) -> None:
        self.validated.append(copied(module))


def run(folder: Path, *, epochs: int, resume: Path | None = None) -> tuple[Model, Watch]:
    module, watch = Model(), Watch()
    trainer = Trainer(
        accelerator="cpu",
        max_epochs=epochs,
        accumulate_grad_batches=ACCUMULATED,
        num_sanity_val_steps=0,
        callbacks=[
            watch,
            ModelCheckpoint(folder, "epoch_{epoch}", save_top_k=-1, auto_insert_metric_name=False),
            ModelCheckpoint(folder, "best", monitor="score", enable_version_counter=False),
            ExponentialMovingAverage(decay=DECAY),
        ],
        logger=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        default_root_dir=folder,
    )
    data = torch.rand(BATCHES, 4, 3, generator=torch.Generator().manual_seed(1))
    loader: Any = DataLoader(data, batch_size=None)  # type: ignore[arg-type]
    validation: Any = DataLoader(data[:1], batch_size=None)  # type: ignore[arg-type]
    trainer.fit(module, loader, validation, ckpt_path=None if resume is None else str(resume))
    return module, watch


def averages(stepped: list[Weights]) -> list[Weights]:
    """By the formula, in float64, after every step."""
    average = {name: value.double() for name, value in stepped[0].items()}
    found = [average]
    for weights in stepped[1:]:
        average = {
            name: DECAY * average[name] + (1 - DECAY) * value.double()
            for name, value in weights.items()
        }
        found.append(average)
    return found


def assert_close(found: Weights, expected: Weights) -> None:
    assert found.keys() == expected.keys()
    for name, value in expected.items():
        torch.testing.assert_close(found[name].double(), value, rtol=1e-6, atol=1e-7)


def assert_equal(found: Weights, expected: Weights) -> None:
    assert found.keys() == expected.keys()
    assert [name for name in expected if not torch.equal(found[name], expected[name])] == []


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Model, Watch]:
    folder = tmp_path_factory.mktemp("run")
    return folder, *run(folder, epochs=EPOCHS)


def test_is_the_formula_of_the_weights_after_every_optimizer_step(
    finished: tuple[Path, Model, Watch],
) -> None:
    _, module, watch = finished
    assert len(watch.stepped) == EPOCHS * BATCHES // ACCUMULATED
    assert not torch.equal(watch.stepped[0]["layer.weight"], watch.stepped[-1]["layer.weight"])
    assert_close(copied(module), averages(watch.stepped)[-1])


def test_validates_with_the_average_and_trains_on_with_the_weights(
    finished: tuple[Path, Model, Watch],
) -> None:
    _, _, watch = finished
    steps = BATCHES // ACCUMULATED
    assert len(watch.validated) == EPOCHS
    for epoch, validated in enumerate(watch.validated):
        assert_close(validated, averages(watch.stepped)[(epoch + 1) * steps - 1])
    for epoch in range(1, EPOCHS):
        assert_equal(watch.going_on[epoch], watch.stepped[epoch * steps - 1])


def test_what_does_not_train_stays_as_it_is_to_the_bit(
    finished: tuple[Path, Model, Watch],
) -> None:
    _, module, _ = finished
    start, end = copied(Model()), copied(module)
    for name in start:
        if not name.startswith("layer."):
            assert torch.equal(end[name], start[name]), name


def test_checkpoints_hold_the_average_where_prediction_looks(
    finished: tuple[Path, Model, Watch],
) -> None:
    folder, _, watch = finished
    steps = BATCHES // ACCUMULATED
    for epoch in range(EPOCHS):
        path = folder / f"epoch_{epoch}.ckpt"
        assert_equal(load_state_dict(path), watch.validated[epoch])
        content = torch.load(path, weights_only=True)
        assert_equal(content["current_model_state"], watch.stepped[(epoch + 1) * steps - 1])
    sums = [float(validated["layer.weight"].sum()) for validated in watch.validated]
    assert_equal(load_state_dict(folder / "best.ckpt"), watch.validated[sums.index(min(sums))])


def test_a_run_that_goes_on_gives_the_same_average(
    finished: tuple[Path, Model, Watch], tmp_path: Path
) -> None:
    folder, module, watch = finished
    resumed, _ = run(tmp_path, epochs=EPOCHS, resume=folder / "epoch_0.ckpt")
    assert_equal(copied(resumed), copied(module))
    last = f"epoch_{EPOCHS - 1}.ckpt"
    content = torch.load(tmp_path / last, weights_only=True)
    assert_equal(content["current_model_state"], watch.stepped[-1])
    assert_equal(content["state_dict"], load_state_dict(folder / last))


def test_the_average_is_where_the_model_is() -> None:
    """Lightning makes it before the model is moved to its device."""
    callback, module = ExponentialMovingAverage(), Model()
    trainer: Any = None
    callback.setup(trainer, module, "fit")
    callback.on_fit_start(trainer, module.to("meta"))
    assert callback._average_model is not None
    assert {value.device.type for value in callback._average_model.parameters()} == {"meta"}


@pytest.mark.parametrize("decay", [0.0, 1.0, -0.5])
def test_wrong_decay_is_named(decay: float) -> None:
    with pytest.raises(
        InputError, match=rf"callbacks.ema.decay must be above 0 and below 1, got {decay}"
    ):
        ExponentialMovingAverage(decay=decay)


def test_the_command_line_adds_it_to_the_other_callbacks() -> None:
    def callbacks(*overrides: str) -> Any:
        return compose_config(
            "train", ["+experiment=htc_x101", *overrides, "paths.output_dir=unused"]
        ).callbacks

    usual, more = callbacks(), callbacks("+callbacks=ema", "callbacks.ema.decay=0.99")
    assert set(more) - set(usual) == {"ema"}
    assert all(more[name] == usual[name] for name in usual)
    assert isinstance(instantiate(more.ema), ExponentialMovingAverage)
