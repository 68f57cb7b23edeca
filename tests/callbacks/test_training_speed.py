"""Images a second, share of waiting and GPU memory, on a clock that the test moves."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
import torch

from src.callbacks.training_steps import TrainingSpeed

BATCH = {"inputs": [0, 0, 0]}


class Loop:
    """Calls the callback as a trainer does; time passes only where the test says so."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, *, device: str = "cpu") -> None:
        self.now = 100.0
        self.logged: dict[str, float] = {}
        monkeypatch.setattr("src.callbacks.training_steps.time.perf_counter", lambda: self.now)
        self.callback = TrainingSpeed()
        self.trainer: Any = SimpleNamespace(log_every_n_steps=2, world_size=4)
        self.module: Any = SimpleNamespace(
            device=torch.device(device), log_dict=lambda values, **_: self.logged.update(values)
        )
        self.callback.on_train_start(self.trainer, self.module)
        self.callback.on_train_epoch_start(self.trainer, self.module)

    def step(self, *, wait: float, work: float) -> None:
        self.logged.clear()
        self.now += wait
        self.callback.on_train_batch_start(self.trainer, self.module, BATCH, 0)
        self.now += work
        self.callback.on_train_batch_end(self.trainer, self.module, None, BATCH, 0)


def test_means_over_the_steps_between_two_lines_of_the_log(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    loop = Loop(monkeypatch)
    loop.step(wait=50.0, work=1.0)
    assert loop.logged == {}  # the first step of an epoch starts workers
    loop.step(wait=0.5, work=1.5)
    assert loop.logged == pytest.approx(
        {
            "speed/images_per_second": 3 * 4 / 2.0,
            "speed/step_seconds": 2.0,
            "speed/data_loading_share": 0.25,
        }
    )
    loop.step(wait=1.0, work=1.0)
    assert loop.logged["speed/data_loading_share"] == pytest.approx(1.5 / 4.0)
    loop.step(wait=0.0, work=4.0)  # the window is two steps long
    assert loop.logged["speed/data_loading_share"] == pytest.approx(1.0 / 6.0)
    assert loop.logged["speed/images_per_second"] == pytest.approx(2 * 3 * 4 / 6.0)


@pytest.mark.parametrize("what", ["validation", "checkpoint", "epoch"])
def test_pauses_do_not_count_as_waiting(monkeypatch: pytest.MonkeyPatch, what: str) -> None:
    loop = Loop(monkeypatch)
    for _ in range(2):
        loop.step(wait=0.1, work=0.9)
    loop.now += 1000.0
    if what == "validation":
        loop.callback.on_validation_end(loop.trainer, loop.module)
    elif what == "checkpoint":
        loop.callback.on_save_checkpoint(loop.trainer, loop.module, {})
    else:
        loop.callback.on_train_epoch_start(loop.trainer, loop.module)
    loop.step(wait=0.1, work=0.9)
    assert loop.logged["speed/step_seconds"] == pytest.approx(1.0)
    loop.step(wait=0.3, work=0.7)
    assert loop.logged["speed/data_loading_share"] == pytest.approx(0.2)


def test_memory_of_the_gpu_where_there_is_one(monkeypatch: pytest.MonkeyPatch) -> None:
    asked = []

    def peak(device: torch.device) -> int:
        asked.append(device)
        return 3 * 2**29

    monkeypatch.setattr(torch.cuda, "max_memory_allocated", peak)
    loop = Loop(monkeypatch, device="cuda:1")
    for _ in range(2):
        loop.step(wait=0.1, work=0.9)
    assert loop.logged["speed/gpu_memory_gib"] == 1.5
    assert asked == [torch.device("cuda:1")]
