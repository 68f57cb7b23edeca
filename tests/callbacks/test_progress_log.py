"""What a log says of a training that no terminal shows."""

from __future__ import annotations

import logging
import sys
from pathlib import Path

import pytest
from hydra.utils import instantiate
from lightning import Trainer

from tests.helpers.configs import compose_config
from tests.helpers.trainers import Scored


def fit(folder: Path, *, every_seconds: float, predict: bool = False) -> Trainer:
    config = compose_config(
        "train",
        [f"paths.output_dir={folder}", f"callbacks.progress_log.every_seconds={every_seconds}"],
    )
    callbacks = [instantiate(config.callbacks[name]) for name in ("progress", "progress_log")]
    trainer = Trainer(
        accelerator="cpu",
        max_epochs=1,
        limit_train_batches=2,
        limit_val_batches=2,
        limit_predict_batches=2,
        num_sanity_val_steps=0,
        callbacks=callbacks,
        logger=False,
        enable_checkpointing=False,
        enable_model_summary=False,
        default_root_dir=folder,
    )
    if predict:
        trainer.predict(Scored([0.125]), return_predictions=False)
    else:
        trainer.fit(Scored([0.125]))
    return trainer


def test_lines_instead_of_bars_where_there_is_no_terminal(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, capsys: pytest.CaptureFixture[str]
) -> None:
    with caplog.at_level(logging.INFO, logger="src"):
        fit(tmp_path, every_seconds=0.0)
    lines = [record.getMessage().strip() for record in caplog.records if record.name[:3] == "src"]
    assert lines == [
        "epoch 0: 1 of 2 batches",
        "epoch 0: 2 of 2 batches",
        "validation: 1 of 2 batches",
        "validation: 2 of 2 batches",
        "epoch 0: validation/competition_map 0.1250",
    ]
    assert "━" not in capsys.readouterr().out


def test_prediction_says_how_far_it_is(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO, logger="src"):
        fit(tmp_path, every_seconds=0.0, predict=True)
    assert "prediction: 2 of 2 batches" in caplog.text


def test_lines_come_no_faster_than_asked(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO, logger="src"):
        fit(tmp_path, every_seconds=3600.0)
    assert "batches" not in caplog.text
    assert "validation/competition_map 0.1250" in caplog.text


def test_a_terminal_shows_bars_with_the_score(
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(sys.stdout, "isatty", lambda: True)
    with caplog.at_level(logging.INFO, logger="src"):
        trainer = fit(tmp_path, every_seconds=0.0)
    assert "batches" not in caplog.text
    assert trainer.progress_bar_callback is not None
    assert "━" in capsys.readouterr().out
