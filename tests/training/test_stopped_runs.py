"""A run that a limit ended, in the middle of an epoch too, resumes where its training ended."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.helpers.runs import load, run, state_differences

CONSTANT = ("scheduler=none", "trainer.limit_val_batches=0")  # a rate that no limit changes


def stop_at(batches: int) -> tuple[str, ...]:
    return (
        "+callbacks.stop._target_=tests.helpers.interruptions.StopAt",
        f"+callbacks.stop.batches={batches}",
    )


def position(output: Path) -> tuple[int, int, int]:
    content = load(output / "checkpoints" / "last.ckpt")
    return content["global_step"], content["position"]["epoch"], content["position"]["batches_done"]


@pytest.fixture(scope="module")
def whole(images: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    output = tmp_path_factory.mktemp("whole") / "run"
    run(images, output, *CONSTANT)
    return output


@pytest.mark.parametrize(
    ("limits", "expected"),
    [
        pytest.param(
            [["trainer.max_steps=3"], ["trainer.max_steps=8"]],
            [(3, 0, 3), (8, 1, 2)],
            marks=pytest.mark.slow,
        ),
        pytest.param([["trainer.max_steps=6"]], [(6, 1, 0)], marks=pytest.mark.slow),
        pytest.param([stop_at(3), stop_at(10)], [(3, 0, 3), (10, 1, 4)], marks=pytest.mark.slow),
        # with its validation, which a stop in mid-epoch does at once
        ([(*stop_at(3), "trainer.limit_val_batches=1.0")], [(3, 0, 3)]),
    ],
    ids=["steps", "steps at an epoch's end", "stopped", "stopped with validation"],
)
def test_the_position_is_what_was_trained(
    limits: list[list[str]],
    expected: list[tuple[int, int, int]],
    whole: Path,
    images: Path,
    tmp_path: Path,
) -> None:
    reached = []
    for limit in limits:
        run(images, tmp_path, *CONSTANT, *limit)
        reached.append(position(tmp_path))
    assert reached == expected
    run(images, tmp_path, *CONSTANT)
    assert state_differences(tmp_path, whole) == []


@pytest.mark.slow
@pytest.mark.parametrize(
    ("options", "batches", "expected"),
    [
        # Steps of two batches, stopped in the middle of one.
        (("trainer.accumulate_grad_batches=2",), 3, (1, 0, 2)),
        (("trainer.accumulate_grad_batches=2",), 7, (3, 1, 0)),
        (("+callbacks=ema", "callbacks.ema.decay=0.5"), 3, (3, 0, 3)),
    ],
    ids=["accumulated gradients", "accumulated gradients of a new epoch", "moving average"],
)
def test_a_stop_loses_nothing_that_a_step_needs(
    options: tuple[str, ...],
    batches: int,
    expected: tuple[int, int, int],
    images: Path,
    tmp_path: Path,
) -> None:
    run(images, tmp_path / "whole", *CONSTANT, *options)
    run(images, tmp_path / "run", *CONSTANT, *options, *stop_at(batches))
    assert position(tmp_path / "run") == expected
    run(images, tmp_path / "run", *CONSTANT, *options)
    assert state_differences(tmp_path / "run", tmp_path / "whole") == []


def test_a_limit_of_time_is_one_of_each_start(images: Path, tmp_path: Path) -> None:
    run(images, tmp_path, *CONSTANT, *stop_at(3), "+trainer.max_time=00:01:00:00")
    assert "Timer" not in load(tmp_path / "checkpoints" / "last.ckpt")["callbacks"]
