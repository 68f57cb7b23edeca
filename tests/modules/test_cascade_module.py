"""The LightningModule in Lightning's hands: training, validation, prediction, checkpoints."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hydra.utils import instantiate
from lightning import Callback, LightningModule, Trainer
from torch.utils.data import DataLoader

from src.errors import InputError
from src.mmdet_bridge.cascade.detectors import collate, make_instances, make_sample
from src.modules.cascade import CascadeModule
from tests.helpers.cascades import SMALL, compose_module, make_batch, spread_scores


def small_module(*overrides: str, **arguments: Any) -> CascadeModule:
    torch.manual_seed(0)
    config = compose_module("htc_tiny", *SMALL, *overrides, scheduler="warmup_cosine")
    module = instantiate(config.module, **arguments)
    assert isinstance(module, CascadeModule)
    return module


def make_trainer(folder: Path, **options: Any) -> Trainer:
    return Trainer(
        accelerator="cpu",
        logger=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        default_root_dir=folder,
        **options,
    )


def loader(*, batches: int = 2, with_objects: bool = True) -> Any:
    return DataLoader(
        [make_batch(seed=seed, with_objects=with_objects) for seed in range(batches)],  # type: ignore[arg-type]
        batch_size=None,
    )


class Gather(Callback):
    """Keeps what steps hand to callbacks."""

    def __init__(self) -> None:
        self.validated: list[Any] = []
        self.predicted: list[Any] = []
        self.rates: list[float] = []

    def on_validation_batch_end(self, trainer: Trainer, module: Any, outputs: Any, *_: Any) -> None:
        self.validated += outputs

    def on_predict_batch_end(self, trainer: Trainer, module: Any, outputs: Any, *_: Any) -> None:
        self.predicted += outputs

    def on_train_batch_start(self, trainer: Trainer, *_: Any) -> None:
        self.rates.append(trainer.optimizers[0].param_groups[0]["lr"])


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> tuple[CascadeModule, Gather, Path]:
    folder = tmp_path_factory.mktemp("run")
    module, gather = small_module(), Gather()
    trainer = make_trainer(folder, max_epochs=3, accumulate_grad_batches=2, callbacks=[gather])
    trainer.fit(module, loader(batches=4), loader(with_objects=False))
    trainer.save_checkpoint(folder / "trained.ckpt")
    return module, gather, folder / "trained.ckpt"


def test_validation_hands_candidates_to_callbacks(
    trained: tuple[CascadeModule, Gather, Path],
) -> None:
    _, gather, _ = trained
    # Two of the sanity check and two of each epoch, two images in each.
    assert [found.image_id for found in gather.validated] == ["image0", "image1"] * (2 + 3 * 2)
    assert all(len(found) for found in gather.validated)


def test_schedule_steps_with_the_optimizer_over_the_whole_run(
    trained: tuple[CascadeModule, Gather, Path],
) -> None:
    _, gather, _ = trained
    # 3 epochs x 4 batches / 2 accumulated = 6 optimizer steps; the YAML warms up over 50.
    expected = [5e-4 * (1 - (1 - step / 50) * 0.9) for step in range(6) for _ in range(2)]
    assert gather.rates == pytest.approx(expected)


def test_checkpoint_is_plain_data_and_rebuilds_the_module(
    trained: tuple[CascadeModule, Gather, Path],
) -> None:
    module, _, path = trained
    content = torch.load(path, map_location="cpu", weights_only=True)
    assert content["hyper_parameters"]["detector"]["backbone"]["depth"] == 18
    rebuilt = CascadeModule(**content["hyper_parameters"], init_weights=False)
    rebuilt.load_weights(content["state_dict"])
    batch = make_batch(with_objects=False)
    expected = module.eval().predict_step(batch, 0)
    found = rebuilt.eval().predict_step(make_batch(with_objects=False), 0)
    for one, other in zip(found, expected, strict=True):
        assert np.array_equal(one.scores, other.scores)
        assert np.array_equal(one.mask_probabilities, other.mask_probabilities)


def test_prediction_through_a_trainer(tmp_path: Path) -> None:
    module = small_module("module.max_candidates=7", category_ids=[2, 4, 6, 8, 10])
    spread_scores(module.detector)
    gather = Gather()
    trainer = make_trainer(tmp_path, callbacks=[gather])
    trainer.predict(module, loader(with_objects=False), return_predictions=False)
    assert [found.image_id for found in gather.predicted] == ["image0", "image1"] * 2
    for found in gather.predicted:
        assert len(found) == 7
        assert set(found.category_ids.tolist()) <= {2, 4, 6, 8, 10}


def test_the_preprocessor_follows_the_detector_to_its_device() -> None:
    """mmengine's preprocessor keeps a device of its own, which Lightning's moves do not reach."""
    module = small_module()
    module.detector.data_preprocessor._device = torch.device("meta")
    assert module.eval().predict_step(make_batch(with_objects=False), 0)


def test_nothing_but_plain_values_is_saved() -> None:
    module = small_module()
    buffer = io.BytesIO()
    torch.save(dict(module.hparams), buffer)
    buffer.seek(0)
    assert set(torch.load(buffer, weights_only=True)) == {
        "base_batch_size",
        "category_ids",
        "channels_last",
        "class_names",
        "detector",
        "mask_stages",
        "max_candidates",
        "num_classes",
        "min_score",
    }


@pytest.mark.parametrize(
    ("key", "value", "message"),
    [
        ("category_ids", [1, 2], "module.category_ids must be 5 different ids, .*, got 2"),
        ("category_ids", [1, 2, 3, 4, 4], "5 different ids, .*, got 5, 4 of them different"),
        ("base_batch_size", 0, "base_batch_size must be a .* 1, or null for no scaling, got 0"),
        ("min_score", 1.0, "module.min_score must be a number from 0, below 1, got 1.0"),
        ("max_candidates", 0, "module.max_candidates must be a whole number of at least 1, got 0"),
        ("mask_stages", "first", "module.mask_stages must be one of all, last, got 'first'"),
        ("num_classes", 4, "bbox_head.0.num_classes must be 4, .*, got 5"),
    ],
)
def test_wrong_values_are_named(key: str, value: Any, message: str) -> None:
    with pytest.raises(InputError, match=message):
        CascadeModule(**{**small_module().hparams, key: value})


def test_training_without_an_optimizer_is_refused(tmp_path: Path) -> None:
    module: LightningModule = CascadeModule(**small_module().hparams)
    with pytest.raises(InputError, match="optimizer must be given to train"):
        make_trainer(tmp_path, max_steps=1).fit(module, loader())


@pytest.mark.parametrize("batches", [1, 2, 3, 4, 5])
def test_an_incomplete_accumulation_is_a_mean_of_what_is_there(
    batches: int, tmp_path: Path
) -> None:
    module = small_module()
    weight = next(p for p in module.detector.parameters() if p.requires_grad)
    values = iter([1.0, 3.0, 5.0, 7.0, 11.0])
    module.detector.loss = lambda *_: {"loss_a": weight.flatten()[0] * next(values)}
    module.make_optimizer = lambda parameters: torch.optim.SGD(parameters, lr=1.0)
    module.make_scheduler = None
    before = weight.flatten()[0].item()
    make_trainer(
        tmp_path,
        max_epochs=1,
        accumulate_grad_batches=2,
        limit_val_batches=0,
        enable_checkpointing=False,
    ).fit(module, loader(batches=batches))
    updates = {1: 1, 2: 2, 3: 2 + 5, 4: 2 + 6, 5: 2 + 6 + 11}[batches]
    assert before - weight.flatten()[0].item() == pytest.approx(updates, rel=1e-5)


def test_a_batch_without_an_anchor_names_its_images() -> None:
    image = np.zeros((10, 200, 3), dtype=np.uint8)
    nothing = make_instances(
        labels=np.zeros(0, dtype=np.int64),
        boxes_xyxy=np.zeros((0, 4), dtype=np.float32),
        masks=np.zeros((0, 10, 200), dtype=np.uint8),
    )
    names = {"image_id": "narrow\n.jpg", "image_path": "narrow.jpg", "original_hw": (10, 200)}
    batch = collate([make_sample(image=image, instances=nothing, **names)])  # type: ignore[arg-type]
    module = small_module()
    message = r"no anchor lies inside an image of this batch: narrow\\n\.jpg \(10x200 px\); raise"
    with pytest.raises(InputError, match=message):
        module.training_step(batch, 0)
    assert len(module.eval().predict_step(batch, 0)) == 1  # prediction needs no anchor inside
