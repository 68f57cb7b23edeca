"""The benchmark runs, and finds that both ways agree."""

from __future__ import annotations

import json

from benchmarks import loading


def test_the_benchmark_gives_plain_values_and_the_same_samples():
    figures = loading.run(sizes_hw={"small": (1300, 900)}, draws=2, rounds=1)
    assert json.loads(json.dumps(figures)) == figures
    assert figures["small"]["our_masks_are_nearest_resized_bitmaps"] is True
    assert figures["small"]["gray_levels_apart_at_most"] <= loading.MOST_MEAN_DIFFERENCE
    assert figures["small"]["times_faster"] > 0
