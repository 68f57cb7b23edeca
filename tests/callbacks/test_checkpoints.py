"""Which checkpoints are kept, under which names, by the callbacks as they are configured."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from hydra.utils import instantiate
from lightning import Callback, Trainer

from src.callbacks.checkpoints import BestLink
from src.cli.training import best_score
from tests.helpers.configs import compose_config
from tests.helpers.trainers import Scored, make_trainer


def fit(folder: Path, scores: list[float], **options: Any) -> Trainer:
    config = compose_config("train", [f"paths.output_dir={folder}"]).callbacks
    trainer = Trainer(
        accelerator="cpu",
        max_epochs=len(scores),
        limit_train_batches=1,
        callbacks=[instantiate(config.best_link), instantiate(config.best_checkpoint)],
        logger=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        default_root_dir=folder,
        **({"limit_val_batches": 1, "num_sanity_val_steps": 0} | options),
    )
    trainer.fit(Scored(scores))
    return trainer


def test_the_three_best_are_kept_and_the_first_is_linked(tmp_path: Path) -> None:
    trainer = fit(tmp_path, [0.1, 0.30004, 0.2, 0.25, 0.05])
    folder = tmp_path / "checkpoints"
    assert sorted(path.name for path in folder.iterdir()) == [
        "best.ckpt",
        "best_epoch_01_score_0.3000.ckpt",
        "best_epoch_02_score_0.2000.ckpt",
        "best_epoch_03_score_0.2500.ckpt",
    ]
    assert str((folder / "best.ckpt").readlink()) == "best_epoch_01_score_0.3000.ckpt"
    assert torch.load(folder / "best.ckpt", weights_only=True)["epoch"] == 1
    assert best_score(trainer) == pytest.approx(0.30004)


def test_the_link_moves_to_a_better_one(tmp_path: Path) -> None:
    fit(tmp_path, [0.1, 0.2])
    link = tmp_path / "checkpoints" / "best.ckpt"
    assert str(link.readlink()) == "best_epoch_01_score_0.2000.ckpt"


@pytest.mark.parametrize("options", [{"limit_val_batches": 0}, {"check_val_every_n_epoch": 5}])
def test_validation_can_be_left_out(tmp_path: Path, options: dict[str, Any]) -> None:
    trainer = fit(tmp_path, [0.1, 0.2], **options)
    assert trainer.current_epoch == 2
    assert not list(tmp_path.glob("checkpoints/best*"))
    assert best_score(trainer) is None


@pytest.mark.parametrize("name", ["htc_x101"])
def test_the_competitions_experiments_validate_on_all_images_after_every_epoch(name: str) -> None:
    config = compose_config("train", [f"+experiment={name}", "paths.output_dir=nowhere"])
    assert config.trainer.check_val_every_n_epoch == 1
    assert config.trainer.limit_val_batches == 1.0
    assert config.callbacks.best_checkpoint.monitor == "validation/competition_map"
    # S7: one an epoch, too, and after the best, whose scores it holds
    names = list(config.callbacks)
    assert names.index("best_checkpoint") < names.index("run_checkpoint")
    # S8 for COCO's metric, whatever the competition's thresholds are
    evaluator = config.callbacks.evaluator
    assert evaluator.metrics.coco_average_precision.settings.score_threshold == 0.001
    assert evaluator.metrics.coco_average_precision.settings.nms_iou_threshold == 0.5
    assert evaluator.settings == config.postprocess


class ValidatedSteps(Callback):
    def __init__(self) -> None:
        self.steps: list[int] = []

    def on_validation_end(self, trainer: Trainer, _: Any) -> None:
        self.steps.append(trainer.global_step)


@pytest.mark.parametrize(
    ("max_steps", "others", "last"),
    [
        (12, {}, 10),  # epochs of five steps
        (10, {}, None),
        (4, {}, None),  # no validation at all: nothing to be best
        (12, {"max_epochs": 2}, None),  # ends by its epochs
        (12, {"check_val_every_n_epoch": 2}, 10),
        (18, {"check_val_every_n_epoch": 2}, 10),
        (12, {"check_val_every_n_epoch": 3}, None),
        (8, {"accumulate_grad_batches": 2}, 6),
    ],
)
def test_steps_behind_the_last_validation_are_named(
    max_steps: int, others: dict[str, Any], last: int | None, caplog: pytest.LogCaptureFixture
) -> None:
    seen = ValidatedSteps()
    trainer = make_trainer(
        max_steps=max_steps,
        limit_train_batches=5,
        limit_val_batches=1,
        callbacks=[BestLink(monitor="validation/competition_map"), seen],
        **others,
    )
    trainer.fit(Scored([0.1] * 10))
    warned = [record.getMessage() for record in caplog.records if "best.ckpt" in record.message]
    behind = f"trainer.max_steps={max_steps}: the last validation is after step {last}, so best"
    assert [text.startswith(behind) for text in warned] == [True] * (last is not None)
    if last is not None:
        assert seen.steps[-1] == last < trainer.global_step == max_steps
