"""Each parameter that trains gets a gradient in each step, so plain DDP waits for none in vain."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from hydra.utils import instantiate

from src.mmdet_bridge.cascade.detectors import Batch
from tests.helpers.cascades import SMALL, SMALL_DEFORMABLE, compose_module, make_batch


def no_image_with_objects() -> Batch:
    return make_batch(objects_each=0)


def one_image_with_objects() -> Batch:
    first, second = make_batch(), make_batch(objects_each=0)
    return {
        "inputs": [first["inputs"][0], second["inputs"][1]],
        "data_samples": [first["data_samples"][0], second["data_samples"][1]],
    }


@pytest.mark.parametrize("make", [no_image_with_objects, one_image_with_objects])
@pytest.mark.parametrize(
    ("name", "overrides"),
    [("htc_tiny", SMALL), ("htc_r50", SMALL_DEFORMABLE)],
    ids=["tiny", "deformable"],
)
def test_without_objects_too(
    name: str,
    overrides: tuple[str, ...],
    make: Callable[[], Batch],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    torch.manual_seed(0)
    module = instantiate(compose_module(name, *overrides).module, init_weights=False)
    monkeypatch.setattr(module, "log", lambda *_, **__: None)
    monkeypatch.setattr(module, "log_dict", lambda *_, **__: None)
    loss = module.training_step(make(), 0)
    loss.backward()
    assert loss.isfinite()
    trained = {n: p for n, p in module.named_parameters() if p.requires_grad}
    assert [name for name, parameter in trained.items() if parameter.grad is None] == []
    assert all(parameter.grad.isfinite().all() for parameter in trained.values())
