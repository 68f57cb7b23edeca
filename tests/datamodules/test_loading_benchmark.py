"""The benchmark runs, and finds that both ways agree."""

from __future__ import annotations

import json

import pytest

from benchmarks import loading


def test_the_benchmark_gives_plain_values_and_the_same_samples():
    figures = loading.run(sizes_hw={"small": (1300, 900)}, draws=2, rounds=1)
    assert json.loads(json.dumps(figures)) == figures
    assert figures["small"]["our_masks_are_nearest_resized_bitmaps"] is True
    assert figures["small"]["gray_levels_apart_at_most"] <= loading.MOST_MEAN_DIFFERENCE
    assert figures["small"]["times_faster"] > 0


@pytest.mark.slow
def test_a_sample_takes_less_memory_than_the_bitmaps_of_its_objects():
    figures = loading.run(sizes_hw={"large": (4000, 3000)}, draws=8, rounds=1)["large"]
    assert figures["bitmap_stack_mb"] == 84
    assert figures["ours_peak_mb"] < 84 / 2
    assert figures["ours_peak_mb"] < figures["mmdetection_peak_mb"] / 3
    assert figures["ours_grown_mb"] < 84 / 4  # the heap does not grow by the epoch
