"""Each training step has random numbers of its own."""

from __future__ import annotations

import itertools
import random

import numpy as np
import torch

from src.callbacks.training_steps import seed_step


def draw(seed: int, rank: int, epoch: int, batch_index: int) -> tuple[float, float, float]:
    seed_step(seed, rank=rank, epoch=epoch, batch_index=batch_index)
    return torch.rand(1).item(), float(np.random.rand()), random.random()


def test_a_step_draws_the_same_whatever_ran_before() -> None:
    expected = draw(777, 0, 3, 5)
    draw(1, 2, 3, 4)
    torch.rand(100)
    assert draw(777, 0, 3, 5) == expected


def test_seed_rank_epoch_and_batch_all_count() -> None:
    drawn = [draw(*numbers) for numbers in itertools.product(range(3), repeat=4)]
    for generator in range(3):
        assert len({numbers[generator] for numbers in drawn}) == 81
