"""The benchmark runs, and finds that both ways agree."""

from __future__ import annotations

import json

from benchmarks import run_lengths


def test_the_benchmark_gives_plain_values_and_the_same_results():
    figures = run_lengths.run(rows=14, rows_the_usual_way=2, rounds=1)
    assert json.loads(json.dumps(figures)) == figures
    for name in ("read", "draw_for_training", "shared_pixels"):
        assert figures[name]["same_result"] is True
        assert figures[name]["times_faster"] > 0
    assert figures["text"]["megabytes"] > 0
