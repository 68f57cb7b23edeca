"""The benchmark's two ways write the same rows; a small run of it."""

from __future__ import annotations

from benchmarks.postprocess import run


def test_both_ways_agree_and_ours_is_faster() -> None:
    result = run(images=1, objects=4, candidates=30, rounds=1)
    assert result["rows_compared"] >= 3
    assert result["times_faster"] > 10
