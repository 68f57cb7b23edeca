"""Two processes train as one that averages their gradients, to the bit."""

from __future__ import annotations

import itertools
import subprocess
import sys
from typing import Any

import pytest
import torch

from src.cli.entry_point import CONFIG_DIRECTORY
from tests.helpers.two_ranks import RANKS, STEPS, batch_of, make_module, seed_of

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]  # two more interpreters start

RATES = [0.0025, 0.0025 + 0.005 / 3, 0.0025 + 0.01 / 3, 0.0075, 0.0075, 0.0075]
"""0.03 for 16 images is 0.0075 for the run's 4; a warm-up over 3 steps from a third."""


@pytest.fixture(scope="module")
def ranks(tmp_path_factory: pytest.TempPathFactory) -> list[dict[str, Any]]:
    folder = tmp_path_factory.mktemp("ranks")
    command = [sys.executable, "-m", "tests.helpers.two_ranks", str(folder)]
    done = subprocess.run(
        command, cwd=CONFIG_DIRECTORY.parent, capture_output=True, text=True, timeout=500
    )
    assert done.returncode == 0, done.stderr[-3000:]
    return [torch.load(folder / f"rank{rank}.pt", weights_only=True) for rank in range(RANKS)]


@pytest.fixture(scope="module")
def averaged(one_thread: None) -> list[dict[str, torch.Tensor]]:
    """A plain loop on mmdet's model: both ranks' gradients, their mean, clipping, SGD."""
    detector = make_module().detector
    parameters = [parameter for parameter in detector.parameters() if parameter.requires_grad]
    optimizer = torch.optim.SGD(parameters, lr=0.0, momentum=0.9, weight_decay=1e-4)
    weights = []
    for step in range(STEPS):
        gradients = []
        for rank in range(RANKS):
            torch.manual_seed(seed_of(step, rank))
            data = detector.data_preprocessor(batch_of(step, rank), True)
            loss, _ = detector.parse_losses(detector(**data, mode="loss"))
            gradients.append(torch.autograd.grad(loss, parameters))
        for parameter, *both in zip(parameters, *gradients, strict=True):
            parameter.grad = sum(both) / RANKS
        torch.nn.utils.clip_grad_norm_(parameters, 35.0)
        optimizer.param_groups[0]["lr"] = RATES[step]
        optimizer.step()
        state = detector.state_dict()
        weights.append({name: value.clone() for name, value in state.items()})
    return weights


def test_both_ranks_took_part(ranks: list[dict[str, Any]]) -> None:
    for rank in ranks:
        assert rank["world_size"] == RANKS
        assert rank["rates"] == pytest.approx(RATES)


def test_every_step_gives_the_weights_of_averaged_gradients(
    ranks: list[dict[str, Any]], averaged: list[dict[str, torch.Tensor]]
) -> None:
    for rank in ranks:
        assert len(rank["weights"]) == STEPS
        for step, (found, expected) in enumerate(zip(rank["weights"], averaged, strict=True)):
            assert found.keys() == expected.keys()
            different = [name for name in expected if not torch.equal(found[name], expected[name])]
            assert different == [], f"step {step}"


def test_the_steps_went_somewhere(averaged: list[dict[str, torch.Tensor]]) -> None:
    name = "roi_head.mask_head.2.conv_logits.weight"
    moved = [not torch.equal(one[name], two[name]) for one, two in itertools.pairwise(averaged)]
    assert moved == [True] * (STEPS - 1)
