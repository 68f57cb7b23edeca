"""The progress bar of a training, and log lines beside it."""

from __future__ import annotations

import io
import logging
from types import SimpleNamespace
from typing import Any

import pytest

from src.callbacks.loggers import ProgressBar
from src.console import StdoutHandler


@pytest.mark.parametrize(
    ("max_epochs", "text"), [(-1, "Epoch 3"), (None, "Epoch 3"), (20, "Epoch 3/19")]
)
def test_an_epoch_is_shown_with_the_last_one_where_there_is_one(
    max_epochs: int | None, text: str
) -> None:
    bar = ProgressBar(leave=True)
    bar._trainer = SimpleNamespace(max_epochs=max_epochs)  # type: ignore[assignment]
    assert bar._get_train_description(3) == text


def test_a_loggers_version_is_no_score() -> None:
    logger = SimpleNamespace(version="tensorboard")
    trainer: Any = SimpleNamespace(loggers=[logger], progress_bar_metrics={"train/loss": 1.0})
    assert ProgressBar(leave=True).get_metrics(trainer, None) == {"train/loss": 1.0}  # type: ignore[arg-type]


def test_log_lines_go_to_the_standard_output_of_the_moment(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Rich stands in for it while a bar is shown."""
    handler = StdoutHandler()
    logger = logging.Logger("a")
    logger.addHandler(handler)
    bar = io.StringIO()
    monkeypatch.setattr("sys.stdout", bar)
    logger.info("one")
    monkeypatch.setenv("LOCAL_RANK", "1")
    logger.warning("two")
    logger.error("three")
    assert bar.getvalue() == "one\nthree\n"
