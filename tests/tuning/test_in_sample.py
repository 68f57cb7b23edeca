"""Which images chose found settings: known by their content."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from src.errors import InputError
from src.metrics.competition import ImageInstances
from src.metrics.intervals import Interval
from src.rle import Bitmasks
from src.tuning.search_results import (
    InSample,
    Searched,
    find_in_sample,
    image_digest,
    read_searched,
    searched_images,
)


def make_image(name: str, seed: int, objects: int = 3) -> ImageInstances:
    random = np.random.default_rng(seed)
    masks = random.integers(0, 256, (objects, 64), dtype=np.uint8)
    return ImageInstances(
        name, tuple(random.integers(0, 9, objects).tolist()), Bitmasks(masks, (16, 32))
    )


def make_searched(**changes: Any) -> Searched:
    values: dict[str, Any] = {
        "name": "mine",
        "trials": 3,
        "averaging": "pooled",
        "gain": Interval(0.01, -0.02, 0.03, 0.9, 100),
        "verdict": "within noise",
        "images": frozenset({b"123456", b"abcdef"}),
    }
    return Searched(**(values | changes))


def test_an_image_is_known_by_its_objects() -> None:
    image = make_image("a.jpg", 0)
    order = [2, 0, 1]
    other_order = ImageInstances(
        "train/a", tuple(image.class_keys[place] for place in order), image.bitmasks[order]
    )
    attributes = replace(image, class_keys=tuple((key, 3) for key in image.class_keys))
    assert {image_digest(one) for one in (image, other_order, attributes)} == {image_digest(image)}
    other_mask = replace(
        image, bitmasks=Bitmasks(image.bitmasks.bits ^ 1, image.bitmasks.raster_hw)
    )
    other_class = replace(image, class_keys=(*image.class_keys[:2], 99))
    empty = [make_image(name, 0, objects=0) for name in ("a.jpg", "b.jpg")]
    different = [image, other_mask, other_class, *empty, make_image("a.jpg", 1)]
    assert len({image_digest(one) for one in different}) == len(different)


def test_what_is_written_is_read() -> None:
    searched = make_searched()
    assert read_searched({"searched": searched.to_plain()}, "postprocess") == searched
    assert read_searched({}, "postprocess") is None
    assert read_searched({"searched": None}, "postprocess") is None


@pytest.mark.parametrize(
    "content",
    [
        "text",
        [],
        3,
        {},
        make_searched().to_plain() | {"images": "no base64!"},
        make_searched().to_plain() | {"images": 5},
        make_searched().to_plain() | {"cross_validated_gain": {"low": 1}},
        make_searched().to_plain() | {"trials": "many"},
    ],
)
def test_what_no_search_wrote_is_refused(content: Any) -> None:
    with pytest.raises(InputError, match=r"b_postprocess\.searched must be what python -m src\."):
        read_searched({"searched": content}, "b_postprocess")


def test_images_of_the_search_are_found_among_others() -> None:
    ground_truth = {name: make_image(name, seed) for seed, name in enumerate("abcdef")}
    images = searched_images(ground_truth, "abc")
    values = {"searched": make_searched(images=images).to_plain()}
    renamed = {
        f"new/{name}": replace(ground_truth[name], image_id=f"new/{name}") for name in "bcde"
    }
    found = find_in_sample(values, renamed, renamed, "postprocess")
    assert found is not None
    assert found.image_ids == {"new/b", "new/c"}
    assert found.sentence("a's settings", renamed) == (
        "a's settings (mine) were chosen by a search on 2 of these 4 images, so the score is "
        "in-sample and looks better than it is; the search's cross-validated gain over the "
        "winner's settings is +0.0100 (90% interval -0.0200 to +0.0300, pooled): within noise"
    )
    assert found.sentence("a's settings", ["new/d"]) == ""
    assert find_in_sample(values, ground_truth, "def", "postprocess") is None
    assert find_in_sample({}, ground_truth, "abc", "postprocess") is None
    assert InSample(make_searched(), frozenset()).sentence("a", "abc") == ""
