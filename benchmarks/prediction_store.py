"""Size and speed of the prediction store beside one file of masks at the images' size.

    python -m benchmarks.prediction_store

The peer is what mmdetection's test script dumps: a pickle of each image's detections, masks as
COCO's compressed run lengths at the image's size. It holds the 100 detections that NMS left, at one
mask threshold; the store holds 300 (box, class) pairs from before NMS with their probabilities, so
that every threshold can still be chosen. Times are CPU time.
"""

from __future__ import annotations

import json
import pickle
import tempfile
import time
from pathlib import Path
from typing import Any

from benchmarks.coco_masks import SETTINGS as COCO_DEFAULTS
from src.postprocess.pipeline import coco_results
from src.predictions.store import PredictionStore, PredictionStoreWriter
from tests.helpers.candidates import make_candidates

TEST_IMAGES = 3200
IMAGE_HW = (2000, 1500)


def run(*, images: int = 16, candidates: int = 300) -> dict[str, Any]:
    """Write, read and measure a store of generated candidates with smooth masks.

    Args:
        images: in the store.
        candidates: of each, what src.predict keeps of a common image.

    Returns:
        Bytes of an image, GiB of the 3,200 test images, ms an image, and those of the peer.
    """
    made = [
        make_candidates(
            seed, image_id=f"{seed}.jpg", count=candidates, size_hw=IMAGE_HW, mask_dtype="float16"
        )
        for seed in range(images)
    ]
    with tempfile.TemporaryDirectory() as folder:
        start = time.process_time()
        with PredictionStoreWriter(folder, category_ids=range(46), settings={}) as writer:
            for image in made:
                writer.add(image)
        written = time.process_time()
        store = PredictionStore(folder)
        for index in range(images):
            store.candidates(index)
        read = time.process_time()
        size = sum(path.stat().st_size for path in Path(folder).iterdir())
    start_peer = time.process_time()
    peer = pickle.dumps([coco_results(image, COCO_DEFAULTS, image_number=1) for image in made])
    peer_seconds = time.process_time() - start_peer
    return {
        "candidates_an_image": candidates,
        "bytes_an_image": size // images,
        "gib_of_3200_images": round(TEST_IMAGES * size / images / 2**30, 2),
        "write_ms_an_image": round(1e3 * (written - start) / images, 2),
        "read_ms_an_image": round(1e3 * (read - written) / images, 2),
        "masks_at_image_size_gib_of_3200_images": round(
            TEST_IMAGES * len(peer) / images / 2**30, 2
        ),
        "masks_at_image_size_ms_an_image": round(1e3 * peer_seconds / images, 2),
    }


if __name__ == "__main__":
    print(json.dumps(run(), indent=2))
