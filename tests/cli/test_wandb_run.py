"""The id of W&B's run: a resumed training is the same run."""

from __future__ import annotations

import pytest
from omegaconf import OmegaConf

from src.cli.derived_config import loggers_with_id
from src.cli.entry_point import CONFIG_DIRECTORY


@pytest.fixture
def loggers(monkeypatch):
    monkeypatch.delenv("WANDB_RUN_ID", raising=False)
    return OmegaConf.load(CONFIG_DIRECTORY / "logger" / "wandb.yaml")


def test_the_run_has_the_id_of_the_training(loggers):
    named = loggers_with_id(loggers, "0123456789ab")
    assert named.wandb.id == "0123456789ab"
    assert named.wandb.resume == "allow"
    assert loggers_with_id(loggers, "0123456789ab").wandb.id == named.wandb.id, "resumed: the same"
    assert "id" not in loggers.wandb, "the configuration on record stays as it was given"


def test_an_id_that_is_given_stays(loggers, monkeypatch):
    loggers.wandb.id = "mine"
    assert loggers_with_id(loggers, "0123456789ab").wandb.id == "mine"
    del loggers.wandb["id"]
    monkeypatch.setenv("WANDB_RUN_ID", "ofmine")
    assert "id" not in loggers_with_id(loggers, "0123456789ab").wandb


def test_without_wandb_and_without_an_id_nothing_changes(loggers):
    assert loggers_with_id(None, "0123456789ab") is None
    csv = OmegaConf.create({"csv": {"save_dir": "x"}})
    assert loggers_with_id(csv, "0123456789ab") is csv
    assert loggers_with_id(loggers, "") is loggers, "a checkpoint of an earlier version"
