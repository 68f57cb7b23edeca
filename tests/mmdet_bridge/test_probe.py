"""What the doctor's probe says of the operators is what the kernels are."""

from __future__ import annotations

from src.cli import probe
from src.mmdet_bridge.kernels import OPERATORS


def test_every_operator_has_its_source() -> None:
    named = [name for names in probe.KERNELS.values() for name in names]
    assert sorted(named) == sorted(OPERATORS)


def test_operators_run() -> None:
    assert probe.look_at_operators()["supplied"] in ([], sorted(OPERATORS))
    assert "cpu" in probe.run_operators()["devices"]
