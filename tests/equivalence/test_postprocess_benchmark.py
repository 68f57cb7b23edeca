"""The benchmark's two ways write the same rows; a small run of it."""

from __future__ import annotations

import pytest

from benchmarks.postprocess import run
from benchmarks.search import run as run_search
from benchmarks.threshold_grid import run as run_grid


def test_both_ways_agree() -> None:
    result = run(images=1, objects=4, candidates=30, rounds=1)
    assert result["rows_compared"] >= 3
    assert result["times_faster"] > 0


def test_the_grids_scores_are_those_of_the_plain_way() -> None:
    result = run_grid(images=2, candidates=20, plain_images=1, plain_every=50)
    assert result["scores_compared"] == 2
    assert 0.3 < result["best_score"] < 1


@pytest.mark.slow
def test_what_a_search_finds_has_the_score_that_it_says() -> None:
    result = run_search(images=20, candidates=20, trials=45, plain_images=1)
    assert result["trials"] == 45
    assert result["score_found"] >= result["score_of_the_winner"]
