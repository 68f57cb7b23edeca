"""Learning rates against their formulas, step by step."""

from __future__ import annotations

import math

import pytest
import torch
from hydra.utils import instantiate
from hypothesis import given
from hypothesis import strategies as st

from src.modules.schedules import warmup_cosine, warmup_multistep
from tests.helpers.cascades import compose_module

S7 = {
    "warmup_steps": 500,
    "warmup_ratio": 1 / 3,
    "milestone_epochs": [10, 18],
    "gamma": 0.1,
}


def an_optimizer() -> torch.optim.Optimizer:
    return torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=1.0)


def rates(scheduler: str, steps: int, *, total_steps: int, steps_per_epoch: int) -> list[float]:
    """What an optimizer with rate 1 trains with at each step, its scheduler made from the YAML."""
    make = instantiate(compose_module(scheduler=scheduler).scheduler)
    optimizer = an_optimizer()
    schedule = make(optimizer, total_steps=total_steps, steps_per_epoch=steps_per_epoch)
    found = []
    for _ in range(steps):
        found.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        schedule.step()
    return found


@pytest.mark.parametrize("steps_per_epoch", [20, 80])
def test_multistep_equals_the_recipe_at_every_step(steps_per_epoch: int) -> None:
    """S7, as mmdetection 1 computed it: a warm-up of the epoch's rate, which drops at 10 and 18.

    With 20 steps an epoch both drops fall into the warm-up.
    """
    steps = 20 * steps_per_epoch
    found = rates("warmup_multistep", steps, total_steps=steps, steps_per_epoch=steps_per_epoch)
    for step, rate in enumerate(found):
        epoch = step // steps_per_epoch
        regular = 1.0 if epoch < 10 else 0.1 if epoch < 18 else 0.01
        cut = (1 - step / 500) * (1 - 1 / 3) if step < 500 else 0.0
        assert rate == pytest.approx(regular * (1 - cut), rel=1e-12), step
    assert found[0] == pytest.approx(1 / 3)
    assert found[-1] == pytest.approx(0.01 if steps > 500 else 0.01 * (1 - cut))


def test_multistep_at_the_edges() -> None:
    (factor,) = warmup_multistep(
        an_optimizer(), total_steps=50_000, steps_per_epoch=2500, **S7
    ).lr_lambdas
    assert factor(250) == pytest.approx(2 / 3)
    assert factor(499) == pytest.approx(1 - 2 / 1500)
    assert factor(500) == 1.0
    assert factor(24_999) == 1.0
    assert factor(25_000) == pytest.approx(0.1)
    assert factor(44_999) == pytest.approx(0.1)
    assert factor(45_000) == pytest.approx(0.01)


def test_cosine_falls_from_one_to_its_floor_at_the_last_step() -> None:
    found = rates("warmup_cosine", 300, total_steps=300, steps_per_epoch=100)
    assert found[0] == pytest.approx(0.1)
    assert found[25] == pytest.approx(0.55)
    assert max(found) == found[50] == 1.0
    assert found[-1] == pytest.approx(0.02)
    for step in range(50, 300):
        angle = math.pi * (step - 50) / 249
        assert found[step] == pytest.approx(0.02 + 0.98 * (1 + math.cos(angle)) / 2)


@given(
    total=st.integers(1, 1000),
    warmup=st.integers(0, 1500),
    ratio=st.floats(0, 1),
    floor=st.floats(0, 1),
    step=st.integers(0, 2000),
)
def test_cosine_stays_between_zero_and_one_whatever_the_run(
    total: int, warmup: int, ratio: float, floor: float, step: int
) -> None:
    (factor_at,) = warmup_cosine(
        an_optimizer(),
        total_steps=total,
        steps_per_epoch=1,
        warmup_steps=warmup,
        warmup_ratio=ratio,
        final_ratio=floor,
    ).lr_lambdas
    factor = factor_at(step)
    assert min(ratio, floor) - 1e-12 <= factor <= 1 + 1e-12


def test_none_leaves_the_rate_alone() -> None:
    assert rates("none", 7, total_steps=7, steps_per_epoch=3) == [1.0] * 7
