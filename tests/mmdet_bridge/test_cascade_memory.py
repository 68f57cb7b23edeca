"""Budgets for kept features, and what happens where the device's memory does not suffice."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest
import torch

from src.errors import InputError
from src.mmdet_bridge.cascade.passes import FeatureStorage, KeptFeatures, log_once, with_oom_split
from src.predictions.candidates import Candidates
from tests.helpers.cascades import IMAGE_HW, draw_image, make_detector, make_view, predict

# Of a view of 128x96 px with 16 channels, five levels, float32.
VIEW_GB = 16 * (32 * 24 + 16 * 12 + 8 * 6 + 4 * 3 + 2 * 2) * 4 / 1e9


@pytest.fixture(autouse=True)
def say_it_again(caplog: pytest.LogCaptureFixture) -> None:
    log_once.cache_clear()
    caplog.set_level(logging.INFO)


@pytest.fixture(scope="module")
def detectors() -> list[Any]:
    return [make_detector(seed) for seed in range(2)]


def four_passes(detectors: list[Any], **budgets: float) -> Candidates:
    """Two models, one size, as it is and mirrored."""
    views = [make_view(draw_image(), IMAGE_HW, flip=flip) for flip in (False, True)]
    return predict(detectors, views, min_score=0.25, **budgets)


def equal(one: Candidates, other: Candidates, *, tolerance: float) -> bool:
    return len(one) == len(other) and all(
        np.allclose(getattr(one, name), getattr(other, name), rtol=0, atol=tolerance * scale)
        for name, scale in (("scores", 1), ("boxes_xyxy", 100), ("mask_probabilities", 1))
    )


STORAGES = [
    (FeatureStorage.DEVICE, 4 * VIEW_GB, 0.0, 0.0, "on the device, as they are computed"),
    (FeatureStorage.HALF, 2 * VIEW_GB, 0.0, 2e-3, "on the device, in half precision"),
    (
        FeatureStorage.CPU,
        1.9 * VIEW_GB,
        2 * VIEW_GB,
        2e-3,
        "in the memory of the CPU, in half precision",
    ),
    (FeatureStorage.RECOMPUTED, 1.9 * VIEW_GB, 1.9 * VIEW_GB, 0.0, "the backbone runs again"),
]


@pytest.mark.parametrize(("storage", "device_gb", "cpu_gb", "tolerance", "said"), STORAGES)
def test_every_storage_gives_the_result_and_is_logged_once(
    detectors: list[Any],
    caplog: pytest.LogCaptureFixture,
    storage: FeatureStorage,
    device_gb: float,
    cpu_gb: float,
    tolerance: float,
    said: str,
) -> None:
    expected = four_passes(detectors)
    log_once.cache_clear()
    caplog.clear()
    passes: list[int] = []
    hook = detectors[0].backbone.register_forward_pre_hook(
        lambda _, inputs: passes.append(len(inputs[0]))
    )
    try:
        budgets = {"feature_memory_gb": device_gb, "feature_memory_cpu_gb": cpu_gb}
        found = four_passes(detectors, **budgets)
        assert sum(passes) == (6 if storage is FeatureStorage.RECOMPUTED else 2)
        four_passes(detectors, **budgets)
    finally:
        hook.remove()
    assert equal(found, expected, tolerance=tolerance)
    assert np.array_equal(found.scores, expected.scores) == (tolerance == 0.0)
    (message,) = [r.getMessage() for r in caplog.records if "features are kept" in r.getMessage()]
    assert said in message


def test_features_come_back_with_their_dtype_and_rounded_once() -> None:
    kept = KeptFeatures(device_gb=7e-7, cpu_gb=5e-7)
    levels = [(torch.rand(100) + 1, torch.rand(50) + 1) for _ in range(3)]  # 600 bytes each
    backs = [kept.keep(features, lambda: ()) for features in levels[:1]]
    assert kept.storage is FeatureStorage.DEVICE
    assert all(a is b for a, b in zip(backs[0](), levels[0], strict=True))
    backs.append(kept.keep(levels[1], lambda: ()))
    assert kept.storage is FeatureStorage.HALF
    for back, features in zip(backs, levels, strict=False):
        for found, level in zip(back(), features, strict=True):
            assert found.dtype == torch.float32
            assert ((found - level) / level).abs().max() <= 1 / 2048
    backs.append(kept.keep(levels[2], lambda: levels[2]))
    assert kept.storage is FeatureStorage.RECOMPUTED  # 900 bytes fit neither budget
    assert backs[2]() is levels[2]
    assert not kept.step_down()


def test_features_of_two_bytes_are_not_rounded_again() -> None:
    kept = KeptFeatures(device_gb=0, cpu_gb=1)
    level = torch.rand(10).bfloat16()
    back = kept.keep((level,), lambda: ())
    assert kept.storage is FeatureStorage.CPU
    assert torch.equal(back()[0], level)


def limited(most: int, *, calls: list[int] | None = None) -> Callable[[range], list[int]]:
    def run(numbers: range) -> list[int]:
        if calls is not None:
            calls.append(len(numbers))
        if len(numbers) > most:
            raise torch.OutOfMemoryError("CUDA out of memory.")
        return list(numbers)

    return run


@pytest.mark.parametrize("most", [1, 3, 7, 100])
def test_parts_are_all_the_items_in_order(most: int) -> None:
    parts = with_oom_split(limited(most), range(5, 23), what="items", make_room=lambda: False)
    assert [number for part in parts for number in part] == list(range(5, 23))
    assert max(len(part) for part in parts) <= most


def test_what_follows_a_shortage_that_room_ended_is_run_whole() -> None:
    limits, calls = [0], []

    def run(numbers: range) -> list[int]:
        return limited(limits[0], calls=calls)(numbers)

    def make_room() -> bool:
        limits[0] = 100
        return True

    parts = with_oom_split(run, range(16), what="items", make_room=make_room)
    assert [len(part) for part in parts] == [1, 1, 2, 4, 8]
    assert calls == [16, 8, 4, 2, 1, 1, 1, 2, 4, 8]


@pytest.fixture
def shortage(detectors: list[Any], monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """Lets a part of the first detector fail on more than so many items."""

    def limit(owner: Any, name: str, most: Callable[[], int]) -> None:
        original = getattr(owner, name)

        def short(first: Any, *others: Any, **named: Any) -> Any:
            if len(first) > most():
                raise torch.OutOfMemoryError("CUDA out of memory.")
            return original(first, *others, **named)

        monkeypatch.setattr(owner, name, short)

    return limit


def test_views_that_do_not_fit_at_once_run_one_by_one(
    detectors: list[Any], shortage: Any, caplog: pytest.LogCaptureFixture
) -> None:
    expected = four_passes(detectors)
    shortage(detectors[0], "extract_feat", lambda: 1)
    assert equal(four_passes(detectors), expected, tolerance=1e-5)
    four_passes(detectors)
    assert [r.getMessage() for r in caplog.records if r.levelno == logging.WARNING] == [
        "out of memory: views are split, with the same result"
    ]


@pytest.mark.parametrize(("part", "name"), [("bbox_head", "fc_cls"), ("mask_head", "conv_logits")])
def test_rois_that_do_not_fit_at_once_run_in_parts(
    detectors: list[Any],
    shortage: Any,
    caplog: pytest.LogCaptureFixture,
    part: str,
    name: str,
) -> None:
    expected = four_passes(detectors)
    layer = getattr(getattr(detectors[0].roi_head, part)[1], name)
    shortage(layer, "forward", lambda: 7)
    assert equal(four_passes(detectors), expected, tolerance=1e-5)
    assert "out of memory: RoIs are split, with the same result" in caplog.messages


def test_kept_features_make_room_for_a_view(
    detectors: list[Any], monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """The second model fits once the features of the first wait in the CPU's memory."""
    expected = four_passes(detectors)
    original, kept = detectors[1].extract_feat, []
    initial = KeptFeatures.__init__

    def remember(self: KeptFeatures, **budgets: float) -> None:
        initial(self, **budgets)
        kept.append(self)

    def short(inputs: torch.Tensor) -> Any:
        if kept[-1].storage < FeatureStorage.CPU:
            raise torch.OutOfMemoryError("CUDA out of memory.")
        return original(inputs)

    monkeypatch.setattr(KeptFeatures, "__init__", remember)
    monkeypatch.setattr(detectors[1], "extract_feat", short)
    found = four_passes(detectors)
    assert kept[-1].storage is FeatureStorage.CPU
    assert equal(found, expected, tolerance=2e-3)
    assert "out of memory: kept features make room for views" in caplog.messages


def test_a_view_that_never_fits_is_named(detectors: list[Any], shortage: Any) -> None:
    shortage(detectors[0], "extract_feat", lambda: 0)
    message = (
        r"image: views of \(120, 90\), \(120, 90\) px do not fit into the device's memory, not "
        "even one by one; give smaller scales"
    )
    with pytest.raises(InputError, match=message):
        four_passes(detectors)
