"""What the 3,200 test images take in a store, and that the benchmarks of stores and fusion run."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from benchmarks import fusion, prediction_store
from tests.helpers.candidates import make_candidates
from tests.helpers.cascades import SMALL
from tests.helpers.stores import make_writer

TEST_IMAGES = 3200


def test_3200_images_of_masks_that_no_codec_shrinks_are_under_one_and_a_half_gib(
    tmp_path: Path,
) -> None:
    random = np.random.default_rng(0)
    with make_writer(tmp_path, images_per_shard=64) as writer:
        for number in range(8):
            image = make_candidates(number, count=300, image_id=f"{number}.jpg")
            image.mask_probabilities[:] = random.random(image.mask_probabilities.shape)
            writer.add(image)
    bytes_an_image = sum(path.stat().st_size for path in tmp_path.iterdir()) / 8
    assert TEST_IMAGES * bytes_an_image < 1.5 * 2**30


def test_the_benchmark_of_the_store_runs() -> None:
    result = prediction_store.run(images=2, candidates=20)
    assert 0 < result["bytes_an_image"] < 2 * 20 * 28 * 28 + 20 * 64 + 8000
    assert result["masks_at_image_size_gib_of_3200_images"] > 0


def test_the_benchmark_of_fusion_compares_equal_work() -> None:
    result = fusion.run(overrides=SMALL, size_hw=(96, 72), images=1)
    assert result["cascade_backbone_passes"] == result["late_backbone_passes"] == 4
    assert result["detections_compared"] > 20
